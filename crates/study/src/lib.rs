//! Experiments. A study is a file: arms, which are named settings of `up`, the seeds with which each is run, and claims about what they
//! come to.
//!
//! In: the file ([`plan`]), a line per arm and seed that is done ([`line`]). Out: what each arm came to and how it differs from the base
//! ([`summary`]), a verdict on every claim ([`claim`], [`verdict`]), curves and a page ([`curves`], [`page`]). The same lines give the
//! same numbers. It runs nothing.

pub mod claim;
pub mod curves;
pub mod line;
pub mod page;
pub mod plan;
pub mod spread;
pub mod summary;
pub mod verdict;

pub use claim::Claim;
pub use line::{Line, Lines};
pub use plan::{Arm, Model, Plan, START};
pub use summary::Summary;
pub use verdict::{Ruling, Verdict};
