//! The TRACE reference of a task as a join-semilattice (docs/spec.md#reference, #d5, #d8). In: candidates of scored groups, commits.
//! Out: the reference that the task is scored against.
//!
//! Duplicated, reordered or replayed observations and commits cannot loosen a reference. How many tasks there are and what
//! is durable is not known here.

use hypereyes_domain::{Accuracy, Reference, RolloutSummary, Score, Task};
use serde::{Deserialize, Serialize};

/// The cheapest success of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Place of the rollout in its group, from 0.
    pub rollout: usize,
    /// What it cost.
    pub reference: Reference,
}

/// The cheapest success of a group that searched: correct, at least one search, lexicographic minimum of (rounds, searches), the
/// first of equals. Entries beyond the shorter list are ignored.
pub fn candidate(scores: &[Score], rollouts: &[impl AsRef<RolloutSummary>]) -> Option<Candidate> {
    let success = |(at, (score, summary)): (usize, (&Score, &RolloutSummary))| {
        let reference = Reference { rounds: summary.round_count(), searches: summary.searches() };
        (score.accuracy == Accuracy::Correct && reference.is_possible()).then_some(Candidate { rollout: at, reference })
    };
    scores.iter().zip(rollouts.iter().map(AsRef::as_ref)).enumerate().filter_map(success).min_by_key(|candidate| candidate.reference)
}

/// When what was observed begins to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceMode {
    /// At the next commit; within an epoch, scoring is a pure function of the committed references. The default.
    #[default]
    Epoch,
    /// At once.
    Immediate,
    /// Never: references are those that the tasks came with.
    Static,
}

/// What is known of one task: its committed reference, and a tighter candidate that waits for the next commit.
///
/// Invariant: the candidate is strictly tighter than the committed reference, so two that know the same are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    committed: Option<Reference>,
    pending: Option<Reference>,
}

/// How a committed reference changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tightened {
    /// What it was; nothing when the task had none.
    pub from: Option<Reference>,
    /// What it is now.
    pub to: Reference,
}

impl Known {
    /// A committed reference and nothing else; nothing at all if no success can have cost it.
    pub fn committed_at(reference: Reference) -> Self {
        Self { committed: Some(reference).filter(Reference::is_possible), pending: None }
    }

    /// The committed reference.
    pub fn committed(&self) -> Option<Reference> {
        self.committed
    }

    /// The candidate that waits for the next commit.
    pub fn pending(&self) -> Option<Reference> {
        self.pending
    }

    /// What `task`, of which this is known, is scored against: the tighter of the committed reference and the one that the
    /// task came with.
    pub fn reference_for(&self, task: &Task) -> Option<Reference> {
        let given = task.reference.filter(Reference::is_possible);
        match self.committed {
            Some(committed) => Some(Reference::tighten(given, committed)),
            None => given,
        }
    }

    /// Whether [`Known::observe`] would change anything. References of no round or no search are not references: one would be
    /// tighter than anything, for ever.
    pub fn is_news(&self, mode: ReferenceMode, seen: Reference) -> bool {
        let tighter = |known: Option<Reference>| known.is_none_or(|known| seen < known);
        let counts = match mode {
            ReferenceMode::Epoch => tighter(self.pending),
            ReferenceMode::Immediate => true,
            ReferenceMode::Static => false,
        };
        counts && seen.is_possible() && tighter(self.committed)
    }

    /// Takes in a success. What the committed reference became, if it changed: a candidate changes it at the commit.
    pub fn observe(&mut self, mode: ReferenceMode, seen: Reference) -> Option<Tightened> {
        if !self.is_news(mode, seen) {
            return None;
        }
        if mode == ReferenceMode::Epoch {
            self.pending = Some(seen);
            return None;
        }
        let from = self.committed.replace(seen);
        self.drop_overtaken();
        Some(Tightened { from, to: seen })
    }

    /// What is pending begins to count.
    pub fn commit(&mut self) -> Option<Tightened> {
        let to = self.pending.take()?;
        Some(Tightened { from: self.committed.replace(to), to })
    }

    /// The join: the tighter of each. Associative, commutative, idempotent.
    pub fn merge(&mut self, other: &Self) {
        let tighter = |own: Option<Reference>, other: Option<Reference>| own.into_iter().chain(other).min();
        self.committed = tighter(self.committed, other.committed);
        self.pending = tighter(self.pending, other.pending);
        self.drop_overtaken();
    }

