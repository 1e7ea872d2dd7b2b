//! Names of this crate's metrics, their labels and descriptions. Knows no exporter.

use metrics::describe_counter;

/// Layers or their indexes dropped to make room; label `what`: `layer`, `text_index`.
pub const EVICTIONS: &str = "hypereyes_search_cache_evictions_total";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    describe_counter!(EVICTIONS, "Layers and indexes dropped to make room");
}
