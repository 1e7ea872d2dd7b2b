//! Weights on the wire, both sides: the only file here that knows protobuf types.
//!
//! In: a [`Publisher`] whose owner serves three calls with the functions here; or a client of such a service. Out: replies
//! and streams; or weights that were checked.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as Clock};

use hypereyes_domain::PolicyVersion;
use hypereyes_policy::checkpoint::{Snapshot, StoredDtype, TensorPlace};
use hypereyes_proto::client::LearnerClient;
use hypereyes_proto::{failure, v1};
use metrics::{counter, histogram};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use crate::assembly::Assembly;
use crate::delta::{self, Chunk, Encoding};
use crate::difference::Difference;
use crate::metrics::{FETCH_SECONDS, FETCHED_BYTES, FETCHES, RESUMED, SERVED, WIRE_BYTES};
use crate::{CHUNK_BYTES, Digest, Fetched, Published, Publisher, Shapes, WeightsError};

/// The reply of `WatchPolicyVersions`.
pub type VersionStream = Pin<Box<dyn Stream<Item = Result<v1::PolicyVersion, Status>> + Send>>;
/// The reply of `FetchWeights`.
pub type WeightsStream = Pin<Box<dyn Stream<Item = Result<v1::WeightsPart, Status>> + Send>>;

/// Serves `GetPolicyVersion`.
pub fn get_policy_version(publisher: &Publisher) -> v1::PolicyVersion {
    (*publisher.subscribe().borrow()).into()
}

/// Serves `WatchPolicyVersions`: the newest, then each newer one. Ends when the last [`Publisher`] is dropped.
pub fn watch_policy_versions(publisher: &Publisher) -> VersionStream {
    Box::pin(WatchStream::new(publisher.subscribe()).map(|published| Ok(published.into())))
}

/// Longest time that a reader may take for one chunk before its stream ends: it holds a snapshot, gigabytes of a large policy.
const STALLED: Duration = Duration::from_secs(60);

/// Serves `FetchWeights`: a header, then chunks. A reader that stops reading is let go after a while, and with it the snapshot; it may
/// go on where it was. Must be called inside a tokio runtime.
///
/// # Errors
/// `NotFound` for a version that is not held (any more): ask for the newest.
pub fn fetch_weights(publisher: &Publisher, request: v1::FetchWeightsRequest) -> Result<WeightsStream, Status> {
    let found = if request.version == 0 { Some(publisher.newest()) } else { publisher.get(PolicyVersion(request.version)) };
    let Some(snapshot) = found else {
        counter!(SERVED, "outcome" => "unknown_version").increment(1);
        return Err(Status::not_found(format!("version {} is not held any more; fetch the newest", request.version)));
    };
    let difference = Digest::from_hex(&request.base_digest).ok().and_then(|base| publisher.difference(base, &snapshot));
    counter!(SERVED, "outcome" => if difference.is_some() { "difference" } else { "served" }).increment(1);
    let base = difference.as_deref().map(Difference::base);
    let header = v1::WeightsPart { part: Some(v1::weights_part::Part::Header(header(&snapshot, base))) };
    let payload = snapshot.payload.clone();
    let first = usize::try_from(request.resume_at).unwrap_or(usize::MAX).min(payload.len());
    // Written when they are to be sent: what no reader comes to costs nothing.
    let chunks = (first..payload.len()).step_by(CHUNK_BYTES).map(move |start| {
        let whole = || delta::encode(start as u64, payload.slice(start..payload.len().min(start + CHUNK_BYTES)), None);
        let chunk = difference.as_ref().map_or_else(whole, |difference| difference.chunk(start));
        v1::WeightsPart { part: Some(v1::weights_part::Part::Chunk(chunk.into())) }
    });
    Ok(pumped(std::iter::once(header).chain(chunks), STALLED))
}

/// Parts one after the other, for as long as somebody takes them. They come from a task of their own: a stream that nobody polls could
/// not end by itself.
fn pumped(parts: impl Iterator<Item = v1::WeightsPart> + Send + 'static, patience: Duration) -> WeightsStream {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stalled = Arc::new(AtomicBool::new(false));
    let flag = stalled.clone();
    tokio::spawn(async move {
        for part in parts {
            match tokio::time::timeout(patience, sender.send(Ok(apart(part)))).await {
                Ok(Ok(())) => {}
                // The reader is gone.
                Ok(Err(_)) => return,
                Err(_) => {
                    counter!(SERVED, "outcome" => "stalled").increment(1);
                    return flag.store(true, Ordering::Release);
                }
            }
        }
    });
    let late =
        move |()| stalled.load(Ordering::Acquire).then(|| Err(Status::deadline_exceeded("the reader stopped reading; it may go on")));
    Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver).chain(tokio_stream::once(()).filter_map(late)))
}

