//! Names of the counters of this crate. Nothing comes in; dashboards read what goes out.

use metrics::describe_counter;

/// Evaluated rollouts by `verdict`: `correct`, `wrong`, `not_attempted`, `unparsed`, `invalid`.
pub const ROLLOUTS: &str = "hypereyes_eval_rollouts_total";
/// Rollouts that could not begin, by `reason` (see [`hypereyes_domain::Failure::label`]); those of a task count once where they begin
/// together.
pub const LEFT_OUT: &str = "hypereyes_eval_left_out_total";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(ROLLOUTS, "Evaluated rollouts by verdict");
    describe_counter!(
        LEFT_OUT,
        "Rollouts of an evaluation that failed to start, by reason; those of a task count once where they start together"
    );
}
