//! A learner at work in this process, among peers of a few lines: a tiny policy, three tasks, a reward service that does what a test
//! says, and a client.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hypereyes_chassis::{ProcessConfig, Security, Shutdown, TelemetryConfig, ready};
use hypereyes_learner::{Config, rl};
use hypereyes_miniature::tokenizer::{self, TinyWords};
use hypereyes_miniature::{InitConfig, TinyConfig, init};
use hypereyes_pictures::{Picture, RgbImage};
use hypereyes_policy::checkpoint::{self, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_proto::client::{self, LearnerClient};
use hypereyes_proto::{server, v1};
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What a case says, from its folder under `tests/cases`.
pub fn case(path: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases").join(path);
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

/// A reward service that takes everything and knows nothing.
#[derive(Clone, Default)]
pub struct Reward {
    /// What the next calls are answered with, by RPC, before it answers.
    pub away: Arc<Mutex<BTreeMap<&'static str, Vec<Code>>>>,
    /// The next list of references breaks off after its first part.
    pub breaks: Arc<AtomicUsize>,
    pub asked: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Reward {
    fn answer(&self, rpc: &'static str) -> Result<(), Status> {
        *self.asked.lock().unwrap().entry(rpc).or_default() += 1;
        match self.away.lock().unwrap().entry(rpc).or_default().pop() {
            Some(code) => Err(Status::new(code, "being restarted")),
            None => Ok(()),
        }
    }

    pub fn asked(&self, rpc: &str) -> usize {
        self.asked.lock().unwrap().get(rpc).copied().unwrap_or(0)
    }
}

type References = tokio_stream::Iter<std::vec::IntoIter<Result<v1::ReferenceBatch, Status>>>;

#[tonic::async_trait]
impl v1::reward_server::Reward for Reward {
    type ExportReferencesStream = References;
    type ScoreStreamStream = tokio_stream::Empty<Result<v1::ScoredReply, Status>>;

    async fn export_references(&self, _: Request<v1::ExportReferencesRequest>) -> Result<Response<References>, Status> {
        self.answer("export")?;
        let mut parts = vec![Ok(v1::ReferenceBatch::default())];
        if self.breaks.load(Ordering::Acquire) > 0 {
            self.breaks.fetch_sub(1, Ordering::AcqRel);
            parts.push(Err(Status::unavailable("cut off in the middle")));
        }
        Ok(Response::new(tokio_stream::iter(parts)))
    }
    async fn import_references(
        &self,
        request: Request<Streaming<v1::ReferenceBatch>>,
    ) -> Result<Response<v1::ImportReferencesReply>, Status> {
        let mut batches = request.into_inner();
        while batches.message().await?.is_some() {}
        self.answer("import")?;
        Ok(Response::new(v1::ImportReferencesReply::default()))
    }
    async fn commit_epoch(&self, request: Request<v1::CommitEpochRequest>) -> Result<Response<v1::CommitEpochReply>, Status> {
        self.answer("commit")?;
        Ok(Response::new(v1::CommitEpochReply { epoch: request.into_inner().epoch, ..Default::default() }))
    }
    async fn restore_references(&self, _: Request<v1::RestoreReferencesRequest>) -> Result<Response<v1::RestoreReferencesReply>, Status> {
        self.answer("restore")?;
        Ok(Response::new(v1::RestoreReferencesReply::default()))
    }
    async fn score_group(&self, _: Request<v1::ScoreGroupRequest>) -> Result<Response<v1::ScoredReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_reference(&self, _: Request<v1::GetReferenceRequest>) -> Result<Response<v1::GetReferenceReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn score_stream(&self, _: Request<Streaming<v1::ScoreGroupRequest>>) -> Result<Response<Self::ScoreStreamStream>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_history(&self, _: Request<v1::GetHistoryRequest>) -> Result<Response<v1::GetHistoryReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A learner at work.
pub struct Harness {
    pub folder: tempfile::TempDir,
    pub model: ModelConfig,
    pub address: String,
    pub reward: Reward,
    pub shutdown: Shutdown,
    pub config: Config,
    pub ended: JoinHandle<anyhow::Result<()>>,
}

/// The pictures of the three tasks: `t0` and `t1` have one each.
pub fn picture(shade: u8) -> Picture {
    Picture::from_image(RgbImage::from_fn(64, 64, |x, y| [x as u8 * 4, y as u8 * 4, shade].into())).unwrap()
}

fn write_tasks(folder: &Path) {
    std::fs::create_dir_all(folder.join("pictures")).unwrap();
    let mut lines = String::new();
    for number in 0..3u8 {
        let shown = (number < 2).then(|| picture(number));
        let pictures: Vec<String> = shown.iter().map(|picture| picture.id.to_string()).collect();
        let kind = if shown.is_some() { "visual_select" } else { "textual_constraints" };
        let task =
            serde_json::json!({"id": format!("t{number}"), "kind": kind, "question": "Which?", "answers": ["x"], "pictures": pictures});
        lines += &format!("{task}\n");
        if let Some(picture) = shown {
            std::fs::write(folder.join(format!("pictures/{}.png", picture.id)), &picture.bytes).unwrap();
        }
    }
    std::fs::write(folder.join("tasks.jsonl"), lines).unwrap();
}

fn write_policy(folder: &Path) -> ModelConfig {
    let terms = ["Mexico".to_owned(), "Peru".to_owned()];
    let words = tempfile::tempdir().unwrap();
    let summary = tokenizer::write(words.path(), TinyWords { terms: &terms, relations: &["currency".to_owned()], phrases: &[] }).unwrap();
    let tiny = TinyConfig { width: 32, layers: 1, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 };
    let config = tiny.model(summary.vocab_size, summary.image, summary.vision_start, summary.vision_end);
    let weights = init::fresh(&config, &InitConfig::default(), 1);
    checkpoint::save(folder, Some(words.path()), &config, &weights, StoredDtype::F32).unwrap();
    config
}

/// Starts one; `set` changes its settings: one group of two rollouts per step.
pub async fn learner(set: impl FnOnce(&mut Config)) -> Harness {
    started(Reward::default(), set).await
}

pub async fn started(reward: Reward, set: impl FnOnce(&mut Config)) -> Harness {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    write_tasks(&root.join("tasks"));
    let model = write_policy(&root.join("policy"));
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = incoming.local_addr().unwrap().to_string();
    tokio::spawn(tonic::transport::Server::builder().add_service(server::reward(reward.clone())).serve_with_incoming(incoming));
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        reward: at,
        policy: root.join("policy"),
        tasks: root.join("tasks"),
        out: root.join("out"),
        steps: 1000,
        groups_per_step: 1,
        group_size: 2,
        max_staleness: 100,
        checkpoint_every: 1000,
        process: ProcessConfig {
            announce: Some(root.join("learner.json")),
            telemetry: TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() },
            ..ProcessConfig::default()
        },
        ..Config::default()
    };
    set(&mut config);
    begin(folder, model, reward, config).await
}

/// Starts a learner with these settings, perhaps again.
pub async fn begin(folder: tempfile::TempDir, model: ModelConfig, reward: Reward, config: Config) -> Harness {
    let shutdown = Shutdown::new();
    let announcement = config.process.announce.clone().unwrap();
    let _ = std::fs::remove_file(&announcement);
    let ended = tokio::spawn(rl::run(config.clone(), shutdown.clone()));
    let announced = ready::await_announcement(&announcement, tokio::time::Instant::now() + PATIENCE).await.expect("it comes up");
    Harness { folder, model, address: announced.addr.to_string(), reward, shutdown, config, ended }
}

impl Harness {
    /// A client on a connection of its own.
    pub fn client(&self) -> LearnerClient {
        client::secure(&Security::plaintext()).learner(&self.address).unwrap()
    }

    pub fn ledger(&self) -> Vec<serde_json::Value> {
        lines(&self.config.out.join("groups.jsonl"))
    }

    pub async fn status(&self) -> v1::LearnerStatus {
        self.client().status(v1::StatusRequest {}).await.expect("it lives").into_inner()
    }

    /// Stops it and says how it ended.
    pub async fn end(self) -> anyhow::Result<()> {
        self.stop().await.0
    }

    /// The same; its files stay for as long as the folder is kept.
    pub async fn stop(self) -> (anyhow::Result<()>, tempfile::TempDir) {
        self.shutdown.trigger();
        (tokio::time::timeout(PATIENCE, self.ended).await.expect("it ends in time").expect("no panic"), self.folder)
    }

    /// An honest group for a lease.
    pub fn honest(&self, lease: &v1::Lease, actor: &str) -> v1::TaughtGroup {
        taught(lease, actor, vec![rollout(&[5, 6, 7], &[9, 10, 11]); lease.group_size as usize])
    }
}

pub fn lines(path: &PathBuf) -> Vec<serde_json::Value> {
    std::fs::read_to_string(path).unwrap_or_default().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A lease, as soon as there is one.
pub async fn lease(client: &mut LearnerClient, actor: &str) -> v1::Lease {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(lease) = try_lease(client, actor).await {
            return lease;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no lease for {actor}");
}

/// A lease, if there is one now.
pub async fn try_lease(client: &mut LearnerClient, actor: &str) -> Option<v1::Lease> {
    let request = v1::LeaseRequest { actor_id: actor.into(), known_version: None };
    match client.lease_task(request).await.expect("it answers").into_inner().outcome? {
        v1::lease_reply::Outcome::Lease(lease) => Some(lease),
        _ => None,
    }
}

pub fn rollout(prompt: &[u32], response: &[u32]) -> v1::Trajectory {
    let length = response.len();
    v1::Trajectory {
        prompt: prompt.to_vec(),
        response: response.to_vec(),
        mask: Some(mask(length)),
        logprobs: vec![-1.0; length],
        versions: if length > 0 { vec![v1::VersionRun { version: 0, length: length as u32 }] } else { vec![] },
        rounds: vec![v1::Round { call: None, searches: 1, failed_searches: 0 }],
        ending: v1::EndingKind::Answered.into(),
        answer: Some("x".into()),
        ..v1::Trajectory::default()
    }
}

/// So many flags that are set.
pub fn mask(length: usize) -> v1::PackedBools {
    let mut bits = vec![0u8; length.div_ceil(8)];
    (0..length).for_each(|at| bits[at / 8] |= 1 << (at % 8));
    v1::PackedBools { count: length as u64, bits: bits.into() }
}

pub fn score(reward: f64) -> v1::Score {
    v1::Score {
        accuracy: v1::AccuracyKind::Correct.into(),
        branch: v1::BonusBranch::None.into(),
        route: v1::Route::Reinforce.into(),
        reward,
        ..v1::Score::default()
    }
}

pub fn taught(lease: &v1::Lease, actor: &str, rollouts: Vec<v1::Trajectory>) -> v1::TaughtGroup {
    let count = rollouts.len();
    let task_id = lease.task.as_ref().map(|task| task.id.clone()).unwrap_or_default();
    let group = v1::RolloutGroup { id: lease.group_id.clone(), task_id, actor_id: actor.into(), rollouts };
    let scores = (0..count).map(|at| score((at % 2) as f64)).collect();
    v1::TaughtGroup {
        scored: Some(v1::ScoredGroup { group: Some(group), scores, ..v1::ScoredGroup::default() }),
        teacher: vec![v1::TeacherAnswer::default(); count],
    }
}

/// What became of it: the receipt's outcome and what it says.
pub async fn submit(client: &mut LearnerClient, group: v1::TaughtGroup) -> (v1::ReceiptOutcome, String) {
    let receipt = client.submit(group).await.expect("a receipt").into_inner();
    (receipt.outcome(), receipt.detail)
}

pub async fn put(client: &mut LearnerClient, pictures: &[Picture]) -> Result<v1::PutPicturesReply, Status> {
    let messages: Vec<v1::Picture> =
        pictures.iter().map(|picture| v1::Picture { id: picture.id.to_string(), data: picture.bytes.clone() }).collect();
    client.put_pictures(tokio_stream::iter(messages)).await.map(Response::into_inner)
}

/// Waits for something that comes by itself.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}
