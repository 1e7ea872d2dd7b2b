//! Progressive rejection sampling with any model that is served, as explorer (docs/spec.md#synthesis, step 4).
//!
//! In: tasks with their pictures, players that are given a budget of rounds, a judge, and the chat of the policy that is to learn. Out:
//! what came of every task, a line each as soon as it is known: a demonstration and its cost, or why there is none. Nothing that was paid
//! for is asked again: a task that is done with is passed over, of one that failed the tries that came to something are kept.
//!
//! It knows no wire: an explorer is a [`Player`], whether it samples tokens or speaks text.

pub mod attempt;
mod ledger;
mod recite;
mod tape;
mod yields;

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use hypereyes_domain::{Ending, Reference, Sampling, Task, Trajectory};
use hypereyes_environment::Search;
use hypereyes_judge::{Verdicts, accuracies};
use hypereyes_pictures::Picture;
use hypereyes_rollout::{Player, RolloutConfig, Setup};
use hypereyes_scoring::Tally;
use metrics::{counter, histogram};
use serde_json::{Value, json};

pub use self::attempt::{Attempt, Bill, ByHeart, Came, Ended, Kept, Line, Try};
pub use self::ledger::{ATTEMPTS, Ledger};
pub use self::recite::{Misfit, Turn, demonstrate};
pub use self::tape::{Replay, Tape};
pub use self::yields::{Yield, Yields};
use crate::SynthError;
use crate::metrics::{BUDGET, SERVED_ATTEMPTS, SERVED_TASKS};
use crate::need::ClosedBook;
use crate::rejection::Budgets;
use crate::seeds;

/// Gives a player whose episodes have at most so many rounds and search there.
pub type Players = Arc<dyn Fn(u32, Arc<dyn Search>) -> Arc<dyn Player> + Send + Sync>;

/// Finds the pictures of a task, in order, or says why not. It may wait.
pub type FindPictures = Arc<dyn Fn(&Task) -> Result<Vec<Arc<Picture>>, String> + Send + Sync>;

/// What a run is made of.
pub struct Served {
    /// Who explores.
    pub players: Players,
    /// What it is called.
    pub model: String,
    /// Who says what is right.
    pub judge: Arc<dyn Verdicts>,
    /// How turns are sampled.
    pub sampling: Sampling,
    /// How far to look.
    pub budgets: Budgets,
    /// The policy that is to learn: its chat, its limits; and where searches go.
    pub setup: Setup,
    /// Who is asked without tools first, if anybody.
    pub closed_book: Option<ClosedBook>,
    /// How often a try that failed for a reason outside is made again.
    pub again: u32,
    /// Tasks at the same time.
    pub at_once: usize,
    /// Seeds derive from it.
    pub seed: u64,
    /// Where the tasks' pictures are.
    pub pictures: FindPictures,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Tasks that are done with or failed.
    pub done: usize,
    /// Tasks in all.
    pub of: usize,
    /// Tasks with a demonstration.
    pub kept: usize,
    /// Tasks that failed for a reason outside.
    pub failed: usize,
    /// What was spent.
    pub bill: Bill,
}

/// The limits of an episode with at most `budget` rounds. An explorer that speaks text and is told how to answer is told its budget, too.
/// One that samples the policy's own tokens is told nothing that the policy would not be told: of what is left of a smaller budget it
/// learns nothing, and nor does whoever learns from it.
pub fn within(config: &RolloutConfig, budget: u32, speaks_text: bool) -> RolloutConfig {
    let mut within = config.clone();
    let env = &mut within.env;
    let is_smaller = budget < env.max_rounds;
    env.max_rounds = env.max_rounds.min(budget);
    env.max_turns = env.max_turns.min(budget.saturating_add(1));
    if !speaks_text {
        if is_smaller {
            [&mut env.hint_one_left, &mut env.hint_none_left].into_iter().for_each(String::clear);
        }
        return within;
    }
    if config.offer_tools {
        let calls = if budget == 1 { "one call".to_owned() } else { format!("{budget} calls") };
        let sentence = format!("You have {calls} in all: look for as much as you can in each.");
        let before = if config.system_prompt.is_empty() { String::new() } else { format!("{} ", config.system_prompt) };
        within.system_prompt = before + &sentence;
    }
    within
}

