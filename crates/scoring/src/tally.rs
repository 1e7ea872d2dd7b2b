//! What scoring needs of a group, gathered in one walk over it. In: how the rollouts went. Out: the answers that need a judge, each
//! once, and of every rollout its answer's place among them and its cost.
//!
//! Who judges, and what a cost is worth, is not known here.

use std::iter;

use hypereyes_domain::{Accuracy, Ending, Failure, RolloutSummary, Spent};
use smallvec::SmallVec;

/// One entry per rollout: groups of eight and smaller need no memory of their own.
pub type Few<T> = SmallVec<[T; 8]>;

/// Answers and costs of a group.
#[derive(Debug)]
pub struct Tally<'a> {
    answers: Few<&'a str>,
    /// Of every answer what tells it from most others at a glance.
    glances: Few<u64>,
    rollouts: Few<Entry>,
}

#[derive(Debug)]
struct Entry {
    said: Said,
    spent: Spent,
}

/// What a rollout answered.
#[derive(Clone, Copy, Debug)]
enum Said {
    Nothing,
    Answer(usize),
    /// It says nothing about the policy.
    Failed(Failure),
}

impl<'a> Tally<'a> {
    /// Of a group.
    pub fn of(rollouts: &'a [RolloutSummary]) -> Self {
        let mut tally = Self { answers: Few::new(), glances: Few::new(), rollouts: Few::new() };
        for summary in rollouts {
            let spent = summary.spent();
            let said = match said(summary, spent.all_failed()) {
                Ok("") => Said::Nothing,
                Ok(answer) => Said::Answer(tally.place(answer)),
                Err(failure) => Said::Failed(failure),
            };
            tally.rollouts.push(Entry { said, spent });
        }
        tally
    }

    /// The answers that need a judge, each once.
    pub fn to_judge(&self) -> &[&'a str] {
        &self.answers
    }

    /// The accuracy of every rollout, where `judged` is that of a place in [`Tally::to_judge`].
    pub fn accuracies(&self, judged: impl Fn(usize) -> Accuracy) -> Few<Accuracy> {
        let accuracy = |entry: &Entry| match entry.said {
            Said::Nothing => Accuracy::Unparsed,
            Said::Answer(at) => judged(at),
            Said::Failed(failure) => Accuracy::Invalid(failure),
        };
        self.rollouts.iter().map(accuracy).collect()
    }

    /// Accuracy and cost of every rollout; a missing accuracy is `Invalid(Judge)`.
    pub(crate) fn costs(&self, accuracies: &[Accuracy]) -> Few<(Accuracy, Spent)> {
        let given = accuracies.iter().copied().chain(iter::repeat(Accuracy::Invalid(Failure::Judge)));
        self.rollouts.iter().zip(given).map(|(entry, accuracy)| (accuracy, entry.spent)).collect()
    }

    /// Where an answer is, or is put. Siblings give few answers in no order: of a walk that ends at the right one a processor would
    /// guess wrong where it does, so every known one is glanced at.
    fn place(&mut self, answer: &'a str) -> usize {
        let own = glance(answer);
        let mut alike = 0;
        for (at, glance) in self.glances.iter().enumerate() {
            alike = if *glance == own { at } else { alike };
        }
        if self.answers.get(alike).is_some_and(|known| *known == answer) {
            return alike;
        }
        let known = self.answers.iter().position(|known| *known == answer);
        known.unwrap_or_else(|| {
            self.answers.push(answer);
            self.glances.push(own);
            self.answers.len() - 1
        })
    }
}

/// Length, first and last byte.
fn glance(text: &str) -> u64 {
    let end = |byte: Option<&u8>| u64::from(byte.copied().unwrap_or_default());
    (text.len() as u64) << 16 | end(text.as_bytes().first()) << 8 | end(text.as_bytes().last())
}

/// What a rollout answered, blank if nothing; or why it says nothing about the policy: it failed for an outside reason, or every
/// one of its searches did.
pub(crate) fn said(summary: &RolloutSummary, searches_all_failed: bool) -> Result<&str, Failure> {
    if let Ending::Failed(failure) = summary.ending {
        return Err(failure);
    }
    if searches_all_failed {
        return Err(Failure::Tool);
    }
    Ok(summary.answer.as_deref().map_or("", trimmed))
}

/// The answer without blanks around it; most have none.
fn trimmed(answer: &str) -> &str {
    match answer.as_bytes() {
        [] => answer,
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => answer,
        _ => answer.trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypereyes_domain::Round;

    fn summary(answer: Option<&str>, failed_searches: u32) -> RolloutSummary {
        let rounds = vec![Round::counted(2, failed_searches)];
        RolloutSummary { rounds, ending: Ending::Answered, answer: answer.map(str::to_owned) }
    }

    #[test]
    fn every_answer_is_judged_once_whatever_it_looks_like_at_a_glance() {
        // Length and ends are those of another one; blanks around it, of more than one byte; more than fit without memory.
        let given = ["abc", "axc", "", " abc\u{a0}", "axc", "abcd", " ", "é", "e", "1", "2", "3", "4", "5", "6", "abc"];
        let rollouts: Vec<RolloutSummary> = given.iter().map(|answer| summary(Some(answer), 0)).collect();
        let tally = Tally::of(&rollouts);
        assert_eq!(tally.to_judge(), ["abc", "axc", "abcd", "é", "e", "1", "2", "3", "4", "5", "6"]);
        let of = |at: usize| if at == 0 { Accuracy::Correct } else { Accuracy::Wrong };
        let want = given.map(|answer| match answer.trim() {
            "" => Accuracy::Unparsed,
            "abc" => Accuracy::Correct,
            _ => Accuracy::Wrong,
        });
        assert_eq!(tally.accuracies(of)[..], want);
    }

    #[test]
    fn no_judge_is_asked_about_a_rollout_that_says_nothing_about_the_policy() {
        let broken = RolloutSummary { ending: Ending::Failed(Failure::Timeout), ..summary(Some("a"), 0) };
        let rollouts = [summary(Some("a"), 2), broken, summary(None, 0), summary(Some("a"), 1)];
        let tally = Tally::of(&rollouts);
        let want = [Accuracy::Invalid(Failure::Tool), Accuracy::Invalid(Failure::Timeout), Accuracy::Unparsed, Accuracy::Correct];
        assert_eq!(tally.accuracies(|_| Accuracy::Correct)[..], want);
        let costs = tally.costs(&want[..3]);
        assert_eq!(costs.iter().map(|(_, spent)| (spent.rounds, spent.searches)).collect::<Vec<_>>(), [(1, 2); 4]);
        assert_eq!(costs[3].0, Accuracy::Invalid(Failure::Judge), "no verdict is never a wrong answer");
    }
}
