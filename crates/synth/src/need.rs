//! The need-search filter: drops what a policy answers without tools (docs/spec.md#synthesis, step 3).
//!
//! In: a policy, a judge, how it is sampled and how often it may try. Out: what it answers of a task, and a filter for
//! [`crate::synthesise`]. A policy that fails to answer for a reason of its own machine drops nothing: the filter only removes what is
//! known to be too easy.

use std::sync::Arc;

use hypereyes_domain::{Ending, Sampling, Task, Trajectory};
use hypereyes_judge::Verdicts;
use hypereyes_pictures::Picture;
use hypereyes_rollout::Player;
use hypereyes_scoring::Verdict;
use serde_json::{Value, json};

use crate::NeedSearch;
use crate::served::{Bill, ByHeart};

/// Whoever is asked without tools.
#[derive(Clone)]
pub struct ClosedBook {
    /// The policy.
    pub player: Arc<dyn Player>,
    /// What it is called.
    pub model: String,
    /// Who says what is right.
    pub judge: Arc<dyn Verdicts>,
    /// How it is sampled.
    pub sampling: Sampling,
    /// How often it may try.
    pub tries: u32,
    /// Right tries that may be luck; one more is knowledge.
    pub at_most: u32,
}

/// What it answered.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// How many tries were right; `None` where one of them failed, so that nobody knows.
    pub by_heart: Option<ByHeart>,
    /// What it wrote, and what it was asked.
    pub written: Vec<Value>,
}

impl ClosedBook {
    /// Asks for a task.
    pub async fn ask(&self, task: &Task, pictures: &[Arc<Picture>]) -> Asked {
        let seeds: Vec<u64> = (0..u64::from(self.tries)).collect();
        let Ok(answers) = self.player.closed_book(task, pictures, &seeds, self.sampling).await else { return Asked::default() };
        let said: Vec<&str> = answers.iter().filter_map(|trajectory| trajectory.summary.answer.as_deref()).collect();
        let verdicts = self.judge.verdicts(&task.question, &said, &task.answers).await;
        let written = seeds.iter().zip(&answers).map(|(seed, trajectory)| self.written(task, *seed, trajectory)).collect();
        let failed = |trajectory: &Trajectory| matches!(trajectory.summary.ending, Ending::Failed(_));
        let mut by_heart = ByHeart { right: 0, of: self.tries, bill: Bill::default() };
        answers.iter().for_each(|trajectory| by_heart.bill += Bill::of(trajectory));
        by_heart.right = verdicts.iter().filter(|verdict| **verdict == Some(Verdict::Correct)).count() as u32;
        // What is known by then is known, whatever the others would have said.
        let known = self.knows(by_heart) || !(answers.iter().any(failed) || verdicts.contains(&None));
        Asked { by_heart: known.then_some(by_heart), written }
    }

    /// Whether so many right answers are knowledge.
    pub fn knows(&self, by_heart: ByHeart) -> bool {
        by_heart.right > self.at_most
    }

    fn written(&self, task: &Task, seed: u64, trajectory: &Trajectory) -> Value {
        json!({
            "purpose": "closed_book", "model": self.model, "task": task.id, "seed": seed, "question": task.question,
            "pictures": task.pictures, "turns": trajectory.spoken.as_ref().map(|spoken| &spoken.turns),
            "ending": trajectory.summary.ending, "answer": trajectory.summary.answer,
        })
    }
}

/// Keeps a task unless the policy answers it without tools in at least `at_most + 1` of `tries` tries.
pub fn need_search(player: Arc<dyn Player>, judge: Arc<dyn Verdicts>, sampling: Sampling, tries: u32, at_most: u32) -> NeedSearch {
    let closed_book = ClosedBook { player, model: String::new(), judge, sampling, tries, at_most };
    Arc::new(move |task: Arc<Task>, pictures: Vec<Arc<Picture>>| {
        let closed_book = closed_book.clone();
        Box::pin(async move {
            let asked = closed_book.ask(&task, &pictures).await;
            !asked.by_heart.is_some_and(|by_heart| closed_book.knows(by_heart))
        })
    })
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Chunk, Failure, Generate, GenerateError, PolicyVersion, Sampled, Sequence, Stop};
    use hypereyes_rollout::TokenPlayer;
    use hypereyes_scoring::JudgeKind;

    use super::*;
    use crate::testing::workshop;
    use crate::{Split, synthesise};

    /// Says one thing for ever, or fails.
    #[derive(Clone)]
    struct Parrot(Option<Vec<u32>>);

    impl Generate for Parrot {
        type Sequence = Parrot;

        async fn start(&self, _: Chunk, seeds: Vec<u64>, _: Sampling) -> Result<Vec<Parrot>, GenerateError> {
            Ok(vec![self.clone(); seeds.len()])
        }
    }

    impl Sequence for Parrot {
        async fn advance(&mut self, _: Chunk, _: usize) -> Result<Sampled, GenerateError> {
            let tokens = self.0.clone().ok_or_else(|| GenerateError { failure: Failure::Infrastructure, message: "mute".into() })?;
            let count = tokens.len();
            Ok(Sampled { tokens, logprobs: vec![0.0; count], versions: vec![PolicyVersion(0); count], stop: Stop::EndToken })
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_what_is_known_without_tools_is_dropped() {
        let workshop = workshop(1, 0);
        let set = synthesise(&workshop, 1, Split::Train, |_| {}).await.expect("made");
        let task = Arc::new(set.tasks[0].clone());
        let pictures: Vec<Arc<Picture>> = task.pictures.iter().map(|id| Arc::new(set.pictures[id].clone())).collect();
        let says = |text: &str| Parrot(Some(workshop.setup.chat.encode(&format!("{text}</answer>"))));
        for (policy, at_most, keeps) in
            [(says(task.answer()), 0, false), (says(task.answer()), 2, true), (says("x"), 0, true), (Parrot(None), 0, true)]
        {
            let player = Arc::new(TokenPlayer { setup: workshop.setup.clone(), generator: policy });
            let filter = need_search(player, Arc::new(JudgeKind::Alias), Sampling::of(1.0, 1.0), 2, at_most);
            assert_eq!(filter(task.clone(), pictures.clone()).await, keeps);
        }
    }
}
