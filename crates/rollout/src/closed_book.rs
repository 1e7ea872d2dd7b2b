//! What a policy answers without looking anything up: the floor that search has to beat, and the need-search filter.
//!
//! In: a task. Out: trajectories of one turn. The prompt ends inside an opened `<answer>`, so the policy can only answer.

use std::sync::Arc;

use hypereyes_domain::{Chunk, Ending, Failure, Generate, GenerateError, Sampling, Sequence, Task, Trajectory};
use hypereyes_pictures::Picture;
use tokio::time::timeout;

use crate::Setup;
use crate::group::Prompt;
use crate::recorder::Recorder;

const OPENING: &str = "<answer>";
const CLOSING: &str = "</answer>";

/// Answers a task without tools, once per seed.
pub async fn closed_book<G: Generate>(
    setup: &Setup,
    generator: &G,
    task: &Task,
    pictures: &[Arc<Picture>],
    seeds: &[u64],
    sampling: Sampling,
) -> Result<Vec<Trajectory>, GenerateError> {
    let prompt = Prompt::new(setup, task, pictures, OPENING, &[])?;
    let sequences = prompt.start(setup, generator, seeds, sampling).await?;
    let answers = sequences.into_iter().map(|sequence| {
        let record = Recorder::new(prompt.tokens.clone(), task.pictures.clone());
        answer(setup, sequence, record)
    });
    Ok(futures::future::join_all(answers).await)
}

async fn answer<S: Sequence>(setup: &Setup, mut sequence: S, mut record: Recorder) -> Trajectory {
    let turn = timeout(setup.config.turn_timeout(), sequence.advance(Chunk::default(), setup.config.max_closed_book_tokens)).await;
    let late = |_| GenerateError { failure: Failure::Timeout, message: "no answer before the deadline".into() };
    let turn = turn.map_err(late).and_then(|turn| turn).and_then(|turn| record.sampled(&turn).map(|()| turn));
    match turn {
        Ok(turn) => {
            let words = turn.tokens.strip_suffix(&[setup.chat.end_token()]).unwrap_or(&turn.tokens);
            let text = setup.chat.decode(words);
            let answer = text.split(CLOSING).next().unwrap_or_default().trim().to_owned();
            record.finish(Ending::Answered, Some(answer))
        }
        Err(error) => {
            tracing::warn!(failure = error.failure.label(), message = error.message, "a closed-book answer failed and is masked");
            record.finish(Ending::Failed(error.failure), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Scripted, Turn, setup, task};

    #[tokio::test]
    async fn the_policy_can_only_answer() {
        let setup = setup();
        let (task, pictures) = task();
        let script = vec![vec![Turn::Says("Peru</answer>")], vec![Turn::Cut("Peru or")], vec![Turn::Fails(Failure::Infrastructure)]];
        let policy = Scripted::new(&setup, script);
        let answers = closed_book(&setup, &policy, &task, &pictures, &[0, 1, 2], Sampling::GREEDY).await.expect("starts");
        assert!(setup.chat.decode(&answers[0].prompt).ends_with("<|im_start|>assistant\n<answer>"));
        let said: Vec<Option<&str>> = answers.iter().map(|trajectory| trajectory.summary.answer.as_deref()).collect();
        assert_eq!(said, [Some("Peru"), Some("Peru or"), None]);
        assert_eq!(answers[2].summary.ending, Ending::Failed(Failure::Infrastructure));
    }
}
