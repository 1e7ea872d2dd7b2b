//! Weights on the wire, both sides: the only file here that knows protobuf types.
//!
//! In: a [`Publisher`] whose owner serves three calls with the functions here; or a client of such a service. Out: replies
//! and streams; or weights that were checked.

use std::pin::Pin;
use std::time::Instant as Clock;

use hypereyes_domain::PolicyVersion;
use hypereyes_proto::client::LearnerClient;
use hypereyes_proto::{failure, v1};
use metrics::{counter, histogram};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use crate::assembly::Assembly;
use crate::metrics::{FETCH_SECONDS, FETCHED_BYTES, FETCHES, SERVED};
use crate::{CHUNK_BYTES, Digest, Fetched, Published, Publisher, Shapes, Snapshot, TensorPlace, WeightsError};

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

/// Serves `FetchWeights`: a header, then chunks that share the snapshot's memory.
///
/// # Errors
/// `NotFound` for a version that is not held (any more): ask for the newest.
pub fn fetch_weights(publisher: &Publisher, request: v1::FetchWeightsRequest) -> Result<WeightsStream, Status> {
    let found = if request.version == 0 { Some(publisher.newest()) } else { publisher.get(PolicyVersion(request.version)) };
    let Some(snapshot) = found else {
        counter!(SERVED, "outcome" => "unknown_version").increment(1);
        return Err(Status::not_found(format!("version {} is not held any more; fetch the newest", request.version)));
    };
    counter!(SERVED, "outcome" => "served").increment(1);
    let header = v1::WeightsPart { part: Some(v1::weights_part::Part::Header(header(&snapshot))) };
    let payload = snapshot.payload.clone();
    let chunks = (0..payload.len()).step_by(CHUNK_BYTES).map(move |start| {
        let data = payload.slice(start..payload.len().min(start + CHUNK_BYTES));
        v1::WeightsPart { part: Some(v1::weights_part::Part::Chunk(v1::WeightsChunk { offset: start as u64, data })) }
    });
    Ok(Box::pin(tokio_stream::iter(std::iter::once(header).chain(chunks).map(Ok))))
}

fn header(snapshot: &Snapshot) -> v1::WeightsHeader {
    let tensor = |tensor: &TensorPlace| v1::WeightTensor {
        name: tensor.name.clone(),
        shape: tensor.shape.iter().map(|side| *side as u64).collect(),
        dtype: v1::WeightDtype::F32.into(),
        offset: tensor.offset,
        bytes: tensor.bytes,
    };
    v1::WeightsHeader {
        version: snapshot.version.0,
        tensors: snapshot.tensors.iter().map(tensor).collect(),
        total_bytes: snapshot.payload.len() as u64,
        digest: snapshot.digest.to_hex().to_string(),
    }
}

impl From<Published> for v1::PolicyVersion {
    fn from(published: Published) -> Self {
        Self { version: published.version.0, manifest_digest: published.digest.to_hex().to_string(), life: published.life }
    }
}

impl TryFrom<v1::PolicyVersion> for Published {
    type Error = WeightsError;

    fn try_from(message: v1::PolicyVersion) -> Result<Self, WeightsError> {
        let version = PolicyVersion(message.version);
        Ok(Self { version, digest: digest(version, &message.manifest_digest)?, life: message.life })
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
/// be of exactly that policy; without, only [`crate::MAX_PAYLOAD_BYTES`] bounds them.
///
/// # Errors
/// [`WeightsError`]; then nothing of what came is given out.
pub async fn fetch(
    client: &mut LearnerClient,
    version: PolicyVersion,
    known: Option<&Shapes>,
    deadline: Instant,
) -> Result<Fetched, WeightsError> {
    let start = Clock::now();
    let mut received = 0;
    let fetched = timeout_at(deadline, receive(client, version, known, &mut received)).await;
    let fetched = fetched.unwrap_or(Err(WeightsError::Deadline { received }));
    match &fetched {
        Ok(_) => {
            counter!(FETCHES, "outcome" => "ok").increment(1);
            counter!(FETCHED_BYTES).increment(received);
            histogram!(FETCH_SECONDS).record(start.elapsed().as_secs_f64());
        }
        Err(error) => counter!(FETCHES, "outcome" => error.label()).increment(1),
    }
    fetched
}

async fn receive(
    client: &mut LearnerClient,
    version: PolicyVersion,
    known: Option<&Shapes>,
    received: &mut u64,
) -> Result<Fetched, WeightsError> {
    let refuse = |label: &'static str, reason: &str| WeightsError::Broken { version, label, reason: reason.to_owned() };
    let mut parts = client.fetch_weights(v1::FetchWeightsRequest { version: version.0 }).await.map_err(failed)?.into_inner();
    let mut assembly: Option<Assembly> = None;
    while let Some(part) = parts.message().await.map_err(failed)? {
        match (part.part, &mut assembly) {
            (Some(v1::weights_part::Part::Header(header)), None) => assembly = Some(begin(version, header, known)?),
            (Some(v1::weights_part::Part::Chunk(chunk)), Some(assembly)) => {
                assembly.add(chunk.offset, &chunk.data)?;
                *received = assembly.received();
            }
            (Some(v1::weights_part::Part::Header(_)), Some(_)) => return Err(refuse("header", "a second header came")),
            (Some(v1::weights_part::Part::Chunk(_)), None) => return Err(refuse("header", "a chunk came before the header")),
            (None, _) => return Err(refuse("chunk", "a message was neither header nor chunk")),
        }
    }
    let assembly = assembly.ok_or_else(|| refuse("short", "the stream ended before the header"))?;
    // Hashing and converting gigabytes would hold up everything else on this thread.
    tokio::task::spawn_blocking(|| assembly.finish()).await.unwrap_or_else(|error| Err(refuse("value", &error.to_string())))
}

fn begin(asked: PolicyVersion, header: v1::WeightsHeader, known: Option<&Shapes>) -> Result<Assembly, WeightsError> {
    let version = PolicyVersion(header.version);
    let refuse = |reason: String| WeightsError::Broken { version, label: "header", reason };
    if asked.0 != 0 && asked != version {
        return Err(refuse(format!("{asked} was asked for")));
    }
    let tensor = |tensor: v1::WeightTensor| {
        if tensor.dtype() != v1::WeightDtype::F32 {
            return Err(refuse(format!("tensor {} has dtype {:?}, f32 is read here", tensor.name, tensor.dtype())));
        }
        let side = |side: u64| usize::try_from(side).map_err(|_| refuse(format!("tensor {} has a side of {side}", tensor.name)));
        let shape = tensor.shape.iter().map(|one| side(*one)).collect::<Result<_, _>>()?;
        Ok(TensorPlace { shape, name: tensor.name, offset: tensor.offset, bytes: tensor.bytes })
    };
    let tensors = header.tensors.into_iter().map(tensor).collect::<Result<_, _>>()?;
    Assembly::new(version, tensors, header.total_bytes, digest(version, &header.digest)?, known)
}

fn digest(version: PolicyVersion, hex: &str) -> Result<Digest, WeightsError> {
    let refuse = |_| WeightsError::Broken { version, label: "header", reason: "its digest is not 64 hex digits".into() };
    Digest::from_hex(hex).map_err(refuse)
}

fn failed(status: Status) -> WeightsError {
    let (failure, message, _) = failure::from_status(&status);
    WeightsError::Call { failure, message }
}
