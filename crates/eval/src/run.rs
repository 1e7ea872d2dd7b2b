//! Runs an evaluation. In: a policy, tasks, a judge. Out: a report. At most a configured number of tasks runs at once.

use futures::StreamExt;
use futures::stream;
use hypereyes_domain::{Accuracy, GenerateError, RolloutSummary, Sampling, Task, Trajectory};
use hypereyes_judge::{Verdicts, accuracies};
use hypereyes_rollout::Player;
use hypereyes_scoring::Tally;
use metrics::counter;

use crate::config::EvalConfig;
use crate::metrics::{LEFT_OUT, ROLLOUTS};
use crate::report::{Outcome, Report};
use crate::set::TaskSet;

/// How far an evaluation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tasks finished.
    pub done: usize,
    /// Tasks in all.
    pub of: usize,
    /// Right answers so far.
    pub right: usize,
    /// Rollouts with a verdict so far.
    pub judged: usize,
}

/// Rolls every task out, has it judged and sums up. `progress` is called after each task; `seen` gets every trajectory with its verdict.
///
/// A task whose rollouts cannot start (no engine, a missing picture) is left out and counted in [`Report::invalid`]; so is a rollout of
/// which the judge gives no verdict, which [`Report::unjudged`] counts as well.
pub async fn evaluate(
    player: &dyn Player,
    judge: &dyn Verdicts,
    set: &TaskSet,
    config: &EvalConfig,
    sampling: Sampling,
    progress: impl FnMut(Progress),
    seen: impl FnMut(&Task, &Trajectory, Accuracy),
) -> Report {
    let roll = |index: usize| async move {
        let task = &set.tasks[index];
        let pictures = set.pictures_of(task).await?;
        player.play(task, &pictures, &config.seeds(index), sampling).await.map(|rollouts| rollouts.trajectories)
    };
    let (outcomes, left_out) = all(set, config, judge, roll, progress, seen).await;
    Report::new(set.tasks.len(), &outcomes, left_out)
}

/// The same without tools: what the policy knows or guesses.
pub async fn closed_book(
    player: &dyn Player,
    judge: &dyn Verdicts,
    set: &TaskSet,
    config: &EvalConfig,
    sampling: Sampling,
    progress: impl FnMut(Progress),
) -> Report {
    let roll = |index: usize| async move {
        let task = &set.tasks[index];
        let pictures = set.pictures_of(task).await?;
        player.closed_book(task, &pictures, &config.seeds(index), sampling).await
    };
    let (outcomes, left_out) = all(set, config, judge, roll, progress, |_, _, _| {}).await;
    Report::new(set.tasks.len(), &outcomes, left_out)
}

/// Runs `roll` for every task, some at a time, and judges what comes out.
async fn all<F: Future<Output = Result<Vec<Trajectory>, GenerateError>>>(
    set: &TaskSet,
    config: &EvalConfig,
    judge: &dyn Verdicts,
    roll: impl Fn(usize) -> F,
    mut progress: impl FnMut(Progress),
    mut seen: impl FnMut(&Task, &Trajectory, Accuracy),
) -> (Vec<Outcome>, usize) {
    let of = set.tasks.len();
    let roll = &roll;
    // A judge may be slow: its task waits for it while others are rolled out.
    let play = |index: usize| async move {
        let trajectories = match roll(index).await {
            Ok(trajectories) => trajectories,
            Err(error) => return (index, Err(error)),
        };
        let summaries: Vec<RolloutSummary> = trajectories.iter().map(|trajectory| trajectory.summary.clone()).collect();
        let judged = accuracies(judge, &set.tasks[index], &Tally::of(&summaries)).await;
        (index, Ok(trajectories.into_iter().zip(judged).collect::<Vec<_>>()))
    };
    let mut rolled = stream::iter(0..of).map(play).buffer_unordered(config.concurrency.max(1));
    let (mut outcomes, mut left_out, mut done, mut right, mut judged) = (Vec::new(), 0, 0, 0, 0);
    while let Some((index, result)) = rolled.next().await {
        let task = &set.tasks[index];
        match result {
            Ok(played) => {
                for (trajectory, accuracy) in &played {
                    let accuracy = *accuracy;
                    counter!(ROLLOUTS, "verdict" => verdict_label(accuracy)).increment(1);
                    right += usize::from(accuracy == Accuracy::Correct);
                    judged += usize::from(!matches!(accuracy, Accuracy::Invalid(_)));
                    seen(task, trajectory, accuracy);
                    outcomes.push((index, outcome(task, trajectory, accuracy)));
                }
            }
            Err(error) => {
                counter!(LEFT_OUT, "reason" => error.failure.label()).increment(1);
                tracing::warn!(task = %task.id, error = %error, "a task is left out of the evaluation");
                left_out += 1;
            }
        }
        done += 1;
        progress(Progress { done, of, right, judged });
    }
    // Tasks finish in any order; sums of floats must not depend on it.
    outcomes.sort_by_key(|(index, _)| *index);
    (outcomes.into_iter().map(|(_, outcome)| outcome).collect(), left_out)
}

