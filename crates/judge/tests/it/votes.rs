//! Several votes on one answer.

use std::collections::BTreeMap;
use std::time::Duration;

use hypereyes_domain::Accuracy;
use hypereyes_judge::{ModelConfig, ModelJudge, PromptKind, accuracies, metrics as names, probe};
use hypereyes_scoring::{Tally, Verdict};
use metrics_util::debugging::DebuggingRecorder;

use crate::rig::{FAILED, config, counted, group, judged, says, task};
use crate::support::{Reply, Server};

/// A server that says to each seed what stands at its place: `c`, `w`, `n`, or `-` for a failure.
async fn voters(kind: PromptKind, script: &'static str) -> Server {
    Server::start(move |asked| {
        let seed = asked.body["seed"].as_u64().expect("votes have seeds") as usize;
        match script.as_bytes()[seed] {
            b'c' => Reply::say(&says(kind, Verdict::Correct)),
            b'w' => Reply::say(&says(kind, Verdict::Wrong)),
            b'n' => Reply::say(&says(kind, Verdict::NotAttempted)),
            _ => Reply::refuse(401, "no"),
        }
    })
    .await
}

fn three(server: &Server, kind: PromptKind) -> ModelConfig {
    ModelConfig { votes: 3, temperature: 0.7, prompt: kind, ..config(server) }
}

#[tokio::test]
async fn more_than_half_of_the_votes_are_a_verdict_and_fewer_are_none() {
    for kind in PromptKind::ALL {
        for (script, want) in [
            ("ccc", Accuracy::Correct),
            ("cwc", Accuracy::Correct),
            ("wcw", Accuracy::Wrong),
            ("c-c", Accuracy::Correct),
            ("-ww", Accuracy::Wrong),
            ("cw-", FAILED),
            ("c--", FAILED),
            ("---", FAILED),
        ] {
            let server = voters(kind, script).await;
            assert_eq!(judged(&three(&server, kind), &["Paris"]).await, [want], "{kind:?}: {script}");
        }
    }
    for (script, want) in [("nnc", Accuracy::NotAttempted), ("cwn", FAILED)] {
        let server = voters(PromptKind::SimpleQa, script).await;
        assert_eq!(judged(&three(&server, PromptKind::SimpleQa), &["Paris"]).await, [want], "{script}");
    }
}

/// A group that comes again pays for the votes that are missing, and for no other.
#[tokio::test]
async fn votes_are_remembered_one_by_one() {
    let server = Server::start(|asked| match (asked.body["seed"].as_u64(), asked.number) {
        (Some(0), _) => Reply::say("correct"),
        (Some(1), _) => Reply::say("incorrect"),
        (_, number) if number < 3 => Reply::refuse(401, "not yet"),
        _ => Reply::say("correct"),
    })
    .await;
    let judge = ModelJudge::new(&three(&server, PromptKind::Plain)).unwrap();
    let (task, group) = (task(), group(&["Paris"]));
    let tally = Tally::of(&group);
    assert_eq!(accuracies(&judge, &task, &tally).await[..], [FAILED]);
    assert_eq!(server.count(), 3);
    assert_eq!(accuracies(&judge, &task, &tally).await[..], [Accuracy::Correct]);
    assert_eq!(server.count(), 4, "the one that was missing");
    assert_eq!(accuracies(&judge, &task, &tally).await[..], [Accuracy::Correct]);
    assert_eq!(server.count(), 4);
}

/// Votes that are all there and leave no side more than half are asked for anew when the answer comes again.
#[tokio::test]
async fn a_split_is_not_remembered() {
    let server = Server::start(|asked| match (asked.body["seed"].as_u64(), asked.number) {
        (_, number) if number >= 3 => Reply::say("incorrect"),
        (Some(0), _) => Reply::say("correct"),
        (Some(1), _) => Reply::say("incorrect"),
        _ => Reply::say("not attempted"),
    })
    .await;
    let judge = ModelJudge::new(&three(&server, PromptKind::SimpleQa)).unwrap();
    let (task, group) = (task(), group(&["Paris"]));
    let tally = Tally::of(&group);
    assert_eq!(accuracies(&judge, &task, &tally).await[..], [FAILED]);
    assert_eq!(accuracies(&judge, &task, &tally).await[..], [Accuracy::Wrong]);
}

