//! Runs an evaluation rollout by rollout. In: a policy, a judge, tasks, and what is known of an earlier run. Out: every rollout, of which
//! those that were finished before are not asked again.
//!
//! A rollout is finished when there is a verdict on it. One that failed for a reason outside the policy is rolled out again; one of which
//! only the judge failed is judged again.

use std::time::Instant;

use futures::StreamExt;
use futures::stream;
use hypereyes_domain::{Accuracy, Failure, GenerateError, Sampling, Task, Trajectory};
use hypereyes_judge::{Verdicts, accuracies};
use hypereyes_rollout::Player;
use hypereyes_scoring::Tally;
use metrics::counter;

use crate::bill::{Spent, billed};
use crate::config::EvalConfig;
use crate::item::{Item, Key};
use crate::items::{Items, Kept};
use crate::metrics::{LEFT_OUT, ROLLOUTS};
use crate::run::verdict_label;
use crate::set::TaskSet;

/// A benchmark's own metric: a question, an answer and what is right in, 0..=1 out.
pub type Measure = dyn Fn(&str, &str, &[String]) -> f64 + Send + Sync;

/// Why no more rollouts may be asked, if so.
pub type Halted = dyn Fn() -> Option<String> + Send + Sync;

/// An evaluation.
pub struct Itemised<'a> {
    /// The policy.
    pub player: &'a dyn Player,
    /// Who judges.
    pub judge: &'a dyn Verdicts,
    /// The tasks.
    pub set: &'a TaskSet,
    /// How much of it.
    pub config: &'a EvalConfig,
    /// How turns are sampled.
    pub sampling: Sampling,
    /// What the benchmark's authors report beside a judge's verdict.
    pub metric: Option<&'a Measure>,
    /// What a rollout without searches cost: zeros where it is known what they cost.
    pub nothing: Spent,
    /// Asked after every rollout: a search budget that is spent makes those fail that come after, and those are not kept.
    pub halted: &'a Halted,
    /// Where rollouts are kept.
    pub items: &'a dyn Items,
}

/// How far an evaluation has come; what was finished before is in all counts, what it cost is not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SoFar {
    /// Rollouts that came to an end.
    pub done: usize,
    /// Rollouts in all.
    pub of: usize,
    /// Of those that are done, finished in an earlier run.
    pub before: usize,
    /// Right answers.
    pub right: usize,
    /// Rollouts with a verdict.
    pub judged: usize,
    /// Tokens of rollouts of this run.
    pub tokens: u64,
    /// What searches of this run cost.
    pub spent: Spent,
}

impl SoFar {
    fn count(&mut self, item: &Item) {
        self.done += 1;
        self.right += usize::from(item.verdict == Accuracy::Correct);
        self.judged += usize::from(item.is_finished());
    }
}

