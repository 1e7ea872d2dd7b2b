//! Groups to measure with. In: a seed. Out: a task and groups of eight as an actor sends them, answers and costs.
//!
//! `bench/peers/trace.py` makes the same ones, draw by draw, so that both are timed on one input and must agree on its
//! rewards.

use hypereyes_domain::{Course, Ending, Reference, RolloutGroup, Round, Task, TaskId, TaskKind};

/// A linear congruential generator: any language has its draws in three lines.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// The draws of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

/// A task with two right answers and a reference.
pub fn task(at: usize) -> Task {
    Task {
        id: TaskId::new(format!("task-{at}")),
        kind: TaskKind::VisualSelect,
        question: "Which one has capital Rabat?".into(),
        answers: vec!["Morocco".into(), "Kingdom of Morocco".into()],
        pictures: vec![],
        layer: 0,
        shown: vec![],
        reference: Some(Reference { rounds: 4, searches: 8 }),
    }
}

/// A group of eight rollouts of a [`task`].
pub fn group(draws: &mut Draws, lease: usize, task: &Task) -> RolloutGroup<Course> {
    let rollout = |draws: &mut Draws| {
        let answer = ["Morocco", "the kingdom of Morocco.", "Tunisia", ""][draws.below(4) as usize];
        let rounds = (0..draws.below(6)).map(|_| Round { call: None, searches: 1 + draws.below(4), failed_searches: 0 });
        let rounds = rounds.collect();
        Course { rounds, ending: Ending::Answered, answer: Some(answer.to_owned()) }
    };
    let rollouts = (0..8).map(|_| rollout(draws)).collect();
    RolloutGroup { id: format!("{}@{lease}", task.id).as_str().into(), task: task.id.clone(), actor: "bench".into(), rollouts }
}

#[cfg(test)]
mod tests {
    use super::{Draws, group, task};
    use crate::{AliasJudge, TraceConfig, score_group};

    /// The sum that `bench/peers/trace.py` checks its own rewards against.
    #[test]
    fn the_peer_is_timed_on_the_same_groups() {
        let (mut draws, task) = (Draws::new(0), task(0));
        let scores = (0..2048).flat_map(|lease| {
            let group = group(&mut draws, lease, &task);
            score_group(&TraceConfig::default(), &AliasJudge, &task, &group.rollouts, task.reference)
        });
        let sum: f64 = scores.map(|score| score.reward).sum();
        assert!((sum - 6231.0868).abs() < 1e-6, "{sum}");
    }
}