/// Whatever is to be kept of a run while it goes on.
pub trait Keeper {
    /// Something that a model wrote, with what it was asked.
    ///
    /// # Errors
    /// Those of whoever keeps it; they end the run.
    fn wrote(&mut self, written: Value) -> Result<(), SynthError>;

    /// A picture that a demonstration shows. It comes before the line that names it.
    ///
    /// # Errors
    /// As [`Keeper::wrote`].
    fn picture(&mut self, picture: &Picture) -> Result<(), SynthError>;

    /// How far it has come.
    fn stands(&mut self, standing: Standing);
}

/// What one task came to, and what is to be kept of it.
struct Done {
    line: Line,
    written: Vec<Value>,
    pictures: Vec<Arc<Picture>>,
}

impl Served {
    /// Samples for every task that `ledger` is not done with, some at the same time. Ends early at `stop`, and where one task after the
    /// other fails for reasons outside: whoever explores is then not there.
    ///
    /// # Errors
    /// Those of files. What came of tasks until then is in the ledger.
    pub async fn explore(
        &self,
        tasks: &[Task],
        ledger: &mut Ledger,
        keeper: &mut dyn Keeper,
        stop: impl Future<Output = ()>,
    ) -> Result<(), SynthError> {
        let is_done = |task: &&Task| ledger.line(&task.id).is_some_and(|line| line.ended != Ended::Failed);
        let open: Vec<(&Task, Option<Line>)> =
            tasks.iter().filter(|task| !is_done(task)).map(|task| (task, ledger.line(&task.id).cloned())).collect();
        let mut standing = Standing { of: tasks.len(), done: tasks.len() - open.len(), ..Standing::default() };
        for line in tasks.iter().filter_map(|task| ledger.line(&task.id)) {
            standing.kept += usize::from(line.ended == Ended::Kept);
            standing.bill += line.bill();
        }
        keeper.stands(standing);
        let mut running = stream::iter(open).map(|(task, before)| self.task(task, before)).buffer_unordered(self.at_once.max(1));
        let mut stop = std::pin::pin!(stop);
        let mut in_a_row = 0;
        loop {
            let next = tokio::select! {
                biased;
                () = &mut stop => None,
                next = running.next() => next,
            };
            let Some(Done { line, written, pictures }) = next else { break };
            written.into_iter().try_for_each(|one| keeper.wrote(one))?;
            pictures.iter().try_for_each(|picture| keeper.picture(picture))?;
            counter!(SERVED_TASKS, "ended" => line.ended.label()).increment(1);
            let failed = line.ended == Ended::Failed;
            standing.done += 1;
            standing.kept += usize::from(line.ended == Ended::Kept);
            standing.failed += usize::from(failed);
            // Of a line before, what is known is in this one.
            let before = ledger.line(&line.task).map_or(Bill::default(), Line::bill);
            let bill = line.bill();
            standing.bill += Bill { sent: bill.sent.saturating_sub(before.sent), said: bill.said.saturating_sub(before.said) };
            ledger.append(line)?;
            keeper.stands(standing);
            in_a_row = if failed { in_a_row + 1 } else { 0 };
            if in_a_row >= self.at_once.max(FAILED_IN_A_ROW) {
                tracing::warn!(failed = in_a_row, "one task after the other fails: nobody is asked any more");
                break;
            }
        }
        Ok(())
    }

    async fn task(&self, task: &Task, before: Option<Line>) -> Done {
        let empty = Line { task: task.id.clone(), ended: Ended::Unsolved, by_heart: None, attempts: vec![], kept: None, pictures: vec![] };
        let known = before.unwrap_or_else(|| empty.clone());
        let mut done = Done { line: Line { by_heart: known.by_heart, ..empty }, written: vec![], pictures: vec![] };
        let (find, wanted) = (self.pictures.clone(), task.clone());
        let found = tokio::task::spawn_blocking(move || find(&wanted)).await.unwrap_or_else(|died| Err(died.to_string()));
        match found {
            Ok(pictures) => self.solve(task, &pictures, &known, &mut done).await,
            Err(reason) => {
                // No try was made, and none is invented: the next start looks again.
                tracing::warn!(task = %task.id, reason, "the pictures of a task cannot be had");
                (done.line.ended, done.line.attempts) = (Ended::Failed, known.attempts);
            }
        }
        done
    }

