//! Names of this crate's metrics, their labels and descriptions. Knows no exporter.

use metrics::{describe_counter, describe_histogram};

/// Searches started; label `tool`: `text`, `image`.
pub const SEARCHES: &str = "hypereyes_searches_total";
/// Searches that gave no result list; labels `tool`, `reason` (a `Failure` label).
pub const SEARCH_FAILURES: &str = "hypereyes_search_failures_total";
/// Seconds of one search, waiting for its turn included; label `tool`.
pub const SEARCH_SECONDS: &str = "hypereyes_search_seconds";
/// Executed rounds; label `kind`: `image`, `text`, `error`, `unknown_id`, `no_query`, `all_crops_failed`.
pub const ROUNDS: &str = "hypereyes_search_rounds_total";
/// Areas that had no inside.
pub const CROPS_FAILED: &str = "hypereyes_search_crops_failed_total";
/// Areas or queries beyond the limit of a call, dropped; label `what`: `areas`, `queries`.
pub const CAPPED: &str = "hypereyes_search_call_items_capped_total";
/// Calls answered by an error observation; label `reason`: `call`, `tool`, `argument`, `value`, `area`.
pub const REFUSED: &str = "hypereyes_search_calls_refused_total";
/// Elements of `input` that are no query; label `reason`: `not_text`, `no_word`.
pub const DROPPED: &str = "hypereyes_search_queries_dropped_total";
/// Queries cut to the words that a search reads.
pub const QUERY_CUT: &str = "hypereyes_search_query_words_cut_total";
/// Texts of hits cut to the observation's limit.
pub const HIT_CUT: &str = "hypereyes_search_hit_text_cut_total";
/// Layers or their indexes dropped to make room; label `what`: `layer`, `text_index`.
pub const EVICTIONS: &str = "hypereyes_search_cache_evictions_total";
/// Ended episodes; label `ending`.
pub const ENDINGS: &str = "hypereyes_search_endings_total";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    describe_counter!(SEARCHES, "Searches started, by tool");
    describe_counter!(SEARCH_FAILURES, "Searches without a result list, by tool and reason");
    describe_histogram!(SEARCH_SECONDS, "Seconds of one search, waiting included, by tool");
    describe_counter!(ROUNDS, "Executed tool rounds, by kind");
    describe_counter!(CROPS_FAILED, "Areas without an inside");
    describe_counter!(CAPPED, "Areas or queries beyond the limit of a call");
    describe_counter!(REFUSED, "Calls answered by an error observation, by reason");
    describe_counter!(DROPPED, "Elements of a text search that are no query, by reason");
    describe_counter!(QUERY_CUT, "Queries cut to the words that a search reads");
    describe_counter!(HIT_CUT, "Texts of hits cut to the observation's limit");
    describe_counter!(EVICTIONS, "Layers and indexes dropped to make room");
    describe_counter!(ENDINGS, "Episodes ended by the environment, by ending");
}
