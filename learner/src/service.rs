//! The learner's gRPC face: what actors, other ranks and operators call. Nobody is trusted: what comes in is looked into before it is
//! kept, an actor is spoken for by its own process only, and what one connection may hold has a bound.
//!
//! With `keeper/service.rs` the only file here that knows protobuf types and `Status`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use hypereyes_chassis::tls::Peer;
use hypereyes_chassis::{BackoffConfig, Security, Shutdown, TraceContext, retry};
use hypereyes_domain::{ActorId, DistilledGroup, Failure, GroupId, Lease, Leased, PictureId, PolicyVersion, Receipt, Sampling, WaitReason};
use hypereyes_pictures::{PatchCache, Picture, Pins, Shelf, ShelfError};
use hypereyes_proto::call::{INCARNATION, within};
use hypereyes_proto::convert::ids;
use hypereyes_proto::limits::{MAX_DETAIL_BYTES, MAX_PICTURE_BYTES};
use hypereyes_proto::v1::{self, learner_server::Learner};
use hypereyes_proto::{Invalid, client, failure};
use hypereyes_weights::{Publisher, grpc};
use tokio::sync::Notify;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::admission::Admission;
use crate::intake::{Answer, Intake};
use crate::metrics::{FOREIGN_CALLS, HOLDS_TOO_MUCH};
use crate::places::{Place, Places};
use crate::ranks::{Meeting, RanksConfig};
use crate::speakers::{Caller, MOST_NAMES, NotYours, Speakers};
use crate::tasks::{PictureFault, Tasks};

/// How soon an actor that got no lease should ask again.
const RETRY: Duration = Duration::from_millis(100);
/// Streams of weights of one connection: an actor has one, and a proxy several actors' that fetch at the same moment.
const MOST_FETCHES: usize = 16;
/// Open watches of one connection: an actor has one, and a proxy as many as actors have names behind it.
const MOST_WATCHES: usize = MOST_NAMES;
/// Uploads of pictures of one connection at the same moment: an actor has one per group in flight.
const MOST_UPLOADS: usize = 64;
/// Longest silence between two pictures of an upload.
const NEXT_PICTURE: Duration = Duration::from_secs(30);
/// Longest upload.
const UPLOAD: Duration = Duration::from_secs(600);
/// Leases that one heartbeat may ask about: far more than anybody holds.
const MOST_ASKED: usize = 1 << 16;
/// Longest text for people that is kept of what an actor says.
const MOST_WORDS: usize = 200;

/// Group sampling, the same for every lease of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupPlan {
    /// Rollouts per group.
    pub size: u32,
    /// Sampling temperature.
    pub temperature: f32,
    /// Nucleus.
    pub top_p: f32,
    /// How long a lease lasts without a heartbeat.
    pub lease: Duration,
}

/// What belongs to a group until it is trained.
pub struct Waiting {
    /// Its pictures, which stay as long as this.
    _pins: Pins,
    /// Where in its trace it came in.
    trace: Option<TraceContext>,
}

/// State shared by the service and the training loop.
pub struct Shared {
    /// Leases and queue. A plain mutex: every hold is a few map operations, and nothing awaits under it.
    pub intake: Mutex<Intake>,
    /// Rung when a group comes in or the run is asked to stop.
    pub bell: Notify,
    /// Tasks.
    pub tasks: Tasks,
    /// What a group must be.
    pub admission: Admission,
    /// Pictures that rollouts saw beside those of the tasks.
    pub pictures: Arc<Shelf>,
    /// Pictures of batches as the policy reads them, kept from step to step.
    pub patches: PatchCache,
    /// What groups need which wait to be trained or are being trained. Locked after the intake, if with it.
    pub waiting: Mutex<HashMap<GroupId, Waiting>>,
    /// Who may speak for which actor.
    pub speakers: Mutex<Speakers>,
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

