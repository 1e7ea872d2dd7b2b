//! Peers of a few lines on loopback ports, and a tiny policy: what an actor needs to live.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hypereyes_actor::Config;
use hypereyes_chassis::{BackoffConfig, ProcessConfig, TelemetryConfig};
use hypereyes_domain::{
    Accuracy, Answer, BonusBranch, DistilledGroup, PictureId, PolicyVersion, RolloutGroup, RolloutSummary, Route, Score, ScoreSequence,
    Task, TaskKind, TeacherVersion,
};
use hypereyes_engines::EngineConfig;
use hypereyes_environment::EnvConfig;
use hypereyes_miniature::tokenizer::{self, TinyWords};
use hypereyes_miniature::{InitConfig, TinyConfig, init};
use hypereyes_pictures::{Picture, RgbImage};
use hypereyes_policy::checkpoint::{self, HostWeights, Snapshot, StoredDtype};
use hypereyes_proto::{convert, failure, server, v1};
use hypereyes_rollout::RolloutConfig;
use hypereyes_weights::Publisher;
use hypereyes_weights::grpc::{self, VersionStream, WeightsStream};
use tokio_stream::StreamExt;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Writes a tiny policy folder and returns its weights.
pub fn policy(folder: &Path) -> HostWeights {
    let terms = ["Mexico".to_owned(), "Peru".to_owned(), "peso".to_owned()];
    let words = tempfile::tempdir().expect("a temporary folder");
    let summary = tokenizer::write(words.path(), TinyWords { terms: &terms, relations: &["currency".to_owned()], phrases: &[] })
        .expect("sound words");
    let tiny = TinyConfig { width: 64, layers: 2, heads: 4, inner: 96, vision_width: 32, vision_depth: 2 };
    let config = tiny.model(summary.vocab_size, summary.image, summary.vision_start, summary.vision_end);
    let weights = init::fresh(&config, &InitConfig::default(), 1);
    checkpoint::save(folder, Some(words.path()), &config, &weights, StoredDtype::F32).expect("writes");
    weights
}

/// Other weights of the same policy.
pub fn moved(weights: &HostWeights) -> HostWeights {
    let mut moved = weights.clone();
    moved.values_mut().for_each(|tensor| tensor.values.iter_mut().for_each(|value| *value *= 0.5));
    moved
}

pub fn picture() -> Picture {
    Picture::from_image(RgbImage::from_fn(64, 64, |x, y| [x as u8 * 4, y as u8 * 4, 90].into())).expect("encodes")
}

pub fn task(id: &str) -> Task {
    Task {
        id: id.into(),
        kind: TaskKind::VISUAL_SELECT,
        question: "Which one has currency peso?".into(),
        answers: vec!["Mexico".into()],
        pictures: vec![picture().id],
        layer: None,
        metadata: Default::default(),
        shown: vec![],
        reference: None,
    }
}

/// The learner's one incarnation.
const INCARNATION: u32 = 3;

pub fn lease(id: &str, size: u32, min_version: u64) -> v1::Lease {
    v1::Lease {
        group_id: id.into(),
        task: Some(task(id.split('@').next().expect("there is a first part")).into()),
        group_size: size,
        temperature: 1.0,
        top_p: 0.9,
        seed: 7,
        deadline_ms: 60_000,
        min_version,
        incarnation: INCARNATION,
        traceparent: String::new(),
    }
}

/// What a test tells the learner and what it hears from it. Clones are one and the same.
#[derive(Clone)]
pub struct Learner {
    pub publisher: Publisher,
    state: Arc<Mutex<LearnerState>>,
}

