//! The gRPC face. In: messages that are not trusted. Out: messages, or statuses that carry a typed failure.
//!
//! The only file here that knows protobuf types and `Status`. Everything that may block runs on blocking threads, bounded
//! in number and in time.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_domain::{Failure, Reference, RolloutGroup, Task};
use hypereyes_proto::convert::{Invalid, ids, scored_reply};
use hypereyes_proto::limits::MAX_REFERENCES_PER_BATCH;
use hypereyes_proto::{failure, v1};
use metrics::counter;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::log::StoreError;
use crate::metrics as names;
use crate::references::References;
use crate::scorer::{ScoreError, Scorer};

/// Longest time for one piece of work, waiting for its turn included. Scoring takes milliseconds; a disk that cannot sync
/// for this long is broken.
const WORK_DEADLINE: Duration = Duration::from_secs(30);
/// Longest pause between two messages of an import.
const IMPORT_PAUSE: Duration = Duration::from_secs(30);

/// The reward service.
#[derive(Clone, Debug)]
pub struct Service {
    scorer: Arc<Scorer>,
    references: Arc<References>,
    slots: Arc<Semaphore>,
}

impl Service {
    /// `in_flight` is how many pieces of work run at once; others wait their turn.
    pub fn new(scorer: Arc<Scorer>, references: Arc<References>, in_flight: usize) -> Self {
        Self { scorer, references, slots: Arc::new(Semaphore::new(in_flight.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    async fn work<T: Send + 'static, E: Into<Refusal> + Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, Status> {
        let slots = self.slots.clone();
        let run = async move {
            // The slot goes with the work: a caller that gives up does not make room for more than `in_flight` threads.
            let slot = slots.acquire_owned().await.map_err(|_| Refusal::failed("closed", "the service is stopping"))?;
            let run = move || {
                let _slot = slot;
                work().map_err(Into::into)
            };
            tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(Refusal::failed("panic", format!("the work died: {error}"))))
        };
        match tokio::time::timeout(WORK_DEADLINE, run).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(refusal)) => Err(refusal.into_status()),
            Err(_) => Err(Refusal::late(format!("not done within {WORK_DEADLINE:?}; try again")).into_status()),
        }
    }
}

/// A status with the reason under which it is counted.
struct Refusal {
    reason: &'static str,
    status: Box<Status>,
}

impl Refusal {
    fn failed(reason: &'static str, message: impl AsRef<str>) -> Self {
        Self { reason, status: Box::new(failure::to_status(Failure::Infrastructure, message)) }
    }

    fn late(message: impl AsRef<str>) -> Self {
        Self { reason: "timeout", status: Box::new(failure::to_status(Failure::Timeout, message)) }
    }

    fn into_status(self) -> Status {
        counter!(names::REFUSED, "reason" => self.reason).increment(1);
        tracing::warn!(reason = self.reason, status = %self.status, "call refused");
        *self.status
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self { reason: "invalid", status: Box::new(invalid.into()) }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLong { .. } => Invalid::new("references", error.to_string()).into(),
            _ => Refusal::failed("store", error.to_string()),
        }
    }
}

impl From<ScoreError> for Refusal {
    fn from(error: ScoreError) -> Self {
        match error {
            ScoreError::OtherTask { .. } | ScoreError::LongAnswers { .. } => Invalid::new("task", error.to_string()).into(),
            ScoreError::Store(error) => error.into(),
        }
    }
}

fn refused(invalid: Invalid) -> Status {
    Refusal::from(invalid).into_status()
}

fn missing(what: &str) -> Status {
    refused(Invalid::new(what, "is missing"))
}

#[tonic::async_trait]
impl v1::reward_server::Reward for Service {
    async fn score_group(&self, request: Request<v1::ScoreGroupRequest>) -> Result<Response<v1::ScoredReply>, Status> {
        let request = request.into_inner();
        let group = RolloutGroup::try_from(request.group.ok_or_else(|| missing("group"))?).map_err(refused)?;
        let task = Task::try_from(request.task.ok_or_else(|| missing("task"))?).map_err(refused)?;
        let scorer = self.scorer.clone();
        let scored = self.work(move || scorer.score(&task, &group)).await?;
        Ok(Response::new(scored_reply(scored.scores.clone(), scored.reference, scored.epoch)))
    }

