//! Groups to measure with. In: a seed. Out: a task and groups of eight as an actor sends them, answers and costs, and as the released
//! reward gets them, transcripts.
//!
//! `bench/peers/trace.py` and `released.py` make the same ones, draw by draw, so that both are timed on one input and must agree on
//! its rewards.

use crate::compat::Sample;
use hypereyes_domain::{Ending, Reference, RolloutGroup, RolloutSummary, Round, Task, TaskId, TaskKind};

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
        kind: TaskKind::VISUAL_SELECT,
        question: "Which one has capital Rabat?".into(),
        answers: vec!["Morocco".into(), "Kingdom of Morocco".into()],
        pictures: vec![],
        layer: None,
        metadata: Default::default(),
        shown: vec![],
        reference: Some(Reference { rounds: 4, searches: 8 }),
    }
}

/// A group of eight rollouts of a [`task`].
pub fn group(draws: &mut Draws, lease: usize, task: &Task) -> RolloutGroup<RolloutSummary> {
    let rollout = |draws: &mut Draws| {
        let answer = ["Morocco", "the kingdom of Morocco.", "Tunisia", ""][draws.below(4) as usize];
        let rounds = (0..draws.below(6)).map(|_| Round::counted(1 + draws.below(4), 0));
        let rounds = rounds.collect();
        RolloutSummary { rounds, ending: Ending::Answered, answer: Some(answer.to_owned()) }
    };
    let rollouts = (0..8).map(|_| rollout(draws)).collect();
    RolloutGroup { id: format!("{}@{lease}", task.id).as_str().into(), task: task.id.clone(), actor: "bench".into(), rollouts }
}

/// Transcripts of a group of eight: up to five turns with calls, some of several queries, some of several calls; observations of no
/// words to four hundred.
pub fn transcripts(draws: &mut Draws) -> Vec<Sample> {
    const WORDS: [&str; 8] = ["capital", "of", "the", "river", "Rabat", "mayor", "1", "founded"];
    let words = |draws: &mut Draws, count: u32| (0..count).map(|_| WORDS[draws.below(8) as usize]).collect::<Vec<_>>().join(" ");
    let call = |draws: &mut Draws| {
        let queries = 0..=draws.below(4);
        let query = |_| {
            let count = 2 + draws.below(6);
            words(draws, count)
        };
        let queries: Vec<String> = queries.map(query).collect();
        let (name, key) = [("text_search", "input"), ("text_search", "input"), ("image_search", "img_id")][draws.below(3) as usize];
        format!(r#"<tool_call>{{"name": "{name}", "arguments": {{"{key}": "{}"}}}}</tool_call>"#, queries.join("|"))
    };
    let turn = |draws: &mut Draws| {
        let thought = 5 + draws.below(30);
        let thought = words(draws, thought);
        let calls: String = (0..=draws.below(4) / 3).map(|_| call(draws)).collect();
        let found = draws.below(400);
        let found = words(draws, found);
        format!(
            "<reason>{thought}</reason>{calls}<|im_end|>\n<|im_start|>user\n<tool_response>{found}</tool_response><|im_end|>\n<|im_start|>assistant\n"
        )
    };
    let sample = |draws: &mut Draws| {
        let turns: String = (0..draws.below(6)).map(|_| turn(draws)).collect();
        let end = ["<answer>Morocco</answer>", "<answer>It is MOROCCO, I think</answer>", "<answer>Tunisia</answer>", "<answer>Moro"]
            [draws.below(4) as usize];
        Sample {
            response: format!("{turns}<reason>so</reason>{end}<|im_end|>"),
            label: serde_json::json!({"ground_truth": "Morocco"}),
            metadata: serde_json::json!({"question": "<image>Which one has capital Rabat?", "type": "only_acc", "tool_call": 4, "parallel": "[2, 2, 2, 2]"}),
        }
    };
    (0..8).map(|_| sample(draws)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Draws, group, task, transcripts};
    use crate::compat::reward_func;
    use crate::{AliasJudge, ContainsJudge, TraceConfig, score_group};

    /// The sum that `bench/peers/released.py` checks its own scores against.
    #[test]
    fn the_peer_reads_the_same_transcripts() {
        let mut draws = Draws::new(0);
        let sum: f64 = (0..512).flat_map(|_| reward_func(&transcripts(&mut draws), &ContainsJudge)).map(|score| score.score).sum();
        assert!((sum - 1630.495).abs() < 1e-6, "{sum}");
    }

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