    /// Gives back the pictures of groups that have ended.
    pub fn let_go(&self) {
        let intake = self.intake();
        let waiting = intake.waiting();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| waiting.contains(id));
    }

    /// Points from `span` to the traces of groups.
    pub fn link<'a>(&self, span: &tracing::Span, groups: impl IntoIterator<Item = &'a GroupId>) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let traces = groups.into_iter().filter_map(|id| waiting.get(id)?.trace.clone());
        traces.for_each(|trace| trace.link(span));
    }

    /// A picture as it came, of a rollout or of a task.
    ///
    /// # Errors
    /// [`PictureFault`].
    pub fn encoded(&self, id: &PictureId) -> Result<Bytes, PictureFault> {
        self.pictures.get(id).map_or_else(|| self.tasks.picture(id).map(|picture| picture.bytes), |kept| Ok(kept.bytes))
    }

    /// Takes a group apart and looks into it: whether it can be trained, and whether its pictures are here. They then stay.
    fn look_at(&self, message: v1::TaughtGroup) -> Result<(DistilledGroup, Pins), Flaw> {
        let group = DistilledGroup::try_from(message).map_err(|invalid| Flaw::Refused(invalid.to_string()))?;
        self.admission.check(&group)?;
        let task = self.tasks.get(&group.scored.group.task).map_err(|error| Flaw::Away(error.to_string()))?;
        let prompt: BTreeSet<&PictureId> = task.iter().flat_map(|task| &task.pictures).collect();
        let seen: BTreeSet<&PictureId> = group.scored.group.rollouts.iter().flat_map(|rollout| &rollout.pictures).collect();
        // Pictures come first: a group whose pictures are unknown could not be trained later.
        let beside: Vec<PictureId> = seen.difference(&prompt).map(|id| (*id).clone()).collect();
        let pins = self.pictures.pin(&beside).map_err(Flaw::Missing)?;
        self.admission.check_pictures(&group, |id| {
            let crop = if prompt.contains(id) { None } else { self.pictures.get(id) };
            crop.map_or_else(|| self.tasks.size(id).map_err(Flaw::from), |kept| Ok(kept.size))
        })?;
        Ok((group, pins))
    }
}

/// Why a group is not taken.
enum Flaw {
    /// It cannot be trained.
    Refused(String),
    /// Pictures are not here.
    Missing(Vec<PictureId>),
    /// Something here is away.
    Away(String),
}

impl From<String> for Flaw {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl From<PictureFault> for Flaw {
    fn from(fault: PictureFault) -> Self {
        if fault.lasting { Self::Refused(fault.reason) } else { Self::Away(fault.reason) }
    }
}

/// The service.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
    fetches: Places,
    watches: Places,
    uploads: Places,
}

impl Service {
    /// Serves `shared`.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, fetches: Places::default(), watches: Places::default(), uploads: Places::default() }
    }

    /// Whether the caller may speak for `actor`.
    fn claim(&self, rpc: &'static str, actor: &ActorId, caller: &Caller) -> Result<(), NotYours> {
        let holds = self.shared.intake().holds(actor, Instant::now());
        let claimed = self.shared.speakers.lock().unwrap_or_else(PoisonError::into_inner).claim(actor, caller, holds);
        claimed.inspect_err(|reason| {
            tracing::warn!(%actor, rpc, %reason, "a call in an actor's name is refused");
            match reason {
                NotYours::InUse => metrics::counter!(FOREIGN_CALLS, "rpc" => rpc).increment(1),
                NotYours::TooMany => metrics::counter!(HOLDS_TOO_MUCH, "what" => "names").increment(1),
            }
        })
    }
}

/// Who makes a call: its connection, its certificate, the secret of its process.
fn caller<T>(request: &Request<T>) -> Caller {
    let peer = request.extensions().get::<Peer>();
    let secret = request.metadata().get(INCARNATION).map(|secret| *blake3::hash(secret.as_bytes()).as_bytes());
    Caller {
        connection: peer.map(|peer| peer.connection.clone()),
        certificate: peer.and_then(|peer| peer.certificate.as_ref()).map(|certificate| *blake3::hash(certificate).as_bytes()),
        secret,
    }
}

/// A place among so many of the caller's connection.
fn place<T>(places: &Places, most: usize, what: &'static str, request: &Request<T>) -> Result<Place, Status> {
    let connection = request.extensions().get::<Peer>().map_or(u64::MAX, |peer| *peer.connection);
    places.take(connection, most).ok_or_else(|| {
        metrics::counter!(HOLDS_TOO_MUCH, "what" => what).increment(1);
        Status::resource_exhausted(format!("this connection has {most} {what} open already: end one first"))
    })
}

/// The same stream, with its place given back at its end.
fn seated<T: Send + 'static>(
    stream: impl Stream<Item = T> + Send + 'static,
    place: Place,
) -> std::pin::Pin<Box<dyn Stream<Item = T> + Send>> {
    Box::pin(stream.map(move |item| {
        let _until_the_end = &place;
        item
    }))
}

