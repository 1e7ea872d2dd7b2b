//! The service as its callers see it: over a real connection on the loopback, across restarts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hypereyes_chassis::ready::await_announcement;
use hypereyes_chassis::{ProcessConfig, Shutdown, TelemetryConfig};
use hypereyes_domain::{
    Accuracy, BonusBranch, Ending, PolicyVersion, Reference, RolloutGroup, RolloutSummary, Round, Route, ScoredGroup, Task, TaskKind,
    Trajectory,
};
use hypereyes_proto::client::RewardClient;
use hypereyes_proto::{convert, v1};
use hypereyes_reward_service::{Config, RunError, run};
use hypereyes_scoring::ReferenceMode;
use tokio::task::JoinHandle;
use tonic::Code;

/// Longest wait for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    client: RewardClient,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    async fn start(folder: &Path, config: Config) -> Self {
        let announce: PathBuf = folder.join("ready.json");
        hypereyes_chassis::ready::clear(&announce).expect("the folder is writable");
        let listen = "127.0.0.1:0".parse().expect("an address");
        let shutdown = Shutdown::new();
        let task = tokio::spawn(run(Config { listen, process: quiet(&announce), ..config }, shutdown.clone()));
        let said = await_announcement(&announce, tokio::time::Instant::now() + PATIENCE).await.expect("the service comes up");
        Self { client: hypereyes_proto::client::reward(&said.addr.to_string()).expect("an address"), shutdown, task }
    }

    async fn stop(self) {
        drop(self.client);
        self.shutdown.trigger();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops in time").expect("no panic").expect("an orderly end");
    }

    async fn score(&mut self, group: &RolloutGroup) -> ScoredGroup {
        let request = v1::ScoreGroupRequest { group: Some(group.clone().into()), task: Some(task().into()) };
        let reply = self.client.score_group(request).await.expect("scores").into_inner();
        convert::join(group.clone(), reply).expect("the reply fits the group")
    }

    async fn commit(&mut self, epoch: u64) -> v1::CommitEpochReply {
        self.client.commit_epoch(v1::CommitEpochRequest { epoch }).await.expect("commits").into_inner()
    }

    async fn reference(&mut self) -> (Option<Reference>, u64) {
        let reply = self.client.get_reference(v1::GetReferenceRequest { task_id: "t".into() }).await.expect("answers").into_inner();
        (reply.reference.map(|reference| Reference::try_from(reference).expect("sound")), reply.epoch)
    }
}

fn quiet(announce: &Path) -> ProcessConfig {
    let telemetry = TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() };
    ProcessConfig { announce: Some(announce.to_owned()), telemetry, ..ProcessConfig::default() }
}

fn kept(folder: &Path) -> Config {
    Config { store: Some(folder.join("store")), ..Config::default() }
}

fn task() -> Task {
    Task {
        id: "t".into(),
        kind: TaskKind::VISUAL_SELECT,
        question: "Which city?".into(),
        answers: vec!["Paris".into(), "Paname".into()],
        pictures: vec![],
        layer: None,
        metadata: Default::default(),
        shown: vec![],
        reference: None,
    }
}

fn rollout(answer: Option<&str>, searches: &[u32]) -> Trajectory {
    Trajectory {
        prompt: vec![1],
        response: vec![2],
        mask: vec![true],
        logprobs: vec![-0.5],
        versions: vec![PolicyVersion(0)],
        pictures: vec![],
        summary: RolloutSummary {
            rounds: searches.iter().map(|&searches| Round::counted(searches, 0)).collect(),
            ending: if answer.is_some() { Ending::Answered } else { Ending::NoAction },
            answer: answer.map(str::to_owned),
        },
        spoken: None,
    }
}

fn group(lease: u32, rollouts: Vec<Trajectory>) -> RolloutGroup {
    RolloutGroup { id: format!("t@{lease}").as_str().into(), task: "t".into(), actor: "a".into(), rollouts }
}

fn mixed(lease: u32) -> RolloutGroup {
    group(
        lease,
        vec![rollout(Some("the paris"), &[3, 1]), rollout(Some("Paname"), &[1, 1, 1]), rollout(Some("Rome"), &[1]), rollout(None, &[])],
    )
}

