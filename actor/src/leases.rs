//! The leases that this actor holds. In: leases taken and given up, and the learner's word on which are still ours. Out: a
//! signal to whoever works on one that was lost. Knows no call.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hypereyes_domain::GroupId;
use metrics::{counter, gauge};
use tokio_util::sync::CancellationToken;

use crate::metrics::{IN_FLIGHT, LOST};

/// Leases by name. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    held: Arc<Mutex<HashMap<GroupId, CancellationToken>>>,
}

/// One lease; dropping it takes it off the list.
#[derive(Debug)]
pub struct Held {
    leases: Leases,
    id: GroupId,
    lost: CancellationToken,
}

impl Leases {
    /// Puts a lease on the list.
    pub fn hold(&self, id: GroupId) -> Held {
        let lost = CancellationToken::new();
        let mut held = self.lock();
        held.insert(id.clone(), lost.clone());
        gauge!(IN_FLIGHT).set(held.len() as f64);
        drop(held);
        Held { leases: self.clone(), id, lost }
    }

    /// All leases held now.
    pub fn ids(&self) -> Vec<GroupId> {
        self.lock().keys().cloned().collect()
    }

    /// The learner was asked about `asked` and says that only `still` are ours. Leases taken meanwhile are not concerned.
    pub fn settle(&self, asked: &[GroupId], still: &HashSet<GroupId>) {
        let held = self.lock();
        for id in asked.iter().filter(|id| !still.contains(*id)) {
            if let Some(lost) = held.get(id).filter(|lost| !lost.is_cancelled()) {
                tracing::warn!(group = %id, "the lease is lost");
                counter!(LOST).increment(1);
                lost.cancel();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupId, CancellationToken>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Waits until the lease is lost.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.leases.lock();
        held.remove(&self.id);
        gauge!(IN_FLIGHT).set(held.len() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_leases_that_were_asked_about_can_be_lost() {
        let leases = Leases::default();
        let [old, kept, new] = ["old@1", "kept@1", "new@1"].map(|id| leases.hold(id.into()));
        let asked = ["old@1".into(), "kept@1".into()];
        leases.settle(&asked, &HashSet::from(["kept@1".into()]));
        old.lost().await;
        assert!(!kept.lost.is_cancelled() && !new.lost.is_cancelled());
        drop((old, kept));
        assert_eq!(leases.ids(), ["new@1".into()]);
    }
}
