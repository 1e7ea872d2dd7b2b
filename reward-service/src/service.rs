//! The gRPC face. In: messages that are not trusted. Out: messages, or statuses that carry a typed failure.
//!
//! The only file here that knows protobuf types and `Status`. Scoring is bounded in number and in time.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_domain::{Failure, Reference, RolloutGroup, RolloutSummary, Task};
use hypereyes_proto::convert::{Invalid, ids, scored_reply};
use hypereyes_proto::limits::{MAX_EPOCH, MAX_REFERENCES_PER_BATCH};
use hypereyes_proto::{failure, v1};
use metrics::counter;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use crate::change::{Change, Outcome};
use crate::metrics as names;
use crate::references::References;
use crate::scorer::{ScoreError, Scorer};
use crate::store::StoreError;

/// Longest time for one piece of work, waiting for its turn included. Rules take milliseconds; a model that judges has its
/// own deadline below this; a disk that cannot sync for this long is broken.
const WORK_DEADLINE: Duration = Duration::from_secs(30);
/// Longest pause between two messages of a stream.
const STREAM_PAUSE: Duration = Duration::from_secs(30);
/// Groups of one stream that are read ahead of their turn.
const OF_STREAM: usize = 32;
/// Changes in one answer about a task's history.
const MAX_HISTORY: usize = 1000;

/// The reward service.
#[derive(Clone, Debug)]
pub struct Service {
    scorer: Arc<Scorer>,
    references: References,
    slots: Arc<Semaphore>,
    in_flight: usize,
}

impl Service {
    /// `in_flight` is how many groups are scored at once; others wait their turn.
    pub fn new(scorer: Arc<Scorer>, references: References, in_flight: usize) -> Self {
        let in_flight = in_flight.clamp(1, Semaphore::MAX_PERMITS);
        Self { scorer, references, slots: Arc::new(Semaphore::new(in_flight)), in_flight }
    }

    /// Work within the deadline.
    async fn work<T, E: Into<Refusal>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Status> {
        match tokio::time::timeout(WORK_DEADLINE, work).await {
            Ok(done) => done.map_err(|error| error.into().into_status()),
            Err(_) => Err(Refusal::late(format!("not done within {WORK_DEADLINE:?}; try again")).into_status()),
        }
    }

    async fn score(&self, request: v1::ScoreGroupRequest) -> Result<v1::ScoredReply, Status> {
        let group = RolloutGroup::<RolloutSummary>::try_from(request.group.ok_or_else(|| missing("group"))?).map_err(refused)?;
        let task = Task::try_from(request.task.ok_or_else(|| missing("task"))?).map_err(refused)?;
        let span = tracing::info_span!("judge", group = %group.id, task = %task.id, rollouts = group.rollouts.len());
        let score = async {
            let _slot = self.slots.acquire().await.map_err(|_| Refusal::failed("closed", "the service is stopping"))?;
            self.scorer.score(&task, &group).await.map_err(Refusal::from)
        };
        let scored = self.work(score.instrument(span)).await?;
        Ok(scored_reply(scored.scores.clone(), scored.reference, scored.epoch))
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
            StoreError::WrongEpoch { .. } => Invalid::new("epoch", error.to_string()).into(),
            StoreError::NoSnapshot { .. } => Invalid::new("snapshot", error.to_string()).into(),
            StoreError::Late { .. } => Refusal::late(error.to_string()),
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
        Ok(Response::new(self.score(request.into_inner()).await?))
    }

    type ScoreStreamStream = ReceiverStream<Result<v1::ScoredReply, Status>>;

    async fn score_stream(&self, request: Request<Streaming<v1::ScoreGroupRequest>>) -> Result<Response<Self::ScoreStreamStream>, Status> {
        let (this, requests) = (self.clone(), request.into_inner());
        let ahead = self.in_flight.min(OF_STREAM);
        let (replies, outlet) = mpsc::channel(ahead);
        let scoring = async move {
            // A pause that is too long ends the stream; a group that cannot be scored is answered by a status, which does too.
            let paced = requests.timeout(STREAM_PAUSE).map(|next| {
                next.unwrap_or_else(|_| Err(Refusal::late(format!("no group within {STREAM_PAUSE:?}; open a new stream")).into_status()))
            });
            let scored = futures::StreamExt::map(paced, |request| async { this.score(request?).await });
            let mut scored = std::pin::pin!(futures::StreamExt::buffered(scored, ahead));
            while let Some(reply) = futures::StreamExt::next(&mut scored).await {
                let failed = reply.is_err();
                if replies.send(reply).await.is_err() || failed {
                    return;
                }
            }
        };
        tokio::spawn(scoring);
        Ok(Response::new(ReceiverStream::new(outlet)))
    }

