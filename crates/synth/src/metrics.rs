//! Names of the counters of this crate. Nothing comes in; dashboards read what goes out.

use metrics::{describe_counter, describe_histogram};

/// Tasks made, by `split` and `kind`.
pub const MADE: &str = "hypereyes_synth_tasks_total";
/// Draws dropped, by `reason` (see [`crate::tasks::Dropped::label`]).
pub const DROPPED: &str = "hypereyes_synth_dropped_total";
/// Budget under which a task was solved.
pub const BUDGET: &str = "hypereyes_synth_budget_rounds";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(MADE, "Synthesised tasks by split and kind");
    describe_counter!(DROPPED, "Task draws dropped, by reason");
    describe_histogram!(BUDGET, "Turn budget under which progressive rejection sampling solved a task");
}