    fn drop_overtaken(&mut self) {
        self.pending = self.pending.filter(|seen| self.committed.is_none_or(|known| *seen < known));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::{rollout, task};
    use crate::{AliasJudge, TraceConfig, score_group};
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    fn seen(rng: &mut StdRng) -> Reference {
        Reference { rounds: rng.random_range(0..5), searches: rng.random_range(0..9) }
    }

    fn mode(rng: &mut StdRng) -> ReferenceMode {
        [ReferenceMode::Epoch, ReferenceMode::Immediate, ReferenceMode::Static][rng.random_range(0..3)]
    }

    fn known(rng: &mut StdRng) -> Known {
        let mut known = Known::default();
        for _ in 0..rng.random_range(0..6) {
            known.observe(mode(rng), seen(rng));
            if rng.random_bool(0.2) {
                known.commit();
            }
        }
        known
    }

    fn joined(left: Known, right: Known) -> Known {
        let mut out = left;
        out.merge(&right);
        out
    }

    #[test]
    fn a_reference_never_loosens_and_a_candidate_is_always_tighter() {
        for seed in 0..2000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut known = Known::default();
            for _ in 0..40 {
                let before = known;
                let changed = if rng.random_bool(0.3) { known.commit() } else { known.observe(mode(&mut rng), seen(&mut rng)) };
                assert!(before.committed().is_none_or(|old| known.committed().is_some_and(|new| new <= old)));
                assert!(known.pending().is_none_or(|waiting| known.committed().is_none_or(|old| waiting < old)));
                assert!(known.committed().is_none_or(|reference| reference.is_possible()));
                // What it says of a change is the change.
                match changed {
                    Some(Tightened { from, to }) => assert_eq!((from, Some(to)), (before.committed(), known.committed())),
                    None => assert_eq!(before.committed(), known.committed()),
                }
            }
        }
    }

    #[test]
    fn order_and_duplicates_do_not_matter() {
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let events: Vec<_> = (0..20).map(|_| seen(&mut rng)).collect();
            let mut shuffled = [events.clone(), events[5..15].to_vec()].concat();
            shuffled.shuffle(&mut rng);
            for mode in [ReferenceMode::Epoch, ReferenceMode::Immediate] {
                let run = |events: &[Reference]| {
                    let mut known = Known::default();
                    for reference in events {
                        known.observe(mode, *reference);
                    }
                    let waiting = known;
                    known.commit();
                    (waiting, known)
                };
                assert_eq!(run(&events), run(&shuffled));
            }
        }
    }

    #[test]
    fn merging_is_a_join() {
        for seed in 0..2000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (a, b, c) = (known(&mut rng), known(&mut rng), known(&mut rng));
            assert_eq!(joined(a, b), joined(b, a));
            assert_eq!(joined(joined(a, b), c), joined(a, joined(b, c)));
            assert_eq!(joined(a, a), a);
            assert_eq!(joined(joined(a, b), b), joined(a, b));
        }
    }

    #[test]
    fn observations_do_not_count_within_an_epoch() {
        let tight = Reference { rounds: 1, searches: 1 };
        let after = |mode| {
            let mut known = Known::default();
            known.observe(mode, tight);
            known.reference_for(&task())
        };
        assert_eq!([after(ReferenceMode::Epoch), after(ReferenceMode::Immediate), after(ReferenceMode::Static)], [None, Some(tight), None]);
    }

    #[test]
    fn the_reference_of_the_task_set_holds_until_something_tighter() {
        let given = Reference { rounds: 2, searches: 2 };
        let task = Task { reference: Some(given), ..task() };
        let mut known = Known::default();
        known.observe(ReferenceMode::Immediate, Reference { rounds: 3, searches: 1 });
        assert_eq!(known.reference_for(&task), Some(given));
        known.observe(ReferenceMode::Immediate, Reference { rounds: 1, searches: 9 });
        assert_eq!(known.reference_for(&task), Some(Reference { rounds: 1, searches: 9 }));
    }

    #[test]
    fn candidates_are_successes_that_searched() {
        let rollouts = vec![
            rollout(Some("Paris"), &[]),
            rollout(Some("Rome"), &[1]),
            rollout(Some("Paris"), &[2, 2]),
            rollout(Some("Paris"), &[1, 2]),
            // Rounds that searched nothing make nobody a searcher, and a searcher no cheaper.
            rollout(Some("Paris"), &[0]),
            rollout(Some("Paris"), &[0, 0]),
            rollout(Some("Paris"), &[0, 1, 1]),
        ];
        let scores = score_group(&TraceConfig::default(), &AliasJudge, &task(), &rollouts, None);
        let cheapest = Candidate { rollout: 3, reference: Reference { rounds: 2, searches: 3 } };
        assert_eq!(candidate(&scores, &rollouts), Some(cheapest));
        assert_eq!(candidate(&scores[..2], &rollouts), None);
        assert_eq!(candidate(&scores[4..6], &rollouts[4..6]), None);
        let with_an_error = Candidate { rollout: 0, reference: Reference { rounds: 3, searches: 2 } };
        assert_eq!(candidate(&scores[6..], &rollouts[6..]), Some(with_an_error));
    }

    #[test]
    fn a_reference_that_nobody_can_have_reached_does_not_rule() {
        let impossible = Reference { rounds: 1, searches: 0 };
        for mode in [ReferenceMode::Epoch, ReferenceMode::Immediate] {
            let mut known = Known::default();
            assert_eq!((known.observe(mode, impossible), known.commit()), (None, None));
            assert_eq!(known, Known::default());
        }
        assert_eq!(Known::committed_at(impossible), Known::default());
        assert_eq!(Known::default().reference_for(&Task { reference: Some(impossible), ..task() }), None);
    }
}