impl Itemised<'_> {
    /// Every rollout with tools, or every one without, in the order of tasks and samples. `progress` is called after each.
    ///
    /// # Errors
    /// Why it cannot go on: a rollout cannot be kept, or [`Itemised::halted`] says so. What was kept until then stays.
    pub async fn run(&self, closed_book: bool, mut progress: impl FnMut(SoFar)) -> Result<Vec<Item>, String> {
        let samples = self.config.samples.max(1);
        let of = self.set.tasks.len() * samples;
        let mut items: Vec<Option<Item>> = vec![None; of];
        let mut so_far = SoFar { of, ..SoFar::default() };
        let mut left = Vec::new();
        for place in 0..of {
            let (task, sample) = (&self.set.tasks[place / samples], place % samples);
            let key = Key { task: task.id.clone(), sample: u32::try_from(sample).expect("a few thousand at most"), closed_book };
            match self.items.known(&key) {
                Some(item) if item.is_finished() => {
                    so_far.count(&item);
                    items[place] = Some(item);
                }
                known => left.push((place, key, known.filter(Item::waits_for_verdict))),
            }
        }
        so_far.before = so_far.done;
        progress(so_far);
        let play = |(place, key, waiting): (usize, Key, Option<Item>)| async move {
            let (task, sample) = (&self.set.tasks[place / samples], place % samples);
            let is_new = waiting.is_none();
            let kept = match waiting {
                Some(item) => self.judged_again(item).await,
                None => self.rolled(place / samples, sample, &key).await?,
            };
            let item = kept.item.clone();
            if let Some(failure) = &item.failure {
                tracing::warn!(task = %task.id, failure, "a rollout is left out of the evaluation");
            }
            self.items.keep(kept).await?;
            Ok::<_, String>((place, item, is_new))
        };
        // A judge may be slow: its task waits for it while others are rolled out.
        let mut played = stream::iter(left).map(play).buffer_unordered(self.config.at_once());
        while let Some(ended) = played.next().await {
            let (place, item, is_new) = ended?;
            counter!(ROLLOUTS, "verdict" => verdict_label(item.verdict)).increment(1);
            so_far.count(&item);
            if is_new {
                so_far.tokens += item.tokens;
                so_far.spent = so_far.spent.and(Spent { requests: item.requests, usd: item.usd });
            }
            items[place] = Some(item);
            progress(so_far);
        }
        Ok(items.into_iter().flatten().collect())
    }

    /// Rolls one out and has it judged.
    async fn rolled(&self, index: usize, sample: usize, key: &Key) -> Result<Kept, String> {
        let task = &self.set.tasks[index];
        let began = Instant::now();
        let (played, spent) = billed(self.nothing, self.play(index, sample, key.closed_book)).await;
        let seconds = began.elapsed().as_secs_f64();
        if let Some(why) = (self.halted)() {
            return Err(why);
        }
        let trajectory = match played {
            Ok(trajectory) => trajectory,
            Err(error) => {
                counter!(LEFT_OUT, "reason" => error.failure.label()).increment(1);
                return Ok(Kept { item: Item::failed(key, task, &error, seconds, spent), rollout: None });
            }
        };
        let summaries = [trajectory.summary.clone()];
        let judged = accuracies(self.judge, task, &Tally::of(&summaries)).await;
        let verdict = judged.first().copied().unwrap_or(Accuracy::Invalid(Failure::Judge));
        let mut item = Item::rolled(key, task, &trajectory, verdict, seconds, spent);
        item.metric = self.metric_of(&item);
        Ok(Kept { item, rollout: (!key.closed_book).then(|| (task.clone(), trajectory)) })
    }

    async fn play(&self, index: usize, sample: usize, closed_book: bool) -> Result<Trajectory, GenerateError> {
        let task: &Task = &self.set.tasks[index];
        let pictures = self.set.pictures_of(task).await?;
        let seeds = [self.config.seeds(index)[sample]];
        let rollouts = if closed_book {
            self.player.closed_book(task, &pictures, &seeds, self.sampling).await?
        } else {
            self.player.play(task, &pictures, &seeds, self.sampling).await?.trajectories
        };
        let none = || GenerateError { failure: Failure::Infrastructure, message: format!("task {}: no rollout came back", task.id) };
        rollouts.into_iter().next().ok_or_else(none)
    }

    /// Asks the judge again, of an answer that is known.
    async fn judged_again(&self, mut item: Item) -> Kept {
        let answer = item.answer.as_deref().unwrap_or_default().trim();
        let verdicts = self.judge.verdicts(&item.question, &[answer], &item.answers).await;
        item.verdict = verdicts.first().copied().flatten().map_or(Accuracy::Invalid(Failure::Judge), Accuracy::from);
        item.metric = self.metric_of(&item);
        Kept { item, rollout: None }
    }

    /// The metric of a rollout with a verdict; no answer is worth nothing.
    fn metric_of(&self, item: &Item) -> Option<f64> {
        let metric = self.metric.filter(|_| item.is_finished())?;
        Some(item.answer.as_deref().map_or(0.0, |answer| metric(&item.question, answer.trim(), &item.answers)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::BoxFuture;
    use hypereyes_pictures::Picture;
    use hypereyes_rollout::Rollouts;
    use hypereyes_scoring::{JudgeKind, Verdict};

    use super::*;
    use crate::bill::charge;
    use crate::items::InMemory;
    use crate::run::tests::{Parity, nothing, setup, task};
    use hypereyes_rollout::TokenPlayer;

    /// Notes who is asked, fails for whom it is told to, and is charged for every rollout with tools.
    struct Noted {
        inner: TokenPlayer<Parity>,
        asked: Mutex<Vec<(String, u64)>>,
        failing: Mutex<BTreeSet<String>>,
    }

    impl Noted {
        fn new() -> Self {
            let setup = setup();
            let inner = TokenPlayer { generator: Parity(setup.chat.clone()), setup };
            Self { inner, asked: Mutex::default(), failing: Mutex::default() }
        }

        fn asked(&self) -> Vec<(String, u64)> {
            let mut asked = std::mem::take(&mut *self.asked.lock().expect("no panic"));
            asked.sort();
            asked
        }
    }

    impl Player for Noted {
        fn play<'a>(
            &'a self,
            task: &'a Task,
            pictures: &'a [Arc<Picture>],
            seeds: &'a [u64],
            sampling: Sampling,
        ) -> BoxFuture<'a, Result<Rollouts, GenerateError>> {
            Box::pin(async move {
                self.asked.lock().expect("no panic").push((task.id.to_string(), seeds[0]));
                if self.failing.lock().expect("no panic").contains(task.id.as_str()) {
                    return Err(GenerateError { failure: Failure::Infrastructure, message: "as told".into() });
                }
                charge(Spent { requests: Some(2), usd: None });
                tokio::task::yield_now().await;
                self.inner.play(task, pictures, seeds, sampling).await
            })
        }

        fn closed_book<'a>(
            &'a self,
            task: &'a Task,
            pictures: &'a [Arc<Picture>],
            seeds: &'a [u64],
            sampling: Sampling,
        ) -> BoxFuture<'a, Result<Vec<Trajectory>, GenerateError>> {
            self.asked.lock().expect("no panic").push((format!("{} alone", task.id), seeds[0]));
            self.inner.closed_book(task, pictures, seeds, sampling)
        }
    }

    /// Gives no verdict until it is told to.
    #[derive(Debug, Default)]
    struct Late(AtomicUsize);

    impl Verdicts for Late {
        fn verdicts<'a>(&'a self, _: &'a str, predictions: &'a [&'a str], _: &'a [String]) -> BoxFuture<'a, Vec<Option<Verdict>>> {
            let is_there = self.0.load(Ordering::Relaxed) > 0;
            let verdict = |said: &&str| if *said == "peso" { Verdict::Correct } else { Verdict::Wrong };
            Box::pin(async move { predictions.iter().map(|said| is_there.then(|| verdict(said))).collect() })
        }

        fn label(&self) -> &'static str {
            "late"
        }
    }

    const TASKS: usize = 12;
    const NEVER: &Halted = &|| None;

    fn set() -> TaskSet {
        TaskSet::new((0..TASKS).map(|number| task(number, "What is the currency of Mexico?")).collect(), nothing)
    }

    fn config() -> EvalConfig {
        EvalConfig { samples: 2, concurrency: 2, ..EvalConfig::default() }
    }

    fn of<'a>(player: &'a Noted, set: &'a TaskSet, config: &'a EvalConfig, items: &'a dyn Items) -> Itemised<'a> {
        let nothing = Spent { requests: Some(0), usd: None };
        Itemised { player, judge: &JudgeKind::Alias, set, config, sampling: Sampling::GREEDY, metric: None, halted: NEVER, nothing, items }
    }

    /// Without what a clock says.
    fn timeless(items: &[Item]) -> Vec<Item> {
        items.iter().map(|item| Item { seconds: 0.0, ..item.clone() }).collect()
    }

    #[tokio::test]
    async fn an_evaluation_that_was_cut_anywhere_goes_on_and_asks_nothing_twice() {
        let (set, config, player) = (set(), config(), Noted::new());
        let whole = of(&player, &set, &config, &InMemory::default()).run(false, |_| {}).await.expect("kept");
        let all = player.asked();
        assert_eq!((whole.len(), all.len()), (2 * TASKS, 2 * TASKS));
        assert!(whole.iter().all(|item| item.requests == Some(2) && item.is_finished()));
        for cut in [1, 7, 2 * TASKS - 1] {
            let kept = InMemory::default();
            let (mut finished, mut asked) = (0, vec![]);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let mut stop = Some(stop);
            {
                let run = of(&player, &set, &config, &kept);
                let run = run.run(false, |now| {
                    finished = now.done;
                    if now.done >= cut {
                        // Nobody waits any more where it was said before.
                        let _ = stop.take().map(|stop| stop.send(()));
                    }
                });
                // The future is dropped where it is, as a process is that is killed.
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    _ = run => {}
                }
            }
            asked.extend(player.asked());
            assert!(finished >= cut && finished < 2 * TASKS + 1, "{finished}");
            let again = of(&player, &set, &config, &kept).run(false, |_| {}).await.expect("kept");
            assert_eq!(timeless(&again), timeless(&whole), "cut at {cut}");
            let more = player.asked();
            assert!(more.len() <= 2 * TASKS - cut, "{} asked after {cut} were finished", more.len());
            let both: BTreeSet<_> = asked.iter().chain(&more).cloned().collect();
            assert_eq!(both.into_iter().collect::<Vec<_>>(), all, "the same tasks with the same seeds");
        }
    }

    #[tokio::test]
    async fn what_is_finished_is_not_asked_at_all() {
        let (set, config, player, kept) = (set(), config(), Noted::new(), InMemory::default());
        let mut last = SoFar::default();
        of(&player, &set, &config, &kept).run(true, |now| last = now).await.expect("kept");
        assert_eq!((last.done, last.before, last.of, last.judged, last.right), (2 * TASKS, 0, 2 * TASKS, 2 * TASKS, 0));
        assert_eq!(last.spent, Spent { requests: Some(0), usd: None });
        assert_eq!(player.asked().len(), 2 * TASKS);
        of(&player, &set, &config, &kept).run(true, |now| last = now).await.expect("kept");
        assert_eq!((player.asked().len(), last.before, last.tokens), (0, 2 * TASKS, 0));
        // Rollouts with tools are others.
        of(&player, &set, &config, &kept).run(false, |now| last = now).await.expect("kept");
        assert_eq!((player.asked().len(), last.spent.requests), (2 * TASKS, Some(4 * TASKS as u64)));
    }

    #[tokio::test]
    async fn what_failed_for_an_outside_reason_is_asked_again() {
        let (set, config, player, kept) = (set(), config(), Noted::new(), InMemory::default());
        player.failing.lock().expect("no panic").insert("t3".into());
        let items = of(&player, &set, &config, &kept).run(false, |_| {}).await.expect("kept");
        let failed: Vec<&Item> = items.iter().filter(|item| !item.is_finished()).collect();
        assert_eq!((failed.len(), failed[0].failure.as_deref(), failed[0].requests), (2, Some("as told"), Some(0)));
        player.failing.lock().expect("no panic").clear();
        player.asked();
        let items = of(&player, &set, &config, &kept).run(false, |_| {}).await.expect("kept");
        assert_eq!(player.asked().iter().map(|(task, _)| task.as_str()).collect::<Vec<_>>(), ["t3", "t3"]);
        assert!(items.iter().all(Item::is_finished));
    }

    #[tokio::test]
    async fn what_only_the_judge_failed_is_judged_again_and_not_rolled_out() {
        let (set, config, player, kept, judge) = (set(), config(), Noted::new(), InMemory::default(), Late::default());
        let metric = |_: &str, said: &str, answers: &[String]| if answers.iter().any(|answer| answer == said) { 0.5 } else { 0.0 };
        let run = || Itemised { judge: &judge, metric: Some(&metric), ..of(&player, &set, &config, &kept) };
        let items = run().run(false, |_| {}).await.expect("kept");
        assert!(items.iter().all(|item| item.verdict == Accuracy::Invalid(Failure::Judge) && item.metric.is_none()));
        judge.0.store(1, Ordering::Relaxed);
        player.asked();
        let items = run().run(false, |_| {}).await.expect("kept");
        assert_eq!(player.asked(), []);
        let right = items.iter().filter(|item| item.verdict == Accuracy::Correct && item.metric == Some(0.5)).count();
        let wrong = items.iter().filter(|item| item.verdict == Accuracy::Wrong && item.metric == Some(0.0)).count();
        assert_eq!((right, wrong), (TASKS, TASKS));
    }

    #[tokio::test]
    async fn a_budget_that_is_spent_ends_it_before_anything_else_is_kept() {
        let (set, config, player, kept) = (set(), config(), Noted::new(), InMemory::default());
        let left = AtomicUsize::new(5);
        let halted = move || {
            let spent = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err();
            spent.then(|| "search.budget.requests is used up".to_owned())
        };
        let run = Itemised { halted: &halted, ..of(&player, &set, &config, &kept) };
        assert_eq!(run.run(false, |_| {}).await, Err("search.budget.requests is used up".to_owned()));
        let asked = player.asked().len();
        assert!(kept.into_kept().len() <= 5 && asked < 2 * TASKS, "{asked} asked");
    }
}
