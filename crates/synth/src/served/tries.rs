//! One try of a task. In: the task, its pictures, a budget of rounds. Out: what it came to and what it cost, the demonstration where it is
//! one, and everything that was said. It knows no other try and no file.

use std::sync::Arc;

use hypereyes_domain::{Ending, Reference, Task, Trajectory};
use hypereyes_judge::accuracies;
use hypereyes_pictures::Picture;
use hypereyes_scoring::Tally;
use serde_json::{Value, json};

use super::Served;
use super::attempt::{Attempt, Bill, Came, Kept, Try, shortened};
use super::recite::demonstrate;
use super::tape::Tape;
use crate::seeds;

/// A try, and what is to be kept of it.
pub(super) struct Tried {
    pub(super) attempt: Attempt,
    /// The demonstration, and the pictures that it shows.
    pub(super) kept: Option<(Kept, Vec<Arc<Picture>>)>,
    written: Option<Value>,
}

impl Served {
    /// One try, made again while it fails for a reason outside and may be.
    pub(super) async fn insist(&self, task: &Task, pictures: &[Arc<Picture>], which: Try, written: &mut Vec<Value>) -> Tried {
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
        attempt.answer = summary.answer.as_deref().map(shortened);
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
            "turns": turns, "rounds": trajectory.summary.rounds, "ending": trajectory.summary.ending, "answer": trajectory.summary.answer,
            "came": attempt.came, "reason": attempt.reason,
        })
    }
}
