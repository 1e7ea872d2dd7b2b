//! Names of the counters of this crate. Nothing comes in; dashboards read what goes out.

use metrics::describe_counter;

/// Evaluated rollouts by `verdict`: `correct`, `wrong`, `not_attempted`, `unparsed`, `invalid`.
pub const ROLLOUTS: &str = "hypereyes_eval_rollouts_total";
/// Tasks left out because nothing could be rolled out, by `reason` (see [`hypereyes_domain::Failure::label`]).
pub const LEFT_OUT: &str = "hypereyes_eval_left_out_total";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(ROLLOUTS, "Evaluated rollouts by verdict");
    describe_counter!(LEFT_OUT, "Tasks of an evaluation left out because their rollouts failed to start, by reason");
}
