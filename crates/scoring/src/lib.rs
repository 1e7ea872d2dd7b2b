//! What a rollout is worth.
//!
//! In: tasks, finished rollouts, the committed reference. Out: accuracies, TRACE bonuses, rewards, routes, tightened
//! references, and the numbers of an evaluation (CAS, intervals).
//!
//! Everything here is a pure function of its arguments. This crate knows no file, no network, no clock and no
//! randomness; the reward service gives it durability and a wire.

pub mod cas;
mod choices;
pub mod compat;
pub mod group;
pub mod interval;
pub mod judge;
pub mod load;
pub mod metric;
mod normalise;
pub mod published;
pub mod reference;
mod squad;
pub mod tally;
pub mod trace;

pub use cas::cas;
pub use group::{Distilled, UNANSWERED, accuracy_of, score_group, score_tally};
pub use interval::{Interval, mean_interval, wilson, wilson_share};
pub use judge::{AliasJudge, ContainsJudge, ExactJudge, Judge, JudgeKind, Verdict};
pub use metric::Metric;
pub use published::{EmJudge, OptionJudge, TOKEN_F1_RIGHT, TokenF1Judge};
pub use reference::{Candidate, Known, ReferenceMode, Tightened, candidate};
pub use tally::{Few, Tally};
pub use trace::{InvalidTrace, TraceConfig, bonuses};
