//! The need-search filter: drops what a policy answers without tools (docs/spec.md#synthesis, step 3).
//!
//! In: a policy, how it is sampled and how often it may try. Out: a filter for [`crate::synthesise`]. A policy that fails to answer for a
//! reason of its own machine drops nothing: the filter only removes what is known to be too easy.

use std::sync::Arc;

use hypereyes_domain::{Sampling, Task};
use hypereyes_pictures::Picture;
use hypereyes_rollout::Player;
use hypereyes_scoring::{Judge, Verdict};

use crate::NeedSearch;

/// Keeps a task unless the policy answers it without tools in at least `at_most + 1` of `tries` tries.
pub fn need_search(player: Arc<dyn Player>, judge: Arc<dyn Judge>, sampling: Sampling, tries: u64, at_most: usize) -> NeedSearch {
    Arc::new(move |task: Arc<Task>, pictures: Vec<Arc<Picture>>| {
        let (player, judge) = (player.clone(), judge.clone());
        Box::pin(async move {
            let seeds: Vec<u64> = (0..tries).collect();
            let Ok(answers) = player.closed_book(&task, &pictures, &seeds, sampling).await else { return true };
            let right = |answer: &str| judge.judge(&task.question, answer, &task.answers) == Verdict::Correct;
            answers.iter().filter_map(|trajectory| trajectory.summary.answer.as_deref()).filter(|answer| right(answer)).count() <= at_most
        })
    })
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Chunk, Failure, Generate, GenerateError, PolicyVersion, Sampled, Sequence, Stop};
    use hypereyes_rollout::TokenPlayer;
    use hypereyes_scoring::AliasJudge;

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
            let filter = need_search(player, Arc::new(AliasJudge), Sampling::of(1.0, 1.0), 2, at_most);
            assert_eq!(filter(task.clone(), pictures.clone()).await, keeps);
        }
    }
}
