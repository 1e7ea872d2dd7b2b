//! Cores shared out to independent pieces of work.
//!
//! In: pieces of work. Out: their results, in order. Small models have operations too short to be worth splitting over
//! cores one by one; whole passes over different sequences are not. Each lane is a pool of its own, so that what a piece of
//! work spreads over threads stays on that lane's cores.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Error;

/// Lanes of one or more threads each.
#[derive(Debug)]
pub struct Lanes {
    pools: Vec<ThreadPool>,
}

impl Lanes {
    /// `count` lanes over `threads` threads, both at least 1; threads that do not divide go to the first lanes.
    pub fn new(count: usize, threads: usize) -> Result<Self, Error> {
        let count = count.clamp(1, threads.max(1));
        let pool = |lane: usize| {
            let own = threads / count + usize::from(lane < threads % count);
            let built = ThreadPoolBuilder::new().num_threads(own.max(1)).thread_name(move |at| format!("lane {lane}.{at}")).build();
            built.map_err(|error| Error::Input(format!("cannot start {threads} threads: {error}")))
        };
        Ok(Self { pools: (0..count).map(pool).collect::<Result<_, _>>()? })
    }

    /// Lanes for the threads of the pool that computes.
    pub fn of_this_pool(most: usize) -> Result<Self, Error> {
        let threads = rayon::current_num_threads();
        Self::new(most.min(threads), threads)
    }

    /// How many pieces of work run at once.
    pub fn count(&self) -> usize {
        self.pools.len()
    }

    /// Runs one piece of work per item, each on its lane; at most as many items as lanes.
    pub fn map<T: Send, R: Send>(&self, items: Vec<T>, work: impl Fn(usize, T) -> R + Sync) -> Vec<R> {
        assert!(items.len() <= self.pools.len(), "more work than lanes");
        let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
        let slots = items.into_iter().zip(results.iter_mut()).enumerate().collect();
        run(&self.pools, slots, &|lane, item| work(lane, item));
        results.into_iter().map(|result| result.expect("every piece of work has run")).collect()
    }
}

/// An item, where its result goes, and its lane.
type Slot<'a, T, R> = (usize, (T, &'a mut Option<R>));

/// The last piece is spawned, the others run inside: the calling thread waits for all of them.
fn run<T: Send, R: Send>(pools: &[ThreadPool], mut slots: Vec<Slot<'_, T, R>>, work: &(dyn Fn(usize, T) -> R + Sync)) {
    let Some((lane, (item, result))) = slots.pop() else { return };
    if slots.is_empty() {
        *result = Some(pools[lane].install(|| work(lane, item)));
        return;
    }
    pools[lane].in_place_scope(|scope| {
        scope.spawn(move |_| *result = Some(work(lane, item)));
        run(pools, slots, work);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_run_at_once_and_their_results_keep_their_order() {
        let lanes = Lanes::new(3, 4).expect("threads start");
        assert_eq!(lanes.count(), 3);
        // Each piece waits for the others: were they run one after another, this would not end.
        let all = std::sync::Barrier::new(3);
        let got = lanes.map(vec![10, 20, 30], |lane, item| {
            all.wait();
            (lane, item, rayon::current_num_threads())
        });
        assert_eq!(got, [(0, 10, 2), (1, 20, 1), (2, 30, 1)]);
        assert_eq!(lanes.map(vec![7], |_, item| item + 1), [8]);
        assert!(lanes.map(Vec::<u8>::new(), |_, item| item).is_empty());
    }

    #[test]
    fn there_are_never_more_lanes_than_threads() {
        assert_eq!(Lanes::new(8, 2).expect("threads start").count(), 2);
        assert_eq!(Lanes::new(0, 0).expect("threads start").count(), 1);
    }
}
