//! Many turns among lies, at two servers, with new weights all the while: what can be trained on is what was said honestly, and every turn
//! comes to one end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use hypereyes_engines::EngineConfig;
use hypereyes_standin::{Dialect, Lies, Options, Standin};

use crate::fleet::{Play, alone, config, honest, old_name, open, push, version};
use crate::support::Policy;

/// Turns of a rollout.
const TURNS: u64 = 2;
/// Rollouts at once.
const AT_ONCE: usize = 16;

async fn among_lies(dialect: Dialect, turns: u64, rate: f64) {
    let (_alone, mut counts) = alone().await;
    let policy = Policy::new();
    let mut servers = vec![];
    for _ in 0..2 {
        let mut options = Options::new(policy.start(), dialect);
        options.down = Duration::from_millis(20);
        servers.push(Standin::start(options).await.expect("starts"));
    }
    let urls: Vec<&str> = servers.iter().map(Standin::url).collect();
    let folder = policy.folder.path().join("policies");
    let engine = open(&policy, &EngineConfig { request_timeout_s: 4, ..config(dialect, &urls, &folder) });
    engine.ready().await.expect("they take part");
    for (seed, server) in servers.iter().enumerate() {
        server.set_lies(Lies::all(seed as u64, rate));
    }
    let play = Play::new(&policy);
    let rollouts = turns / TURNS;
    let rolling = async {
        let one = |seed| {
            let (engine, play) = (engine.clone(), Arc::clone(&play));
            async move { play.roll_out(&engine, seed, TURNS, 4).await }
        };
        stream::iter(0..rollouts).map(one).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await
    };
    let publishing = async {
        // Weights that differ a little each time: tokens of another version would be other tokens.
        for number in 1.. {
            // One that no server takes is gone: the next will come.
            let _ = push(&engine, &policy.scaled(1.0 + number as f32 / 500.0), number).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let done = tokio::select! {
        done = rolling => done,
        () = publishing => unreachable!("it never ends"),
    };

    let entries: Vec<_> = servers.iter().flat_map(Standin::audit).collect();
    let lied: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.lie).map(|lie| lie.name()).collect();
    assert!(lied.len() >= 12, "{lied:?}");
    let trainable: Vec<_> = done.iter().flat_map(|rollout| &rollout.turns).collect();
    for turn in &trainable {
        let entry = honest(turn, &entries).or_else(|| old_name(turn, &entries)).unwrap_or_else(|| {
            let near: Vec<_> = entries.iter().filter(|entry| entry.tokens == turn.sampled.tokens).collect();
            panic!("nobody said honestly: {turn:?}, but {near:?}")
        });
        // Every token is of weights that this engine put there, and none of an older version than the turn counts as.
        let counts_as = turn.sampled.versions[0].0;
        assert!(turn.sampled.versions.iter().all(|version| version.0 == counts_as));
        let of: Vec<Option<u64>> = entry.labels.iter().map(|(label, ..)| version(label)).collect();
        assert!(of.iter().all(|version| version.is_some_and(|version| version >= counts_as)), "{of:?} as {counts_as}");
    }
    // Every rollout came to one end: all of its turns, or an error that masks it.
    assert_eq!(done.len() as u64, rollouts);
    assert!(done.iter().all(|rollout| rollout.error.is_some() || rollout.turns.len() as u64 == TURNS));
    let failed = done.iter().filter(|rollout| rollout.error.is_some()).count() as f64 / rollouts as f64;
    // Half of the lies are asked again and pass.
    assert!(failed < TURNS as f64 * rate, "{failed} failed");
    let asked_again = counts.all().clone();
    println!("{dialect:?}: {} turns, {} trainable, {:.1} % of rollouts failed, {asked_again:?}", turns, trainable.len(), 100.0 * failed);
    assert_eq!(asked_again["ok"], trainable.len() as u64, "none is counted twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_among_a_thousand_turns_is_trained() {
    among_lies(Dialect::Vllm, 500, 0.05).await;
    among_lies(Dialect::Sglang, 500, 0.05).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: minutes; cargo test --release -p hypereyes-standin --test engines -- --ignored"]
async fn no_lie_among_ten_thousand_turns_of_vllm_is_trained() {
    among_lies(Dialect::Vllm, 10_000, 0.05).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: minutes; cargo test --release -p hypereyes-standin --test engines -- --ignored"]
async fn no_lie_among_ten_thousand_turns_of_sglang_is_trained() {
    among_lies(Dialect::Sglang, 10_000, 0.05).await;
}
