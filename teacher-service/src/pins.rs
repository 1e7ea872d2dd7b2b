//! Which model a group keeps to. In: the name of a group that asks, and what serves now. Out: what served it before, as long as
//! that is not long ago. Bounded; a group that is forgotten is served by whatever serves then.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hypereyes_domain::GroupId;
use metrics::{counter, gauge};

use crate::metrics::{PINS, PINS_DROPPED};
use crate::model::Model;

/// Groups that are remembered at most.
const MOST: usize = 1 << 16;

/// Times `keep` that a group keeps to its model at most, however often it asks.
const LIVES: u32 = 16;

/// A model under one promotion.
#[derive(Clone, Debug)]
pub struct Serving {
    /// The model.
    pub model: Arc<Model>,
    /// Number of the promotion; 0 for a model that was asked for by name.
    pub revision: u64,
}

/// Groups and the models that they keep to.
#[derive(Debug)]
pub struct Pins {
    keep: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What serves it, when it asked last, and when it asked first.
    held: HashMap<GroupId, (Serving, Instant, Instant)>,
    /// When a group asked; one entry per question, so that a group's last one is behind its earlier ones.
    asked: VecDeque<(Instant, GroupId)>,
}

impl Pins {
    /// No groups yet; each is kept this long after its last question.
    pub fn new(keep: Duration) -> Self {
        Self { keep, inner: Mutex::default() }
    }

    /// What serves a group: what served it before, or `now`.
    pub fn serve(&self, group: &GroupId, now: Serving) -> Serving {
        let mut inner = self.lock();
        inner.forget(self.keep, MOST - 1);
        let at = Instant::now();
        inner.asked.push_back((at, group.clone()));
        if inner.held.get(group).is_some_and(|(_, _, first)| first.elapsed() >= self.keep.saturating_mul(LIVES)) {
            // However often it asks: a group that takes this long is none, and would keep a retired model for ever.
            inner.held.remove(group);
            counter!(PINS_DROPPED, "reason" => "age").increment(1);
        }
        let (serving, last, _) = inner.held.entry(group.clone()).or_insert((now, at, at));
        *last = at;
        let serving = serving.clone();
        gauge!(PINS).set(inner.held.len() as f64);
        serving
    }

    /// Lets go of groups that have not asked for long; returns how many are left.
    pub fn sweep(&self) -> usize {
        let mut inner = self.lock();
        inner.forget(self.keep, MOST);
        gauge!(PINS).set(inner.held.len() as f64);
        inner.held.len()
    }

    /// Groups that keep to a model.
    pub fn of(&self, model: &Arc<Model>) -> u64 {
        self.lock().held.values().filter(|(serving, ..)| Arc::ptr_eq(&serving.model, model)).count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn forget(&mut self, keep: Duration, most: usize) {
        while let Some((at, group)) = self.asked.front() {
            let old = at.elapsed() >= keep;
            if !old && self.held.len() <= most && self.asked.len() <= 4 * MOST {
                return;
            }
            // An entry that a later question of the same group has overtaken is only removed.
            if self.held.get(group).is_some_and(|(_, last, _)| last == at) {
                self.held.remove(group);
                if !old {
                    counter!(PINS_DROPPED, "reason" => "room").increment(1);
                }
            }
            self.asked.pop_front();
        }
    }
}
