//! Names of what training counts; practitioners' names where there are any.

use metrics::{Unit, describe_counter, describe_gauge};

/// Groups that were trained.
pub const GROUPS_TRAINED: &str = "hypereyes_groups_trained_total";
/// Seconds of the last optimiser step.
pub const STEP_SECONDS: &str = "hypereyes_learner_step_seconds";
/// Optimiser steps without an update because the gradient was not finite.
pub const STEPS_SKIPPED: &str = "hypereyes_learner_steps_skipped_total";
/// Mean of log p_policy - log p_teacher over the last batch's shaped tokens, by `teacher` (`name#epoch`).
pub const TEACHER_KL: &str = "hypereyes_learner_teacher_reverse_kl";
/// Share of the teacher's likeliest tokens that are the policy's too, by `teacher`.
pub const TEACHER_OVERLAP: &str = "hypereyes_learner_teacher_top_overlap_ratio";
/// Tokens that a teacher's word shaped, by `teacher`.
pub const TEACHER_TOKENS: &str = "hypereyes_learner_teacher_tokens_total";
/// Rollouts routed to the teacher that came without its word.
pub const UNTAUGHT: &str = "hypereyes_learner_untaught_rollouts_total";

/// Tells the recorder what the names mean.
pub fn describe() {
    describe_counter!(GROUPS_TRAINED, "Groups that were trained");
    describe_gauge!(STEP_SECONDS, Unit::Seconds, "Duration of the last optimiser step");
    describe_counter!(STEPS_SKIPPED, "Steps without an update because the gradient was not finite");
    describe_gauge!(TEACHER_KL, "Mean log-prob gap between policy and teacher on shaped tokens, by teacher");
    describe_gauge!(TEACHER_OVERLAP, "Share of the teacher's likeliest tokens that are the policy's too, by teacher");
    describe_counter!(TEACHER_TOKENS, "Tokens that a teacher's word shaped, by teacher");
    describe_counter!(UNTAUGHT, "Rollouts routed to the teacher that came without its word");
}
