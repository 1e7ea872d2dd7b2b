//! Why something failed. Only failures of the policy are trained as failures; the rest are masked and counted.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a failure; it travels on the wire and is the `reason` label of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The policy did something wrong: an unknown tool, broken JSON, no answer.
    Policy,
    /// A search backend failed.
    Tool,
    /// A process, a disk or the network failed.
    Infrastructure,
    /// The judge gave no verdict. Never the same as a wrong answer.
    Judge,
    /// A deadline passed.
    Timeout,
    /// Somebody asked to stop.
    Cancelled,
}

impl Failure {
    /// The label used in metrics and on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Failure::Policy => "policy",
            Failure::Tool => "tool",
            Failure::Infrastructure => "infrastructure",
            Failure::Judge => "judge",
            Failure::Timeout => "timeout",
            Failure::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
