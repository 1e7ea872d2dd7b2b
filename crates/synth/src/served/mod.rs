//! Progressive rejection sampling with any model that is served, as explorer (docs/spec.md#synthesis, step 4).
//!
//! In: tasks with their pictures, players that are given a budget of rounds, a judge, and the chat of the policy that is to learn. Out:
//! what came of every task, a line each as soon as it is known: a demonstration and its cost, or why there is none. Nothing that was paid
//! for is asked again: a task that is done with is passed over, of one that failed the tries that came to something are kept.
//!
//! It knows no wire: an explorer is a [`Player`], whether it samples tokens or speaks text.

pub mod attempt;
mod ledger;
mod limits;
mod recite;
mod tape;
#[cfg(test)]
mod tests;
mod tries;
mod yields;

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use hypereyes_domain::{Sampling, Task};
use hypereyes_environment::Search;
use hypereyes_judge::Verdicts;
use hypereyes_pictures::Picture;
use hypereyes_rollout::{Player, Setup};
use metrics::{counter, histogram};
use serde_json::Value;

pub use self::attempt::{Attempt, Bill, ByHeart, Came, Ended, Kept, Line, Try};
pub use self::ledger::{ATTEMPTS, Ledger};
pub use self::limits::within;
pub use self::recite::{Misfit, Turn, demonstrate};
pub use self::tape::{Replay, Tape};
pub use self::yields::{Yield, Yields};
use crate::SynthError;
use crate::metrics::{BUDGET, SERVED_ATTEMPTS, SERVED_TASKS};
use crate::need::ClosedBook;
use crate::rejection::Budgets;

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
        let empty = Line::of(task.id.clone());
        let known = before.unwrap_or_else(|| empty.clone());
        let mut done = Done { line: Line { by_heart: known.by_heart, ..empty }, written: vec![], pictures: vec![] };
        let (find, wanted) = (self.pictures.clone(), task.clone());
        let found = tokio::task::spawn_blocking(move || find(&wanted)).await.unwrap_or_else(|died| Err(died.to_string()));
        match found {
            Ok(pictures) => self.solve(task, &pictures, &known, &mut done).await,
            Err(reason) => {
                // No try was made, and none is invented: the next start looks again.
                done.line.attempts = known.attempts;
                done.line.failed(format!("its pictures cannot be had: {reason}"));
            }
        }
        done
    }

    /// How many answers without tools are right; asked again while that fails for a reason outside and may be.
    async fn by_heart(
        &self,
        closed_book: &ClosedBook,
        task: &Task,
        pictures: &[Arc<Picture>],
        written: &mut Vec<Value>,
    ) -> Option<ByHeart> {
        for _ in 0..=self.again {
            let asked = closed_book.ask(task, pictures).await;
            written.extend(asked.written);
            if asked.by_heart.is_some() {
                return asked.by_heart;
            }
        }
        None
    }

    async fn solve(&self, task: &Task, pictures: &[Arc<Picture>], known: &Line, done: &mut Done) {
        if let Some(closed_book) = &self.closed_book
            && done.line.by_heart.is_none()
        {
            done.line.by_heart = self.by_heart(closed_book, task, pictures, &mut done.written).await;
            if done.line.by_heart.is_none() {
                // It may be known by heart: it is not explored before that is known.
                done.line.attempts.clone_from(&known.attempts);
                done.line.failed("whether it is known by heart could not be asked".into());
                return;
            }
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
                let mut tried = self.insist(task, pictures, which, &mut done.written).await;
                // What it cost when it failed before was spent.
                tried.attempt.bill += known.bill_of(which);
                counter!(SERVED_ATTEMPTS, "came" => tried.attempt.came.label()).increment(1);
                let came = tried.attempt.came;
                let reason = tried.attempt.reason.clone();
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
                    done.line.failed(reason);
                    // Those behind it that are known already, if a bound was changed meanwhile, are not lost.
                    let known = known.attempts.iter().filter(|attempt| attempt.which > which && attempt.came != Came::Failed);
                    done.line.attempts.extend(known.cloned());
                    return;
                }
            }
        }
    }
}

/// Tasks that may fail one after the other, where few run at the same time.
const FAILED_IN_A_ROW: usize = 4;