/// A part that holds nothing but its own bytes: a piece of the payload would keep all of it in memory while it waits to be sent.
fn apart(part: v1::WeightsPart) -> v1::WeightsPart {
    match part.part {
        Some(v1::weights_part::Part::Chunk(chunk)) => {
            let data = bytes::Bytes::copy_from_slice(&chunk.data);
            v1::WeightsPart { part: Some(v1::weights_part::Part::Chunk(v1::WeightsChunk { data, ..chunk })) }
        }
        part => v1::WeightsPart { part },
    }
}

impl From<Chunk> for v1::WeightsChunk {
    fn from(chunk: Chunk) -> Self {
        let encoding = match chunk.encoding {
            Encoding::Raw => v1::WeightEncoding::Unspecified,
            Encoding::Same => v1::WeightEncoding::Same,
            Encoding::Difference => v1::WeightEncoding::Difference,
        };
        Self { offset: chunk.offset, data: chunk.data, encoding: encoding.into(), length: chunk.length as u32 }
    }
}

impl From<v1::WeightsChunk> for Chunk {
    fn from(message: v1::WeightsChunk) -> Self {
        let encoding = match message.encoding() {
            v1::WeightEncoding::Unspecified => Encoding::Raw,
            v1::WeightEncoding::Same => Encoding::Same,
            v1::WeightEncoding::Difference => Encoding::Difference,
        };
        Self { offset: message.offset, length: message.length as usize, encoding, data: message.data }
    }
}

fn header(snapshot: &Snapshot, base: Option<&Snapshot>) -> v1::WeightsHeader {
    let tensor = |tensor: &TensorPlace| v1::WeightTensor {
        name: tensor.name.clone(),
        shape: tensor.shape.iter().map(|side| *side as u64).collect(),
        dtype: said(tensor.dtype).into(),
        offset: tensor.offset,
        bytes: tensor.bytes,
    };
    v1::WeightsHeader {
        version: snapshot.version.0,
        tensors: snapshot.tensors.iter().map(tensor).collect(),
        total_bytes: snapshot.payload.len() as u64,
        digest: snapshot.digest.to_hex().to_string(),
        base_digest: base.map_or(String::new(), |base| base.digest.to_hex().to_string()),
    }
}

fn said(dtype: StoredDtype) -> v1::WeightDtype {
    match dtype {
        StoredDtype::F32 => v1::WeightDtype::F32,
        StoredDtype::Bf16 => v1::WeightDtype::Bf16,
    }
}

fn stored(dtype: v1::WeightDtype) -> Option<StoredDtype> {
    match dtype {
        v1::WeightDtype::F32 => Some(StoredDtype::F32),
        v1::WeightDtype::Bf16 => Some(StoredDtype::Bf16),
        v1::WeightDtype::Unspecified => None,
    }
}

impl From<Published> for v1::PolicyVersion {
    fn from(published: Published) -> Self {
        Self {
            version: published.version.0,
            manifest_digest: published.digest.to_hex().to_string(),
            incarnation: published.incarnation,
            dtype: published.dtype.map_or(v1::WeightDtype::Unspecified, said).into(),
        }
    }
}

impl TryFrom<v1::PolicyVersion> for Published {
    type Error = WeightsError;

    fn try_from(message: v1::PolicyVersion) -> Result<Self, WeightsError> {
        let version = PolicyVersion(message.version);
        let dtype = stored(message.dtype());
        Ok(Self { version, digest: digest(version, &message.manifest_digest)?, incarnation: message.incarnation, dtype })
    }
}

/// The newest version that the learner has published.
///
/// # Errors
/// [`WeightsError`].
pub async fn newest(client: &mut LearnerClient, deadline: Instant) -> Result<Published, WeightsError> {
    let call = timeout_at(deadline, client.get_policy_version(v1::GetPolicyVersionRequest {})).await;
    call.map_err(|_| WeightsError::Deadline { received: 0 })?.map_err(failed)?.into_inner().try_into()
}