#[tokio::test]
async fn votes_and_what_they_come_to_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _here = metrics::set_default_local_recorder(&recorder);
    let counts = |name: &str| counted(&snapshotter, name);
    let want = |all: &[(&str, u64)]| all.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect::<BTreeMap<_, _>>();
    for (name, all) in [
        (names::JUDGE_VOTES, want(&[("correct", 1), ("wrong", 1), ("not_attempted", 1)])),
        (names::JUDGE_MISSES, want(&[("split", 1)])),
        (names::JUDGE_VERDICTS, want(&[("failed", 1)])),
    ] {
        let server = voters(PromptKind::SimpleQa, "cwn").await;
        assert_eq!(judged(&three(&server, PromptKind::SimpleQa), &["Paris"]).await, [FAILED]);
        assert_eq!(counts(name), all, "{name}");
    }
    let server = voters(PromptKind::Plain, "ccc").await;
    let judge = ModelJudge::new(&three(&server, PromptKind::Plain)).unwrap();
    for label in ["correct", "remembered"] {
        assert_eq!(accuracies(&judge, &task(), &Tally::of(&group(&["Paris"]))).await[..], [Accuracy::Correct]);
        assert_eq!(counts(names::JUDGE_VERDICTS), want(&[(label, 1)]));
    }
    let none = ModelConfig { cache_path: Some("/no/such/folder/verdicts.jsonl".into()), ..three(&server, PromptKind::Plain) };
    assert_eq!(judged(&none, &["Paris"]).await, [Accuracy::Correct]);
    assert_eq!(counts(names::JUDGE_CACHE_ERRORS), want(&[("open", 1)]));
}

/// Two that agree are enough; nobody waits for a third that does not come.
#[tokio::test]
async fn a_vote_that_can_change_nothing_is_not_waited_for() {
    let server = Server::start(|asked| match asked.body["seed"].as_u64() {
        Some(2) => Reply::Slow(Duration::from_secs(25), Box::new(Reply::say("incorrect"))),
        _ => Reply::say("correct"),
    })
    .await;
    let began = std::time::Instant::now();
    assert_eq!(judged(&three(&server, PromptKind::Plain), &["Paris"]).await, [Accuracy::Correct]);
    assert!(began.elapsed() < Duration::from_secs(8), "the slow one takes 25 s");
}

/// The file outlives the process: another judge with the same settings asks only for what it does not hold.
#[tokio::test]
async fn votes_are_kept_from_run_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("verdicts.jsonl");
    let server = Server::start(|_| Reply::say("correct")).await;
    let config = ModelConfig { cache_path: Some(path.clone()), ..config(&server) };
    assert_eq!(judged(&config, &["Paris", "Rome"]).await, [Accuracy::Correct; 2]);
    assert_eq!(server.count(), 2);
    assert_eq!(judged(&config, &["Rome", "Paris", "Oslo"]).await, [Accuracy::Correct; 3]);
    assert_eq!(server.count(), 3, "Oslo alone is new");
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    judged(&ModelConfig { prompt: PromptKind::HyperEyes, ..config.clone() }, &["Oslo"]).await;
    assert_eq!(server.count(), 4, "another prompt is another question");
    // A file that cannot be used costs what it would have saved, and no verdict.
    let none = ModelConfig { cache_path: Some(folder.path().join("no/such")), ..config };
    assert_eq!(judged(&none, &["Oslo"]).await, [Accuracy::Correct]);
    assert_eq!(server.count(), 5);
}

/// Whether a server answers is not known from what it said in another run.
#[tokio::test]
async fn a_probe_asks_the_server_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Reply::say("correct")).await;
    let config = ModelConfig { cache_path: Some(folder.path().join("verdicts.jsonl")), ..config(&server) };
    for count in [1, 2] {
        assert_eq!((probe(&config, Duration::from_secs(20)).await, server.count()), (Ok(true), count));
    }
}