    async fn commit_epoch(&self, request: Request<v1::CommitEpochRequest>) -> Result<Response<v1::CommitEpochReply>, Status> {
        let epoch = request.into_inner().epoch;
        let references = self.references.clone();
        let (summary, overview) = self.work(move || references.commit(epoch).map(|summary| (summary, references.overview()))).await?;
        tracing::info!(
            epoch = summary.epoch,
            applied = summary.applied,
            adopted = summary.adopted,
            tightened = summary.tightened,
            "commit"
        );
        Ok(Response::new(v1::CommitEpochReply {
            epoch: summary.epoch,
            tightened: summary.adopted + summary.tightened,
            references: overview.count,
            reference_mean_rounds: overview.mean_rounds,
            reference_mean_searches: overview.mean_searches,
        }))
    }

    async fn get_reference(&self, request: Request<v1::GetReferenceRequest>) -> Result<Response<v1::GetReferenceReply>, Status> {
        let task = ids::task("task_id", request.into_inner().task_id).map_err(refused)?;
        let (reference, epoch) = self.references.committed(&task);
        Ok(Response::new(v1::GetReferenceReply { reference: reference.map(Into::into), epoch }))
    }

    type ExportReferencesStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::ReferenceBatch, Status>>>;

    async fn export_references(
        &self,
        _request: Request<v1::ExportReferencesRequest>,
    ) -> Result<Response<Self::ExportReferencesStream>, Status> {
        let references = self.references.clone();
        let batches = self.work(move || Ok::<_, Refusal>(batches(&references))).await?;
        Ok(Response::new(tokio_stream::iter(batches)))
    }

    async fn import_references(
        &self,
        request: Request<Streaming<v1::ReferenceBatch>>,
    ) -> Result<Response<v1::ImportReferencesReply>, Status> {
        let mut batches = request.into_inner();
        let mut reply = v1::ImportReferencesReply::default();
        loop {
            let next = tokio::time::timeout(IMPORT_PAUSE, batches.message()).await;
            let next = next.map_err(|_| Refusal::late(format!("no batch within {IMPORT_PAUSE:?}; import again")).into_status())?;
            let Some(batch) = next? else { return Ok(Response::new(reply)) };
            if batch.references.len() > MAX_REFERENCES_PER_BATCH {
                return Err(refused(Invalid::new(
                    "references",
                    format!("has {} entries, limit {MAX_REFERENCES_PER_BATCH}", batch.references.len()),
                )));
            }
            let parsed: Result<Vec<_>, Invalid> = batch.references.into_iter().map(entry).collect();
            let entries = parsed.map_err(refused)?;
            let (references, epoch) = (self.references.clone(), batch.epoch);
            reply.received += entries.len() as u64;
            reply.tightened += self.work(move || references.import(epoch, entries)).await?;
        }
    }
}

fn entry(entry: v1::TaskReference) -> Result<(hypereyes_domain::TaskId, Reference), Invalid> {
    let task = ids::task("task_id", entry.task_id)?;
    let reference = entry.reference.ok_or_else(|| Invalid::new("reference", format!("of task {task} is missing")))?;
    Ok((task, Reference::try_from(reference)?))
}

/// At least one batch, so that an importer learns the epoch even when there is no reference yet.
fn batches(references: &References) -> Vec<Result<v1::ReferenceBatch, Status>> {
    let (all, epoch) = references.export();
    if all.is_empty() {
        return vec![Ok(v1::ReferenceBatch { epoch, references: vec![] })];
    }
    let one = |(task, reference): &(hypereyes_domain::TaskId, Reference)| v1::TaskReference {
        task_id: task.as_str().to_owned(),
        reference: Some((*reference).into()),
    };
    all.chunks(MAX_REFERENCES_PER_BATCH)
        .map(|chunk| Ok(v1::ReferenceBatch { epoch, references: chunk.iter().map(one).collect() }))
        .collect()
}