/// What an actor says, fit for a log: short, and in one line.
fn plain(words: &str) -> String {
    words.chars().filter(|letter| !letter.is_control()).take(MOST_WORDS).collect()
}

fn receipt(receipt: Receipt, detail: &str) -> Response<v1::Receipt> {
    let detail = if detail.is_empty() { receipt.reason() } else { detail };
    let detail = detail[..detail.floor_char_boundary(MAX_DETAIL_BYTES)].to_owned();
    Response::new(v1::Receipt { outcome: v1::ReceiptOutcome::from(receipt).into(), detail })
}

type PictureStream = std::pin::Pin<Box<dyn Stream<Item = Result<v1::Picture, Status>> + Send>>;

#[tonic::async_trait]
impl Learner for Service {
    type WatchPolicyVersionsStream = grpc::VersionStream;
    type FetchWeightsStream = grpc::WeightsStream;
    type GetPicturesStream = PictureStream;

    async fn lease_task(&self, request: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseReply>, Status> {
        let caller = caller(&request);
        let actor = ids::actor("actor_id", request.into_inner().actor_id)?;
        self.claim("lease", &actor, &caller).map_err(|reason| Status::already_exists(format!("actor {actor}: {reason}")))?;
        let open = self.shared.open.load(Ordering::Acquire);
        let answer = if open { self.shared.intake().lease(&actor, Instant::now()) } else { Answer::Backpressure };
        let wait = |reason| Leased::Wait { after: RETRY, reason };
        let leased = match answer {
            Answer::Lease(grant) => {
                let gone = |why: String| failure::to_status(Failure::Infrastructure, format!("task {} is gone: {why}", grant.task));
                let task = self.shared.tasks.get(&grant.task).map_err(|error| gone(error.to_string()))?;
                let task = task.ok_or_else(|| gone("the set does not have it".into()))?;
                let plan = self.shared.plan;
                // A trace of its own, in which the actor goes on: the request for work is no part of it.
                let span = tracing::info_span!(parent: None, "lease", group = %grant.group, task = %grant.task, %actor, version = grant.min_version.0);
                Leased::Lease(Box::new(Lease {
                    group: grant.group,
                    task,
                    size: plan.size as usize,
                    sampling: Sampling::of(plan.temperature, plan.top_p),
                    seed: grant.seed,
                    lasts: plan.lease,
                    min_version: grant.min_version,
                    incarnation: self.shared.publisher.incarnation(),
                    trace: TraceContext::of(&span).map(|trace| trace.traceparent()),
                }))
            }
            Answer::Backpressure => wait(WaitReason::Backpressure),
            Answer::EpochEnd => wait(WaitReason::EpochEnd),
            Answer::Finished => Leased::Finished,
        };
        Ok(Response::new(leased.into()))
    }

    #[tracing::instrument(name = "receive", skip_all, fields(group = tracing::field::Empty, task = tracing::field::Empty, receipt = tracing::field::Empty))]
    async fn submit(&self, request: Request<v1::TaughtGroup>) -> Result<Response<v1::Receipt>, Status> {
        let caller = caller(&request);
        let message = request.into_inner();
        let named =
            message.scored.as_ref().and_then(|scored| scored.group.as_ref()).ok_or_else(|| Invalid::new("scored.group", "is missing"))?;
        let (id, task) = (ids::group("id", named.id.clone())?, ids::task("task_id", named.task_id.clone())?);
        let actor = ids::actor("actor_id", named.actor_id.clone())?;
        let span = tracing::Span::current();
        span.record("group", id.as_str()).record("task", task.as_str());
        if self.claim("submit", &actor, &caller).is_err() {
            return Ok(receipt(Receipt::Expired, ""));
        }
        if let Some(standing) = self.shared.intake().standing(&id, &actor, &task, Instant::now()) {
            return Ok(receipt(standing, ""));
        }
        // On a thread of its own: hundreds of thousands of tokens, and perhaps a file.
        let shared = self.shared.clone();
        let looked = tokio::task::spawn_blocking(move || shared.look_at(message)).await;
        let (outcome, detail) = match looked.map_err(|error| failure::to_status(Failure::Infrastructure, error.to_string()))? {
            Ok((group, pins)) => {
                let mut intake = self.shared.intake();
                let outcome = intake.submit(group, Instant::now());
                if outcome == Receipt::Accepted {
                    let waiting = Waiting { _pins: pins, trace: TraceContext::current() };
                    self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, waiting);
                }
                (outcome, String::new())
            }
            Err(Flaw::Refused(reason)) => {
                tracing::warn!(group = %id, %actor, reason, "a group is refused");
                (self.shared.intake().refuse(&id, &actor, &plain(&reason), Instant::now()), reason)
            }
            Err(Flaw::Missing(missing)) => {
                // Where waiting groups leave too little room, each picture of this one drives out another.
                if self.shared.pictures.evicted() > 0 && self.shared.pictures.pinned() > 0 {
                    self.shared.intake().press();
                    self.shared.bell.notify_one();
                }
                return Err(failure::missing_pictures(&missing));
            }
            Err(Flaw::Away(reason)) => return Err(failure::to_status(Failure::Infrastructure, reason)),
        };
        self.shared.bell.notify_one();
        span.record("receipt", outcome.label());
        Ok(receipt(outcome, if outcome == Receipt::Invalid { &detail } else { "" }))
    }

