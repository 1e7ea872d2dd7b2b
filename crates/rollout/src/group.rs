//! n rollouts of one task, side by side.
//!
//! In: a task, its pictures, one seed per rollout. Out: the trajectories in the order of the seeds. The prompt is encoded
//! and handed to the engine once; from there each sequence advances alone, and the engine batches whoever is ready.

use std::sync::Arc;

use futures::future::join_all;
use hypereyes_domain::{Chunk, Failure, Generate, GenerateError, PictureId, Sampling, Task, Trajectory};
use hypereyes_environment::{Episode, opened_thought};
use hypereyes_pictures::{Picture, RgbImage};
use tokio::time::timeout;
use tracing::{Instrument as _, info_span};

use crate::recorder::Recorder;
use crate::tokens::TokenDialogue;
use crate::turns::Dialogue;
use crate::{RolloutConfig, Setup, turns};

/// What a group left behind.
#[derive(Clone, Debug)]
pub struct Rollouts {
    /// One per seed, in order.
    pub trajectories: Vec<Trajectory>,
    /// Crops that observations showed, each once. With the task's own pictures these are all that trajectories name.
    pub crops: Vec<Arc<Picture>>,
}

/// Rolls a task out once per seed. `pictures` are the task's, in order.
///
/// An error means that nothing was rolled out; a rollout that fails later is a masked trajectory of its own.
pub async fn run_group<G: Generate>(
    setup: &Setup,
    generator: &G,
    task: &Task,
    pictures: &[Arc<Picture>],
    seeds: &[u64],
    sampling: Sampling,
) -> Result<Rollouts, GenerateError> {
    let prompt = Prompt::new(setup, task, pictures, "", &setup.config.offered())?;
    let sequences = prompt.start(setup, generator, seeds, sampling).await?;
    let opening = prompt.opened_thought(setup);
    let played = sequences.into_iter().map(|sequence| {
        let episode = Episode::new(setup.config.env.clone(), setup.search.clone(), task.world_seed(), &task.question, prompt.images());
        let chat = setup.chat.clone();
        let episode = episode.opened(&opening).seen_as(move |size| chat.processor().seen_as(size));
        let record = Recorder::new(prompt.tokens.clone(), task.pictures.clone());
        (TokenDialogue { setup, sequence, record }, episode)
    });
    Ok(side_by_side(&setup.config, played).await)
}

/// Runs episodes of one task to their ends.
pub(crate) async fn side_by_side<D: Dialogue>(config: &RolloutConfig, played: impl Iterator<Item = (D, Episode)>) -> Rollouts {
    let episodes = played
        .enumerate()
        .map(|(number, (dialogue, episode))| turns::run(config, dialogue, episode).instrument(info_span!("rollout", number)));
    let mut trajectories = Vec::new();
    let mut crops: Vec<Arc<Picture>> = Vec::new();
    for (trajectory, shown) in join_all(episodes).await {
        trajectories.push(trajectory);
        for crop in shown {
            if !crops.iter().any(|known| known.id == crop.id) {
                crops.push(crop);
            }
        }
    }
    Rollouts { trajectories, crops }
}

/// Refuses pictures that are not those of the task.
pub(crate) fn are_all(task: &Task, pictures: &[Arc<Picture>]) -> Result<(), GenerateError> {
    if pictures.len() == task.pictures.len() {
        return Ok(());
    }
    let message = format!("task {} names {} pictures, {} were given", task.id, task.pictures.len(), pictures.len());
    Err(GenerateError { failure: Failure::Infrastructure, message })
}

/// A task as the engine reads it.
pub(crate) struct Prompt {
    pub(crate) tokens: Arc<[u32]>,
    /// Lent to the engine while this is held.
    pictures: Vec<Arc<Picture>>,
}

impl Prompt {
    /// Encodes a task with the tools that are offered; `forced` is put into the policy's mouth.
    pub(crate) fn new(
        setup: &Setup,
        task: &Task,
        pictures: &[Arc<Picture>],
        forced: &str,
        tools: &[serde_json::Value],
    ) -> Result<Self, GenerateError> {
        are_all(task, pictures)?;
        let pictures: Vec<Arc<Picture>> = pictures.iter().map(|picture| setup.pictures.lend(picture.clone())).collect();
        let grids: Vec<(usize, usize)> = pictures.iter().map(|picture| setup.chat.processor().grid(picture.image.dimensions())).collect();
        let refused = |error: hypereyes_chat::ChatError| {
            let message = format!("task {}: {error}", task.id);
            GenerateError { failure: Failure::Infrastructure, message }
        };
        let mut tokens = setup.chat.prompt_offering(&setup.config.system_text(), &task.question, &grids, tools).map_err(refused)?;
        tokens.extend(setup.chat.encode(forced));
        Ok(Self { tokens: tokens.into(), pictures })
    }

