//! An actor among peers of a few lines, over real connections on the loopback.

mod support;

use std::collections::HashSet;
use std::time::Duration;

use hypereyes_actor::{Config, run};
use hypereyes_chassis::{BreakerConfig, Shutdown, TelemetryConfig, telemetry};
use hypereyes_domain::{Accuracy, PolicyVersion};
use hypereyes_policy::checkpoint::{Snapshot, StoredDtype};
use hypereyes_proto::v1;
use support::{Learner, PATIENCE, Reward, Teacher, config, lease, moved, picture, policy, port};
use tokio::task::JoinHandle;

fn counted(name: &str, labels: &[(&str, &str)]) -> f64 {
    let telemetry = telemetry::init(&TelemetryConfig { filter: "error".into(), ..TelemetryConfig::default() }).expect("sound");
    telemetry.read(name, labels).unwrap_or(0.0)
}

fn spawn(config: Config) -> (Shutdown, JoinHandle<anyhow::Result<()>>) {
    let shutdown = Shutdown::new();
    (shutdown.clone(), tokio::spawn(run(config, shutdown)))
}

async fn end(task: JoinHandle<anyhow::Result<()>>) {
    tokio::time::timeout(PATIENCE, task).await.expect("it ends in time").expect("no panic").expect("an orderly end");
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_becomes_a_taught_group_and_the_end_of_the_run_ends_the_actor() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    let learner = Learner::new(&weights, [lease("t@1", 4, 0), lease("t@2", 4, 0)]);
    // Two receipts are lost and the judge is silent twice: the group arrives all the same, once.
    learner.state().deaf = 2;
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let reward = Reward::default();
    *reward.moody.lock().expect("no panic") = 2;
    let teacher = Teacher::default();
    let config = Config { teacher: Some(teacher.serve()), ..config(folder.path(), &address, &reward.serve()) };
    let (_, task) = spawn(config);
    end(task).await;

    let state = learner.state();
    let ids: HashSet<&str> = state.submitted.iter().map(|taught| taught.scored.group.id.as_str()).collect();
    assert_eq!(ids, HashSet::from(["t@1", "t@2"]));
    assert!(state.abandoned.is_empty(), "{:?}", state.abandoned);
    assert_eq!(teacher.pictures.lock().expect("no panic")[0], picture().id);
    for taught in &state.submitted {
        taught.check().expect("sound");
        let group = &taught.scored.group;
        assert!(group.actor.as_str().starts_with("tester-") && group.actor.as_str().len() > "tester-".len());
        assert_eq!((group.rollouts.len(), group.task.as_str(), taught.scored.reference_epoch), (4, "t", 3));
        let verdicts: Vec<Accuracy> = taught.scored.scores.iter().map(|score| score.accuracy).collect();
        assert_eq!(verdicts, [Accuracy::Correct, Accuracy::Wrong, Accuracy::Correct, Accuracy::Wrong], "a silent judge is no verdict");
        for (at, (rollout, answer)) in group.rollouts.iter().zip(&taught.teacher).enumerate() {
            assert_eq!((&rollout.prompt, &rollout.pictures[0]), (&group.rollouts[0].prompt, &picture().id));
            // An untrained policy may also sample what no policy may, such as a picture's placeholder; that is masked.
            let asked = at % 2 == 1 && rollout.sampled_tokens() > 0;
            assert_eq!(answer.is_some(), asked, "the teacher is asked about failures only");
        }
        assert!(taught.teacher.iter().any(Option::is_some));
        let different: HashSet<&[u32]> = group.rollouts.iter().map(|rollout| rollout.response.as_slice()).collect();
        assert!(different.len() > 1, "siblings have seeds of their own");
    }
    let of = |id: &str| state.submitted.iter().find(|taught| taught.scored.group.id.as_str() == id).expect("is there");
    let responses = |id: &str| of(id).scored.group.rollouts.iter().map(|rollout| rollout.response.clone()).collect::<Vec<_>>();
    assert_eq!(responses("t@1"), responses("t@2"), "the same seed of the lease samples the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_waits_for_its_version_and_is_sampled_by_nothing_older() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    let learner = Learner::new(&weights, [lease("t@1", 2, 3)]);
    learner.state().endless = true;
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let (shutdown, task) = spawn(config(folder.path(), &address, &Reward::default().serve()));
    until("the group is leased", || learner.state().heartbeats.iter().any(|beat| beat.group_ids == ["t@1"])).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(learner.state().submitted.is_empty());
    learner.publisher.publish(Snapshot::new(&moved(&weights), PolicyVersion(3)));
    until("the group is handed in", || !learner.state().submitted.is_empty()).await;
    until("the new version is known", || learner.state().lease_requests.last().is_some_and(|request| request.known_version == Some(3)))
        .await;
    let group = learner.state().submitted[0].scored.group.clone();
    assert!(group.rollouts.iter().flat_map(|rollout| &rollout.versions).all(|version| *version == PolicyVersion(3)));
    shutdown.trigger();
    end(task).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_version_comes_as_a_difference_to_the_folder_in_whatever_type_it_is_published() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    let mut stepped = weights.clone();
    stepped.values_mut().flat_map(|tensor| tensor.values.iter_mut().step_by(64)).for_each(|value| *value *= 1.01);
    for dtype in [StoredDtype::F32, StoredDtype::Bf16] {
        let learner = Learner::new(&weights, [lease("t@1", 2, 1)]);
        learner.publisher.publish(Snapshot::stored(&weights, PolicyVersion(0), dtype));
        let newest = Snapshot::stored(&stepped, PolicyVersion(1), dtype);
        learner.publisher.publish(newest.clone());
        let (incoming, address) = port();
        let _serving = learner.serve_at(incoming);
        let (_, task) = spawn(config(folder.path(), &address, &Reward::default().serve()));
        end(task).await;
        let state = learner.state();
        assert_eq!((state.submitted.len(), state.weights_sent.len()), (1, 1));
        let (sent, all) = (state.weights_sent[0], newest.payload.len());
        assert!((1..all / 8).contains(&sent), "{dtype:?}: {sent} of {all} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_leases_are_dropped_and_a_denied_group_is_never_handed_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    // The first group can never begin: its version never comes. Its lease is denied, and its slot goes to the next.
    let learner = Learner::new(&weights, [lease("lost@1", 2, 99), lease("t@2", 2, 0)]);
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let config = Config { groups_in_flight: 1, ..config(folder.path(), &address, &Reward::default().serve()) };
    let lost = counted("hypereyes_actor_leases_lost_total", &[]);
    let (_, task) = spawn(config);
    until("the group is leased", || learner.state().heartbeats.iter().any(|beat| beat.group_ids == ["lost@1"])).await;
    learner.state().denied.push("lost@1".into());
    end(task).await;
    let state = learner.state();
    let ids: Vec<&str> = state.submitted.iter().map(|taught| taught.scored.group.id.as_str()).collect();
    assert_eq!(ids, ["t@2"]);
    assert!(state.abandoned.is_empty(), "what is not ours cannot be given back");
    assert!(counted("hypereyes_actor_leases_lost_total", &[]) >= lost + 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_is_late_is_waited_for_and_a_silent_teacher_is_no_signal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    let (incoming, address) = port();
    drop(incoming);
    let teacher = Teacher { forgetful: true, ..Teacher::default() };
    let before = counted("hypereyes_actor_teacher_no_signal_total", &[("reason", "missing_pictures")]);
    let (_, task) = spawn(Config { teacher: Some(teacher.serve()), ..config(folder.path(), &address, &Reward::default().serve()) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!task.is_finished());
    let learner = Learner::new(&moved(&weights), [lease("t@1", 2, 0)]);
    let socket = address.parse().expect("an address");
    let _serving = learner.serve_at(tonic::transport::server::TcpIncoming::bind(socket).expect("the port is still free"));
    end(task).await;
    let taught = learner.state().submitted[0].clone();
    assert!(taught.teacher.iter().all(Option::is_none));
    assert_eq!(counted("hypereyes_actor_teacher_no_signal_total", &[("reason", "missing_pictures")]), before + 1.0);
    assert!(
        counted("hypereyes_weights_fetches_total", &[("outcome", "ok")]) >= 1.0,
        "version 0 of the learner is not what the folder holds"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teacher_that_is_gone_is_left_alone_and_the_gauge_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let learner = Learner::new(&policy(folder.path()), ["t@1", "t@2", "t@3", "t@4", "t@5"].map(|id| lease(id, 4, 0)));
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let (gone, nobody) = port();
    drop(gone);
    let away = || counted("hypereyes_actor_teacher_no_signal_total", &[("reason", "away")]);
    let before = away();
    let teacher_breaker = BreakerConfig { failures: 1, pause_ms: 600_000, ..BreakerConfig::default() };
    let config = config(folder.path(), &address, &Reward::default().serve());
    let (_, task) = spawn(Config { teacher: Some(nobody), teacher_ms: 300, teacher_breaker, ..config });
    end(task).await;
    let state = learner.state();
    assert_eq!(state.submitted.len(), 5, "groups go on without it");
    assert!(state.submitted.iter().flat_map(|taught| &taught.teacher).all(Option::is_none));
    assert!(away() > before, "it was not asked for every group");
    assert_eq!(counted("hypereyes_actor_teacher_away", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_shutdown_groups_are_given_back_within_grace() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    let learner = Learner::new(&weights, [lease("t@1", 2, 99)]);
    learner.state().endless = true;
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let config = Config { grace_ms: 100, ..config(folder.path(), &address, &Reward::default().serve()) };
    let (shutdown, task) = spawn(config);
    until("the group is leased", || learner.state().heartbeats.iter().any(|beat| beat.group_ids == ["t@1"])).await;
    shutdown.trigger();
    end(task).await;
    let state = learner.state();
    assert_eq!(state.abandoned.len(), 1);
    assert_eq!((state.abandoned[0].group_id.as_str(), state.abandoned[0].failure()), ("t@1", v1::FailureKind::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_learner_gets_what_is_still_leased_and_busy_slots_hear_of_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    let learner = Learner::new(&weights, [lease("t@1", 2, 3), lease("lost@2", 2, 99)]);
    let (incoming, address) = port();
    let serving = learner.serve_at(incoming);
    let config = Config { groups_in_flight: 2, grace_ms: 1, ..config(folder.path(), &address, &Reward::default().serve()) };
    let (_, task) = spawn(config);
    until("both groups are leased", || learner.state().heartbeats.iter().any(|beat| beat.group_ids.len() == 2)).await;
    learner.state().finished = true;
    learner.state().denied.push("lost@2".into());
    until("one is let go", || learner.state().heartbeats.last().is_some_and(|beat| beat.group_ids == ["t@1"])).await;
    learner.publisher.publish(Snapshot::new(&moved(&weights), PolicyVersion(3)));
    end(task).await;
    assert_eq!(learner.state().submitted.len(), 1);
    assert_eq!(learner.state().lease_requests.len(), 2, "nobody asks for more");
    drop(serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_run_is_over_and_the_learner_is_gone_the_actor_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    let learner = Learner::new(&weights, [lease("t@1", 2, 99)]);
    let (incoming, address) = port();
    let serving = learner.serve_at(incoming);
    let config = Config { groups_in_flight: 1, ..config(folder.path(), &address, &Reward::default().serve()) };
    let (_, task) = spawn(config);
    until("the group is leased", || learner.state().heartbeats.iter().any(|beat| beat.group_ids == ["t@1"])).await;
    learner.state().finished = true;
    let beats = learner.state().heartbeats.len();
    until("the end is heard of", || learner.state().heartbeats.len() > beats + 1).await;
    drop(serving);
    end(task).await;
    assert!(learner.state().submitted.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_cannot_be_rolled_out_is_given_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    // The context holds 256 tokens. A group that is too large for the engine is another matter: all of a run are.
    let mut big = lease("big@1", 2, 0);
    big.task.as_mut().expect("leases have tasks").question = "peso, ".repeat(400);
    let learner = Learner::new(&weights, [big, lease("t@2", 2, 0)]);
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let config = Config { groups_in_flight: 1, ..config(folder.path(), &address, &Reward::default().serve()) };
    let (_, task) = spawn(config);
    end(task).await;
    let state = learner.state();
    assert_eq!(state.abandoned.iter().map(|abandoned| abandoned.group_id.as_str()).collect::<Vec<_>>(), ["big@1"]);
    assert_eq!(state.submitted.len(), 1);
    assert_eq!(state.pictures_sent, 1, "pictures are fetched once per actor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_picture_cannot_be_read_is_given_back_at_once_and_every_call_shows_whose_it_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let learner = Learner::new(&policy(folder.path()), [lease("broken@1", 2, 0)]);
    learner.state().endless = true;
    learner.state().unreadable = true;
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let config = Config { groups_in_flight: 1, ..config(folder.path(), &address, &Reward::default().serve()) };
    let (shutdown, task) = spawn(config);
    until("it is given back", || !learner.state().abandoned.is_empty()).await;
    {
        let state = learner.state();
        let given = &state.abandoned[0];
        assert_eq!((given.group_id.as_str(), given.failure()), ("broken@1", v1::FailureKind::Infrastructure));
        assert!(given.detail.contains("damaged"), "{}", given.detail);
    }
    learner.state().unreadable = false;
    learner.state().leases.push_back(lease("t@2", 2, 0));
    until("the next is handed in", || !learner.state().submitted.is_empty()).await;
    shutdown.trigger();
    end(task).await;
    let state = learner.state();
    let rpcs: HashSet<&str> = state.shown.iter().map(|(rpc, _)| *rpc).collect();
    assert_eq!(rpcs, HashSet::from(["lease", "submit", "heartbeat", "abandon"]));
    let secrets: HashSet<&Option<String>> = state.shown.iter().map(|(_, secret)| secret).collect();
    assert!(secrets.len() == 1 && secrets.iter().all(|secret| secret.as_ref().is_some_and(|secret| secret.len() == 64)), "{secrets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_other_try_can_mend_ends_the_actor_with_its_reason() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    // The engine holds seven siblings beside their prompt.
    let learner = Learner::new(&weights, [lease("t@1", 8, 0)]);
    learner.state().endless = true;
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let (_, task) = spawn(config(folder.path(), &address, &Reward::default().serve()));
    let ended = tokio::time::timeout(PATIENCE, task).await.expect("it ends in time").expect("no panic");
    let error = ended.expect_err("it can never hold such a group");
    assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT);
    for part in ["groups of 8", "holds 7", "engine.max_sequences to 9", "group_size"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let given_back = learner.state().abandoned.clone();
    assert_eq!(given_back.len(), 1, "once, with its reason, and not again and again");
    assert!(given_back[0].detail.contains("holds 7"), "{given_back:?}");

    // The learner trains another model.
    let other = tempfile::tempdir().expect("a temporary folder");
    let mut bigger = policy(other.path());
    let (_, tensor) = bigger.iter_mut().next().expect("a policy has tensors");
    let row = tensor.values.len() / tensor.shape[0];
    tensor.shape[0] += 1;
    tensor.values.extend(vec![0.0; row]);
    let learner = Learner::new(&bigger, [lease("t@1", 2, 0)]);
    learner.state().endless = true;
    let (incoming, address) = port();
    let _serving = learner.serve_at(incoming);
    let (_, task) = spawn(config(folder.path(), &address, &Reward::default().serve()));
    let ended = tokio::time::timeout(PATIENCE, task).await.expect("it ends in time").expect("no panic");
    let error = ended.expect_err("its weights never fit").to_string();
    assert!(error.contains("trains another model"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_of_another_release_ends_the_actor_with_one_clear_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = policy(folder.path());
    let learner = Learner::new(&weights, [lease("t@1", 2, 0)]);
    let (incoming, address) = port();
    learner.serve_as_of_old(incoming);
    let (_, task) = spawn(config(folder.path(), &address, &Reward::default().serve()));
    let ended = tokio::time::timeout(PATIENCE, task).await.expect("it ends in time").expect("no panic");
    let error = ended.expect_err("nothing would come of it");
    let text = format!("{error:#}");
    assert!(["version 2", "version 1", "run the same release of both"].iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT, "another try would fail alike");
    assert!(learner.state().submitted.is_empty());
}