/// The learner's announcements.
#[derive(Debug)]
pub struct Versions {
    stream: Streaming<v1::PolicyVersion>,
}

impl Versions {
    /// Waits for the next announcement, however long; the first comes at once. `None` when the learner ended the stream.
    ///
    /// # Errors
    /// [`WeightsError::Call`] when the connection broke.
    pub async fn next(&mut self) -> Result<Option<Published>, WeightsError> {
        self.stream.message().await.map_err(failed)?.map(Published::try_from).transpose()
    }
}

/// Listens to the learner's announcements.
///
/// # Errors
/// [`WeightsError`] when there is no stream before `deadline`, which bounds the opening only.
pub async fn watch(client: &mut LearnerClient, deadline: Instant) -> Result<Versions, WeightsError> {
    let call = timeout_at(deadline, client.watch_policy_versions(v1::WatchPolicyVersionsRequest {})).await;
    let stream = call.map_err(|_| WeightsError::Deadline { received: 0 })?.map_err(failed)?.into_inner();
    Ok(Versions { stream })
}

/// Fetches the weights of `version`, or the newest for version 0 (then see the version that came). With `known`, they must
/// be of exactly that policy; without, only [`crate::MAX_PAYLOAD_BYTES`] bounds them. With `base`, chunks may come as
/// differences to it. A stream that breaks off is gone on with where it broke, as long as the same payload is served.
///
/// # Errors
/// [`WeightsError`]; then nothing of what came is given out.
pub async fn fetch(
    client: &mut LearnerClient,
    version: PolicyVersion,
    known: Option<&Shapes>,
    base: Option<&Snapshot>,
    deadline: Instant,
) -> Result<Fetched, WeightsError> {
    let start = Clock::now();
    let mut received = 0;
    let fetched = timeout_at(deadline, receive(client, version, known, base, &mut received)).await;
    let fetched = fetched.unwrap_or(Err(WeightsError::Deadline { received }));
    match &fetched {
        Ok(fetched) => {
            counter!(FETCHES, "outcome" => "ok").increment(1);
            counter!(FETCHED_BYTES).increment(received);
            counter!(WIRE_BYTES).increment(fetched.wire_bytes);
            histogram!(FETCH_SECONDS).record(start.elapsed().as_secs_f64());
        }
        Err(error) => counter!(FETCHES, "outcome" => error.label()).increment(1),
    }
    fetched
}

/// Streams that may break off in one fetch before it is given up.
const MOST_BREAKS: u32 = 5;
/// Pause before a broken stream is gone on with.
const BREATH: Duration = Duration::from_millis(50);

async fn receive(
    client: &mut LearnerClient,
    version: PolicyVersion,
    known: Option<&Shapes>,
    base: Option<&Snapshot>,
    received: &mut u64,
) -> Result<Fetched, WeightsError> {
    let refuse = |label: &'static str, reason: &str| WeightsError::Broken { version, label, reason: reason.to_owned() };
    let mut assembly: Option<Assembly> = None;
    let mut breaks = 0;
    while let Err(status) = stream(client, version, known, base, &mut assembly, received).await? {
        breaks += 1;
        if assembly.is_none() || breaks > MOST_BREAKS {
            return Err(failed(status));
        }
        counter!(RESUMED).increment(1);
        tokio::time::sleep(BREATH).await;
    }
    let assembly = assembly.ok_or_else(|| refuse("short", "the stream ended before the header"))?;
    // Hashing and converting gigabytes would hold up everything else on this thread.
    tokio::task::spawn_blocking(|| assembly.finish()).await.unwrap_or_else(|error| Err(refuse("value", &error.to_string())))
}

