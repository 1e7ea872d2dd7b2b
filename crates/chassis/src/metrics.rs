//! Names of this crate's metrics.
//!
//! In: nothing. Out: names, and their descriptions for whoever scrapes them.

use ::metrics::{Unit, describe_counter, describe_gauge};

/// Counter: calls repeated after an error that may pass. Labels: `op` (what was tried), `reason` (`error`).
pub const RETRIES: &str = "hypereyes_retries_total";
/// Counter: calls given up. Labels: `op`, `reason` (`fatal`, `deadline`).
pub const RETRIES_EXHAUSTED: &str = "hypereyes_retries_exhausted_total";
/// Counter: tasks or connections that were cut off at a shutdown because their grace had passed. Label: `what`.
pub const DRAIN_CUT: &str = "hypereyes_drain_cut_total";
/// Counter: spans that were not exported. Label: `reason` (`queue`, `export`).
pub const SPANS_LOST: &str = "hypereyes_trace_spans_lost_total";
/// Counter: requests of the metrics listener. Label: `outcome` (`served`, `not_found`).
pub const SCRAPES: &str = "hypereyes_metrics_requests_total";
/// Counter: changes of the certificate's files. Label: `outcome` (`taken`, `refused`).
pub const TLS_RELOADS: &str = "hypereyes_tls_reloads_total";
/// Counter: connections that came to nothing because of TLS. Labels: `side` (`serve`, `call`), `reason` (`timeout`, `closed`,
/// `not_tls`, `incompatible`, `no_certificate`, `unknown_authority`, `expired`, `not_valid_yet`, `wrong_name`,
/// `bad_certificate`, `refused_by_peer`, `other`).
pub const TLS_REFUSED: &str = "hypereyes_tls_refused_total";
/// Counter: calls that the caller's role may not make. Labels: `rpc` (its path; `open` for health and reflection), `reason`
/// (`role`, `no_role`).
pub const RPC_DENIED: &str = "hypereyes_rpc_denied_total";

/// Gauge: connections that are open or being greeted. Label: `listener` (`grpc`, `health`, `metrics`).
pub const CONNECTIONS: &str = "hypereyes_connections";
/// Counter: connections that were closed before anything was served. Labels: `listener`, `reason` (`full`, `full_of_peer`,
/// `silent`: not a word in time, `not_http2`, `closed` by the peer). Those that TLS ended are counted as such.
pub const CONNECTIONS_REFUSED: &str = "hypereyes_connections_refused_total";
/// Counter: connections that the system did not hand over. Labels: `listener`, `reason` (`descriptors`: the process or the
/// machine has no more, `aborted` by the peer, `other`).
pub const ACCEPT_FAILED: &str = "hypereyes_accept_failed_total";

/// Gauge: bytes of requests that are being read or answered. Label: `listener`.
pub const REQUEST_BYTES: &str = "hypereyes_request_bytes";
/// Counter: messages that were refused for want of room. Label: `reason` (`full`, `full_of_peer`).
pub const REQUESTS_REFUSED: &str = "hypereyes_requests_refused_total";

/// Tells the recorder what the names mean.
pub(crate) fn describe() {
    describe_counter!(RETRIES, Unit::Count, "Calls repeated after an error that may pass, by operation and reason.");
    describe_counter!(RETRIES_EXHAUSTED, Unit::Count, "Calls given up, by operation and reason.");
    describe_counter!(DRAIN_CUT, Unit::Count, "Tasks and connections cut off at shutdown after their grace.");
    describe_counter!(SPANS_LOST, Unit::Count, "Spans that were not exported, by reason.");
    describe_counter!(SCRAPES, Unit::Count, "Requests to the metrics listener, by outcome.");
    describe_counter!(TLS_RELOADS, Unit::Count, "Changes of the certificate's files, by outcome.");
    describe_counter!(TLS_REFUSED, Unit::Count, "Connections that came to nothing because of TLS, by side and reason.");
    describe_gauge!(CONNECTIONS, Unit::Count, "Connections that are open or being greeted, by listener.");
    describe_counter!(CONNECTIONS_REFUSED, Unit::Count, "Connections closed before anything was served, by listener and reason.");
    describe_gauge!(REQUEST_BYTES, Unit::Bytes, "Bytes of requests that are being read or answered, by listener.");
    describe_counter!(REQUESTS_REFUSED, Unit::Count, "Messages refused for want of room, by reason.");
    describe_counter!(ACCEPT_FAILED, Unit::Count, "Connections that the system did not hand over, by listener and reason.");
    describe_counter!(RPC_DENIED, Unit::Count, "Calls that the caller's role may not make, by RPC and reason.");
}