#[derive(Default)]
pub struct LearnerState {
    /// To be handed out; after the last one the answer is `Finished`, or `Wait` if `endless`.
    pub leases: VecDeque<v1::Lease>,
    pub endless: bool,
    /// Submits that get no receipt first.
    pub deaf: usize,
    /// Leases that heartbeats deny.
    pub denied: Vec<String>,
    pub finished: bool,
    pub submitted: Vec<DistilledGroup>,
    pub abandoned: Vec<v1::AbandonRequest>,
    pub heartbeats: Vec<v1::HeartbeatRequest>,
    pub lease_requests: Vec<v1::LeaseRequest>,
    pub pictures_sent: usize,
    /// Bytes that went out as weights, by stream.
    pub weights_sent: Vec<usize>,
    /// Pictures cannot be read.
    pub unreadable: bool,
    /// What calls in the actor's name show, by RPC.
    pub shown: Vec<(&'static str, Option<String>)>,
}

impl LearnerState {
    fn show<T>(&mut self, rpc: &'static str, request: &Request<T>) {
        let secret = request.metadata().get(hypereyes_proto::call::INCARNATION);
        self.shown.push((rpc, secret.map(|secret| secret.to_str().expect("ASCII").to_owned())));
    }
}

impl Learner {
    pub fn new(weights: &HostWeights, leases: impl IntoIterator<Item = v1::Lease>) -> Self {
        let publisher = Publisher::new(Snapshot::new(weights, PolicyVersion(0)), 2, INCARNATION);
        Self { publisher, state: Arc::new(Mutex::new(LearnerState { leases: leases.into_iter().collect(), ..Default::default() })) }
    }

    pub fn state(&self) -> MutexGuard<'_, LearnerState> {
        self.state.lock().expect("no test panics with it")
    }

    /// Serves until what is returned is dropped or told.
    pub fn serve_at(&self, incoming: TcpIncoming) -> tokio::sync::oneshot::Sender<()> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let router = tonic::transport::Server::builder().add_service(server::learner(self.clone()));
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, async move { drop(stopped.await) }));
        stop
    }

    /// Serves for ever as releases did that said no version of the wire.
    pub fn serve_as_of_old(&self, incoming: TcpIncoming) {
        let service = v1::learner_server::LearnerServer::new(self.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    }
}

pub fn port() -> (TcpIncoming, String) {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = incoming.local_addr().expect("it is bound").to_string();
    (incoming, address)
}

#[tonic::async_trait]
impl v1::learner_server::Learner for Learner {
    type WatchPolicyVersionsStream = VersionStream;
    type FetchWeightsStream = WeightsStream;
    type GetPicturesStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::Picture, Status>>>;

    async fn lease_task(&self, request: Request<v1::LeaseRequest>) -> Result<Response<v1::LeaseReply>, Status> {
        let mut state = self.state();
        state.show("lease", &request);
        state.lease_requests.push(request.into_inner());
        let outcome = match state.leases.pop_front() {
            Some(lease) => v1::lease_reply::Outcome::Lease(lease),
            None if state.endless => {
                v1::lease_reply::Outcome::Wait(v1::Wait { retry_after_ms: 20, reason: v1::WaitReason::Backpressure.into() })
            }
            None => v1::lease_reply::Outcome::Finished(v1::Finished {}),
        };
        Ok(Response::new(v1::LeaseReply { outcome: Some(outcome) }))
    }

    async fn submit(&self, request: Request<v1::TaughtGroup>) -> Result<Response<v1::Receipt>, Status> {
        self.state().show("submit", &request);
        let taught = DistilledGroup::try_from(request.into_inner())?;
        let mut state = self.state();
        let known = state.submitted.iter().any(|known| known.scored.group.id == taught.scored.group.id);
        if !known {
            state.submitted.push(taught);
        }
        if state.deaf > 0 {
            state.deaf -= 1;
            return Err(Status::unavailable("the receipt is lost"));
        }
        let outcome = if known { v1::ReceiptOutcome::Duplicate } else { v1::ReceiptOutcome::Accepted };
        Ok(Response::new(v1::Receipt { outcome: outcome.into(), detail: String::new() }))
    }

    async fn heartbeat(&self, request: Request<v1::HeartbeatRequest>) -> Result<Response<v1::HeartbeatReply>, Status> {
        self.state().show("heartbeat", &request);
        let request = request.into_inner();
        let mut state = self.state();
        let still_yours = request.group_ids.iter().filter(|id| !state.denied.contains(id)).cloned().collect();
        state.heartbeats.push(request);
        Ok(Response::new(v1::HeartbeatReply { still_yours, newest_version: 0, finished: state.finished }))
    }