/// One stream, from where the assembly is. What it broke off with is no error yet.
async fn stream(
    client: &mut LearnerClient,
    version: PolicyVersion,
    known: Option<&Shapes>,
    base: Option<&Snapshot>,
    assembly: &mut Option<Assembly>,
    received: &mut u64,
) -> Result<Result<(), Status>, WeightsError> {
    let refuse = |label: &'static str, reason: &str| WeightsError::Broken { version, label, reason: reason.to_owned() };
    let resume_at = assembly.as_ref().map_or(0, Assembly::received);
    let base_digest = base.map_or(String::new(), |base| base.digest.to_hex().to_string());
    let request = v1::FetchWeightsRequest { version: version.0, base_digest, resume_at };
    let mut parts = match client.fetch_weights(request).await {
        Ok(reply) => reply.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    let mut headed = false;
    loop {
        let part = match parts.message().await {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(Ok(())),
            Err(status) => return Ok(Err(status)),
        };
        match (part.part, headed) {
            (Some(v1::weights_part::Part::Header(header)), false) => {
                headed = true;
                let fresh = begin(version, header, known, base)?;
                match assembly {
                    None => *assembly = Some(fresh),
                    // The same payload: what has come of it stands.
                    Some(before) if before.digest() == fresh.digest() => {}
                    Some(_) => return Err(refuse("header", "another payload is served than the one that broke off")),
                }
            }
            (Some(v1::weights_part::Part::Chunk(chunk)), true) => {
                if let Some(assembly) = assembly {
                    assembly.add(&chunk.into())?;
                    *received = assembly.received();
                }
            }
            (Some(v1::weights_part::Part::Header(_)), true) => return Err(refuse("header", "a second header came")),
            (Some(v1::weights_part::Part::Chunk(_)), false) => return Err(refuse("header", "a chunk came before the header")),
            (None, _) => return Err(refuse("chunk", "a message was neither header nor chunk")),
        }
    }
}

fn begin(
    asked: PolicyVersion,
    header: v1::WeightsHeader,
    known: Option<&Shapes>,
    base: Option<&Snapshot>,
) -> Result<Assembly, WeightsError> {
    let version = PolicyVersion(header.version);
    let refuse = |reason: String| WeightsError::Broken { version, label: "header", reason };
    if asked.0 != 0 && asked != version {
        return Err(refuse(format!("{asked} was asked for")));
    }
    let tensor = |tensor: v1::WeightTensor| {
        let unsaid = || refuse(format!("tensor {} does not say how its values are written", tensor.name));
        let dtype = stored(tensor.dtype()).ok_or_else(unsaid)?;
        let side = |side: u64| usize::try_from(side).map_err(|_| refuse(format!("tensor {} has a side of {side}", tensor.name)));
        let shape = tensor.shape.iter().map(|one| side(*one)).collect::<Result<_, _>>()?;
        Ok(TensorPlace { shape, name: tensor.name, dtype, offset: tensor.offset, bytes: tensor.bytes })
    };
    let tensors = header.tensors.into_iter().map(tensor).collect::<Result<_, _>>()?;
    let base = match (header.base_digest.as_str(), base) {
        ("", _) => None,
        (theirs, Some(base)) if *theirs == *base.digest.to_hex() => Some(base.payload.clone()),
        (theirs, _) => return Err(refuse(format!("it is a difference to {theirs:?}, which is not held here"))),
    };
    Assembly::new(version, tensors, header.total_bytes, digest(version, &header.digest)?, known, base)
}

fn digest(version: PolicyVersion, hex: &str) -> Result<Digest, WeightsError> {
    let refuse = |_| WeightsError::Broken { version, label: "header", reason: "its digest is not 64 hex digits".into() };
    Digest::from_hex(hex).map_err(refuse)
}

fn failed(status: Status) -> WeightsError {
    let (failure, message, _) = failure::from_status(&status);
    if failure::is_other_release(&status) {
        return WeightsError::OtherRelease(message);
    }
    WeightsError::Call { failure, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_stops_reading_is_let_go_and_told_so() {
        let held = Arc::new(());
        let own = held.clone();
        let parts = (0..100).map(move |_| {
            let _held = &own;
            v1::WeightsPart { part: None }
        });
        let mut stream = pumped(parts, Duration::from_millis(50));
        assert!(stream.next().await.is_some_and(|part| part.is_ok()));
        let freed = async {
            while Arc::strong_count(&held) > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), freed).await.expect("what the stream held is free before anybody reads on");
        let rest: Vec<_> = stream.collect().await;
        let (last, before) = rest.split_last().expect("an end");
        assert_eq!(last.as_ref().expect_err("too late").code(), tonic::Code::DeadlineExceeded);
        assert!(before.len() < 100 && before.iter().all(Result::is_ok));
        let parts = (0..100).map(|_| v1::WeightsPart { part: None });
        let all: Vec<_> = pumped(parts, Duration::from_secs(60)).collect().await;
        assert_eq!((all.len(), all.iter().filter(|part| part.is_ok()).count()), (100, 100));
    }
}
