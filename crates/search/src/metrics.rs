//! Names of this crate's metrics, their labels and descriptions. Knows no exporter.

use metrics::{describe_counter, describe_histogram};

/// Searches started; label `tool`: `text`, `image`, `page`.
pub const SEARCHES: &str = "hypereyes_searches_total";
/// Searches that gave no result list; labels `tool`, `reason` (a `Failure` label).
pub const SEARCH_FAILURES: &str = "hypereyes_search_failures_total";
/// Seconds of one search, waiting for its turn included; label `tool`.
pub const SEARCH_SECONDS: &str = "hypereyes_search_seconds";
/// Queries cut to the words that a search reads.
pub const QUERY_CUT: &str = "hypereyes_search_query_words_cut_total";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    hypereyes_world::metrics::describe();
    describe_counter!(SEARCHES, "Searches started, by tool");
    describe_counter!(SEARCH_FAILURES, "Searches without a result list, by tool and reason");
    describe_histogram!(SEARCH_SECONDS, "Seconds of one search, waiting included, by tool");
    describe_counter!(QUERY_CUT, "Queries cut to the words that a search reads");
}