    /// The task's pictures, shared.
    fn images(&self) -> Vec<Arc<RgbImage>> {
        self.pictures.iter().map(|picture| picture.image.clone()).collect()
    }

    /// What the template puts into the policy's mouth, if that begins a thought.
    fn opened_thought(&self, setup: &Setup) -> String {
        // Templates say a few words there; the task's own stand before.
        const LAST: usize = 64;
        let last = &self.tokens[self.tokens.len().saturating_sub(LAST)..];
        opened_thought(&setup.chat.decode(last)).to_owned()
    }

    /// Hands the prompt to the engine and gets one sequence per seed.
    pub(crate) async fn start<G: Generate>(
        &self,
        setup: &Setup,
        generator: &G,
        seeds: &[u64],
        sampling: Sampling,
    ) -> Result<Vec<G::Sequence>, GenerateError> {
        let pictures: Vec<PictureId> = self.pictures.iter().map(|picture| picture.id.clone()).collect();
        let chunk = Chunk { tokens: self.tokens.to_vec(), pictures };
        let started = timeout(setup.config.turn_timeout(), generator.start(chunk, seeds.to_vec(), sampling)).await;
        let late = |_| GenerateError { failure: Failure::Timeout, message: "no sequence was started before the deadline".into() };
        let sequences = started.map_err(late)??;
        if sequences.len() != seeds.len() {
            let message = format!("{} sequences were started for {} seeds", sequences.len(), seeds.len());
            return Err(GenerateError { failure: Failure::Infrastructure, message });
        }
        Ok(sequences)
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Ending, PolicyVersion};

    use super::*;
    use crate::scripted::{Scripted, Turn, setup, task};

