//! Where searches go: back ends behind the environment's port, chosen by settings, and the bounds around them.
//!
//! In: the `[search]` table, and a way to get at a world. Out: one [`hypereyes_environment::Search`] that text and picture searches go
//! through, each to its own back end. A back end is one file of [`backends`]. This crate knows no turn, no tool and no observation.

mod asked;
pub mod backends;
mod budget;
pub mod config;
mod fallback;
mod http;
mod kept;
mod limited;
mod mcp;
pub mod metrics;
mod open;
mod pages;
pub mod publisher;
mod rate;
pub mod recording;
pub mod serve;
pub mod service;
mod steps;
pub mod store;
pub mod words;

pub use asked::Key;
pub use backends::world::EmbeddedSearch;
pub use budget::Spent;
pub use config::{BackEndConfig, BudgetConfig, CacheConfig, Mode, SearchConfig};
pub use open::{Apart, OpenError, Searcher, apart, open, searcher};
pub use publisher::{PublisherConfig, PublisherKind};
pub use steps::{How, Step};
