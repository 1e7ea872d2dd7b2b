//! Turns of a process at its tapes: either any number of threads record, or any number go backward.
//!
//! In: nothing. Out: a turn, which ends when it is dropped. It knows no model.
//!
//! burn-autodiff 0.21 keeps the tapes of a process in one place, and the end of every backward pass removes from all of them what nobody
//! seems to need. An operation that another thread is recording at that moment is among it: its inputs are in no tensor any more, and
//! in no step yet. The gradients behind it are then wrong or missing, and nothing says so (tracel-ai/burn#5573). So nothing is recorded while
//! somebody goes backward. A tape that was recorded to its end is safe, as long as its last tensor is held.
//!
//! A turn is taken around work that is spread over threads, never within it: a thread that waits for its share of a parallel loop may be
//! given another's work, and would wait for itself.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Recording,
    Backward,
}

struct Busy {
    kind: Kind,
    turns: usize,
}

static BUSY: Mutex<Busy> = Mutex::new(Busy { kind: Kind::Recording, turns: 0 });
static FREE: Condvar = Condvar::new();

/// A turn of this thread.
#[must_use = "a turn ends when it is dropped"]
#[derive(Debug)]
pub struct Turn(());

/// Waits until nobody goes backward; until the turn ends, nobody does. Whatever puts operations on a tape stands in one.
pub fn recording() -> Turn {
    Turn::of(Kind::Recording)
}

/// Waits until nobody records; until the turn ends, nobody does. Whatever calls `backward` stands in one.
pub fn backward() -> Turn {
    Turn::of(Kind::Backward)
}

impl Turn {
    /// Passes end by themselves, so that no wait is for ever.
    fn of(kind: Kind) -> Self {
        let mut busy = busy();
        while busy.turns > 0 && busy.kind != kind {
            busy = FREE.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        *busy = Busy { kind, turns: busy.turns + 1 };
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = busy();
        busy.turns -= 1;
        if busy.turns == 0 {
            FREE.notify_all();
        }
    }
}

/// A thread that panicked has ended its turn.
fn busy() -> MutexGuard<'static, Busy> {
    BUSY.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::backend::CpuTrain;

    /// The gradient of a short chain of operations on one leaf that all of them share.
    fn gradient(steps: usize) -> f32 {
        let recording = recording();
        let device = Default::default();
        let leaf = Tensor::<CpuTrain, 1>::from_floats([1.0, 2.0], &device).require_grad();
        let mut sum = leaf.clone().sum();
        for step in 0..steps {
            // What is cut and put together again has no other name in between.
            let parts = vec![leaf.clone().slice(0..1) * (step as f32), leaf.clone().slice(1..2)];
            sum = sum + Tensor::cat(parts, 0).sum();
        }
        drop(recording);
        let _turn = backward();
        let tape = sum.backward();
        leaf.grad(&tape).expect("it is in the sum").sum().into_scalar()
    }

    #[test]
    fn gradients_are_whole_whoever_else_goes_backward() {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                std::thread::spawn(move || {
                    for round in 0..60 {
                        let steps = 3 + (thread + round) % 9;
                        let want = 2.0 + steps as f32 + (0..steps).sum::<usize>() as f32;
                        assert_eq!(gradient(steps), want, "thread {thread}, round {round}");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("every gradient is whole"));
    }

    #[test]
    fn turns_of_one_kind_share_and_the_other_kind_waits() {
        let (first, second) = (recording(), recording());
        let waiting = std::thread::spawn(|| drop(backward()));
        drop(first);
        assert_eq!(busy().kind, Kind::Recording, "one is left");
        drop(second);
        waiting.join().expect("it had its turn");
    }
}
