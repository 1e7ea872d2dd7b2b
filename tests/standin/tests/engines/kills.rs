//! A server of `engine.command` that is killed in the middle of turns: it is back with the newest weights, and no turn is lost or doubled.

use std::sync::Arc;

use futures::future::join_all;
use hypereyes_engines::command::EngineCommand;
use hypereyes_standin::Dialect;
use hypereyes_standin::audit::prompt_digest;
use serde_json::Value;

use crate::fleet::{Play, alone, config, local, open, push, sent};
use crate::support::{PATIENCE, Policy};

pub const STANDIN: &str = env!("CARGO_BIN_EXE_hypereyes-standin");
/// Rollouts in one wave, and waves, each with a kill.
const ROLLOUTS: u64 = 12;
const WAVES: u64 = 3;

/// The process that a leash holds.
pub fn held(leash: u32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{leash}/task/{leash}/children")).expect("it runs");
    text.split_whitespace().next().expect("it holds a server").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_turns_loses_and_doubles_nothing() {
    let (_alone, _) = alone().await;
    let policy = Policy::new();
    let (log, audit) = (policy.folder.path().join("engine.log"), policy.folder.path().join("audit.jsonl"));
    let words = [STANDIN, "--model", "{model}", "--port", "{port}", "--audit", audit.to_str().expect("a path")];
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let server = EngineCommand::new(&words, &policy.start(), &log).expect("a free port").held_by(STANDIN).start();
    let url = server.url().to_owned();
    server.ready(PATIENCE).await.expect("comes up");
    let there = open(&policy, &config(Dialect::Vllm, &[&url], &policy.folder.path().join("policies")));
    there.ready().await.expect("it takes part");
    let here = local(&policy);
    let weights = policy.scaled(1.1);
    for engine in [&there, &here] {
        push(engine, &weights, 1).await.expect("taken");
    }
    let play = Play::new(&policy);
    let mut done = vec![];
    for wave in 0..WAVES {
        let seeds: Vec<u64> = (wave * ROLLOUTS..(wave + 1) * ROLLOUTS).collect();
        let rolling = join_all(seeds.iter().map(|seed| {
            let (engine, play) = (there.clone(), Arc::clone(&play));
            let seed = *seed;
            tokio::spawn(async move { play.roll_out(&engine, seed, 3, 24).await })
        }));
        let killing = async {
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            std::process::Command::new("kill").args(["-9", &held(server.process().expect("it runs"))]).status().expect("kill runs");
        };
        let (rollouts, ()) = tokio::join!(rolling, killing);
        done.extend(seeds.into_iter().zip(rollouts.into_iter().map(|rollout| rollout.expect("no panic"))));
    }
    assert_eq!(u64::from(server.restarts()), WAVES);
    for (seed, rollout) in &done {
        assert!(rollout.error.is_none(), "{:?}", rollout.error);
        assert_eq!(rollout.turns, play.roll_out(&here, *seed, 3, 24).await.turns, "as if nothing had happened");
    }
    assert_eq!(done.len() as u64, WAVES * ROLLOUTS);
    // All of it was said by a server that held the newest weights.
    let text = std::fs::read_to_string(&audit).expect("written");
    let entries: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for turn in done.iter().flat_map(|(_, rollout)| &rollout.turns) {
        let digest = prompt_digest(&turn.prompt);
        let own = entries.iter().filter(|entry| entry["prompt"] == digest.as_str() && entry["seed"] == sent(turn.seed));
        let labels: Vec<&str> = own.filter_map(|entry| entry["labels"][0][0].as_str()).collect();
        assert!(!labels.is_empty() && labels.iter().all(|label| label.starts_with("v1-")), "{labels:?}");
    }
    server.stop().await;
}
