//! What the folder of generations counts.

use metrics::{Unit, describe_counter, describe_histogram};

/// Bytes of weights of generations, by `how`: `written`, `linked` to the generation before, `copied` where links cannot be made.
pub(super) const BYTES: &str = "hypereyes_policy_folder_bytes_total";
/// Generations removed, by `reason`: `replaced`, `cut_off`, `damaged`, `other_start`.
pub(super) const REMOVED: &str = "hypereyes_policy_folder_removed_total";
/// Time to write one.
pub(super) const WRITE_SECONDS: &str = "hypereyes_policy_folder_write_seconds";

/// Describes the metrics.
pub(crate) fn describe() {
    describe_counter!(BYTES, Unit::Bytes, "bytes of weights of policy versions, by how they came into the folder");
    describe_counter!(REMOVED, "policy versions removed from the folder, by reason");
    describe_histogram!(WRITE_SECONDS, Unit::Seconds, "time to write a policy version into the folder");
}