    const LOOK: Turn = Turn::Says(
        r#"<tool_call>{"name":"image_search","arguments":{"image_id":"img_0","area":[[0.00,0.00,0.50,1.00],[0.50,0.00,1.00,1.00]]}}</tool_call>"#,
    );
    const READ: Turn =
        Turn::Says(r#"<tool_call>{"name":"text_search","arguments":{"input":["Mexico currency","Peru currency"]}}</tool_call>"#);
    const ANSWER: Turn = Turn::Says("<reason>peso: Mexico</reason><answer>Mexico</answer>");

    async fn run(setup: &Setup, script: Vec<Vec<Turn>>) -> (Scripted, Rollouts) {
        let (task, pictures) = task();
        let policy = Scripted::new(setup, script);
        let seeds: Vec<u64> = (0..policy.script.len() as u64).collect();
        let rollouts = run_group(setup, &policy, &task, &pictures, &seeds, Sampling::GREEDY).await.expect("starts");
        (policy, rollouts)
    }

    #[tokio::test]
    async fn what_the_engine_holds_is_the_trajectory_token_for_token() {
        let setup = setup();
        let (policy, rollouts) = run(&setup, vec![vec![LOOK, READ, ANSWER], vec![READ, ANSWER]]).await;
        assert_eq!(policy.prompts.lock().expect("no panic").len(), 1, "the prompt is handed over once");
        for (seed, trajectory) in rollouts.trajectories.iter().enumerate() {
            trajectory.check().expect("sound");
            assert_eq!([&trajectory.prompt[..], &trajectory.response[..]].concat(), policy.held(seed));
            assert_eq!((trajectory.summary.ending, trajectory.summary.answer.as_deref()), (Ending::Answered, Some("Mexico")));
        }
        assert_eq!(rollouts.trajectories[0].summary.round_count(), 2);
        assert_eq!((rollouts.trajectories[0].summary.searches(), rollouts.trajectories[1].summary.searches()), (4, 2));
    }

    #[tokio::test]
    async fn observations_are_unmasked_and_carry_the_version_before() {
        let setup = setup();
        let (_, rollouts) = run(&setup, vec![vec![LOOK, READ, ANSWER]]).await;
        let trajectory = &rollouts.trajectories[0];
        let text = setup.chat.decode(&trajectory.response);
        assert!(text.contains("Mexico's currency") && text.contains("img_2"), "{text}");
        let observed: Vec<usize> = (0..trajectory.response.len()).filter(|at| !trajectory.mask[*at]).collect();
        assert!(observed.iter().all(|at| trajectory.logprobs[*at] == 0.0));
        assert_eq!(trajectory.versions[observed[0]], PolicyVersion(1));
        let sampled = trajectory.mask.iter().zip(&trajectory.response).filter(|(mask, _)| **mask).map(|(_, id)| *id).collect::<Vec<_>>();
        assert_eq!(sampled.iter().filter(|id| **id == setup.chat.end_token()).count(), 3);
        assert!(trajectory.mask.last().copied().expect("not empty"), "nothing follows the last turn");
    }

    #[tokio::test]
    async fn returned_crops_are_seen_and_kept() {
        let setup = setup();
        let (policy, rollouts) = run(&setup, vec![vec![LOOK, ANSWER], vec![LOOK, ANSWER]]).await;
        let shown = rollouts.trajectories[0].pictures.len() - 1;
        assert_eq!(*policy.pictures.lock().expect("no panic"), 2 * shown);
        assert_eq!(rollouts.crops.len(), shown, "siblings share their crops");
        for id in &rollouts.trajectories[0].pictures[1..] {
            assert!(rollouts.crops.iter().any(|crop| crop.id == *id));
        }
    }

    #[tokio::test]
    async fn every_way_to_end_has_its_name() {
        let setup = setup();
        let failed = Ending::Failed(Failure::Infrastructure);
        let cases = [
            (vec![Turn::Says("I do not know.")], Ending::NoAction, None),
            (vec![Turn::Cut("<answer>Mexico</answer>")], Ending::TurnTruncated, Some("Mexico")),
            (vec![Turn::Cut("<answer>Mexico")], Ending::TurnTruncated, None),
            (vec![LOOK, Turn::Full("<reason>")], Ending::ContextFull, None),
            (vec![LOOK, Turn::Fails(Failure::Infrastructure)], failed, None),
            (vec![READ; 12], Ending::TurnLimit, None),
        ];
        let script = cases.iter().map(|(turns, ..)| turns.clone()).collect();
        let (_, rollouts) = run(&setup, script).await;
        for ((_, ending, answer), trajectory) in cases.iter().zip(&rollouts.trajectories) {
            assert_eq!((trajectory.summary.ending, trajectory.summary.answer.as_deref()), (*ending, *answer));
            trajectory.check().expect("sound");
        }
        let masked = &rollouts.trajectories[4];
        assert!(masked.summary.rounds.len() == 1 && !masked.response.is_empty() && masked.sampled_tokens() == 0);
    }

    #[tokio::test]
    async fn a_turn_that_hangs_is_a_timeout() {
        let mut setup = setup();
        setup.config.turn_timeout_s = 1;
        let (_, rollouts) = run(&setup, vec![vec![Turn::Hangs]]).await;
        assert_eq!(rollouts.trajectories[0].summary.ending, Ending::Failed(Failure::Timeout));
        rollouts.trajectories[0].check().expect("sound");
    }

    #[tokio::test]
    async fn an_observation_that_does_not_fit_ends_the_episode() {
        let mut setup = setup();
        setup.config.max_context_tokens = 100;
        let (_, rollouts) = run(&setup, vec![vec![LOOK, ANSWER]]).await;
        let trajectory = &rollouts.trajectories[0];
        assert_eq!((trajectory.summary.ending, trajectory.summary.round_count()), (Ending::ContextFull, 1));
        assert!(trajectory.tokens() <= 100 && trajectory.mask.iter().all(|sampled| *sampled));
    }

    #[tokio::test]
    async fn a_task_without_its_pictures_is_not_started() {
        let setup = setup();
        let (task, _) = task();
        let policy = Scripted::new(&setup, vec![vec![ANSWER]]);
        let error = run_group(&setup, &policy, &task, &[], &[0], Sampling::GREEDY).await.expect_err("no picture");
        assert_eq!(error.failure, Failure::Infrastructure);
    }
}