    async fn solve(&self, task: &Task, pictures: &[Arc<Picture>], known: &Line, done: &mut Done) {
        if let Some(closed_book) = &self.closed_book
            && done.line.by_heart.is_none()
        {
            let asked = closed_book.ask(task, pictures).await;
            done.written.extend(asked.written);
            done.line.by_heart = asked.by_heart;
        }
        if let (Some(closed_book), Some(by_heart)) = (&self.closed_book, done.line.by_heart)
            && closed_book.knows(by_heart)
        {
            done.line.ended = Ended::KnownByHeart;
            return;
        }
        for budget in 1..=self.budgets.max {
            for sample in 0..u32::try_from(self.budgets.samples).unwrap_or(u32::MAX) {
                let which = Try { budget, sample };
                if let Some(attempt) = known.known(which) {
                    done.line.attempts.push(attempt.clone());
                    continue;
                }
                let tried = self.insist(task, pictures, which, &mut done.written).await;
                counter!(SERVED_ATTEMPTS, "came" => tried.attempt.came.label()).increment(1);
                let came = tried.attempt.came;
                done.line.attempts.push(tried.attempt);
                if let Some((kept, shown)) = tried.kept {
                    histogram!(BUDGET).record(f64::from(budget));
                    done.line.pictures = kept.trajectory.pictures.clone();
                    done.line.ended = Ended::Kept;
                    done.line.kept = Some(kept);
                    done.pictures = shown;
                    return;
                }
                if came == Came::Failed {
                    done.line.ended = Ended::Failed;
                    // Those behind it that are known already, if a bound was changed meanwhile, are not lost.
                    let known = known.attempts.iter().filter(|attempt| attempt.which > which && attempt.came != Came::Failed);
                    done.line.attempts.extend(known.cloned());
                    return;
                }
            }
        }
    }

    /// One try, made again while it fails for a reason outside and may be.
    async fn insist(&self, task: &Task, pictures: &[Arc<Picture>], which: Try, written: &mut Vec<Value>) -> Tried {
        let mut bill = Bill::default();
        for again in 0.. {
            let mut tried = self.attempt(task, pictures, which).await;
            written.extend(tried.written.take());
            bill += tried.attempt.bill;
            if tried.attempt.came != Came::Failed || again >= self.again {
                tried.attempt.bill = bill;
                return tried;
            }
        }
        unreachable!("`again` has no end")
    }

    async fn attempt(&self, task: &Task, pictures: &[Arc<Picture>], which: Try) -> Tried {
        let seed = seeds::of_try(self.seed, task.id.as_str(), which.budget, which.sample);
        let tape = Arc::new(Tape::of(self.setup.search.clone()));
        let player = (self.players)(which.budget, tape.clone());
        let mut attempt = Attempt {
            which,
            seed,
            came: Came::Failed,
            reason: String::new(),
            ending: None,
            answer: None,
            rounds: 0,
            searches: 0,
            tokens: 0,
            bill: Bill::default(),
        };
        let played = match player.play(task, pictures, &[seed], self.sampling).await {
            Ok(played) => played,
            Err(error) => {
                attempt.reason = error.message;
                return Tried { attempt, kept: None, written: None };
            }
        };
        let Some(trajectory) = played.trajectories.into_iter().next() else {
            attempt.reason = "nothing was played".into();
            return Tried { attempt, kept: None, written: None };
        };
        let summaries = [trajectory.summary.clone()];
        let accuracy = accuracies(&*self.judge, task, &Tally::of(&summaries)).await[0];
        let [summary] = summaries;
        attempt.came = Came::of(&trajectory, accuracy, which.budget);
        attempt.ending = Some(summary.ending);
        (attempt.rounds, attempt.searches) = (summary.round_count(), summary.searches());
        (attempt.tokens, attempt.bill) = (trajectory.tokens() as u64, Bill::of(&trajectory));
        if attempt.came == Came::Failed {
            attempt.reason = match summary.ending {
                Ending::Failed(failure) => failure.label().to_owned(),
                _ if summary.spent().all_failed() => "every search failed".into(),
                _ => "the judge gave no verdict".into(),
            };
        }
        let mut kept = None;
        if attempt.came == Came::Right {
            match demonstrate(&self.setup, task, pictures, &trajectory, played.crops, &tape).await {
                Ok((shown, crops)) => {
                    let cost = Reference { rounds: attempt.rounds, searches: attempt.searches };
                    let named = pictures.iter().cloned().chain(crops).filter(|picture| shown.pictures.contains(&picture.id)).collect();
                    kept = Some((Kept { which, reference: cost, trajectory: shown }, named));
                }
                Err(misfit) => (attempt.came, attempt.reason) = (Came::Misfit, misfit.to_string()),
            }
        }
        attempt.answer = summary.answer;
        let written = Some(self.written(task, &attempt, &trajectory));
        Tried { attempt, kept, written }
    }

