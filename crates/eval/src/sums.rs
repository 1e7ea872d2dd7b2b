//! What rollouts of one task come to. In: items. Out: sums that means are made of, a task at a time, in the order in which tasks come:
//! rollouts of one task are not independent, tasks are.

use std::collections::HashMap;
use std::ops::Add;

use hypereyes_domain::{Accuracy, TaskId};
use hypereyes_scoring::cas;

use crate::item::Item;

/// Sums over rollouts with a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Rollouts.
    pub rollouts: f64,
    /// Right answers.
    pub right: f64,
    /// Tool rounds.
    pub rounds: f64,
    /// Searches.
    pub searches: f64,
    /// Tokens, in thousands.
    pub kilotokens: f64,
}

impl Sums {
    /// One rollout.
    pub fn of(item: &Item) -> Self {
        Self {
            rollouts: 1.0,
            right: f64::from(item.verdict == Accuracy::Correct),
            rounds: f64::from(item.rounds),
            searches: f64::from(item.searches),
            kilotokens: item.tokens as f64 / 1000.0,
        }
    }

    fn mean(&self, sum: f64) -> f64 {
        if self.rollouts > 0.0 { sum / self.rollouts } else { 0.0 }
    }

    /// Share of right answers.
    pub fn accuracy(&self) -> f64 {
        self.mean(self.right)
    }

    /// Mean rounds.
    pub fn mean_rounds(&self) -> f64 {
        self.mean(self.rounds)
    }

    /// Mean searches.
    pub fn mean_searches(&self) -> f64 {
        self.mean(self.searches)
    }

    /// Mean thousands of tokens.
    pub fn mean_kilotokens(&self) -> f64 {
        self.mean(self.kilotokens)
    }

    /// The cost-aware score.
    pub fn cas(&self) -> f64 {
        cas(self.accuracy(), self.mean_kilotokens(), self.mean_rounds())
    }
}

impl Add for Sums {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rollouts: self.rollouts + other.rollouts,
            right: self.right + other.right,
            rounds: self.rounds + other.rounds,
            searches: self.searches + other.searches,
            kilotokens: self.kilotokens + other.kilotokens,
        }
    }
}

/// Items of each task together, tasks in the order in which they first come.
pub fn by_task<'a>(items: impl IntoIterator<Item = &'a Item>) -> Vec<Vec<&'a Item>> {
    let mut places: HashMap<&TaskId, usize> = HashMap::new();
    let mut tasks: Vec<Vec<&Item>> = Vec::new();
    for item in items {
        let place = *places.entry(&item.task).or_insert_with(|| {
            tasks.push(Vec::new());
            tasks.len() - 1
        });
        tasks[place].push(item);
    }
    tasks
}

/// Sums of a task.
pub fn sum(items: &[&Item]) -> Sums {
    items.iter().map(|item| Sums::of(item)).fold(Sums::default(), Add::add)
}
