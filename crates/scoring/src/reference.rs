//! The TRACE references of all tasks as a join-semilattice (spec 2.4, D5, D8). In: candidates of scored groups, commits.
//! Out: the reference a task is scored against.
//!
//! Duplicated, reordered or replayed observations and commits cannot loosen a reference. Durability is not known here.

use std::collections::BTreeMap;

use hypereyes_domain::{Accuracy, Reference, Score, Task, TaskId, Trajectory};
use serde::{Deserialize, Serialize};

/// The cheapest success of a group that used a tool: correct, at least one round, lexicographic minimum of (rounds,
/// searches). Entries beyond the shorter list are ignored.
pub fn candidate(scores: &[Score], rollouts: &[Trajectory]) -> Option<Reference> {
    let success = |(score, rollout): (&Score, &Trajectory)| {
        let reference = Reference { rounds: rollout.round_count(), searches: rollout.searches() };
        (score.accuracy == Accuracy::Correct && reference.rounds >= 1).then_some(reference)
    };
    scores.iter().zip(rollouts).filter_map(success).min()
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

/// What a commit did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitSummary {
    /// The ledger's epoch after the commit.
    pub epoch: u64,
    /// False when this commit number had been reached before, so that nothing was done.
    pub applied: bool,
    /// Tasks that got their first reference.
    pub adopted: u64,
    /// Tasks whose reference became tighter.
    pub tightened: u64,
}

/// Committed references and what waits for the next commit.
///
/// Invariant: a pending entry is strictly tighter than the committed one of its task, so two ledgers that know the same
/// are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    epoch: u64,
    committed: BTreeMap<TaskId, Reference>,
    pending: BTreeMap<TaskId, Reference>,
}

impl Ledger {
    /// Number of the last commit; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The committed reference of a task.
    pub fn committed(&self, task: &TaskId) -> Option<Reference> {
        self.committed.get(task).copied()
    }

    /// All committed references, by task.
    pub fn references(&self) -> &BTreeMap<TaskId, Reference> {
        &self.committed
    }

    /// Candidates that wait for the next commit, by task.
    pub fn pending(&self) -> &BTreeMap<TaskId, Reference> {
        &self.pending
    }

    /// What `task` is scored against: the tighter of the committed reference and the one that the task came with.
    pub fn reference_for(&self, task: &Task) -> Option<Reference> {
        match self.committed(&task.id) {
            Some(committed) => Some(Reference::tighten(task.reference, committed)),
            None => task.reference,
        }
    }

    /// Whether [`Ledger::observe`] would change the ledger. References of zero rounds are not references: one would be
    /// tighter than anything, for ever.
    pub fn is_news(&self, mode: ReferenceMode, task: &TaskId, seen: Reference) -> bool {
        let tighter = |known: &BTreeMap<TaskId, Reference>| known.get(task).is_none_or(|known| seen < *known);
        let counts = match mode {
            ReferenceMode::Epoch => tighter(&self.pending),
            ReferenceMode::Immediate => true,
            ReferenceMode::Static => false,
        };
        counts && seen.rounds > 0 && tighter(&self.committed)
    }

    /// Takes in a success of a task. True when the ledger changed.
    pub fn observe(&mut self, mode: ReferenceMode, task: &TaskId, seen: Reference) -> bool {
        if !self.is_news(mode, task, seen) {
            return false;
        }
        if mode == ReferenceMode::Immediate {
            self.committed.insert(task.clone(), seen);
            if self.pending.get(task).is_some_and(|waiting| *waiting >= seen) {
                self.pending.remove(task);
            }
        } else {
            self.pending.insert(task.clone(), seen);
        }
        true
    }

    /// Commit number `epoch`: what is pending begins to count. A number that is not above [`Ledger::epoch`] was done
    /// already and changes nothing, whatever has been observed since.
    pub fn commit(&mut self, epoch: u64) -> CommitSummary {
        if epoch <= self.epoch {
            return CommitSummary { epoch: self.epoch, ..CommitSummary::default() };
        }
        self.epoch = epoch;
        let mut summary = CommitSummary { epoch, applied: true, ..CommitSummary::default() };
        for (task, seen) in std::mem::take(&mut self.pending) {
            match self.committed.insert(task, seen) {
                None => summary.adopted += 1,
                Some(_) => summary.tightened += 1,
            }
        }
        summary
    }

