//! The environment of an agent: how its turns are read, what its tools do, and what it is told back.
//!
//! In: the text of an assistant turn, pictures. Out: observations, crops, executed rounds and the way an episode ended. Searches go
//! through one port ([`Search`]); what is behind it is not known here. This crate knows no token, no model and no service.

pub mod boxes;
mod call;
pub mod config;
pub mod episode;
pub mod escape;
mod json;
pub mod metrics;
pub mod observation;
pub mod parse;
pub mod scene;
pub mod search;
pub mod tags;
pub mod tools;

pub use boxes::BoxUnits;
pub use config::EnvConfig;
pub use episode::{Episode, Step};
pub use parse::{Action, Note, Refusal, Turn, closed_answer, parse_turn};
pub use scene::Scene;
pub use search::{Fault, Hit, Outcome, Query, Search, SearchError, SearchFuture};
pub use tags::opened_thought;
pub use tools::{Tool, Tools, VISIT};
