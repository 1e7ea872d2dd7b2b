//! Names of what is counted while a run is written down.

use metrics::{describe_counter, describe_gauge};

/// Tries to append lines that failed, by `file` (`groups`, `metrics`, `trajectories`, `evaluations`); they are tried again.
pub const LINES_FAILED: &str = "hypereyes_learner_lines_failed_total";
/// Lines that were given up, by `file`: too many waited.
pub const LINES_LOST: &str = "hypereyes_learner_lines_lost_total";
/// What the last optimiser step measured, by `field`: every number of its line in `metrics.jsonl`, under the key that it has there.
pub const LAST_STEP: &str = "hypereyes_learner_last_step";

/// Tells the recorder what the names mean.
pub fn describe() {
    describe_counter!(LINES_FAILED, "Tries to append lines that failed, by file");
    describe_counter!(LINES_LOST, "Lines given up, by file");
    describe_gauge!(LAST_STEP, "What the last optimiser step measured, by field of metrics.jsonl");
}
