//! Names of this crate's metrics, their labels and descriptions. Knows no exporter.

use metrics::describe_counter;

/// Executed rounds; label `kind`: `image`, `text`, `error`, `unknown_id`, `no_query`, `all_crops_failed`, `page`, `no_page`.
pub const ROUNDS: &str = "hypereyes_search_rounds_total";
/// Areas that had no inside.
pub const CROPS_FAILED: &str = "hypereyes_search_crops_failed_total";
/// Areas, queries or pages beyond the limit of a call, dropped; label `what`: `areas`, `queries`, `pages`.
pub const CAPPED: &str = "hypereyes_search_call_items_capped_total";
/// Calls answered by an error observation; label `reason`: `call`, `tool`, `argument`, `value`, `area`.
pub const REFUSED: &str = "hypereyes_search_calls_refused_total";
/// Elements of a list that are no query or page; label `reason`: `not_text`, `no_word`.
pub const DROPPED: &str = "hypereyes_search_queries_dropped_total";
/// Texts of hits cut to the observation's limit.
pub const HIT_CUT: &str = "hypereyes_search_hit_text_cut_total";
/// Ended episodes; label `ending`.
pub const ENDINGS: &str = "hypereyes_search_endings_total";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    describe_counter!(ROUNDS, "Executed tool rounds, by kind");
    describe_counter!(CROPS_FAILED, "Areas without an inside");
    describe_counter!(CAPPED, "Areas or queries beyond the limit of a call");
    describe_counter!(REFUSED, "Calls answered by an error observation, by reason");
    describe_counter!(DROPPED, "Elements of a text search that are no query, by reason");
    describe_counter!(HIT_CUT, "Texts of hits cut to the observation's limit");
    describe_counter!(ENDINGS, "Episodes ended by the environment, by ending");
}