/// What counts of a rollout.
pub fn outcome(task: &Task, trajectory: &Trajectory, accuracy: Accuracy) -> Outcome {
    Outcome {
        kind: task.kind.clone(),
        accuracy,
        rounds: trajectory.summary.round_count(),
        searches: trajectory.summary.searches(),
        tokens: trajectory.tokens(),
    }
}

/// The label of counters.
pub(crate) fn verdict_label(accuracy: Accuracy) -> &'static str {
    match accuracy {
        Accuracy::Correct => "correct",
        Accuracy::Wrong => "wrong",
        Accuracy::NotAttempted => "not_attempted",
        Accuracy::Unparsed => "unparsed",
        Accuracy::Invalid(_) => "invalid",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use futures::future::BoxFuture;
    use hypereyes_chat::Chat;
    use hypereyes_domain::{Chunk, Failure, Generate, PictureId, PolicyVersion, Sampled, Sequence, Stop, TaskKind};
    use hypereyes_miniature::tokenizer::{self, TinyWords};
    use hypereyes_pictures::{Limits, Picture, Store};
    use hypereyes_rollout::{RolloutConfig, Setup, TokenPlayer};
    use hypereyes_scoring::{JudgeKind, Verdict};
    use hypereyes_search::EmbeddedSearch;
    use hypereyes_world::World;

    use super::*;

    /// Searches once, then answers with the parity of its seed; cannot start when the prompt speaks of Peru.
    #[derive(Clone)]
    pub(crate) struct Parity(pub(crate) Arc<Chat>);

    pub(crate) struct Turns {
        chat: Arc<Chat>,
        left: Vec<&'static str>,
    }

    impl Generate for Parity {
        type Sequence = Turns;

        async fn start(&self, prompt: Chunk, seeds: Vec<u64>, _: Sampling) -> Result<Vec<Turns>, GenerateError> {
            let prompt = self.0.decode(&prompt.tokens);
            if prompt.contains("Peru") {
                return Err(GenerateError { failure: Failure::Infrastructure, message: "as scripted".into() });
            }
            let search = r#"<tool_call>{"name":"text_search","arguments":{"input":["Mexico currency","Chad currency"]}}</tool_call>"#;
            let opened = prompt.ends_with("<answer>");
            let turns = |seed: u64| match (opened, seed % 2) {
                (true, _) => vec!["euro</answer>"],
                (false, 0) => vec!["<answer>peso</answer>", search],
                (false, _) => vec!["<answer>euro</answer>", search],
            };
            Ok(seeds.into_iter().map(|seed| Turns { chat: self.0.clone(), left: turns(seed) }).collect())
        }
    }

    impl Sequence for Turns {
        async fn advance(&mut self, _: Chunk, _: usize) -> Result<Sampled, GenerateError> {
            let mut tokens = self.chat.encode(self.left.pop().expect("the script is long enough"));
            tokens.push(self.chat.end_token());
            let count = tokens.len();
            Ok(Sampled { tokens, logprobs: vec![-1.0; count], versions: vec![PolicyVersion(0); count], stop: Stop::EndToken })
        }
    }

    pub(crate) fn setup() -> Setup {
        let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let terms = ["Mexico".to_owned(), "peso".to_owned(), "euro".to_owned()];
        tokenizer::write(folder.path(), TinyWords { terms: &terms, relations: &["currency".to_owned()], phrases: &[] })
            .expect("sound words");
        let chat = Arc::new(Chat::load(folder.path()).expect("what was just written"));
        let pictures = Arc::new(Store::new(1 << 20, Limits::default()));
        Setup { chat, search: Arc::new(EmbeddedSearch::new(world)), pictures, config: RolloutConfig::default() }
    }

    pub(crate) fn task(number: usize, question: &str) -> Task {
        Task {
            id: format!("t{number}").as_str().into(),
            kind: if number.is_multiple_of(3) { TaskKind::TEXTUAL_CONSTRAINTS } else { TaskKind::VISUAL_SELECT },
            question: question.into(),
            answers: vec!["peso".into()],
            pictures: vec![],
            layer: None,
            metadata: Default::default(),
            shown: vec![],
            reference: None,
        }
    }

    pub(crate) fn nothing(_: &PictureId) -> Result<Arc<Picture>, String> {
        Err("there is none".into())
    }

    /// Fails on whatever is not what it was told to know.
    #[derive(Debug)]
    struct Forgetful;

    impl Verdicts for Forgetful {
        fn verdicts<'a>(&'a self, _: &'a str, predictions: &'a [&'a str], _: &'a [String]) -> BoxFuture<'a, Vec<Option<Verdict>>> {
            Box::pin(async move { predictions.iter().map(|said| (*said == "peso").then_some(Verdict::Correct)).collect() })
        }

        fn label(&self) -> &'static str {
            "forgetful"
        }
    }

    #[tokio::test]
    async fn a_judge_that_fails_calls_nothing_wrong() {
        let setup = setup();
        let set = TaskSet::new((0..4).map(|number| task(number, "What is the currency of Mexico?")).collect(), nothing);
        let config = EvalConfig { samples: 2, ..EvalConfig::default() };
        let policy = TokenPlayer { generator: Parity(setup.chat.clone()), setup };
        let mut last = None;
        let report = evaluate(&policy, &Forgetful, &set, &config, Sampling::GREEDY, |now| last = Some(now), |_, _, _| {}).await;
        assert_eq!((report.rollouts, report.unjudged, report.invalid, report.accuracy), (4, 4, 4, 1.0));
        assert_eq!(last, Some(Progress { done: 4, of: 4, right: 4, judged: 4 }));
    }

    #[tokio::test]
    async fn a_policy_is_measured_and_what_cannot_start_is_left_out() {
        let setup = setup();
        let mut set = TaskSet::new((0..10).map(|number| task(number, "What is the currency of Mexico?")).collect(), nothing);
        set.tasks.push(task(10, "What is the currency of Peru?"));
        set.tasks.push(Task { pictures: vec!["missing".into()], ..task(11, "Which one?") });
        let config = EvalConfig { samples: 2, concurrency: 3, ..EvalConfig::default() };
        let policy = TokenPlayer { generator: Parity(setup.chat.clone()), setup };
        let (mut last, mut seen) = (None, 0);
        let report =
            evaluate(&policy, &JudgeKind::Alias, &set, &config, Sampling::GREEDY, |now| last = Some(now), |_, _, _| seen += 1).await;
        assert_eq!((report.tasks, report.rollouts, report.invalid, seen), (12, 20, 2, 20));
        assert_eq!((report.accuracy, report.rounds, report.searches), (0.5, 1.0, 2.0));
        assert!(report.kilotokens > 0.02 && report.cas > 0.0);
        assert_eq!(last, Some(Progress { done: 12, of: 12, right: 10, judged: 20 }));
        assert_eq!(report.by_kind.len(), 2);
        let again = evaluate(&policy, &JudgeKind::Alias, &set, &config, Sampling::GREEDY, |_| {}, |_, _, _| {}).await;
        assert_eq!(report, again);
        let alone = closed_book(&policy, &JudgeKind::Alias, &set, &config, Sampling::GREEDY, |_| {}).await;
        assert_eq!(alone.accuracy, 0.0);
    }
}
