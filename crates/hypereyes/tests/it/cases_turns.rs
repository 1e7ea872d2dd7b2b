//! Turns, calls and costs that were once paid for nothing or read wrongly (`tests/cases`), with the real binary.

use crate::support;

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use hypereyes_chassis::ready::await_announcement;
use hypereyes_proto::client;
use hypereyes_proto::client::RewardClient;
use hypereyes_proto::v1;
use serde_json::Value;
use support::{hypereyes, run};

/// Longest wait for a service on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A service that does not outlive its test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended.
        let _ = self.0.wait();
    }
}

fn rollout(answer: &str, searches: &[u32]) -> v1::Trajectory {
    let rounds = searches.iter().map(|&searches| v1::Round { call: None, searches, failed_searches: 0 }).collect();
    v1::Trajectory {
        mask: Some(v1::PackedBools::default()),
        ending: v1::EndingKind::Answered.into(),
        answer: Some(answer.into()),
        rounds,
        ..v1::Trajectory::default()
    }
}

fn task() -> v1::Task {
    v1::Task {
        id: "noop".into(),
        kind: v1::TaskKind::TextualConstraints.into(),
        question: "Which city?".into(),
        answers: vec!["Paris".into()],
        reference: Some(v1::Reference { rounds: 2, searches: 4 }),
        ..v1::Task::default()
    }
}

fn request(lease: u32, rollouts: Vec<v1::Trajectory>) -> v1::ScoreGroupRequest {
    let group = v1::RolloutGroup { id: format!("noop@{lease}"), task_id: "noop".into(), actor_id: "client".into(), rollouts };
    v1::ScoreGroupRequest { group: Some(group), task: Some(task()) }
}

async fn rewards(reward: &mut RewardClient, lease: u32, rollouts: Vec<v1::Trajectory>) -> Vec<f64> {
    let reply = reward.score_group(request(lease, rollouts)).await.expect("scores").into_inner();
    reply.scores.iter().map(|score| score.reward).collect()
}

#[test]
fn case_noop_call_is_no_search() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases/noop-call-is-no-search/groups.jsonl");
    let output = run(&["score", case.to_str().expect("a path")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let scored: Value = serde_json::from_slice(&output.stdout).expect("one line");
    let of = |key: &str| scored["scores"].as_array().expect("scores").iter().map(|score| score[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("reward"), [1.2, 1.0, 1.0, 1.0]);
    assert_eq!(of("branch"), ["good", "guess", "guess", "guess"]);

    let folder = tempfile::tempdir().expect("a folder");
    let announce = folder.path().join("ready.json");
    let set = format!("process.announce={}", announce.display());
    let mut service = Service(hypereyes(&["service", "reward", "--set", "listen=127.0.0.1:0", "--set", &set]).spawn().expect("starts"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let said = await_announcement(&announce, tokio::time::Instant::now() + PATIENCE).await.expect("the service comes up");
        let mut reward = client::reward(&said.addr.to_string()).expect("an address");
        let first = rewards(&mut reward, 1, vec![rollout("Paris", &[0]), rollout("Paris", &[2, 2])]).await;
        assert_eq!(first, [1.0, 1.2]);
        reward.commit_epoch(v1::CommitEpochRequest { epoch: 1 }).await.expect("commits");
        let known = reward.get_reference(v1::GetReferenceRequest { task_id: "noop".into() }).await.expect("answers").into_inner().reference;
        assert_eq!(known, Some(v1::Reference { rounds: 2, searches: 4 }));
        let honest = vec![rollout("Paris", &[3]), rollout("Paris", &[2, 2]), rollout("Rome", &[2])];
        assert_eq!(rewards(&mut reward, 2, honest).await, [1.2, 1.05, -0.1]);

        // Counts that contradict each other are refused, and the field is named.
        let mut failed = rollout("Paris", &[1]);
        failed.rounds[0].failed_searches = 2;
        let silent = v1::Trajectory { answer: None, ..rollout("Paris", &[1]) };
        let mut bought = request(5, vec![rollout("Paris", &[1])]);
        bought.task.as_mut().expect("a task").reference = Some(v1::Reference { rounds: 1, searches: 0 });
        let wrapping = rollout("Paris", &[u32::MAX, 1]);
        for (refused, field) in [
            (request(3, vec![failed]), "rollouts[0].rounds[0].failed_searches"),
            (request(4, vec![silent]), "rollouts[0].answer"),
            (bought, "reference.searches"),
            (request(6, vec![wrapping]), "rollouts[0].rounds[0].searches"),
        ] {
            let status = reward.score_group(refused).await.expect_err("refused");
            assert_eq!(format!("{:?}", status.code()), "InvalidArgument", "{status}");
            assert!(status.message().starts_with(field), "{status}");
        }
    });
    support::signal("TERM", service.0.id().into());
    assert!(service.0.wait().expect("it ends").success());
}

/// Settings that a service of any kind reads are refused by name, with what there is.
#[test]
fn unknown_units_of_boxes_are_refused() {
    for arguments in [
        &["up", "--dry-run", "--set", "rollout.env.box_units=percent"][..],
        &["eval", "--model", "nowhere", "--set", "rollout.env.box_units=percent"][..],
        &["service", "actor", "--set", "rollout.env.box_units=percent"][..],
    ] {
        let output = run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        let line = said.lines().last().unwrap_or_default();
        assert!(line.contains("rollout.env.box_units") && line.contains("thousandths"), "{arguments:?}: {line}");
    }
    let output = run(&["up", "--dry-run", "--set", "rollout.env.box_units=thousandths"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("box_units = \"thousandths\""));
}
