//! Calls a reward service that runs: `cargo run --release -p hypereyes-reward-service --example reward_client [HOST:PORT]`.
//!
//! In: its address, 127.0.0.1:7001 where none is given. Out: the reward, the rule and the route of two rollouts. Start the service
//! before: `cargo run --release -p hypereyes-reward-service -- --set listen=127.0.0.1:7001`.

use std::error::Error;
use std::time::Duration;

use hypereyes_domain::{Ending, Reference, RolloutGroup, RolloutSummary, Round, Task, TaskKind};
use hypereyes_proto::{client, convert, v1};

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
    let task = Task {
        id: "t".into(),
        kind: TaskKind::VISUAL_SELECT,
        question: "Which city?".into(),
        answers: vec!["Paris".into()],
        pictures: vec![],
        layer: None,
        metadata: Default::default(),
        shown: vec![],
        reference: Some(Reference { rounds: 2, searches: 4 }),
    };
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
