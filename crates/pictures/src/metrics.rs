//! Names of this crate's metrics and their descriptions. Knows no exporter.

use metrics::{describe_counter, describe_gauge};

/// Pictures that the store dropped to make room.
pub const EVICTIONS: &str = "hypereyes_picture_store_evictions_total";
/// Pictures that were refused; label `reason`: `size`, `bytes`, `format`, `broken`, `capacity`.
pub const REFUSED: &str = "hypereyes_pictures_refused_total";
/// Bytes (encoded and decoded) that the store holds.
pub const STORED_BYTES: &str = "hypereyes_picture_store_bytes";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    describe_counter!(EVICTIONS, "Pictures dropped from the store to make room");
    describe_counter!(REFUSED, "Pictures refused, by reason");
    describe_gauge!(STORED_BYTES, "Bytes held by the picture store, encoded and decoded");
}
