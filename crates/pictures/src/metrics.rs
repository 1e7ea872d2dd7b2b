//! Names of this crate's metrics and their descriptions. Knows no exporter.

use metrics::{describe_counter, describe_gauge};

/// Pictures that the store dropped to make room.
pub const EVICTIONS: &str = "hypereyes_picture_store_evictions_total";
/// Pictures that were refused; label `reason`: `size`, `bytes`, `format`, `broken`, `capacity`.
pub const REFUSED: &str = "hypereyes_pictures_refused_total";
/// Bytes that the store holds: encoded and decoded, or, in the learner, encoded.
pub const STORED_BYTES: &str = "hypereyes_picture_store_bytes";
/// Bytes of those that stay because a group needs them.
pub const PINNED_BYTES: &str = "hypereyes_picture_store_pinned_bytes";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    describe_counter!(EVICTIONS, "Pictures dropped from the store to make room");
    describe_counter!(REFUSED, "Pictures refused, by reason");
    describe_gauge!(STORED_BYTES, "Bytes held by the picture store");
    describe_gauge!(PINNED_BYTES, "Bytes of pictures that stay because a group needs them");
}
