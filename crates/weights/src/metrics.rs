//! Names of this crate's metrics, with their descriptions. In: nothing. Out: constants, and one function that tells the
//! recorder what they mean.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Versions published.
pub const PUBLISHED: &str = "hypereyes_weights_published_total";
/// Newest published version.
pub const NEWEST: &str = "hypereyes_weights_newest_version";
/// Snapshots dropped to make room for newer ones.
pub const DROPPED: &str = "hypereyes_weights_snapshots_dropped_total";
/// Streams of weights begun, by `outcome` (`served`, `difference`, `unknown_version`), and those that ended because their
/// reader stopped reading (`stalled`).
pub const SERVED: &str = "hypereyes_weights_served_total";
/// Fetches, by `outcome` (`ok`, or why not: see [`crate::WeightsError::label`]).
pub const FETCHES: &str = "hypereyes_weights_fetches_total";
/// Bytes that good fetches took on the wire: differences and unchanged chunks are short.
pub const WIRE_BYTES: &str = "hypereyes_weights_wire_bytes_total";
/// Streams that broke off and were gone on with.
pub const RESUMED: &str = "hypereyes_weights_resumed_total";
/// Payload bytes of good fetches.
pub const FETCHED_BYTES: &str = "hypereyes_weights_fetched_bytes_total";
/// Time of good fetches.
pub const FETCH_SECONDS: &str = "hypereyes_weights_fetch_seconds";

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_counter!(PUBLISHED, "policy versions published");
    describe_gauge!(NEWEST, "newest published policy version");
    describe_counter!(DROPPED, "snapshots dropped to make room for newer ones");
    describe_counter!(SERVED, "weight streams begun, by outcome");
    describe_counter!(FETCHES, "weight fetches, by outcome");
    describe_counter!(FETCHED_BYTES, Unit::Bytes, "payload bytes of good fetches");
    describe_counter!(WIRE_BYTES, Unit::Bytes, "bytes that good fetches took on the wire");
    describe_counter!(RESUMED, "weight streams that broke off and were gone on with");
    describe_histogram!(FETCH_SECONDS, Unit::Seconds, "time of good fetches");
}
