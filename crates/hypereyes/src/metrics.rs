//! Names of this crate's metrics. Nothing comes in; dashboards read what goes out.

use metrics::describe_counter;

/// Counter: restarts of a service by its supervisor. Label: `service` (`reward`, `teacher`, `learner`, `actor-0`, ...).
pub const RESTARTS: &str = "hypereyes_up_restarts_total";

/// Counter: tries to write or read a file for people that failed; they are tried again. Label: `file` (`progress`, `metrics`).
pub const FILES_FAILED: &str = "hypereyes_up_files_failed_total";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(RESTARTS, "Services started again by `hypereyes up` after they died");
    describe_counter!(FILES_FAILED, "Tries to write or read a file for people that failed, by file");
}