    async fn abandon(&self, request: Request<v1::AbandonRequest>) -> Result<Response<v1::AbandonReply>, Status> {
        self.state().show("abandon", &request);
        self.state().abandoned.push(request.into_inner());
        Ok(Response::new(v1::AbandonReply { was_yours: true }))
    }

    async fn get_policy_version(&self, _: Request<v1::GetPolicyVersionRequest>) -> Result<Response<v1::PolicyVersion>, Status> {
        Ok(Response::new(grpc::get_policy_version(&self.publisher)))
    }

    async fn watch_policy_versions(&self, _: Request<v1::WatchPolicyVersionsRequest>) -> Result<Response<VersionStream>, Status> {
        Ok(Response::new(grpc::watch_policy_versions(&self.publisher)))
    }

    async fn fetch_weights(&self, request: Request<v1::FetchWeightsRequest>) -> Result<Response<WeightsStream>, Status> {
        let stream = grpc::fetch_weights(&self.publisher, request.into_inner())?;
        let learner = self.clone();
        let number = learner.state().weights_sent.len();
        learner.state().weights_sent.push(0);
        let counted = move |part: Result<v1::WeightsPart, Status>| {
            if let Ok(v1::WeightsPart { part: Some(v1::weights_part::Part::Chunk(chunk)) }) = &part {
                learner.state().weights_sent[number] += chunk.data.len();
            }
            part
        };
        Ok(Response::new(Box::pin(stream.map(counted))))
    }

    async fn get_pictures(&self, request: Request<v1::PicturesRequest>) -> Result<Response<Self::GetPicturesStream>, Status> {
        if self.state().unreadable {
            return Err(Status::not_found("the picture is damaged"));
        }
        let held = picture();
        let ids = request.into_inner().ids;
        assert!(ids.iter().all(|id| *id == held.id.as_str()), "only the task's picture is asked for");
        self.state().pictures_sent += ids.len();
        let send = |id: String| Ok(v1::Picture { id, data: held.bytes.clone() });
        Ok(Response::new(tokio_stream::iter(ids.into_iter().map(send).collect::<Vec<_>>())))
    }

