//! Names of this crate's metrics, with their descriptions. In: nothing. Out: constants, and one function that tells the
//! recorder what they mean.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Leases taken.
pub const LEASES: &str = "hypereyes_actor_leases_total";
/// Times that there was nothing to lease, by `reason` (`backpressure`, `epoch_end`, `paused`, `unsaid`).
pub const WAITS: &str = "hypereyes_actor_waits_total";
/// Groups at their end, by `outcome`: a receipt (`accepted`, `duplicate`, `stale`, `expired`, `invalid`), or none (`lost`,
/// `stopped`, `refused`, `failed`).
pub const GROUPS: &str = "hypereyes_actor_groups_total";
/// Groups given back, by `reason` (see [`hypereyes_domain::Failure::label`]).
pub const ABANDONED: &str = "hypereyes_actor_abandoned_total";
/// Groups in flight now.
pub const IN_FLIGHT: &str = "hypereyes_actor_groups_in_flight";
/// Time of one stage of a group, by `stage` (`version`, `pictures`, `rollout`, `reward`, `teacher`, `submit`).
pub const STAGE_SECONDS: &str = "hypereyes_actor_stage_seconds";
/// Rollouts routed to the teacher that got no log-probs, by `reason` (`away`: it was not asked because it had not answered before,
/// `timeout`, `missing_pictures`, `refused`, or a failure's label).
pub const NO_SIGNAL: &str = "hypereyes_actor_teacher_no_signal_total";
/// Whether the teacher is not asked at present (1), because it has not answered for a while.
pub const TEACHER_AWAY: &str = "hypereyes_actor_teacher_away";
/// Questions to the teacher that were repeated.
pub const TEACHER_REPEATS: &str = "hypereyes_actor_teacher_repeats_total";
/// Rollouts with log-probs of the teacher, by `teacher` and `epoch`.
pub const TAUGHT: &str = "hypereyes_actor_taught_rollouts_total";
/// Pictures, by `from` or to whom they travelled (`learner_get`, `learner_put`, `teacher_put`).
pub const PICTURES: &str = "hypereyes_actor_pictures_total";
/// Heartbeats, by `outcome` (`ok`, `failed`).
pub const HEARTBEATS: &str = "hypereyes_actor_heartbeats_total";
/// Leases that a heartbeat found to be no longer ours.
pub const LOST: &str = "hypereyes_actor_leases_lost_total";
/// Calls to the learner for work or versions that failed and are repeated for ever, by `op` (`lease`, `watch`, `fetch`,
/// `swap`).
pub const RECONNECTS: &str = "hypereyes_actor_reconnects_total";
/// Policy version that the engine holds.
pub const VERSION: &str = "hypereyes_actor_policy_version";

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_counter!(LEASES, "leases taken");
    describe_counter!(WAITS, "times that there was nothing to lease, by reason");
    describe_counter!(GROUPS, "groups at their end, by outcome");
    describe_counter!(ABANDONED, "groups given back, by reason");
    describe_gauge!(IN_FLIGHT, "groups in flight");
    describe_histogram!(STAGE_SECONDS, Unit::Seconds, "time of one stage of a group");
    describe_counter!(NO_SIGNAL, "rollouts without the teacher's log-probs, by reason");
    describe_gauge!(TEACHER_AWAY, "whether the teacher is not asked at present");
    describe_counter!(TEACHER_REPEATS, "questions to the teacher that were repeated");
    describe_counter!(TAUGHT, "rollouts with the teacher's log-probs");
    describe_counter!(PICTURES, "pictures that travelled, by way");
    describe_counter!(HEARTBEATS, "heartbeats, by outcome");
    describe_counter!(LOST, "leases that were no longer ours");
    describe_counter!(RECONNECTS, "failed calls to the learner that are repeated, by operation");
    describe_gauge!(VERSION, "policy version that the engine holds");
}
