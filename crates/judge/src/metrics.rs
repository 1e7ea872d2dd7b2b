//! Names of the judge's metrics, with their descriptions. In: nothing. Out: constants, and one function that tells the recorder what
//! they mean. They begin like the reward service's, which was alone in asking a model once.

use metrics::{Unit, describe_counter, describe_histogram};

/// Time to a verdict of the model that judges, all attempts included.
pub const JUDGE_SECONDS: &str = "hypereyes_reward_judge_seconds";
/// Verdicts asked of the model that judges, by `outcome` (correct, wrong, not_attempted, remembered, failed; too_long: wrong without
/// asking).
pub const JUDGE_VERDICTS: &str = "hypereyes_reward_judge_verdicts_total";
/// Votes of which a verdict is made where there are several, by `vote` (correct, wrong, not_attempted, missing).
pub const JUDGE_VOTES: &str = "hypereyes_reward_judge_votes_total";
/// What of the file of kept verdicts could not be read or written, by `reason` (open, damaged, write).
pub const JUDGE_CACHE_ERRORS: &str = "hypereyes_reward_judge_cache_errors_total";
/// Attempts that gave no verdict, by `reason`; votes of which no side has more than half are one of them (`split`).
pub const JUDGE_MISSES: &str = "hypereyes_reward_judge_misses_total";

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_histogram!(JUDGE_SECONDS, Unit::Seconds, "time to a verdict of the model that judges");
    describe_counter!(JUDGE_VERDICTS, "verdicts asked of the model that judges, by outcome");
    describe_counter!(JUDGE_VOTES, "votes of which verdicts of the model that judges are made, by what they say");
    describe_counter!(JUDGE_CACHE_ERRORS, "verdicts that could not be kept or read again, by reason");
    describe_counter!(JUDGE_MISSES, "attempts of the model that judges without a verdict, by reason");
}
