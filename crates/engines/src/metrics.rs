//! What engines of servers count. Nothing comes in; dashboards read what goes out.

use metrics::describe_counter;

/// Requests for log-probs to servers, by `outcome` (`ok`, or why not: `connect`, `transport`, `slow`, `busy`, `server`, `refused`,
/// `too_long`, `malformed`).
pub const SCORED: &str = "hypereyes_teacher_remote_requests_total";

/// Describes the metrics; call once at start.
pub fn describe() {
    describe_counter!(SCORED, "Requests for log-probs to servers behind models, by outcome");
}
