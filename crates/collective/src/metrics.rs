//! Names of this crate's metrics.

/// Bytes sent and received by collectives; label `op`.
pub const BYTES: &str = "hypereyes_collective_bytes_total";
/// Seconds in collectives, waiting for others included; label `op`.
pub const SECONDS: &str = "hypereyes_collective_seconds";
/// Groups that ended in an error; label `reason`.
pub const FAILED: &str = "hypereyes_collective_failed_total";

/// Tells the recorder what they mean.
pub fn describe() {
    metrics::describe_counter!(BYTES, metrics::Unit::Bytes, "Bytes that this rank sent to and received from others");
    metrics::describe_histogram!(SECONDS, metrics::Unit::Seconds, "Time of a collective, waiting for other ranks included");
    metrics::describe_counter!(FAILED, "Collectives that failed, by reason");
}
