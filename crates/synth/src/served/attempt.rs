//! What one try of an explorer came to, and what all tries of a task did: the lines of `attempts.jsonl`. In: trajectories with their
//! verdicts. Out: values that are written and read back. It knows no file and nobody who samples.

use hypereyes_domain::{Accuracy, Ending, PictureId, Reference, TaskId, Trajectory};
use serde::{Deserialize, Serialize};

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// Right, after searching, within its budget: it is kept.
    Right,
    /// The judge says so.
    Wrong,
    /// It ended without an answer.
    NoAnswer,
    /// Right without a search: a guess shows nobody how to search.
    Unsearched,
    /// Right, and no demonstration for the policy that is to learn from it.
    Misfit,
    /// Nothing was learned, for a reason that is not the explorer's: it is asked again.
    Failed,
}

impl Came {
    /// Every one, in the order of reports.
    pub const ALL: [Self; 6] = [Self::Right, Self::Wrong, Self::NoAnswer, Self::Unsearched, Self::Misfit, Self::Failed];

    /// The `came` label of counters.
    pub fn label(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Wrong => "wrong",
            Self::NoAnswer => "no_answer",
            Self::Unsearched => "unsearched",
            Self::Misfit => "misfit",
            Self::Failed => "failed",
        }
    }

    /// Of a trajectory that was played with at most `budget` rounds, before it is looked at as a demonstration.
    pub fn of(trajectory: &Trajectory, accuracy: Accuracy, budget: u32) -> Self {
        let summary = &trajectory.summary;
        let cost = Reference { rounds: summary.round_count(), searches: summary.searches() };
        match accuracy {
            Accuracy::Invalid(_) => Self::Failed,
            Accuracy::Unparsed | Accuracy::NotAttempted => Self::NoAnswer,
            Accuracy::Wrong => Self::Wrong,
            // What was cut off after its answer was closed is right, and teaches to be cut off.
            Accuracy::Correct if summary.ending != Ending::Answered || cost.rounds > budget => Self::NoAnswer,
            Accuracy::Correct if !cost.is_possible() => Self::Unsearched,
            Accuracy::Correct => Self::Right,
        }
    }
}

/// Letters of an answer that a line keeps: no server's reply makes a line that is too long to be read again.
const MAX_ANSWER: usize = 1000;

/// The beginning of an answer.
pub(super) fn shortened(answer: &str) -> String {
    answer.chars().take(MAX_ANSWER).collect()
}

/// Which try of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Try {
    /// Rounds that it had.
    pub budget: u32,
    /// Its number under this budget, from 0.
    pub sample: u32,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which.
    #[serde(flatten)]
    pub which: Try,
    /// What it was sampled with.
    pub seed: u64,
    /// What it came to.
    pub came: Came,
    /// Why it is no demonstration, or what failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How it ended; nothing where it did not begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// What was answered; the beginning of a long one, which `written.jsonl` has whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Tool rounds.
    pub rounds: u32,
    /// Searches over all rounds.
    pub searches: u32,
    /// Tokens of the episode, each counted once.
    pub tokens: u64,
    /// Tokens that were sent and that were said, over all requests and all times that it was asked again.
    pub bill: Bill,
}

/// Tokens as whoever serves a model counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// Sent: every turn sends all before it again.
    pub sent: u64,
    /// Said.
    pub said: u64,
}

impl Bill {
    /// Of a trajectory. Who samples tokens is counted by its prompt and what it sampled.
    pub fn of(trajectory: &Trajectory) -> Self {
        match &trajectory.spoken {
            Some(spoken) => Self { sent: spoken.prompt_tokens, said: spoken.completion_tokens },
            None => {
                let said = trajectory.sampled_tokens() as u64;
                Self { sent: (trajectory.tokens() as u64).saturating_sub(said), said }
            }
        }
    }

    /// Dollars, at so many for a million tokens that are sent and that are said.
    pub fn usd(self, [sent, said]: [f64; 2]) -> f64 {
        (self.sent as f64 * sent + self.said as f64 * said) / 1e6
    }
}

impl std::ops::AddAssign for Bill {
    fn add_assign(&mut self, other: Self) {
        self.sent = self.sent.saturating_add(other.sent);
        self.said = self.said.saturating_add(other.said);
    }
}

/// What came of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// A demonstration was kept.
    Kept,
    /// None was found under the largest budget.
    Unsolved,
    /// The explorer answers it without tools.
    KnownByHeart,
    /// A try failed for a reason outside, as often as it was asked: the task is taken up again by the same command.
    Failed,
}

impl Ended {
    /// The `ended` label of counters.
    pub fn label(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Unsolved => "unsolved",
            Self::KnownByHeart => "known_by_heart",
            Self::Failed => "failed",
        }
    }
}

