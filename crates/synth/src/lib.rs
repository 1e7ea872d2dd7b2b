//! Tasks and cold-start demonstrations (docs/spec.md#synthesis, docs/synthesis.md).
//!
//! In: a world pack, a file of triples ([`graph`]) or named pictures ([`mod@entities`]); a configuration, a seed. Out: questions with
//! exactly one right answer and no shortcut to it, mosaics, and one demonstration per task, the shortest that progressive rejection
//! sampling found: of a scripted [`Explorer`] for tasks of a world ([`synthesise`]), of any model that is served for all ([`served`]).
//!
//! It knows no wire and no training. Demonstrations come out of the same rollouts as training, so they have the prompts, observations and
//! tokens that a policy will meet.

pub mod author;
pub mod compose;
pub mod config;
mod durable;
pub mod entities;
pub mod error;
pub mod explorer;
pub mod graph;
pub mod metrics;
pub mod need;
pub mod rejection;
pub mod seeds;
pub mod served;
pub mod synthesis;
pub mod tasks;
#[cfg(test)]
mod testing;

pub use compose::{Level, Mosaic};
pub use config::{EntitiesConfig, ExplorerConfig, GraphConfig, KindMix, Layers, ServedConfig, SynthConfig};
pub use durable::{Durable, Place};
pub use error::SynthError;
pub use explorer::{Explorer, Habit};
pub use need::{ClosedBook, need_search};
pub use rejection::{Budgets, Kept, progressive};
pub use synthesis::{NeedSearch, Progress, Workshop, draw, synthesise};
pub use tasks::Split;