const TIGHT: Reference = Reference { rounds: 2, searches: 4 };

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_scored_and_its_success_counts_from_the_next_epoch() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    let first = service.score(&mixed(1)).await;
    assert_eq!((first.reference, first.reference_epoch), (None, 0));
    let seen: Vec<_> = first.scores.iter().map(|score| (score.accuracy, score.reward, score.route, score.branch)).collect();
    assert_eq!(
        seen,
        [
            (Accuracy::Correct, 1.0, Route::Reinforce, BonusBranch::None),
            (Accuracy::Correct, 1.0, Route::Reinforce, BonusBranch::None),
            (Accuracy::Wrong, 0.0, Route::Distill, BonusBranch::None),
            (Accuracy::Unparsed, -0.5, Route::Distill, BonusBranch::None),
        ]
    );
    assert_eq!(service.reference().await, (None, 0));
    let commit = service.commit(1).await;
    assert_eq!(
        (commit.epoch, commit.tightened, commit.references, commit.reference_mean_rounds, commit.reference_mean_searches),
        (1, 1, 1, 2.0, 4.0)
    );
    let second = service.score(&mixed(2)).await;
    assert_eq!((second.reference, second.reference_epoch), (Some(TIGHT), 1));
    let rewards: Vec<f64> = second.scores.iter().map(|score| score.reward).collect();
    assert_eq!(rewards, [1.2, 0.98, -0.1, -0.5]);
    assert_eq!(service.score(&mixed(1)).await, first, "a repeat gets the first answer");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_committed_and_waiting_references() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    service.score(&mixed(1)).await;
    service.commit(1).await;
    service.score(&group(2, vec![rollout(Some("Paris"), &[1])])).await;
    service.stop().await;

    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    assert_eq!(service.reference().await, (Some(TIGHT), 1));
    assert_eq!(service.commit(2).await.tightened, 1);
    assert_eq!(service.reference().await, (Some(Reference { rounds: 1, searches: 1 }), 2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_repeated_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    service.score(&mixed(1)).await;
    let first = service.commit(1).await;
    service.score(&group(2, vec![rollout(Some("Paris"), &[1])])).await;
    for stale in [1, 0, 1] {
        let repeat = service.commit(stale).await;
        assert_eq!(repeat, v1::CommitEpochReply { tightened: 0, ..first });
    }
    service.stop().await;
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    assert_eq!(service.commit(1).await.tightened, 0, "nor after a restart");
    assert_eq!(service.reference().await, (Some(TIGHT), 1));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exported_references_can_be_imported_and_only_tighten() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let mut source = Running::start(from.path(), Config { references: ReferenceMode::Immediate, ..Config::default() }).await;
    source.score(&mixed(1)).await;
    for epoch in 1..=3 {
        source.commit(epoch).await;
    }
    let mut batches = Vec::new();
    let mut stream = source.client.export_references(v1::ExportReferencesRequest {}).await.expect("exports").into_inner();
    while let Some(batch) = stream.message().await.expect("a batch") {
        batches.push(batch);
    }
    drop(stream);
    source.stop().await;

    let mut target = Running::start(to.path(), kept(to.path())).await;
    let mut loose = batches.clone();
    loose[0].references[0].reference = Some(v1::Reference { rounds: 9, searches: 9 });
    let first = target.client.import_references(tokio_stream::iter(batches)).await.expect("imports").into_inner();
    let second = target.client.import_references(tokio_stream::iter(loose)).await.expect("imports").into_inner();
    assert_eq!([(first.received, first.tightened), (second.received, second.tightened)], [(1, 1), (1, 0)]);
    target.stop().await;
    let mut target = Running::start(to.path(), kept(to.path())).await;
    assert_eq!(target.reference().await, (Some(TIGHT), 3));
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_and_the_service_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), Config::default()).await;
    let good = mixed(1);
    let other = RolloutGroup { task: "u".into(), ..good.clone() };
    for (group, task) in [(None, Some(task())), (Some(good.clone()), None), (Some(other), Some(task()))] {
        let request = v1::ScoreGroupRequest { group: group.map(Into::into), task: task.map(Into::into) };
        assert_eq!(service.client.score_group(request).await.expect_err("refused").code(), Code::InvalidArgument);
    }
    for (rounds, searches, what) in [(0, 0, "rounds"), (1, 0, "searches"), (0, 3, "rounds")] {
        let none = v1::TaskReference { task_id: "t".into(), reference: Some(v1::Reference { rounds, searches }) };
        let batch = v1::ReferenceBatch { epoch: 0, references: vec![none] };
        let refused = service.client.import_references(tokio_stream::iter(vec![batch])).await.expect_err("a reference of nothing");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(what), "{refused}");
    }
    // Groups of no rollout, of too many, with log-probs that are no numbers; an epoch out of its turn; a snapshot that never was.
    let nan = Trajectory { logprobs: vec![f32::NAN], ..rollout(Some("Paris"), &[1]) };
    for group in [group(2, vec![]), group(3, vec![rollout(Some("Paris"), &[1]); 257]), group(4, vec![nan])] {
        let request = v1::ScoreGroupRequest { group: Some(group.into()), task: Some(task().into()) };
        let status = service.client.score_group(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let status = service.client.commit_epoch(v1::CommitEpochRequest { epoch: 7 }).await.expect_err("out of turn");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("the next one is 1"), "{}", status.message());
    let status = service.client.restore_references(v1::RestoreReferencesRequest { snapshot: 9 }).await.expect_err("never made");
    assert!(status.code() == Code::InvalidArgument && status.message().contains("the newest is 0"), "{status}");
    let unknown = service.client.get_reference(v1::GetReferenceRequest { task_id: "nobody".into() }).await.expect("answers").into_inner();
    assert_eq!((unknown.reference, unknown.epoch), (None, 0));
    assert_eq!(service.reference().await, (None, 0), "nothing of all that changed anything");
    assert_eq!(service.score(&good).await.scores.len(), 4);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_scored_at_the_same_moment_leave_the_tightest_reference() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    let calls = (1..=24u32).map(|lease| {
        let mut client = service.client.clone();
        tokio::spawn(async move {
            let rounds = vec![1; (1 + lease * 7 % 12) as usize];
            let request = v1::ScoreGroupRequest {
                group: Some(group(lease, vec![rollout(Some("Paris"), &rounds)]).into()),
                task: Some(task().into()),
            };
            client.score_group(request).await.expect("scores");
        })
    });
    for call in calls.collect::<Vec<_>>() {
        tokio::time::timeout(PATIENCE, call).await.expect("in time").expect("no panic");
    }
    service.commit(1).await;
    assert_eq!(service.reference().await, (Some(Reference { rounds: 1, searches: 1 }), 1));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_in_order_and_ends_with_the_first_group_that_cannot_be_scored() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    let request = |lease: u32, of: Task| {
        let rounds = vec![1; lease as usize];
        v1::ScoreGroupRequest { group: Some(group(lease, vec![rollout(Some("Paris"), &rounds)]).into()), task: Some(of.into()) }
    };
    let given = |lease: u32| Task { reference: Some(Reference { rounds: lease, searches: lease }), ..task() };
    let mut requests: Vec<_> = (1..=40).map(|lease| request(lease, given(lease))).collect();
    requests.push(request(41, Task { id: "u".into(), ..task() }));
    requests.push(request(42, given(42)));
    let mut replies = service.client.score_stream(tokio_stream::iter(requests)).await.expect("opens").into_inner();
    for lease in 1..=40 {
        let reply = replies.message().await.expect("scored").expect("a reply");
        assert_eq!(reply.reference, Some(v1::Reference { rounds: lease, searches: lease }), "each group has the reference of its own task");
    }
    assert_eq!(replies.message().await.expect_err("another task").code(), Code::InvalidArgument);
    drop(replies);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_says_who_tightened_what_when_and_from_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    service.score(&mixed(1)).await;
    service.commit(1).await;
    service.score(&group(2, vec![rollout(Some("Rome"), &[1]), rollout(Some("Paris"), &[1])])).await;
    service.commit(2).await;
    service.stop().await;

    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    let request = v1::GetHistoryRequest { task_id: "t".into(), most: 0 };
    let changes = service.client.get_history(request).await.expect("answers").into_inner().changes;
    let tight = v1::Reference { rounds: 2, searches: 4 };
    let told: Vec<_> = changes.iter().map(|change| (change.number, change.epoch, change.from, change.to)).collect();
    assert_eq!(told, [(2, 2, Some(tight), Some(v1::Reference { rounds: 1, searches: 1 })), (1, 1, None, Some(tight))]);
    let by = changes[0].by.clone().expect("a witness");
    assert_eq!((by.group_id.as_str(), by.rollout, by.actor_id.as_str()), ("t@2", 1, "a"));
    assert!(changes.iter().all(|change| change.cause == "commit" && change.at_ms > 1_600_000_000_000));
    let request = v1::GetHistoryRequest { task_id: "t".into(), most: 1 };
    assert_eq!(service.client.get_history(request).await.expect("answers").into_inner().changes.len(), 1);
    service.stop().await;
}

