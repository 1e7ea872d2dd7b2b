//! How good a policy is: accuracy, rounds, searches, tokens and the cost-aware score over a task set (docs/spec.md#evaluation).
//!
//! In: a policy, a judge, tasks with their pictures. Out: a report, as a table for people and as JSON for machines.
//!
//! It knows no training, and no file but the lines of [`curve`]. Episodes that failed for a reason outside the policy are counted and left
//! out of every mean; they are never wrong answers. An answer on which the judge gave no verdict is one of them.

pub mod config;
pub mod curve;
pub mod metrics;
pub mod report;
pub mod run;
pub mod set;
pub mod table;

pub use config::EvalConfig;
pub use curve::{BestBy, Evaluation};
pub use report::{KindReport, Outcome, Report};
pub use run::{Progress, closed_book, evaluate};
pub use set::TaskSet;
