//! The learner's gRPC faces, as a server to actors and as a client of the reward service: the only file here that knows
//! protobuf types and `Status`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use hypereyes_chassis::{BackoffConfig, Security, Shutdown, retry};
use hypereyes_domain::{Failure, PolicyVersion, Reference, TaskId, TaughtGroup};
use hypereyes_pictures::{Picture, Store};
use hypereyes_proto::client::RewardClient;
use hypereyes_proto::convert::ids;
use hypereyes_proto::limits::MAX_PICTURE_BYTES;
use hypereyes_proto::v1::{self, learner_server::Learner};
use hypereyes_proto::{Invalid, client, failure};
use hypereyes_weights::{Publisher, grpc};
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::intake::{Answer, Intake, Receipt};
use crate::ranks::{Meeting, RanksConfig};
use crate::tasks::Tasks;

/// How soon an actor that got no lease should ask again.
const RETRY: Duration = Duration::from_millis(100);

/// Group sampling, the same for every lease of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupPlan {
    /// Rollouts per group.
    pub size: u32,
    /// Sampling temperature.
    pub temperature: f32,
    /// Nucleus.
    pub top_p: f32,
    /// Life of a lease without heartbeat.
    pub lease: Duration,
}

/// State shared by the service and the training loop.
pub struct Shared {
    /// Leases and queue. A plain mutex: every hold is a few map operations, and nothing awaits under it.
    pub intake: Mutex<Intake>,
    /// Rung when a group comes in or the run is asked to stop.
    pub bell: Notify,
    /// Tasks.
    pub tasks: Tasks,
    /// Pictures that rollouts saw beside those of the tasks.
    pub pictures: Store,
    /// Versions.
    pub publisher: Publisher,
    /// Sampling.
    pub plan: GroupPlan,
    /// Whether tasks are handed out: not before ranks and references are together, or the first groups would be scored
    /// against other references than the rest.
    pub open: AtomicBool,
    /// Where other ranks join, as long as rank 0 waits for them.
    pub meeting: Mutex<Option<Meeting>>,
    /// Ranks of the job.
    pub world: usize,
    /// Told to stop.
    pub shutdown: Shutdown,
}

impl Shared {
    /// The intake.
    pub fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().expect("never poisoned: a panic in the intake ends the process")
    }
}

/// The service.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    /// Serves `shared`.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

type PictureStream = std::pin::Pin<Box<dyn Stream<Item = Result<v1::Picture, Status>> + Send>>;

#[tonic::async_trait]
impl Learner for Service {
    type WatchPolicyVersionsStream = grpc::VersionStream;
    type FetchWeightsStream = grpc::WeightsStream;
    type GetPicturesStream = PictureStream;