/// A demonstration and its cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The try.
    #[serde(flatten)]
    pub which: Try,
    /// Its cost.
    pub reference: Reference,
    /// In the vocabulary of the policy that is to learn from it.
    pub trajectory: Trajectory,
}

/// Answers without tools, of the need-search filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHeart {
    /// Tries that were right.
    pub right: u32,
    /// Tries that were judged.
    pub of: u32,
    /// What they cost.
    pub bill: Bill,
}

/// One line of `attempts.jsonl`: a task that is done with, or that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Which task.
    pub task: TaskId,
    /// What came of it.
    pub ended: Ended,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Without tools, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_heart: Option<ByHeart>,
    /// Every try, in order.
    pub attempts: Vec<Attempt>,
    /// What is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Kept>,
    /// Pictures that the demonstration shows, those of the task included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pictures: Vec<PictureId>,
}

impl Line {
    /// A task that nothing is known of.
    pub fn of(task: TaskId) -> Self {
        let (reason, attempts, pictures) = (String::new(), vec![], vec![]);
        Self { task, ended: Ended::Unsolved, reason, by_heart: None, attempts, kept: None, pictures }
    }

    /// Says that it failed, and why.
    pub(super) fn failed(&mut self, reason: String) {
        tracing::warn!(task = %self.task, reason, "a task failed for a reason outside");
        (self.ended, self.reason) = (Ended::Failed, reason);
    }

    /// What all of it cost.
    pub fn bill(&self) -> Bill {
        let mut bill = self.by_heart.map_or(Bill::default(), |by_heart| by_heart.bill);
        self.attempts.iter().for_each(|attempt| bill += attempt.bill);
        bill
    }

    /// What a try cost so far, whatever it came to.
    pub fn bill_of(&self, which: Try) -> Bill {
        self.attempts.iter().find(|attempt| attempt.which == which).map_or(Bill::default(), |attempt| attempt.bill)
    }

    /// A try that need not be made again.
    pub fn known(&self, which: Try) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.which == which && attempt.came != Came::Failed)
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Failure, RolloutSummary, Round};

    use super::*;

    #[test]
    fn only_what_searched_within_its_budget_is_right() {
        let played = |rounds: usize, searches: u32, ending: Ending| {
            let answer = (ending != Ending::TurnLimit).then(|| "a".to_owned());
            Trajectory::from(RolloutSummary { rounds: vec![Round::counted(searches, 0); rounds], ending, answer })
        };
        let (right, answered) = (Accuracy::Correct, Ending::Answered);
        for (trajectory, accuracy, came) in [
            (played(2, 1, answered), right, Came::Right),
            (played(3, 1, answered), right, Came::NoAnswer),
            (played(0, 0, answered), right, Came::Unsearched),
            (played(1, 0, answered), right, Came::Unsearched),
            (played(1, 1, Ending::TurnTruncated), right, Came::NoAnswer),
            (played(1, 1, answered), Accuracy::Wrong, Came::Wrong),
            (played(2, 1, Ending::TurnLimit), Accuracy::Unparsed, Came::NoAnswer),
            (played(1, 1, answered), Accuracy::Invalid(Failure::Judge), Came::Failed),
        ] {
            assert_eq!(Came::of(&trajectory, accuracy, 2), came, "{:?} {accuracy:?}", trajectory.summary);
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let attempt = Attempt {
            which: Try { budget: 2, sample: 1 },
            seed: u64::MAX >> 1,
            came: Came::Failed,
            reason: "busy".into(),
            ending: Some(Ending::Failed(Failure::Timeout)),
            answer: None,
            rounds: 1,
            searches: 2,
            tokens: 99,
            bill: Bill { sent: 120, said: 12 },
        };
        let kept = Kept {
            which: attempt.which,
            reference: Reference { rounds: 1, searches: 2 },
            trajectory: RolloutSummary { rounds: vec![], ending: Ending::Answered, answer: Some("a".into()) }.into(),
        };
        let line = Line {
            task: "t".into(),
            ended: Ended::Kept,
            reason: "it failed before".into(),
            by_heart: Some(ByHeart { right: 1, of: 4, bill: Bill { sent: 1, said: 1 } }),
            attempts: vec![attempt.clone()],
            kept: Some(kept),
            pictures: vec!["p".into()],
        };
        let text = serde_json::to_string(&line).expect("plain data");
        assert_eq!(serde_json::from_str::<Line>(&text).expect("reads back"), line);
        assert_eq!((line.bill(), line.known(attempt.which)), (Bill { sent: 121, said: 13 }, None), "what failed is not known");
        assert_eq!(line.bill_of(attempt.which), attempt.bill, "and was paid for");
        assert_eq!(shortened(&"\u{e9}".repeat(5000)).chars().count(), 1000);
        assert!((line.bill().usd([2.0, 10.0]) - 372e-6).abs() < 1e-12);
    }
}
