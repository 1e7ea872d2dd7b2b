//! Scores a group with TRACE, without a service: `cargo run --release -p hypereyes-scoring --example score_group [FILE]`.
//!
//! In: a JSON object with a task, how its rollouts went (rounds, ending, answer; no tokens), and the reference they are measured
//! against; `group.json` beside this file where none is named. Out: one line per rollout, with its accuracy, bonus, reward and route.

use std::error::Error;

use hypereyes_domain::{Reference, RolloutSummary, Task};
use hypereyes_scoring::{AliasJudge, TraceConfig, candidate, score_group};
use serde::Deserialize;

/// What the file holds.
#[derive(Deserialize)]
struct Group {
    task: Task,
    rollouts: Vec<RolloutSummary>,
    reference: Option<Reference>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let text = match std::env::args().nth(1) {
        Some(file) => std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?,
        None => include_str!("group.json").to_owned(),
    };
    let group: Group = serde_json::from_str(&text)?;
    for rollout in &group.rollouts {
        // Counts that contradict each other would be paid all the same.
        rollout.check()?;
    }

    // The constants of the paper, and answers compared as spellings. A judge of your own implements `Judge`.
    let config = TraceConfig::default();
    let scores = score_group(&config, &AliasJudge, &group.task, &group.rollouts, group.reference);

    println!("{:<10} {:>6} {:>8} {:>7} {:>7}  route", "accuracy", "rounds", "searches", "bonus", "reward");
    for (rollout, score) in group.rollouts.iter().zip(&scores) {
        println!(
            "{:<10} {:>6} {:>8} {:>+7.2} {:>+7.2}  {:?}",
            format!("{:?}", score.accuracy),
            rollout.round_count(),
            rollout.searches(),
            score.bonus,
            score.reward,
            score.route
        );
    }
    // What the reward service would remember: the cheapest success of the group.
    if let Some(cheapest) = candidate(&scores, &group.rollouts) {
        let tightened = Reference::tighten(group.reference, cheapest.reference);
        println!("the task's reference is now {} rounds, {} searches", tightened.rounds, tightened.searches);
    }
    Ok(())
}
