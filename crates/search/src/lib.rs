//! The environment of an agent: what it may search, how its turns are read, and what it is told back.
//!
//! In: world packs (folders or the embedded one), the text of an assistant turn, pictures. Out: observations, crops,
//! executed rounds and the way an episode ended. Searches go through one port ([`Search`]); the embedded world implements
//! it with a BM25 index and a nearest-neighbour search over picture descriptors. This crate knows no token and no model.

pub mod backend;
pub mod boxes;
mod cache;
mod call;
pub mod embedded;
pub mod env;
pub mod image;
mod json;
pub mod limited;
pub mod metrics;
pub mod observation;
pub mod parse;
pub mod tags;
pub mod text;
pub mod world;

pub use backend::{Hit, Search, SearchError, SearchFuture};
pub use boxes::BoxUnits;
pub use embedded::EmbeddedSearch;
pub use env::{EnvConfig, Episode, Step};
pub use limited::{Limited, LimitsConfig};
pub use observation::Tool;
pub use parse::{Action, Turn, closed_answer, parse_turn};
pub use tags::opened_thought;
pub use world::{Entity, Layer, Relation, World, WorldError};