    async fn commit_epoch(&self, request: Request<v1::CommitEpochRequest>) -> Result<Response<v1::CommitEpochReply>, Status> {
        let outcome = self.work(self.references.commit(request.into_inner().epoch)).await?;
        let overview = self.references.overview();
        let Outcome { epoch, snapshot, applied, adopted, tightened, .. } = outcome;
        tracing::info!(epoch, snapshot, applied, adopted, tightened, "commit");
        Ok(Response::new(v1::CommitEpochReply {
            epoch,
            tightened: adopted + tightened,
            references: overview.count,
            reference_mean_rounds: overview.mean_rounds,
            reference_mean_searches: overview.mean_searches,
            snapshot,
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
        Ok(Response::new(tokio_stream::iter(batches(&self.references))))
    }

    async fn import_references(
        &self,
        request: Request<Streaming<v1::ReferenceBatch>>,
    ) -> Result<Response<v1::ImportReferencesReply>, Status> {
        let mut batches = request.into_inner();
        let mut reply = v1::ImportReferencesReply::default();
        loop {
            let next = tokio::time::timeout(STREAM_PAUSE, batches.message()).await;
            let next = next.map_err(|_| Refusal::late(format!("no batch within {STREAM_PAUSE:?}; import again")).into_status())?;
            let Some(batch) = next? else { return Ok(Response::new(reply)) };
            if batch.references.len() > MAX_REFERENCES_PER_BATCH {
                return Err(refused(Invalid::new(
                    "references",
                    format!("has {} entries, limit {MAX_REFERENCES_PER_BATCH}", batch.references.len()),
                )));
            }
            if batch.epoch > MAX_EPOCH {
                return Err(refused(Invalid::new(
                    "epoch",
                    format!("is {}, at most {MAX_EPOCH} is taken: counting on must not wrap", batch.epoch),
                )));
            }
            let parsed: Result<Vec<_>, Invalid> = batch.references.into_iter().map(entry).collect();
            let entries = parsed.map_err(refused)?;
            reply.received += entries.len() as u64;
            let outcome = self.work(self.references.import(batch.epoch, entries)).await?;
            reply.tightened += outcome.adopted + outcome.tightened;
            reply.snapshot = outcome.snapshot;
        }
    }

    async fn get_history(&self, request: Request<v1::GetHistoryRequest>) -> Result<Response<v1::GetHistoryReply>, Status> {
        let request = request.into_inner();
        let task = ids::task("task_id", request.task_id).map_err(refused)?;
        let most = if request.most == 0 { MAX_HISTORY } else { MAX_HISTORY.min(request.most as usize) };
        let references = self.references.clone();
        let read = tokio::task::spawn_blocking(move || references.history(&task, most));
        let read = async { read.await.unwrap_or(Err(StoreError::Ended)) };
        let changes = self.work(read).await?.into_iter().map(change).collect();
        Ok(Response::new(v1::GetHistoryReply { changes }))
    }

    async fn restore_references(
        &self,
        request: Request<v1::RestoreReferencesRequest>,
    ) -> Result<Response<v1::RestoreReferencesReply>, Status> {
        let asked = request.into_inner().snapshot;
        let Outcome { epoch, snapshot, loosened, .. } = self.work(self.references.restore(asked)).await?;
        tracing::warn!(asked, epoch, loosened, "an earlier snapshot was restored");
        Ok(Response::new(v1::RestoreReferencesReply { epoch, snapshot, changed: loosened }))
    }
}

fn change(change: Change) -> v1::ReferenceChange {
    let Change { number, task, cause, epoch, from, to, by, at_ms } = change;
    v1::ReferenceChange {
        number,
        task_id: task.as_str().to_owned(),
        cause: cause.label().to_owned(),
        epoch,
        from: from.map(Into::into),
        to: to.map(Into::into),
        by: by.map(|by| v1::Witness { group_id: by.group.to_string(), rollout: by.rollout, actor_id: by.actor.to_string() }),
        at_ms,
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
    let one = |(task, reference): (hypereyes_domain::TaskId, Reference)| v1::TaskReference {
        task_id: task.as_str().to_owned(),
        reference: Some(reference.into()),
    };
    let all: Vec<v1::TaskReference> = all.into_iter().map(one).collect();
    if all.is_empty() {
        return vec![Ok(v1::ReferenceBatch { epoch, references: vec![] })];
    }
    all.chunks(MAX_REFERENCES_PER_BATCH).map(|chunk| Ok(v1::ReferenceBatch { epoch, references: chunk.to_vec() })).collect()
}
