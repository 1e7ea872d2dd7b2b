//! Names of the counters of this crate. Nothing comes in; dashboards read what goes out.

use hypereyes_domain::Trajectory;
use metrics::{counter, describe_counter, describe_histogram, histogram};

/// Episodes by `ending` (see [`hypereyes_domain::Ending::label`]).
pub const EPISODES: &str = "hypereyes_rollout_episodes_total";
/// Trajectories masked, by `reason` (see [`hypereyes_domain::Failure::label`]).
pub const MASKED: &str = "hypereyes_rollout_masked_total";
/// Tokens by `kind`: `sampled` or `observed`.
pub const TOKENS: &str = "hypereyes_rollout_tokens_total";
/// Searches that ran.
pub const SEARCHES: &str = "hypereyes_rollout_searches_total";
/// Rounds of an episode.
pub const ROUNDS: &str = "hypereyes_rollout_rounds";

/// Attempts to get a turn from a chat endpoint, by `outcome`: `ok`, or why not (`connect`, `transport`, `slow`, `deadline`, `busy`,
/// `server`, `refused`, `too_long`, `malformed`, `no_usage`, `withheld`).
pub const ANSWERS: &str = "hypereyes_rollout_chat_answers_total";
/// Tokens that chat endpoints counted, as they bill them, by `kind`: `prompt` or `completion`.
pub const BILLED: &str = "hypereyes_rollout_chat_tokens_total";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(EPISODES, "Episodes by ending");
    describe_counter!(MASKED, "Trajectories masked because of a failure outside the policy, by reason");
    describe_counter!(TOKENS, "Response tokens by kind (sampled, observed)");
    describe_counter!(ANSWERS, "Attempts to get a turn from a chat endpoint, by outcome");
    describe_counter!(BILLED, "Tokens that chat endpoints counted, by kind (prompt, completion)");
    describe_counter!(SEARCHES, "Searches that ran in episodes");
    describe_histogram!(ROUNDS, "Tool rounds per episode");
}

/// Counts a finished episode.
pub(crate) fn count(trajectory: &Trajectory) {
    let sampled = trajectory.sampled_tokens();
    counter!(EPISODES, "ending" => trajectory.summary.ending.label()).increment(1);
    counter!(TOKENS, "kind" => "sampled").increment(sampled as u64);
    counter!(TOKENS, "kind" => "observed").increment((trajectory.response.len() - sampled) as u64);
    counter!(SEARCHES).increment(u64::from(trajectory.summary.searches()));
    histogram!(ROUNDS).record(f64::from(trajectory.summary.round_count()));
}