    async fn put_pictures(&self, _: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        Ok(Response::new(v1::PutPicturesReply::default()))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::LearnerStatus>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn meet(&self, _: Request<v1::MeetRequest>) -> Result<Response<v1::MeetReply>, Status> {
        Err(Status::unimplemented("actors do not meet ranks"))
    }

    async fn stop(&self, _: Request<v1::StopRequest>) -> Result<Response<v1::StopReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Finds every second rollout right; the others go to the teacher.
#[derive(Clone, Default)]
pub struct Reward {
    /// Calls that fail first, as a judge without a verdict does.
    pub moody: Arc<Mutex<usize>>,
}

impl Reward {
    pub fn serve(&self) -> String {
        let (incoming, address) = port();
        tokio::spawn(tonic::transport::Server::builder().add_service(server::reward(self.clone())).serve_with_incoming(incoming));
        address
    }
}

#[tonic::async_trait]
impl v1::reward_server::Reward for Reward {
    type ExportReferencesStream = tokio_stream::Empty<Result<v1::ReferenceBatch, Status>>;
    type ScoreStreamStream = tokio_stream::Empty<Result<v1::ScoredReply, Status>>;

    async fn score_group(&self, request: Request<v1::ScoreGroupRequest>) -> Result<Response<v1::ScoredReply>, Status> {
        {
            let mut moody = self.moody.lock().expect("no test panics with it");
            if *moody > 0 {
                *moody -= 1;
                return Err(failure::to_status(hypereyes_domain::Failure::Judge, "no verdict"));
            }
        }
        let group = RolloutGroup::<RolloutSummary>::try_from(request.into_inner().group.expect("a group"))?;
        let score = |at: usize| {
            let (accuracy, reward, route) =
                if at.is_multiple_of(2) { (Accuracy::Correct, 1.0, Route::Reinforce) } else { (Accuracy::Wrong, 0.0, Route::Distill) };
            Score { accuracy, bonus: 0.0, branch: BonusBranch::None, reward, route }
        };
        Ok(Response::new(convert::scored_reply((0..group.rollouts.len()).map(score).collect(), None, 3)))
    }

    async fn commit_epoch(&self, _: Request<v1::CommitEpochRequest>) -> Result<Response<v1::CommitEpochReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_reference(&self, _: Request<v1::GetReferenceRequest>) -> Result<Response<v1::GetReferenceReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn export_references(&self, _: Request<v1::ExportReferencesRequest>) -> Result<Response<Self::ExportReferencesStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn import_references(&self, _: Request<Streaming<v1::ReferenceBatch>>) -> Result<Response<v1::ImportReferencesReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn score_stream(&self, _: Request<Streaming<v1::ScoreGroupRequest>>) -> Result<Response<Self::ScoreStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_history(&self, _: Request<v1::GetHistoryRequest>) -> Result<Response<v1::GetHistoryReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn restore_references(&self, _: Request<v1::RestoreReferencesRequest>) -> Result<Response<v1::RestoreReferencesReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Says -0.25 of every token, once it holds the pictures.
#[derive(Clone, Default)]
pub struct Teacher {
    pub pictures: Arc<Mutex<Vec<PictureId>>>,
    /// Pictures are taken and forgotten.
    pub forgetful: bool,
}

impl Teacher {
    pub fn serve(&self) -> String {
        let (incoming, address) = port();
        tokio::spawn(tonic::transport::Server::builder().add_service(server::teacher(self.clone())).serve_with_incoming(incoming));
        address
    }
}

#[tonic::async_trait]
impl v1::teacher_server::Teacher for Teacher {
    async fn score_tokens(&self, request: Request<v1::ScoreTokensRequest>) -> Result<Response<v1::ScoreTokensReply>, Status> {
        assert!(request.metadata().contains_key("grpc-timeout"), "the teacher is told the deadline");
        let mut sequences = Vec::new();
        for message in request.into_inner().sequences {
            let sequence = ScoreSequence::try_from(message)?;
            let held = self.pictures.lock().expect("no test panics with it").clone();
            let missing: Vec<PictureId> = sequence.pictures.iter().filter(|id| !held.contains(id)).cloned().collect();
            if !missing.is_empty() {
                return Err(failure::missing_pictures(&missing));
            }
            let logprobs = sequence.mask.iter().filter(|wanted| **wanted).map(|_| -0.25).collect();
            sequences.push(Answer { logprobs, top: vec![] });
        }
        Ok(Response::new((TeacherVersion::new("fake", 1), sequences).into()))
    }

    async fn put_pictures(&self, request: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        let mut stream = request.into_inner();
        let mut reply = v1::PutPicturesReply::default();
        while let Some(picture) = stream.message().await? {
            assert_eq!(hypereyes_pictures::picture_id(&picture.data).as_str(), picture.id);
            if !self.forgetful {
                self.pictures.lock().expect("no test panics with it").push(PictureId::new(picture.id));
            }
            reply.stored += 1;
        }
        Ok(Response::new(reply))
    }

    async fn list_models(&self, _: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn load_model(&self, _: Request<v1::LoadModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn promote_model(&self, _: Request<v1::PromoteModelRequest>) -> Result<Response<v1::PromoteModelReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn retire_model(&self, _: Request<v1::RetireModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// An actor's settings for short episodes and quick tries.
pub fn config(policy: &Path, learner: &str, reward: &str) -> Config {
    Config {
        id: "tester".into(),
        learner: learner.into(),
        reward: reward.into(),
        policy: policy.to_owned(),
        rollout: RolloutConfig { max_turn_tokens: 12, env: EnvConfig { max_turns: 2, ..EnvConfig::default() }, ..RolloutConfig::default() },
        engine: EngineConfig { max_sequences: 8, max_context: 256, ..EngineConfig::default() },
        heartbeat_ms: 20,
        backoff: BackoffConfig { first_ms: 5, max_ms: 50, ..BackoffConfig::default() },
        process: ProcessConfig {
            telemetry: TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() },
            ..ProcessConfig::default()
        },
        ..Config::default()
    }
}
