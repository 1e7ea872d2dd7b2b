//! Turns of callers. In: who calls. Out: a turn, of which each has only so many at the same moment: whoever asks much waits in
//! front of his own queue, and not everybody behind him.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Turns by the address that calls.
#[derive(Debug)]
pub struct Fair {
    each: usize,
    callers: Arc<Mutex<Callers>>,
}

/// Those who have turns or wait for one, and how many of each.
type Callers = HashMap<IpAddr, (Arc<Semaphore>, usize)>;

impl Fair {
    /// `each` turns at the same moment for every caller, at least 1.
    pub fn new(each: usize) -> Self {
        Self { each: each.clamp(1, Semaphore::MAX_PERMITS), callers: Arc::default() }
    }

    /// A turn; `None` when there is none before the deadline. Callers without an address are one.
    pub async fn turn(&self, caller: Option<IpAddr>, deadline: Instant) -> Option<Turn> {
        let caller = caller.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.to_canonical());
        let turns = {
            let mut callers = lock(&self.callers);
            let (turns, users) = callers.entry(caller).or_insert_with(|| (Arc::new(Semaphore::new(self.each)), 0));
            *users += 1;
            turns.clone()
        };
        let waiting = Waiting { callers: self.callers.clone(), caller };
        let permit = timeout_at(deadline, turns.acquire_owned()).await.ok()?.ok()?;
        Some(Turn { _permit: permit, _waiting: waiting })
    }
}

/// One call's turn; it is over when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    _waiting: Waiting,
}

/// A caller is remembered for as long as somebody of him is here.
#[derive(Debug)]
struct Waiting {
    callers: Arc<Mutex<Callers>>,
    caller: IpAddr,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut callers = lock(&self.callers);
        if let Some((_, users)) = callers.get_mut(&self.caller) {
            *users -= 1;
            if *users == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

fn lock(callers: &Mutex<Callers>) -> MutexGuard<'_, Callers> {
    callers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_asks_much_does_not_keep_others_waiting() {
        let fair = Fair::new(2);
        let (loud, quiet) = (Some("10.0.0.1".parse().expect("an address")), Some("10.0.0.2".parse().expect("an address")));
        let soon = || Instant::now() + Duration::from_secs(60);
        let held = [fair.turn(loud, soon()).await.expect("the first"), fair.turn(loud, soon()).await.expect("the second")];
        assert!(fair.turn(loud, Instant::now()).await.is_none(), "no third");
        let other = fair.turn(quiet, soon()).await.expect("another caller has turns of his own");
        drop(held);
        assert!(fair.turn(loud, soon()).await.is_some());
        drop(other);
        assert!(lock(&fair.callers).is_empty(), "nobody is remembered");
    }
}
