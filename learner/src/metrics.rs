//! Names of what the learner counts; practitioners' names where there are any.

use metrics::{Unit, describe_counter, describe_gauge};

/// Groups that were not trained, by `reason`.
pub const GROUPS_DROPPED: &str = "hypereyes_groups_dropped_total";
/// Leases taken back, by `reason`.
pub const LEASES_RELEASED: &str = "hypereyes_leases_released_total";
/// Tasks that failed too often and are not leased any more.
pub const TASKS_SET_ASIDE: &str = "hypereyes_learner_tasks_set_aside_total";
/// Batches that were trained before they were full, because pictures of waiting groups left no room for more.
pub const BATCHES_PRESSED: &str = "hypereyes_learner_batches_pressed_total";
/// Calls in the name of an actor that is somebody else, by `rpc`.
pub const FOREIGN_CALLS: &str = "hypereyes_learner_foreign_calls_total";
/// Calls that were refused because the peer holds too much already, by `what` (`fetches`, `watches`, `uploads`, `names`, `pictures`).
pub const HOLDS_TOO_MUCH: &str = "hypereyes_learner_peer_holds_too_much_total";
/// Steps that were broken off because the learner was told to stop.
pub const STEPS_BROKEN_OFF: &str = "hypereyes_learner_steps_broken_off_total";
/// Checkpoints that could not be written; the one before stays in force, and the next step tries again.
pub const CHECKPOINTS_FAILED: &str = "hypereyes_learner_checkpoints_failed_total";
/// Seconds that the learner waited for groups.
pub const STARVED: &str = "hypereyes_learner_starved_seconds_total";
/// Share of its recent time (the last half minute or so) that the learner waited for groups while there were tasks to hand out: too
/// few actors when it is high. The end of an epoch does not count, where more actors are of no help.
pub const STARVED_RATIO: &str = "hypereyes_learner_starved_ratio";
/// Groups leased or waiting, as a share of the bound.
pub const QUEUE_FILL: &str = "hypereyes_learner_queue_fill_ratio";
/// References of a checkpoint that nobody can have reached (no search), left out.
pub const IMPOSSIBLE_REFERENCES: &str = "hypereyes_learner_impossible_references_total";

/// Tells the recorder what the names mean.
pub fn describe() {
    hypereyes_collective::metrics::describe();
    hypereyes_run::metrics::describe();
    hypereyes_pictures::metrics::describe();
    hypereyes_trainer::metrics::describe();
    describe_counter!(GROUPS_DROPPED, "Groups that were not trained, by reason");
    describe_counter!(IMPOSSIBLE_REFERENCES, "References of a checkpoint that nobody can have reached, left out");
    describe_counter!(LEASES_RELEASED, "Leases taken back, by reason");
    describe_counter!(TASKS_SET_ASIDE, "Tasks that failed too often and are not leased any more");
    describe_counter!(BATCHES_PRESSED, "Batches trained before they were full, for want of room for pictures");
    describe_counter!(FOREIGN_CALLS, "Calls in the name of an actor that is somebody else, by RPC");
    describe_counter!(HOLDS_TOO_MUCH, "Calls refused because the peer holds too much already");
    describe_counter!(STEPS_BROKEN_OFF, "Steps broken off because the learner was told to stop");
    describe_counter!(CHECKPOINTS_FAILED, "Checkpoints that could not be written");
    describe_counter!(STARVED, Unit::Seconds, "Time that the learner waited for groups");
    describe_gauge!(STARVED_RATIO, "Share of its recent time that the learner waited for groups which more actors could have made");
    describe_gauge!(QUEUE_FILL, "Groups leased or waiting, as a share of the bound");
}