    /// What the explorer said, and what it was asked.
    fn written(&self, task: &Task, attempt: &Attempt, trajectory: &Trajectory) -> Value {
        let turns = match &trajectory.spoken {
            Some(spoken) => spoken.turns.clone(),
            None => vec![self.setup.chat.decode(&trajectory.response)],
        };
        json!({
            "purpose": "explore", "model": self.model, "task": task.id, "budget": attempt.which.budget, "sample": attempt.which.sample,
            "seed": attempt.seed, "system": self.setup.config.system_text(), "question": task.question, "pictures": task.pictures,
            "turns": turns, "rounds": trajectory.summary.rounds, "ending": trajectory.summary.ending, "answer": attempt.answer,
            "came": attempt.came, "reason": attempt.reason,
        })
    }
}

/// Tasks that may fail one after the other, where few run at the same time.
const FAILED_IN_A_ROW: usize = 4;

/// A try, and what is to be kept of it.
struct Tried {
    attempt: Attempt,
    kept: Option<(Kept, Vec<Arc<Picture>>)>,
    written: Option<Value>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::future::BoxFuture;
    use hypereyes_domain::{Call, Failure, GenerateError, RolloutSummary, Round, Spoken, TaskKind};
    use hypereyes_environment::Query;
    use hypereyes_rollout::Rollouts;
    use hypereyes_scoring::JudgeKind;
    use parking_lot::Mutex;

    use super::*;
    use crate::testing::workshop;

    /// Searches as often as it may, and is right from the budget on that the task's id ends with; fails at two rounds while it is ill, if
    /// the id says so.
    struct Fake {
        budget: u32,
        search: Arc<dyn Search>,
        asked: Arc<Mutex<Vec<(String, u32, u64)>>>,
        ill: Arc<AtomicBool>,
    }

    impl Fake {
        async fn one(&self, task: &Task) -> Trajectory {
            let id = task.id.as_str();
            let from: u32 = id.rsplit('-').next().and_then(|from| from.parse().ok()).unwrap_or(99);
            let fails = id.starts_with("ill") && self.budget == 2 && self.ill.load(Ordering::SeqCst);
            let call = Call::text_search(&["Mexico currency"]);
            let (mut rounds, mut spoken) = (vec![], Spoken::default());
            for _ in 0..self.budget {
                self.search.search(0, &[Query::Text("Mexico currency".into())]).await;
                rounds.push(Round { call: Some(Box::new(call.clone())), ..Round::counted(1, 0) });
                spoken.turns.push(r#"<tool_call>{"name":"text_search","arguments":{"input":["Mexico currency"]}}</tool_call>"#.into());
                spoken.count(100, 10, 0);
            }
            let answer = if self.budget >= from { "peso" } else { "sol" };
            spoken.turns.push(format!("<answer>{answer}</answer>"));
            spoken.count(100, 10, 0);
            let (ending, answer) =
                if fails { (Ending::Failed(Failure::Timeout), None) } else { (Ending::Answered, Some(answer.to_owned())) };
            Trajectory { spoken: Some(Box::new(spoken)), ..Trajectory::from(RolloutSummary { rounds, ending, answer }) }
        }
    }

