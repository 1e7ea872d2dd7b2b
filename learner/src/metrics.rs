//! Names of what the learner counts; practitioners' names where there are any.

use metrics::{Unit, describe_counter, describe_gauge};

/// Groups that were not trained, by `reason`.
pub const GROUPS_DROPPED: &str = "hypereyes_groups_dropped_total";
/// Groups that were trained.
pub const GROUPS_TRAINED: &str = "hypereyes_groups_trained_total";
/// Leases taken back, by `reason`.
pub const LEASES_RELEASED: &str = "hypereyes_leases_released_total";
/// Ledger lines that could not be written.
pub const LEDGER_LOST: &str = "hypereyes_ledger_lines_lost_total";
/// Seconds that the learner waited for groups.
pub const STARVED: &str = "hypereyes_learner_starved_seconds_total";
/// Seconds of the last optimiser step.
pub const STEP_SECONDS: &str = "hypereyes_learner_step_seconds";
/// Groups leased or waiting, as a share of the bound.
pub const QUEUE_FILL: &str = "hypereyes_queue_fill_ratio";
/// Optimiser steps without an update because the gradient was not finite.
pub const STEPS_SKIPPED: &str = "hypereyes_learner_steps_skipped_total";

/// Tells the recorder what the names mean.
pub fn describe() {
    hypereyes_collective::metrics::describe();
    describe_counter!(GROUPS_DROPPED, "Groups that were not trained, by reason");
    describe_counter!(GROUPS_TRAINED, "Groups that were trained");
    describe_counter!(LEASES_RELEASED, "Leases taken back, by reason");
    describe_counter!(LEDGER_LOST, "Ledger lines that could not be written");
    describe_counter!(STARVED, Unit::Seconds, "Time that the learner waited for groups");
    describe_gauge!(STEP_SECONDS, Unit::Seconds, "Duration of the last optimiser step");
    describe_gauge!(QUEUE_FILL, "Groups leased or waiting, as a share of the bound");
    describe_counter!(STEPS_SKIPPED, "Steps without an update because the gradient was not finite");
}
