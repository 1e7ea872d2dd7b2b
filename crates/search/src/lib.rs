//! Where searches go: back ends behind the environment's port, chosen by settings, and the bounds around them.
//!
//! In: the `[search]` table, and a way to get at a world. Out: one [`hypereyes_environment::Search`] that text and picture searches go
//! through, each to its own back end. A back end is one file of [`backends`]. This crate knows no turn, no tool and no observation.

pub mod backends;
pub mod config;
pub mod limited;
pub mod metrics;
mod open;

pub use backends::world::EmbeddedSearch;
pub use config::{BackEndConfig, SearchConfig};
pub use limited::Limited;
pub use open::{OpenError, open};