    impl Player for Fake {
        fn play<'a>(
            &'a self,
            task: &'a Task,
            _: &'a [Arc<Picture>],
            seeds: &'a [u64],
            _: Sampling,
        ) -> BoxFuture<'a, Result<Rollouts, GenerateError>> {
            self.asked.lock().push((task.id.to_string(), self.budget, seeds[0]));
            Box::pin(async { Ok(Rollouts { trajectories: vec![self.one(task).await], crops: vec![] }) })
        }

        fn closed_book<'a>(
            &'a self,
            task: &'a Task,
            _: &'a [Arc<Picture>],
            seeds: &'a [u64],
            _: Sampling,
        ) -> BoxFuture<'a, Result<Vec<Trajectory>, GenerateError>> {
            let answer = if task.id.as_str().starts_with("known") { "peso" } else { "sol" };
            let summary = RolloutSummary { rounds: vec![], ending: Ending::Answered, answer: Some(answer.into()) };
            Box::pin(async move { Ok(seeds.iter().map(|_| summary.clone().into()).collect()) })
        }
    }

    #[derive(Default)]
    struct Kept {
        written: Vec<Value>,
        standing: Standing,
    }

    impl Keeper for Kept {
        fn wrote(&mut self, written: Value) -> Result<(), SynthError> {
            self.written.push(written);
            Ok(())
        }

        fn picture(&mut self, _: &Picture) -> Result<(), SynthError> {
            Ok(())
        }

        fn stands(&mut self, standing: Standing) {
            self.standing = standing;
        }
    }

    fn task(id: &str) -> Task {
        Task {
            id: id.into(),
            kind: TaskKind::new("own"),
            question: "What is the currency of Mexico?".into(),
            answers: vec!["peso".into()],
            pictures: if id.starts_with("lost") { vec!["p".into()] } else { vec![] },
            layer: None,
            shown: vec![],
            reference: None,
            metadata: Default::default(),
        }
    }

    #[tokio::test]
    async fn the_first_success_is_kept_and_nothing_is_asked_twice() {
        let (asked, ill) = (Arc::<Mutex<Vec<(String, u32, u64)>>>::default(), Arc::new(AtomicBool::new(true)));
        let (of_fake, of_ill) = (asked.clone(), ill.clone());
        let players: Players =
            Arc::new(move |budget, search| Arc::new(Fake { budget, search, asked: of_fake.clone(), ill: of_ill.clone() }));
        let judge: Arc<dyn Verdicts> = Arc::new(JudgeKind::Alias);
        let setup = workshop(1, 0).setup;
        let closed_book = ClosedBook {
            player: players(3, setup.search.clone()),
            model: "fake".into(),
            judge: judge.clone(),
            sampling: Sampling::GREEDY,
            tries: 4,
            at_most: 1,
        };
        let served = Served {
            players,
            model: "fake".into(),
            judge,
            sampling: Sampling::GREEDY,
            budgets: Budgets { max: 3, samples: 2 },
            setup,
            closed_book: Some(closed_book),
            again: 1,
            at_once: 2,
            seed: 1,
            pictures: Arc::new(|task| if task.pictures.is_empty() { Ok(vec![]) } else { Err("there is none".into()) }),
        };
        let tasks: Vec<Task> = ["a-1", "b-2", "c-99", "known-1", "ill-3", "lost-1"].map(task).to_vec();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut ledger = Ledger::open(folder.path()).expect("made");
        let mut kept = Kept::default();
        served.explore(&tasks, &mut ledger, &mut kept, std::future::pending()).await.expect("explored");
        let ended = |ledger: &Ledger| tasks.iter().map(|task| ledger.line(&task.id).map(|line| line.ended)).collect::<Vec<_>>();
        let (unsolved, known, failed) = (Some(Ended::Unsolved), Some(Ended::KnownByHeart), Some(Ended::Failed));
        assert_eq!(ended(&ledger), [Some(Ended::Kept), Some(Ended::Kept), unsolved, known, failed, failed]);
        assert_eq!((kept.standing.done, kept.standing.of, kept.standing.kept, kept.standing.failed), (6, 6, 2, 2));
        let budgets = |from: usize, id: &str| -> Vec<u32> {
            asked.lock()[from..].iter().filter(|(task, ..)| task == id).map(|(_, budget, _)| *budget).collect()
        };
        assert_eq!([budgets(0, "a-1"), budgets(0, "b-2"), budgets(0, "c-99")], [vec![1], vec![1, 1, 2], vec![1, 1, 2, 2, 3, 3]]);
        // A try that fails is made once more, with the same seed.
        assert_eq!(budgets(0, "ill-3"), [1, 1, 2, 2]);
        let seeds: Vec<u64> = asked.lock().iter().filter(|(task, ..)| task == "ill-3").map(|(.., seed)| *seed).collect();
        assert!(seeds[2] == seeds[3] && seeds[0] != seeds[1] && seeds[1] != seeds[2]);
        let demonstration = ledger.kept(&"b-2".into()).expect("reads").expect("kept");
        assert_eq!((demonstration.which, demonstration.reference), (Try { budget: 2, sample: 0 }, Reference { rounds: 2, searches: 2 }));
        assert!(demonstration.trajectory.spoken.is_none() && demonstration.trajectory.sampled_tokens() > 0);
        demonstration.trajectory.check().expect("sound");
        let yields = Yields::of(tasks.iter().filter_map(|task| ledger.line(&task.id)), 3);
        assert_eq!((yields.kept, yields.unsolved, yields.known_by_heart, yields.failed), (2, 1, 1, 2));
        assert_eq!(yields.budgets.iter().map(|one| (one.tried, one.right)).collect::<Vec<_>>(), [(4, 1), (2, 1), (1, 0)]);
        assert_eq!(kept.standing.bill, yields.bill);
        // Four tries without tools of every task with pictures that are there, and every episode.
        assert_eq!(kept.written.len(), 5 * 4 + 1 + 3 + 6 + 4);

        // Begun again: what failed goes on where it was, everything else stands.
        drop(ledger);
        let from = asked.lock().len();
        ill.store(false, Ordering::SeqCst);
        let mut ledger = Ledger::open(folder.path()).expect("there");
        let mut kept = Kept::default();
        served.explore(&tasks, &mut ledger, &mut kept, std::future::pending()).await.expect("explored");
        assert_eq!(ended(&ledger), [Some(Ended::Kept), Some(Ended::Kept), unsolved, known, Some(Ended::Kept), failed]);
        assert_eq!(budgets(from, "ill-3"), [2, 2, 3]);
        assert_eq!(asked.lock().len() - from, 3);
        let line = ledger.line(&"ill-3".into()).expect("known");
        assert_eq!(line.attempts.iter().map(|one| (one.which.budget, one.came)).collect::<Vec<_>>(), {
            let (wrong, right) = (Came::Wrong, Came::Right);
            [(1, wrong), (1, wrong), (2, wrong), (2, wrong), (3, right)]
        });
        assert_eq!(kept.standing.bill, Yields::of(tasks.iter().filter_map(|task| ledger.line(&task.id)), 3).bill);
        // Stopped before it begins, it asks nobody.
        served.explore(&tasks, &mut ledger, &mut kept, std::future::ready(())).await.expect("stopped");
        assert_eq!(asked.lock().len() - from, 3);
    }

    #[test]
    fn an_explorer_that_speaks_text_is_told_its_budget_and_nobody_else_is() {
        let usual = RolloutConfig::default();
        let told = within(&usual, 1, true);
        assert_eq!((told.env.max_rounds, told.env.max_turns), (1, 2));
        assert_eq!(told.system_prompt, "Search wide, then answer. You have one call in all: look for as much as you can in each.");
        assert!(within(&usual, 3, true).system_prompt.contains("You have 3 calls in all"));
        let taught = RolloutConfig { offer_tools: false, ..usual.clone() };
        assert_eq!(within(&taught, 3, true).system_prompt, usual.system_prompt, "it knows its own prompt");
        let tokens = within(&usual, 3, false);
        assert_eq!((&tokens.system_prompt, tokens.env.hint_one_left.as_str(), tokens.env.max_rounds), (&usual.system_prompt, "", 3));
        assert_eq!(within(&usual, 8, false), usual, "the largest budget is that of training");
    }
}
