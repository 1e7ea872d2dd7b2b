//! What engines at servers count. Nothing comes in; dashboards read what goes out.

use metrics::describe_counter;

use crate::remote;

/// Requests for log-probs to servers, by `outcome` (`ok`, or why not: `connect`, `transport`, `slow`, `busy`, `server`, `refused`,
/// `too_long`, `malformed`, `expansion`, `short_ids`, `other_ids`, `no_logprobs`, `not_finite`, `positive_logprob`).
pub const SCORED: &str = "hypereyes_teacher_remote_requests_total";

/// Times that the server of `engine.command` was started again.
pub const RESTARTS: &str = "hypereyes_engine_restarts_total";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(SCORED, "Requests for log-probs to servers behind models, by outcome");
    describe_counter!(RESTARTS, "Starts of the server of engine.command after it died");
    remote::metrics::describe();
    hypereyes_policy::metrics::describe();
}
