//! Each lie, one at a time: it has its own name in the counts, and no turn that is handed over was made of it.

use hypereyes_domain::Failure;
use hypereyes_engines::{Engine, EngineConfig};
use hypereyes_standin::{Dialect, Lie, Options, Standin};

use crate::fleet::{Play, alone, config, honest, open, push, version};
use crate::support::{Policy, until};

/// What a lie is counted as, and whether the turn is asked again.
fn named(lie: Lie) -> (&'static str, bool) {
    match lie {
        Lie::ShortIds => ("short_ids", false),
        Lie::OtherIds => ("other_ids", false),
        // Whatever else the server read: it is not what was meant.
        Lie::OtherPrompt | Lie::Expansion => ("expansion", false),
        Lie::NoLogprobs => ("no_logprobs", false),
        Lie::NotFinite => ("not_finite", false),
        Lie::PositiveLogprob => ("positive_logprob", false),
        Lie::StaleVersion | Lie::Swap => ("stale_version", true),
        Lie::Hang => ("slow", true),
        Lie::Drop | Lie::Restart => ("transport", true),
        Lie::Busy | Lie::Unavailable => ("busy", true),
        Lie::Malformed => ("malformed", true),
        Lie::Oversized => ("too_long", false),
        Lie::ReloadFails => unreachable!("it is none of a turn"),
    }
}

/// An honest server, and an engine at it that waits so long for answers.
async fn taking_part(policy: &Policy, dialect: Dialect, request_timeout_s: u64) -> (Standin, Engine) {
    let standin = Standin::start(Options::new(policy.start(), dialect)).await.expect("starts");
    let folder = policy.folder.path().join(format!("policies-{dialect:?}"));
    let engine = open(policy, &EngineConfig { request_timeout_s, ..config(dialect, &[standin.url()], &folder) });
    engine.ready().await.expect("it takes part");
    (standin, engine)
}

async fn every_lie(dialect: Dialect) {
    let (_alone, mut counts) = alone().await;
    let policy = Policy::new();
    let (standin, engine) = taking_part(&policy, dialect, 3).await;
    let play = Play::new(&policy);
    let mut reference = play.roll_out(&engine, 7, 1, 6).await.turns;
    let reference = reference.remove(0);
    counts.since();
    for lie in Lie::of_turns() {
        let (outcome, again) = named(lie);
        let before = standin.audit().len();
        standin.lie_next(lie);
        // Looks at servers ask for tokens as well, and may meet it instead: then it is told again.
        let rollout = loop {
            let rollout = play.roll_out(&engine, 7, 1, 6).await;
            let entries = standin.audit();
            let met = entries[before..].iter().any(|entry| entry.lie == Some(lie));
            if met && counts.all().get(outcome).is_some() {
                break rollout;
            }
            standin.lie_next(lie);
        };
        let entries = standin.audit();
        match (&rollout.error, again) {
            (None, true) => {
                let turn = &rollout.turns[0];
                assert_eq!(turn, &reference, "{lie}: a turn that is asked again is the same turn");
                assert!(honest(turn, &entries).is_some());
            }
            (Some(error), false) => {
                assert!(rollout.turns.is_empty());
                assert_eq!(error.failure, Failure::Infrastructure, "{lie}: {error}");
                assert!(error.message.contains(outcome), "{lie}: {error}");
            }
            other => panic!("{dialect:?} {lie}: {other:?}"),
        }
        // It has passed, whatever the server was left with.
        let passed = play.roll_out(&engine, 7, 1, 6).await;
        assert_eq!(passed.turns, std::slice::from_ref(&reference), "{dialect:?} {lie}: {:?}", passed.error);
        counts.since();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_of_vllm_has_its_name_and_is_not_trained() {
    every_lie(Dialect::Vllm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_of_sglang_has_its_name_and_is_not_trained() {
    every_lie(Dialect::Sglang).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_are_not_taken_leave_those_of_before_and_come_with_the_next() {
    let (_alone, _) = alone().await;
    let policy = Policy::new();
    let play = Play::new(&policy);
    let weights = policy.scaled(0.5);
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let (standin, engine) = taking_part(&policy, dialect, 20).await;
        let before = play.roll_out(&engine, 3, 2, 6).await.turns;
        standin.lie_next(Lie::ReloadFails);
        let error = push(&engine, &weights, 1).await.expect_err("it was not taken");
        assert!(error.contains("out of memory"), "{error}");
        assert_eq!(play.roll_out(&engine, 3, 2, 6).await.turns, before, "{dialect:?}");
        push(&engine, &weights, 2).await.expect("it is taken");
        let after = play.roll_out(&engine, 3, 2, 6).await.turns;
        assert!(after != before && after.iter().all(|turn| turn.sampled.versions.iter().all(|version| version.0 == 2)));
        let entries = standin.audit();
        assert!(after.iter().all(|turn| honest(turn, &entries).is_some_and(|entry| version(&entry.labels[0].0) == Some(2))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_again_is_given_the_newest_weights_before_it_is_asked() {
    let (_alone, _) = alone().await;
    let policy = Policy::new();
    let play = Play::new(&policy);
    let weights = policy.scaled(0.5);
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let (standin, engine) = taking_part(&policy, dialect, 20).await;
        push(&engine, &weights, 5).await.expect("it is taken");
        let before = play.roll_out(&engine, 4, 2, 6).await.turns;
        standin.restart().await;
        until("it answers as before", async || play.roll_out(&engine, 4, 2, 6).await.turns == before).await;
        let entries = standin.audit();
        // Those that went to it before anybody saw that it was another are no honest turns of version 5.
        assert!(before.iter().all(|turn| honest(turn, &entries).is_some_and(|entry| version(&entry.labels[0].0) == Some(5))));
    }
}