/// A learner commits an epoch and dies before its checkpoint says so. What it resumes with is an older snapshot; there are
/// two outcomes, and the caller chooses.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_tightening_and_checkpoint_keeps_the_tighter_or_goes_back_as_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    service.score(&mixed(1)).await;
    let checkpoint = service.commit(1).await.snapshot;
    service.score(&group(2, vec![rollout(Some("Paris"), &[1])])).await;
    service.commit(2).await;
    service.score(&group(3, vec![rollout(Some("Paris"), &[1])])).await;
    service.stop().await;
    let single = Reference { rounds: 1, searches: 1 };

    // By default nothing loosens: the resumed learner repeats the epoch against the tighter reference, and its commit is old.
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    assert_eq!(service.commit(2).await.tightened, 0);
    assert_eq!(service.reference().await, (Some(single), 2));

    // Asked to go back, it is as it was at the checkpoint, and what was seen since does not come back with the next commit.
    let request = v1::RestoreReferencesRequest { snapshot: checkpoint };
    let reply = service.client.restore_references(request).await.expect("restores").into_inner();
    assert_eq!((reply.epoch, reply.changed), (1, 1));
    assert!(reply.snapshot > checkpoint, "going back is a change too");
    assert_eq!(service.reference().await, (Some(TIGHT), 1));
    service.stop().await;
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    assert_eq!(service.reference().await, (Some(TIGHT), 1), "also after a restart");
    let idle = service.commit(2).await;
    assert_eq!(idle.tightened, 0);
    assert_eq!(service.score(&group(2, vec![rollout(Some("Paris"), &[1])])).await.reference, Some(TIGHT));
    // An epoch that changed nothing has a snapshot of its own: going back to it is not going back beyond it.
    let third = service.commit(3).await;
    assert!(idle.snapshot > reply.snapshot && third.snapshot > idle.snapshot);
    for (snapshot, epoch) in [(idle.snapshot, 2), (reply.snapshot, 1)] {
        let request = v1::RestoreReferencesRequest { snapshot };
        assert_eq!(service.client.restore_references(request).await.expect("restores").into_inner().epoch, epoch);
        assert_eq!(service.reference().await, (Some(TIGHT), epoch));
    }
    for epoch in [2, 3] {
        service.score(&group(4, vec![rollout(Some("Paris"), &[1])])).await;
        service.commit(epoch).await;
    }
    assert_eq!(service.reference().await, (Some(single), 3));
    let request = v1::GetHistoryRequest { task_id: "t".into(), most: 0 };
    let changes = service.client.get_history(request).await.expect("answers").into_inner().changes;
    let causes: Vec<&str> = changes.iter().rev().map(|change| change.cause.as_str()).collect();
    assert_eq!(causes, ["commit", "commit", "restore", "commit", "restore", "commit"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_brings_back_what_a_damaged_store_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut service = Running::start(folder.path(), kept(folder.path())).await;
    service.score(&mixed(1)).await;
    service.commit(1).await;
    service.stop().await;

    let database = folder.path().join("store/references.redb");
    let sound = std::fs::read(&database).expect("there");
    std::fs::write(&database, &sound[..sound.len() / 2]).expect("written");
    let error = run(kept(folder.path()), Shutdown::new()).await.expect_err("half a store").to_string();
    assert!(error.contains("references.redb is damaged") && error.contains("references-00000001.jsonl"), "{error}");

    let backup = folder.path().join("store/backups/references-00000001.jsonl");
    let config = Config { store: Some(folder.path().join("new")), restore_from: Some(backup), ..Config::default() };
    let mut service = Running::start(folder.path(), config).await;
    assert_eq!(service.reference().await, (Some(TIGHT), 1));
    assert_eq!(service.commit(2).await.epoch, 2);
    service.stop().await;
}

/// The client of `docs/trace.md`, run as another trainer would. Skipped where Python lacks gRPC.
#[tokio::test(flavor = "multi_thread")]
async fn a_trainer_in_python_gets_its_groups_scored() {
    let python = std::env::var("HYPEREYES_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has_grpc = std::process::Command::new(&python).args(["-c", "import grpc, grpc_tools"]).output();
    if !has_grpc.is_ok_and(|output| output.status.success()) {
        return hypereyes_tests::skip(&format!("{python} has no grpcio and grpcio-tools"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let service = Running::start(folder.path(), Config::default()).await;
    let said = std::fs::read_to_string(folder.path().join("ready.json")).expect("announced");
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/peers/reward_client.py");
    let address = said["addr"].as_str().expect("an address").to_owned();
    let run = tokio::task::spawn_blocking(move || std::process::Command::new(python).args([script, &address]).output());
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.expect("in time").expect("no panic").expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed, "reward 1.20 BONUS_BRANCH_GOOD ROUTE_REINFORCE\nreward -0.10 BONUS_BRANCH_WRONG_OUTSIDE ROUTE_DISTILL\n");
    service.stop().await;
}
