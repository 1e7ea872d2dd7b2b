//! Names of the counters of this crate. Nothing comes in; dashboards read what goes out.

use metrics::{describe_counter, describe_histogram};

/// Tasks made, by `split` and `kind`.
pub const MADE: &str = "hypereyes_synth_tasks_total";
/// Draws dropped, by `reason` (see [`crate::tasks::Dropped::label`]).
pub const DROPPED: &str = "hypereyes_synth_dropped_total";
/// Budget under which a task was solved.
pub const BUDGET: &str = "hypereyes_synth_budget_rounds";

/// Tasks that a served explorer is done with, by how they `ended` (see [`crate::served::Ended`]).
pub const SERVED_TASKS: &str = "hypereyes_synth_served_tasks_total";
/// Tries of a served explorer, by what they `came` to (see [`crate::served::Came`]).
pub const SERVED_ATTEMPTS: &str = "hypereyes_synth_served_attempts_total";
/// Replies of a model that writes questions, by `outcome`: `ok`, or why one is none.
pub const REPLIES: &str = "hypereyes_synth_replies_total";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(MADE, "Synthesised tasks by split and kind");
    describe_counter!(DROPPED, "Task draws dropped, by reason");
    describe_counter!(SERVED_TASKS, "Tasks that a served explorer is done with, by how they ended");
    describe_counter!(SERVED_ATTEMPTS, "Tries of a served explorer, by what they came to");
    describe_counter!(REPLIES, "Replies of a model that writes questions, by outcome");
    describe_histogram!(BUDGET, "Turn budget under which progressive rejection sampling solved a task");
}
