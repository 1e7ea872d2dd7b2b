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
/// Pictures needed as patches, by `outcome` (`hit`, `made`).
pub const PATCHES: &str = "hypereyes_picture_patches_total";
/// Patches dropped to make room.
pub const PATCHES_DROPPED: &str = "hypereyes_picture_patches_dropped_total";
/// Pictures that were asked for by name and are neither kept nor held by anybody.
pub const MISSING: &str = "hypereyes_pictures_missing_total";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    describe_counter!(EVICTIONS, "Pictures dropped from the store to make room");
    describe_counter!(REFUSED, "Pictures refused, by reason");
    describe_gauge!(STORED_BYTES, "Bytes held by the picture store");
    describe_counter!(PATCHES, "Pictures needed as patches, by outcome");
    describe_counter!(PATCHES_DROPPED, "Patches dropped to make room");
    describe_counter!(MISSING, "Pictures asked for by name that nobody has any more");
    describe_gauge!(PINNED_BYTES, "Bytes of pictures that stay because a group needs them");
}