    async fn heartbeat(&self, request: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatReply>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let actor = ids::actor("actor_id", request.actor_id)?;
        if request.group_ids.len() > MOST_ASKED {
            return Err(Invalid::new("group_ids", format!("is too long: {}, limit {MOST_ASKED}", request.group_ids.len())).into());
        }
        let groups = request.group_ids.into_iter().map(|id| ids::group("group_ids", id)).collect::<Result<Vec<_>, Invalid>>()?;
        let own = self.claim("heartbeat", &actor, &caller).is_ok();
        let mut intake = self.shared.intake();
        let still = if own { intake.heartbeat(&actor, &groups, Instant::now()) } else { vec![] };
        let (still_yours, finished) = (still.iter().map(ToString::to_string).collect(), intake.is_finished());
        drop(intake);
        Ok(Response::new(v1::HeartbeatReply { still_yours, newest_version: self.shared.publisher.newest().version.0, finished }))
    }

    async fn abandon(&self, request: Request<v1::AbandonRequest>) -> Result<Response<v1::AbandonReply>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        let reason = Failure::try_from(request.failure())?;
        let actor = ids::actor("actor_id", request.actor_id)?;
        let group = ids::group("group_id", request.group_id)?;
        let detail = plain(&request.detail);
        tracing::debug!(%group, %actor, %reason, detail, "lease given back");
        let own = self.claim("abandon", &actor, &caller).is_ok();
        let was_yours = own && self.shared.intake().give_up(&group, &actor, reason, &detail);
        self.shared.bell.notify_one();
        Ok(Response::new(v1::AbandonReply { was_yours }))
    }

    async fn get_policy_version(&self, _: Request<v1::GetPolicyVersionRequest>) -> Result<Response<v1::PolicyVersion>, Status> {
        Ok(Response::new(grpc::get_policy_version(&self.shared.publisher)))
    }

    async fn watch_policy_versions(
        &self,
        request: Request<v1::WatchPolicyVersionsRequest>,
    ) -> Result<Response<Self::WatchPolicyVersionsStream>, Status> {
        let place = place(&self.watches, MOST_WATCHES, "watches", &request)?;
        Ok(Response::new(seated(grpc::watch_policy_versions(&self.shared.publisher), place)))
    }

    async fn fetch_weights(&self, request: Request<v1::FetchWeightsRequest>) -> Result<Response<Self::FetchWeightsStream>, Status> {
        let place = place(&self.fetches, MOST_FETCHES, "fetches", &request)?;
        Ok(Response::new(seated(grpc::fetch_weights(&self.shared.publisher, request.into_inner())?, place)))
    }

    async fn get_pictures(&self, request: Request<v1::PicturesRequest>) -> Result<Response<PictureStream>, Status> {
        let wanted = ids::pictures("ids", request.into_inner().ids)?;
        let shared = self.shared.clone();
        // Each is read when it is to be sent.
        let read = move |id: PictureId| {
            let shared = shared.clone();
            async move {
                let read =
                    tokio::task::spawn_blocking(move || shared.encoded(&id).map(|data| v1::Picture { id: id.to_string(), data })).await;
                let read = read.map_err(|error| failure::to_status(Failure::Infrastructure, error.to_string()))?;
                read.map_err(|fault| match fault.lasting {
                    // Asking again is of no use: the lease is better given back at once.
                    true => Status::not_found(fault.reason[..fault.reason.floor_char_boundary(MAX_DETAIL_BYTES)].to_owned()),
                    false => failure::to_status(Failure::Infrastructure, fault.reason),
                })
            }
        };
        Ok(Response::new(Box::pin(tokio_stream::iter(wanted).then(read))))
    }

    async fn put_pictures(&self, request: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        let place = place(&self.uploads, MOST_UPLOADS, "uploads", &request)?;
        let owner = caller(&request).connection.map_or_else(String::new, |connection| connection.to_string());
        let mut pictures = request.into_inner();
        let (mut stored, mut known, mut taken, began) = (0, 0, 0usize, Instant::now());
        loop {
            let patience = NEXT_PICTURE.min(UPLOAD.saturating_sub(began.elapsed()));
            let next = tokio::time::timeout(patience, pictures.next()).await;
            let next = next.map_err(|_| Status::deadline_exceeded("no picture came in time, or the upload takes too long"))?;
            let Some(picture) = next.transpose()? else { break };
            let id = ids::picture("id", picture.id)?;
            if picture.data.len() > MAX_PICTURE_BYTES {
                return Err(failure::to_status(
                    Failure::Policy,
                    format!("picture {id} has {} bytes; {MAX_PICTURE_BYTES} are taken", picture.data.len()),
                ));
            }
            taken += picture.data.len();
            if taken > self.shared.pictures.capacity() {
                let text =
                    format!("the pictures of one call have {taken} bytes and more; pictures_bytes is {}", self.shared.pictures.capacity());
                return Err(failure::to_status(Failure::Policy, text));
            }
            // Marked as used, or what comes after it could drive it out.
            if self.shared.pictures.get(&id).is_some() {
                known += 1;
                continue;
            }
            let refused = |reason: String| failure::to_status(Failure::Policy, format!("picture {id}: {reason}"));
            let decoded = tokio::task::spawn_blocking(move || Picture::from_bytes(picture.data, &Default::default())).await;
            let decoded = decoded.map_err(|error| failure::to_status(Failure::Infrastructure, error.to_string()))?;
            let decoded = decoded.map_err(|error| refused(error.to_string()))?;
            if decoded.id != id {
                return Err(refused(format!("its bytes hash to {}", decoded.id)));
            }
            match self.shared.pictures.put(&owner, &decoded) {
                Ok(_) => stored += 1,
                Err(full @ ShelfError::Full { .. }) => {
                    metrics::counter!(HOLDS_TOO_MUCH, "what" => "pictures").increment(1);
                    self.shared.intake().press();
                    self.shared.bell.notify_one();
                    return Err(Status::resource_exhausted(full.to_string()));
                }
                Err(error) => return Err(refused(error.to_string())),
            }
        }
        drop(place);
        Ok(Response::new(v1::PutPicturesReply { stored, known }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::LearnerStatus>, Status> {
        let PolicyVersion(version) = self.shared.publisher.newest().version;
        let intake = self.shared.intake();
        let (groups_trained, groups_dropped, groups_outstanding, epoch) = intake.counts();
        let (finished, tasks_set_aside) = (intake.is_finished(), intake.set_aside().len() as u64);
        drop(intake);
        Ok(Response::new(v1::LearnerStatus {
            step: version,
            version,
            groups_trained,
            groups_dropped,
            groups_outstanding,
            epoch,
            finished,
            tasks_set_aside,
        }))
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

/// Longest wait for one answer of rank 0.
const MEETING: Duration = Duration::from_secs(10);

/// Asks rank 0 where the ranks meet, until it answers or the deadline for meeting passes.
pub async fn meet(security: &Security, config: &RanksConfig) -> Result<Meeting> {
    let client = client::secure(security).learner(&config.leader)?;
    let request = v1::MeetRequest { rank: config.rank as u32, world: config.world as u32 };
    let deadline = tokio::time::Instant::now() + config.timeout();
    let backoff = BackoffConfig::default();
    let reply = retry("meet", deadline, &backoff, || {
        let mut client = client.clone();
        async move { within("meet", MEETING, client.meet(request)).await }
    });
    let v1::MeetReply { generation, port } = reply.await.context("rank 0 does not say where to meet")?;
    let port = u16::try_from(port).context("rank 0 names no port")?;
    Ok(Meeting { generation, world: config.world, port })
}
