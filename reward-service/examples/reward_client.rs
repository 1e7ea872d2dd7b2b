//! Calls a reward service that runs: `cargo run --release -p hypereyes-reward-service --example reward_client [HOST:PORT]`.
//!
//! In: its address, 127.0.0.1:7001 where none is given. Out: the reward, the rule and the route of two rollouts. Start the service
//! before: `cargo run --release -p hypereyes-reward-service -- --set listen=127.0.0.1:7001`.

use std::error::Error;
use std::time::Duration;

use hypereyes_domain::{Ending, RolloutGroup, RolloutSummary, Round, Task};
use hypereyes_proto::{client, convert, v1};
use serde_json::json;

/// A rollout that answered, with so many searches in each of its rounds.
fn answered(answer: &str, searches: &[u32]) -> RolloutSummary {
    RolloutSummary {
        rounds: searches.iter().map(|&searches| Round::counted(searches, 0)).collect(),
        ending: Ending::Answered,
        answer: Some(answer.to_owned()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7001".to_owned());
    // As a line of `tasks.jsonl` has it.
    let reference = json!({"rounds": 2, "searches": 4});
    let line = json!({"id": "t", "kind": "visual_select", "question": "Which city?", "answers": ["Paris"], "reference": reference});
    let task: Task = serde_json::from_value(line)?;
    // Answers and costs are enough; tokens may stay where they are.
    let rollouts = vec![answered("the paris", &[3, 1]).into(), answered("Rome", &[1]).into()];
    let group = RolloutGroup { id: "t@1".into(), task: task.id.clone(), actor: "example".into(), rollouts };

    let mut service = client::reward(&address)?;
    let request = v1::ScoreGroupRequest { group: Some(group.clone().into()), task: Some(task.into()) };
    let reply = tokio::time::timeout(Duration::from_secs(10), service.score_group(request)).await??;
    for score in convert::join(group, reply.into_inner())?.scores {
        println!("reward {:.2} {} {:?}", score.reward, score.branch.label(), score.route);
    }
    Ok(())
}