    /// Takes in a reference that was committed elsewhere (a checkpoint, a task set), at once. True when it was tighter or
    /// new. References of zero rounds change nothing.
    pub fn import(&mut self, task: &TaskId, known: Reference) -> bool {
        self.observe(ReferenceMode::Immediate, task, known)
    }

    /// Raises the epoch to that of an import; never lowers it. Pending candidates keep waiting for the next commit.
    pub fn advance(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// The join of two ledgers: the tighter of each reference, the later epoch. Associative, commutative, idempotent.
    pub fn merge(&mut self, other: &Ledger) {
        self.epoch = self.epoch.max(other.epoch);
        for (task, seen) in &other.committed {
            tighten(&mut self.committed, task, *seen);
        }
        for (task, seen) in &other.pending {
            tighten(&mut self.pending, task, *seen);
        }
        self.drop_overtaken();
    }

    fn drop_overtaken(&mut self) {
        let committed = &self.committed;
        self.pending.retain(|task, seen| committed.get(task).is_none_or(|known| *seen < *known));
    }
}

fn tighten(target: &mut BTreeMap<TaskId, Reference>, task: &TaskId, seen: Reference) {
    target.entry(task.clone()).and_modify(|known| *known = seen.min(*known)).or_insert(seen);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::tests::{group, rollout, task};
    use crate::{AliasJudge, TraceConfig, score_group};
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    const TASKS: [&str; 4] = ["a", "b", "c", "d"];

    fn seen(rng: &mut StdRng) -> (TaskId, Reference) {
        (TASKS[rng.random_range(0..TASKS.len())].into(), Reference { rounds: rng.random_range(1..5), searches: rng.random_range(0..9) })
    }

    fn ledger(rng: &mut StdRng) -> Ledger {
        let mut ledger = Ledger::default();
        for step in 0..rng.random_range(0..12) {
            let (task, reference) = seen(rng);
            let mode = if rng.random_bool(0.2) { ReferenceMode::Immediate } else { ReferenceMode::Epoch };
            ledger.observe(mode, &task, reference);
            if rng.random_bool(0.2) {
                ledger.commit(step + 1);
            }
        }
        ledger
    }

    fn joined(left: &Ledger, right: &Ledger) -> Ledger {
        let mut out = left.clone();
        out.merge(right);
        out
    }

    #[test]
    fn references_never_loosen() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut ledger = Ledger::default();
            for step in 1..40 {
                let before = ledger.clone();
                let (task, reference) = seen(&mut rng);
                let mode = [ReferenceMode::Epoch, ReferenceMode::Immediate, ReferenceMode::Static][rng.random_range(0..3)];
                ledger.observe(mode, &task, reference);
                if rng.random_bool(0.3) {
                    ledger.commit(step / 2);
                }
                assert!(ledger.epoch() >= before.epoch());
                assert!(before.references().iter().all(|(task, old)| ledger.committed(task).is_some_and(|new| new <= *old)));
            }
        }
    }

    #[test]
    fn order_and_duplicates_do_not_matter() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let events: Vec<_> = (0..20).map(|_| seen(&mut rng)).collect();
            let mut shuffled = [events.clone(), events[5..15].to_vec()].concat();
            shuffled.shuffle(&mut rng);
            let run = |events: &[(TaskId, Reference)]| {
                let mut ledger = Ledger::default();
                for (task, reference) in events {
                    ledger.observe(ReferenceMode::Epoch, task, *reference);
                }
                let summary = ledger.commit(1);
                (ledger, summary)
            };
            assert_eq!(run(&events), run(&shuffled));
        }
    }

    #[test]
    fn merging_is_a_join() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (a, b, c) = (ledger(&mut rng), ledger(&mut rng), ledger(&mut rng));
            assert_eq!(joined(&a, &b), joined(&b, &a));
            assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            assert_eq!(joined(&a, &a), a);
            assert_eq!(joined(&joined(&a, &b), &b), joined(&a, &b));
        }
    }

    #[test]
    fn a_commit_happens_once() {
        let mut ledger = Ledger::default();
        let tight = Reference { rounds: 1, searches: 1 };
        ledger.observe(ReferenceMode::Epoch, &"a".into(), Reference { rounds: 3, searches: 3 });
        assert_eq!(ledger.commit(1), CommitSummary { epoch: 1, applied: true, adopted: 1, tightened: 0 });
        ledger.observe(ReferenceMode::Epoch, &"a".into(), tight);
        assert_eq!(ledger.commit(1), CommitSummary { epoch: 1, applied: false, adopted: 0, tightened: 0 });
        assert_eq!(ledger.committed(&"a".into()), Some(Reference { rounds: 3, searches: 3 }));
        assert_eq!(ledger.commit(2).tightened, 1);
        assert_eq!(ledger.committed(&"a".into()), Some(tight));
    }

    #[test]
    fn imports_tighten_and_never_turn_back_the_epoch() {
        let (loose, tight) = (Reference { rounds: 3, searches: 3 }, Reference { rounds: 1, searches: 2 });
        let mut ledger = Ledger::default();
        ledger.observe(ReferenceMode::Epoch, &"a".into(), loose);
        assert!(ledger.import(&"a".into(), tight));
        assert!(!ledger.import(&"a".into(), loose));
        assert!(ledger.pending().is_empty());
        ledger.advance(4);
        ledger.advance(2);
        assert_eq!((ledger.epoch(), ledger.committed(&"a".into())), (4, Some(tight)));
        assert!(!ledger.commit(4).applied);
    }

    #[test]
    fn observations_do_not_count_within_an_epoch() {
        let (mut epoch, mut immediate, mut fixed) = (Ledger::default(), Ledger::default(), Ledger::default());
        let tight = Reference { rounds: 1, searches: 1 };
        assert!(epoch.observe(ReferenceMode::Epoch, &"t".into(), tight));
        assert!(immediate.observe(ReferenceMode::Immediate, &"t".into(), tight));
        assert!(!fixed.observe(ReferenceMode::Static, &"t".into(), tight));
        assert_eq!(
            [epoch.reference_for(&task()), immediate.reference_for(&task()), fixed.reference_for(&task())],
            [None, Some(tight), None]
        );
    }

    #[test]
    fn the_reference_of_the_task_set_holds_until_something_tighter() {
        let mut ledger = Ledger::default();
        let given = Reference { rounds: 2, searches: 2 };
        let task = Task { reference: Some(given), ..task() };
        ledger.observe(ReferenceMode::Immediate, &task.id, Reference { rounds: 3, searches: 1 });
        assert_eq!(ledger.reference_for(&task), Some(given));
        ledger.observe(ReferenceMode::Immediate, &task.id, Reference { rounds: 1, searches: 9 });
        assert_eq!(ledger.reference_for(&task), Some(Reference { rounds: 1, searches: 9 }));
    }

    #[test]
    fn candidates_are_successes_that_used_a_tool() {
        let rollouts = vec![
            rollout(Some("Paris"), &[]),
            rollout(Some("Rome"), &[1]),
            rollout(Some("Paris"), &[2, 2]),
            rollout(Some("Paris"), &[1, 2]),
        ];
        let group = group(rollouts);
        let scores = score_group(&TraceConfig::default(), &AliasJudge, &task(), &group, None);
        assert_eq!(candidate(&scores, &group.rollouts), Some(Reference { rounds: 2, searches: 3 }));
        assert_eq!(candidate(&scores[..2], &group.rollouts), None);
    }

    #[test]
    fn a_ledger_survives_json() {
        let mut rng = StdRng::seed_from_u64(7);
        let ledger = ledger(&mut rng);
        let text = serde_json::to_string(&ledger).expect("a ledger is plain data");
        assert_eq!(serde_json::from_str::<Ledger>(&text).expect("what was written reads back"), ledger);
    }
}
