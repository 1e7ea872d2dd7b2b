//! Names of this service's metrics, with their descriptions. In: nothing. Out: constants, and one function that tells
//! the recorder what they mean.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Groups scored (not counting repeats).
pub const GROUPS: &str = "hypereyes_reward_groups_total";
/// Rollouts scored, by `accuracy`.
pub const ROLLOUTS: &str = "hypereyes_reward_rollouts_total";
/// Rollouts masked because there is no verdict, by `reason`.
pub const MASKED: &str = "hypereyes_reward_masked_total";
/// Bonuses given, by `branch`.
pub const BONUSES: &str = "hypereyes_reward_bonuses_total";
/// Groups answered from memory because they had been scored before.
pub const REPEATS: &str = "hypereyes_reward_repeats_total";
/// Groups scored again because the same id came with other rollouts.
pub const CONFLICTS: &str = "hypereyes_reward_conflicts_total";
/// Results forgotten to make room.
pub const FORGOTTEN: &str = "hypereyes_reward_forgotten_total";
/// Calls refused, by `reason`.
pub const REFUSED: &str = "hypereyes_reward_refused_total";
/// Time to score a group, durability included.
pub const SCORE_SECONDS: &str = "hypereyes_reward_score_seconds";
/// Committed references.
pub const REFERENCES: &str = "hypereyes_reward_references";
/// References that became tighter or new, by `cause` (commit, observation, import).
pub const TIGHTENED: &str = "hypereyes_reward_tightened_total";
/// Number of the last epoch commit.
pub const EPOCH: &str = "hypereyes_reward_epoch";
/// Mean rounds over the committed references.
pub const MEAN_ROUNDS: &str = "hypereyes_reward_reference_mean_rounds";
/// Mean searches over the committed references.
pub const MEAN_SEARCHES: &str = "hypereyes_reward_reference_mean_searches";
/// Log lines dropped at start because a crash had torn them.
pub const TORN: &str = "hypereyes_reward_log_torn_total";
/// Writes to the log or snapshot that failed, by `reason`.
pub const STORE_ERRORS: &str = "hypereyes_reward_store_errors_total";

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_counter!(GROUPS, "groups scored, repeats not counted");
    describe_counter!(ROLLOUTS, "rollouts scored, by accuracy");
    describe_counter!(MASKED, "rollouts without a verdict, by reason");
    describe_counter!(BONUSES, "bonuses given, by branch of TRACE");
    describe_counter!(REPEATS, "groups answered from memory");
    describe_counter!(CONFLICTS, "groups whose id came again with other rollouts");
    describe_counter!(FORGOTTEN, "remembered results dropped to make room");
    describe_counter!(REFUSED, "calls refused, by reason");
    describe_histogram!(SCORE_SECONDS, Unit::Seconds, "time to score a group, durability included");
    describe_gauge!(REFERENCES, "committed references");
    describe_counter!(TIGHTENED, "references that became tighter or new, by cause");
    describe_gauge!(EPOCH, "number of the last epoch commit");
    describe_gauge!(MEAN_ROUNDS, "mean rounds over the committed references");
    describe_gauge!(MEAN_SEARCHES, "mean searches over the committed references");
    describe_counter!(TORN, "log lines dropped at start because a crash had torn them");
    describe_counter!(STORE_ERRORS, "failed writes to the log or the snapshot, by reason");
}
