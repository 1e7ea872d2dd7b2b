//! What this crate counts, for whoever scrapes it. The names are beside what is counted: those of the engine, and those of the folder of
//! versions beside a server.

use crate::{checkpoint, engine};

/// Describes the metrics; call once at start.
pub fn describe() {
    engine::metrics::describe();
    checkpoint::describe();
}
