//! What was done for a search, beside its outcomes. In: what the layers of this crate do, told as they do it. Out: steps, in order: who
//! was asked, what was kept, what it cost. Nothing here decides anything.

use hypereyes_environment::Fault;
use parking_lot::Mutex;
use serde::Serialize;

/// How a service had a part in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It was asked.
    Asked,
    /// It was asked before, and what it said was kept.
    Kept,
    /// An equal query of somebody else was in the air.
    Joined,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The back end's name in settings.
    pub service: &'static str,
    /// What its part was.
    pub how: How,
    /// What it cost, in dollars, as settings price it.
    pub usd: f64,
    /// In which way it failed, if it did.
    pub fault: Option<Fault>,
}

/// Where steps of one search are written down, whatever runs at once.
#[derive(Debug, Default)]
pub struct Steps(Mutex<Vec<Step>>);

impl Steps {
    /// Writes one down.
    pub fn note(&self, service: &'static str, how: How, usd: f64, fault: Option<Fault>) {
        self.0.lock().push(Step { service, how, usd, fault });
    }

    /// Writes down what was done elsewhere for the same search.
    pub fn extend(&self, steps: Vec<Step>) {
        self.0.lock().extend(steps);
    }

    /// All of them.
    pub fn into_inner(self) -> Vec<Step> {
        self.0.into_inner()
    }
}
