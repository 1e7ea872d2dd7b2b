//! Names of this crate's metrics. Nothing comes in; dashboards read what goes out.

use metrics::describe_counter;

/// Counter: restarts of a room by its supervisor. Label: `room` (`reward`, `teacher`, `learner`, `actor-0`, ...).
pub const RESTARTS: &str = "hypereyes_up_restarts_total";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(RESTARTS, "Rooms started again by `hypereyes up` after they died");
}
