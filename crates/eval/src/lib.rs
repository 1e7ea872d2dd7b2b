//! How good a policy is: accuracy, rounds, searches, tokens and the cost-aware score over a task set (docs/spec.md#evaluation).
//!
//! In: a policy, a judge, tasks with their pictures. Out: a report, as a table for people and as JSON for machines.
//!
//! Rollouts are kept one by one ([`itemised`]), so that an evaluation that was cut goes on; two evaluations are compared rollout by
//! rollout ([`mod@compare`]), several stand in one table ([`systems`]).
//!
//! It knows no training, and no file but the lines of [`curve`]. Episodes that failed for a reason outside the policy are counted and left out of
//! every mean; they are never wrong answers. An answer on which the judge gave no verdict is one of them.

pub mod aligned;
pub mod bill;
pub mod bootstrap;
pub mod compare;
pub mod config;
pub mod curve;
pub mod estimate;
pub mod flips;
pub mod item;
pub mod itemised;
pub mod items;
pub mod metrics;
pub mod pass_at_k;
pub mod report;
pub mod rows;
pub mod run;
pub mod set;
pub mod summary;
pub mod sums;
pub mod systems;
pub mod table;
mod told;
pub mod written;

pub use bill::Spent;
pub use compare::{Comparison, compare};
pub use config::EvalConfig;
pub use curve::{BestBy, Evaluation};
pub use estimate::Estimate;
pub use item::{Item, Key};
pub use itemised::{Itemised, SoFar};
pub use items::{InMemory, Items, Kept};
pub use report::{KindReport, Outcome, Report};
pub use rows::Row;
pub use run::{Progress, closed_book, evaluate};
pub use set::TaskSet;
pub use summary::{Cost, Summary};
pub use systems::Systems;
pub use written::About;
