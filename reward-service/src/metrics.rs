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
/// Groups whose task id names another question already: they are measured against a reference of their own.
pub const OTHER_QUESTIONS: &str = "hypereyes_reward_other_questions_total";
/// Results forgotten to make room.
pub const FORGOTTEN: &str = "hypereyes_reward_forgotten_total";
/// Calls refused, by `reason`.
pub const REFUSED: &str = "hypereyes_reward_refused_total";
/// Time to score a group, durability included.
pub const SCORE_SECONDS: &str = "hypereyes_reward_score_seconds";
/// Committed references.
pub const REFERENCES: &str = "hypereyes_reward_references";
/// References that changed, by `cause` (commit, observation, import, restore, repair).
pub const TIGHTENED: &str = "hypereyes_reward_tightened_total";
/// References that nobody can have reached (no round, no search), ignored where they were kept, by `from` (store, backup).
pub const IMPOSSIBLE: &str = "hypereyes_reward_impossible_references_total";
/// Number of the last epoch commit.
pub const EPOCH: &str = "hypereyes_reward_epoch";
/// Mean rounds over the committed references.
pub const MEAN_ROUNDS: &str = "hypereyes_reward_reference_mean_rounds";
/// Mean searches over the committed references.
pub const MEAN_SEARCHES: &str = "hypereyes_reward_reference_mean_searches";
/// Rewards of judged rollouts.
pub const REWARDS: &str = "hypereyes_reward_rewards";
/// Time of one transaction of the store, its sync included.
pub const SYNC_SECONDS: &str = "hypereyes_reward_sync_seconds";
/// Writes to the store or its backups that failed, by `reason`.
pub const STORE_ERRORS: &str = "hypereyes_reward_store_errors_total";

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_counter!(GROUPS, "groups scored, repeats not counted");
    describe_counter!(ROLLOUTS, "rollouts scored, by accuracy");
    describe_counter!(MASKED, "rollouts without a verdict, by reason");
    describe_counter!(BONUSES, "bonuses given, by branch of TRACE");
    describe_counter!(REPEATS, "groups answered from memory");
    describe_counter!(CONFLICTS, "groups whose id came again with other rollouts");
    describe_counter!(OTHER_QUESTIONS, "groups whose task id names another question already");
    describe_counter!(FORGOTTEN, "remembered results dropped to make room");
    describe_counter!(REFUSED, "calls refused, by reason");
    describe_histogram!(SCORE_SECONDS, Unit::Seconds, "time to score a group, durability included");
    describe_gauge!(REFERENCES, "committed references");
    describe_counter!(TIGHTENED, "references that changed, by cause; only a restore or a repair can loosen one");
    describe_counter!(IMPOSSIBLE, "references that nobody can have reached, ignored, by where they were kept");
    describe_gauge!(EPOCH, "number of the last epoch commit");
    describe_gauge!(MEAN_ROUNDS, "mean rounds over the committed references");
    describe_gauge!(MEAN_SEARCHES, "mean searches over the committed references");
    describe_histogram!(REWARDS, "rewards of judged rollouts");
    describe_histogram!(SYNC_SECONDS, Unit::Seconds, "time of one transaction of the store, sync included");
    describe_counter!(STORE_ERRORS, "failed writes to the store or its backups, by reason");
}
