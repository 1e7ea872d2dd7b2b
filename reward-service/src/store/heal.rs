//! References that nobody can have reached, out of stores of earlier versions, which took a success without a search for one.
//!
//! In: a store. Out: the same in which such a reference is what it was before it became one; history says so. Reading ignores them
//! anyway; healing brings back what they had displaced.

use hypereyes_domain::{Reference, TaskId};
use hypereyes_scoring::{Known, ReferenceMode};
use redb::ReadableTable;

use super::{BTreeMap, Cause, Change, KNOWN, Store, StoreError, StoreTransaction, Tables, Written};

/// Committed and pending parts of an entry as the table has them; no rounds is nothing.
type Entry = (u32, u32, u32, u32);

impl Store {
    /// Takes out what nobody can have reached. The tasks that were healed; a sound store is not written to.
    pub fn heal(&self) -> Result<Vec<TaskId>, StoreError> {
        let ill = self.read_from(|transaction| {
            let mut ill = Vec::new();
            for entry in transaction.open_table(KNOWN)?.iter()? {
                let (task, parts) = entry?;
                let (committed, pending) = references(parts.value());
                if [committed, pending].into_iter().flatten().any(|reference| !reference.is_possible()) {
                    ill.push((TaskId::new(task.value()), committed, pending));
                }
            }
            Ok(ill)
        })?;
        if ill.is_empty() {
            return Ok(Vec::new());
        }
        self.write_to(|tables| {
            let mut written = Written { outcomes: vec![], known: BTreeMap::new(), prints: BTreeMap::new(), epoch: 0, changes: vec![] };
            let mut transaction =
                StoreTransaction { epoch: tables.number("epoch")?, changes: tables.number("changes")?, tables, written: &mut written };
            for (task, was, pending) in &ill {
                let to = match was {
                    Some(was) if !was.is_possible() => transaction.tables.last_possible(task, u64::MAX)?,
                    sound => *sound,
                };
                let mut known = to.map_or(Known::default(), Known::committed_at);
                if let Some(pending) = pending {
                    known.observe(ReferenceMode::Epoch, *pending);
                }
                transaction.put(task, known)?;
                if to != *was {
                    transaction.change(task, Cause::Repair, *was, to, None)?;
                }
            }
            let changes = transaction.changes;
            tables.meta.insert("changes", changes)?;
            Ok(())
        })?;
        Ok(ill.into_iter().map(|(task, ..)| task).collect())
    }
}

impl Tables<'_> {
    /// The newest reference of a task among its changes up to number `upto` that a success can have cost.
    pub(super) fn last_possible(&self, task: &TaskId, upto: u64) -> Result<Option<Reference>, redb::Error> {
        let mut before = None;
        for entry in self.by_task.range((task.as_str(), 0)..=(task.as_str(), upto))?.rev() {
            let number = entry?.0.value().1;
            let Some(text) = self.changes.get(number)? else { continue };
            let Ok(change) = serde_json::from_slice::<Change>(text.value()) else { continue };
            if change.to.is_none_or(|to| to.is_possible()) {
                return Ok(change.to);
            }
            before = change.from;
        }
        Ok(before.filter(Reference::is_possible))
    }
}

fn references((rounds, searches, pending_rounds, pending_searches): Entry) -> (Option<Reference>, Option<Reference>) {
    let of = |rounds, searches| (rounds > 0).then_some(Reference { rounds, searches });
    (of(rounds, searches), of(pending_rounds, pending_searches))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Outcome, Provenance, StoreCommand};

    const HONEST: Reference = Reference { rounds: 2, searches: 4 };
    const NOTHING: Reference = Reference { rounds: 1, searches: 0 };

    fn import(store: &Store, task: &str, reference: Reference) {
        store.write(&[StoreCommand::Import { epoch: 0, references: vec![(task.into(), reference)] }]).expect("written");
    }

    /// What an earlier version wrote: the entry, and the change that made it so.
    fn as_it_was(store: &Store, task: &str, entry: Entry, change: Option<(Option<Reference>, Reference)>) {
        let mut written = Written { outcomes: vec![], known: BTreeMap::new(), prints: BTreeMap::new(), epoch: 0, changes: vec![] };
        let done = store.write_to(|tables| {
            tables.known.insert(task, entry)?;
            if entry.2 > 0 {
                let by = Provenance { group: "g@1".into(), rollout: 0, actor: "a".into() };
                tables.witnesses.insert(task, serde_json::to_vec(&by).expect("plain").as_slice())?;
            }
            let mut transaction =
                StoreTransaction { epoch: tables.number("epoch")?, changes: tables.number("changes")?, tables, written: &mut written };
            if let Some((from, to)) = change {
                transaction.change(&task.into(), Cause::Commit, from, Some(to), None)?;
            }
            let changes = transaction.changes;
            tables.meta.insert("changes", changes)?;
            Ok(())
        });
        done.expect("written");
    }

    #[test]
    fn what_a_success_without_a_search_displaced_comes_back_and_history_says_so() {
        let store = Store::in_memory().expect("memory");
        import(&store, "ruled", HONEST);
        import(&store, "sound", HONEST);
        as_it_was(&store, "ruled", (1, 0, 0, 0), Some((Some(HONEST), NOTHING)));
        as_it_was(&store, "first", (1, 0, 0, 0), Some((None, NOTHING)));
        as_it_was(&store, "waiting", (2, 4, 1, 0), None);
        as_it_was(&store, "unwritten", (3, 0, 0, 0), None);
        let (known, ..) = store.read().expect("reads");
        let ignored = known.values().filter_map(Known::committed).any(|reference| !reference.is_possible());
        assert!(!ignored, "even before: {known:?}");

        let healed = store.heal().expect("heals");
        assert_eq!(healed, ["first", "ruled", "unwritten", "waiting"].map(TaskId::from));
        let (known, _, changes) = store.read().expect("reads");
        let committed = |task: &str| known.get(&task.into()).and_then(Known::committed);
        assert_eq!([committed("ruled"), committed("sound"), committed("waiting")], [Some(HONEST); 3]);
        assert_eq!([committed("first"), committed("unwritten")], [None; 2]);
        assert!(known.values().all(|known| known.pending().is_none()));
        let last = &store.history(&"ruled".into(), 1).expect("history")[0];
        assert_eq!((last.cause, last.from, last.to), (Cause::Repair, Some(NOTHING), Some(HONEST)));
        assert_eq!(store.heal().expect("sound"), Vec::<TaskId>::new(), "once is enough");
        // A commit afterwards finds nothing that waits.
        let written = store.write(&[StoreCommand::Commit { epoch: 1 }]).expect("written");
        let Ok(Outcome { adopted: 0, tightened: 0, .. }) = &written.outcomes[0] else { panic!("{written:?}") };
        // Going back to when it ruled does not bring it back.
        store.write(&[StoreCommand::Restore { snapshot: changes - 3 }]).expect("written");
        let (known, ..) = store.read().expect("reads");
        assert_eq!(known.get(&"ruled".into()).and_then(Known::committed), Some(HONEST));
        assert_eq!(known.get(&"first".into()).and_then(Known::committed), None);
    }
}
