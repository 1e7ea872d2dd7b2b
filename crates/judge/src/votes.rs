//! What several votes on one answer come to. In: verdicts, and votes that are missing. Out: the verdict of more than half of all that
//! were asked for, or that there is none. It asks nobody.
//!
//! A missing vote is on nobody's side: two that agree, of three, are a verdict; one of which two are missing is none.

use hypereyes_scoring::Verdict;

/// Most votes that may be asked for.
pub const MOST_VOTES: u32 = 99;

/// What votes come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// More than half say this.
    Verdict(Verdict),
    /// No verdict can have more than half any more.
    None,
}

/// Votes so far.
#[derive(Clone, Debug)]
pub struct Votes {
    of: u32,
    missing: u32,
    said: Vec<Verdict>,
}

impl Votes {
    /// None so far, of `of`.
    pub fn new(of: u32) -> Self {
        Self { of, missing: 0, said: vec![] }
    }

    /// A vote.
    pub fn take(&mut self, verdict: Verdict) {
        self.said.push(verdict);
    }

    /// A vote that did not come.
    pub fn miss(&mut self) {
        self.missing += 1;
    }

    /// What they come to, as soon as no vote that is still out can change it.
    pub fn outcome(&self) -> Option<Outcome> {
        let count = |verdict: Verdict| self.said.iter().filter(|said| **said == verdict).count() as u32;
        let sides = [Verdict::Correct, Verdict::Wrong, Verdict::NotAttempted].map(|verdict| (count(verdict), verdict));
        let (most, verdict) = sides.into_iter().max_by_key(|(count, _)| *count)?;
        let out = self.of.saturating_sub(self.missing + self.said.len() as u32);
        if 2 * most > self.of {
            return Some(Outcome::Verdict(verdict));
        }
        (2 * (most + out) <= self.of).then_some(Outcome::None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `c`, `w`, `n` or `-` for a missing one.
    fn of(count: u32, said: &str) -> Option<Outcome> {
        let mut votes = Votes::new(count);
        for letter in said.chars() {
            match letter {
                'c' => votes.take(Verdict::Correct),
                'w' => votes.take(Verdict::Wrong),
                'n' => votes.take(Verdict::NotAttempted),
                _ => votes.miss(),
            }
        }
        votes.outcome()
    }

    #[test]
    fn more_than_half_of_all_that_were_asked_for_decide() {
        let (right, wrong, declined) =
            (Outcome::Verdict(Verdict::Correct), Outcome::Verdict(Verdict::Wrong), Outcome::Verdict(Verdict::NotAttempted));
        for (count, said, want) in [
            (1, "", None),
            (1, "c", Some(right)),
            (1, "-", Some(Outcome::None)),
            (3, "c", None),
            (3, "cw", None),
            (3, "cc", Some(right)),
            (3, "cwc", Some(right)),
            (3, "w-w", Some(wrong)),
            (3, "nn", Some(declined)),
            (3, "c-", None),
            (3, "--", Some(Outcome::None)),
            (3, "cw-", Some(Outcome::None)),
            (3, "cwn", Some(Outcome::None)),
            (5, "ccww", None),
            (5, "ccwwn", Some(Outcome::None)),
            (5, "ccw-c", Some(right)),
            (5, "ccw--", Some(Outcome::None)),
        ] {
            assert_eq!(of(count, said), want, "{said} of {count}");
        }
    }
}
