//! Tasks and cold-start demonstrations, synthesised from a world pack (docs/spec.md#synthesis).
//!
//! In: a world, a configuration, a seed. Out: a data set folder: questions with exactly one right answer and no shortcut
//! to it, mosaics, and one demonstration per task, the shortest that progressive rejection sampling found.
//!
//! It knows no model and no training. Demonstrations come out of the same rollouts as training, played by a scripted
//! [`Explorer`], so they have the prompts, observations and tokens that a policy will meet.

pub mod compose;
pub mod config;
pub mod error;
pub mod explorer;
pub mod metrics;
pub mod need;
pub mod rejection;
pub mod synthesis;
pub mod tasks;
#[cfg(test)]
mod testing;

pub use compose::{Level, Mosaic};
pub use config::{ExplorerConfig, KindMix, Layers, SynthConfig};
pub use error::SynthError;
pub use explorer::{Explorer, Habit};
pub use need::need_search;
pub use rejection::{Budgets, Kept, progressive};
pub use synthesis::{NeedSearch, Progress, Workshop, synthesise};
pub use tasks::Split;