    async fn lease_task(&self, request: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseReply>, Status> {
        let actor = ids::actor("actor_id", request.into_inner().actor_id)?;
        let open = self.shared.open.load(Ordering::Acquire);
        let answer = if open { self.shared.intake().lease(&actor, Instant::now()) } else { Answer::Backpressure };
        let wait = |reason: v1::WaitReason| {
            v1::lease_reply::Outcome::Wait(v1::Wait { retry_after_ms: RETRY.as_millis() as u64, reason: reason.into() })
        };
        let outcome = match answer {
            Answer::Lease(lease) => {
                let task = self.shared.tasks.get(&lease.task).cloned();
                let task = task.ok_or_else(|| failure::to_status(Failure::Infrastructure, format!("task {} is gone", lease.task)))?;
                let plan = self.shared.plan;
                v1::lease_reply::Outcome::Lease(v1::Lease {
                    group_id: lease.group.to_string(),
                    task: Some(task.into()),
                    group_size: plan.size,
                    temperature: plan.temperature,
                    top_p: plan.top_p,
                    seed: lease.seed,
                    deadline_ms: plan.lease.as_millis() as u64,
                    min_version: lease.min_version.0,
                    life: self.shared.publisher.life(),
                })
            }
            Answer::Backpressure => wait(v1::WaitReason::Backpressure),
            Answer::EpochEnd => wait(v1::WaitReason::EpochEnd),
            Answer::Finished => v1::lease_reply::Outcome::Finished(v1::Finished {}),
        };
        Ok(Response::new(v1::LeaseReply { outcome: Some(outcome) }))
    }

    async fn submit(&self, request: Request<v1::TaughtGroup>) -> Result<Response<v1::Receipt>, Status> {
        let group = TaughtGroup::try_from(request.into_inner())?;
        // Pictures come first: a group whose pictures are unknown could not be trained later.
        let seen = group.scored.group.rollouts.iter().flat_map(|rollout| &rollout.pictures);
        let prompt: &[_] = self.shared.tasks.get(&group.scored.group.task).map_or(&[], |task| &task.pictures);
        let beside: Vec<_> = seen.filter(|id| !prompt.contains(id)).cloned().collect();
        let missing = self.shared.pictures.missing(&beside);
        if !missing.is_empty() {
            return Err(failure::missing_pictures(&missing));
        }
        let receipt = self.shared.intake().submit(group, Instant::now());
        self.shared.bell.notify_one();
        let (outcome, detail) = match receipt {
            Receipt::Accepted => (v1::ReceiptOutcome::Accepted, ""),
            Receipt::Duplicate => (v1::ReceiptOutcome::Duplicate, "it was handed in before"),
            Receipt::Stale => (v1::ReceiptOutcome::Stale, "its oldest token lags too far behind"),
            Receipt::Expired => (v1::ReceiptOutcome::Expired, "its lease is not yours (any more)"),
            Receipt::Invalid => (v1::ReceiptOutcome::Invalid, "its parts do not fit together"),
        };
        Ok(Response::new(v1::Receipt { outcome: outcome.into(), detail: detail.to_owned() }))
    }

    async fn heartbeat(&self, request: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatReply>, Status> {
        let request = request.into_inner();
        let actor = ids::actor("actor_id", request.actor_id)?;
        let groups = request.group_ids.into_iter().map(|id| ids::group("group_ids", id)).collect::<Result<Vec<_>, Invalid>>()?;
        let mut intake = self.shared.intake();
        let still_yours = intake.heartbeat(&actor, &groups, Instant::now()).iter().map(ToString::to_string).collect();
        let finished = intake.is_finished();
        drop(intake);
        Ok(Response::new(v1::HeartbeatReply { still_yours, newest_version: self.shared.publisher.newest().version.0, finished }))
    }

    async fn abandon(&self, request: Request<v1::AbandonRequest>) -> Result<Response<v1::AbandonReply>, Status> {
        let request = request.into_inner();
        let reason = Failure::try_from(request.failure())?;
        let actor = ids::actor("actor_id", request.actor_id)?;
        let group = ids::group("group_id", request.group_id)?;
        tracing::debug!(%group, %actor, %reason, detail = request.detail, "lease given back");
        let was_yours = self.shared.intake().abandon(&group, &actor, reason);
        self.shared.bell.notify_one();
        Ok(Response::new(v1::AbandonReply { was_yours }))
    }

    async fn get_policy_version(&self, _: Request<v1::GetPolicyVersionRequest>) -> Result<Response<v1::PolicyVersion>, Status> {
        Ok(Response::new(grpc::get_policy_version(&self.shared.publisher)))
    }

    async fn watch_policy_versions(
        &self,
        _: Request<v1::WatchPolicyVersionsRequest>,
    ) -> Result<Response<Self::WatchPolicyVersionsStream>, Status> {
        Ok(Response::new(grpc::watch_policy_versions(&self.shared.publisher)))
    }

    async fn fetch_weights(&self, request: Request<v1::FetchWeightsRequest>) -> Result<Response<Self::FetchWeightsStream>, Status> {
        Ok(Response::new(grpc::fetch_weights(&self.shared.publisher, request.into_inner())?))
    }

    async fn get_pictures(&self, request: Request<v1::PicturesRequest>) -> Result<Response<PictureStream>, Status> {
        let wanted = ids::pictures("ids", request.into_inner().ids)?;
        let shared = self.shared.clone();
        let read = move || -> Result<Vec<v1::Picture>, Status> {
            let find = |id| -> Result<Bytes, Status> {
                if let Some(picture) = shared.pictures.get(id) {
                    return Ok(picture.bytes.clone());
                }
                shared
                    .tasks
                    .picture(id)
                    .map(|picture| picture.bytes)
                    .map_err(|error| failure::to_status(Failure::Infrastructure, error.to_string()))
            };
            wanted.iter().map(|id| Ok(v1::Picture { id: id.to_string(), data: find(id)? })).collect()
        };
        let pictures =
            tokio::task::spawn_blocking(read).await.map_err(|error| failure::to_status(Failure::Infrastructure, error.to_string()))??;
        Ok(Response::new(Box::pin(tokio_stream::iter(pictures.into_iter().map(Ok)))))
    }

    async fn put_pictures(&self, request: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        let mut pictures = request.into_inner();
        let (mut stored, mut known) = (0, 0);
        while let Some(picture) = pictures.next().await {
            let picture = picture?;
            let id = ids::picture("id", picture.id)?;
            if picture.data.len() > MAX_PICTURE_BYTES {
                return Err(failure::to_status(
                    Failure::Policy,
                    format!("picture {id} has {} bytes; {MAX_PICTURE_BYTES} are taken", picture.data.len()),
                ));
            }
            if self.shared.pictures.missing(std::slice::from_ref(&id)).is_empty() {
                known += 1;
                continue;
            }
            let refused = |reason: String| failure::to_status(Failure::Policy, format!("picture {id}: {reason}"));
            let decoded = Picture::from_bytes(picture.data, &Default::default()).map_err(|error| refused(error.to_string()))?;
            if decoded.id != id {
                return Err(refused(format!("its bytes hash to {}", decoded.id)));
            }
            self.shared.pictures.insert(decoded).map_err(|error| refused(error.to_string()))?;
            stored += 1;
        }
        Ok(Response::new(v1::PutPicturesReply { stored, known }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::LearnerStatus>, Status> {
        let PolicyVersion(version) = self.shared.publisher.newest().version;
        let intake = self.shared.intake();
        let (groups_trained, groups_dropped, groups_outstanding, epoch) = intake.counts();
        let finished = intake.is_finished();
        Ok(Response::new(v1::LearnerStatus { step: version, version, groups_trained, groups_dropped, groups_outstanding, epoch, finished }))
    }

    async fn meet(&self, request: Request<v1::MeetRequest>) -> Result<Response<v1::MeetReply>, Status> {
        let v1::MeetRequest { rank, world } = request.into_inner();
        let refuse = |text: String| Err(failure::to_status(Failure::Policy, text));
        if self.shared.world != world as usize || rank == 0 || rank >= world {
            return refuse(format!(
                "rank {rank} of {world} is not one of the {} ranks of this job: look at ranks.world",
                self.shared.world
            ));
        }
        match *self.shared.meeting.lock().expect("never held over a panic") {
            Some(meeting) => Ok(Response::new(v1::MeetReply { generation: meeting.generation, port: meeting.port.into() })),
            // Rank 0 finds out that this rank is new, gives its group up and is started again.
            None => Err(failure::to_status(Failure::Infrastructure, "the ranks have met without you; they will meet again")),
        }
    }

    async fn stop(&self, request: Request<v1::StopRequest>) -> Result<Response<v1::StopReply>, Status> {
        if request.into_inner().drain {
            self.shared.intake().finish();
        } else {
            self.shared.shutdown.trigger();
        }
        self.shared.bell.notify_one();
        Ok(Response::new(v1::StopReply {}))
    }
}

/// Asks rank 0 where the ranks meet, until it answers or the deadline for meeting passes.
pub async fn meet(security: &Security, config: &RanksConfig) -> Result<Meeting> {
    let client = client::secure(security).learner(&config.leader)?;
    let request = v1::MeetRequest { rank: config.rank as u32, world: config.world as u32 };
    let deadline = tokio::time::Instant::now() + config.timeout();
    let backoff = BackoffConfig::default();
    let reply = retry("meet", deadline, &backoff, || {
        let mut client = client.clone();
        async move { client.meet(request).await }
    });
    let v1::MeetReply { generation, port } = reply.await.context("rank 0 does not say where to meet")?.into_inner();
    let port = u16::try_from(port).context("rank 0 names no port")?;
    Ok(Meeting { generation, world: config.world, port })
}

/// How long the reward service may be away before the run gives up on it: a restart takes seconds.
const KEEPER_PATIENCE: Duration = Duration::from_secs(300);
/// References in one message.
const REFERENCES_PER_BATCH: usize = 1024;

/// The references as the keeper has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeptReferences {
    /// By task.
    pub references: BTreeMap<TaskId, Reference>,
    /// Id of the keeper's snapshot; a checkpoint keeps it.
    pub snapshot: u64,
    /// How many a commit tightened.
    pub tightened: u64,
}

/// The learner's view of the reward service, which keeps the TRACE references.
pub struct ReferenceKeeper {
    client: RewardClient,
}

impl ReferenceKeeper {
    /// A keeper at `address`, spoken to as `security` says; nothing is sent yet.
    pub fn new(security: &Security, address: &str) -> Result<Self> {
        Ok(Self { client: client::secure(security).reward(address)? })
    }

    /// Tells the keeper what is known at the beginning of epoch number `epoch`, counted from 0 (it only ever tightens), and
    /// returns what it knows then.
    pub async fn import(&self, known: &BTreeMap<TaskId, Reference>, epoch: u64) -> Result<KeptReferences> {
        let all: Vec<v1::TaskReference> = known
            .iter()
            .map(|(task, reference)| v1::TaskReference { task_id: task.to_string(), reference: Some((*reference).into()) })
            .collect();
        let mut batches: Vec<_> =
            all.chunks(REFERENCES_PER_BATCH).map(|chunk| v1::ReferenceBatch { epoch, references: chunk.to_vec() }).collect();
        if batches.is_empty() {
            batches.push(v1::ReferenceBatch { epoch, references: vec![] });
        }
        let backoff = BackoffConfig::default();
        let call = retry("import_references", tokio::time::Instant::now() + KEEPER_PATIENCE, &backoff, || {
            let (mut client, batches) = (self.client.clone(), batches.clone());
            async move { client.import_references(tokio_stream::iter(batches)).await }
        });
        let snapshot = call.await.context("the reward service did not take the references")?.into_inner().snapshot;
        Ok(KeptReferences { references: self.export().await?, snapshot, tightened: 0 })
    }

    /// Goes back to a snapshot of an earlier moment of this run.
    pub async fn restore(&self, snapshot: u64) -> Result<()> {
        let request = v1::RestoreReferencesRequest { snapshot };
        let backoff = BackoffConfig::default();
        let call = retry("restore_references", tokio::time::Instant::now() + KEEPER_PATIENCE, &backoff, || {
            let mut client = self.client.clone();
            async move { client.restore_references(request).await }
        });
        call.await.context("the reward service did not restore the checkpoint's references")?;
        Ok(())
    }

    /// Makes the candidates of an epoch the references. `known` is what they were when the epoch began: a keeper that lost
    /// its memory meanwhile learns it first. Repeating it changes nothing.
    pub async fn commit(&self, epoch: u64, known: &BTreeMap<TaskId, Reference>) -> Result<KeptReferences> {
        self.import(known, epoch).await?;
        // Epochs are committed under their number counted from 1: 0 is what the service starts with.
        let request = v1::CommitEpochRequest { epoch: epoch + 1 };
        let backoff = BackoffConfig::default();
        let call = retry("commit_epoch", tokio::time::Instant::now() + KEEPER_PATIENCE, &backoff, || {
            let mut client = self.client.clone();
            async move { client.commit_epoch(request).await }
        });
        let reply = call.await.context("the reward service did not commit the epoch")?.into_inner();
        Ok(KeptReferences { references: self.export().await?, snapshot: reply.snapshot, tightened: reply.tightened })
    }

    /// All committed references.
    pub async fn export(&self) -> Result<BTreeMap<TaskId, Reference>> {
        let mut client = self.client.clone();
        let reply = client.export_references(v1::ExportReferencesRequest {}).await;
        let mut stream = reply.context("the reward service lists no references")?.into_inner();
        let mut references = BTreeMap::new();
        while let Some(batch) = stream.message().await? {
            for entry in batch.references {
                let Some(reference) = entry.reference else { continue };
                references.insert(TaskId::new(entry.task_id), Reference::try_from(reference)?);
            }
        }
        Ok(references)
    }
}
