//! Names of this crate's metrics, their labels and descriptions. Knows no exporter.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Searches started; label `tool`: `text`, `image`, `page`.
pub const SEARCHES: &str = "hypereyes_searches_total";
/// Searches that gave no result list; labels `tool`, `reason` (a `Fault` label).
pub const SEARCH_FAILURES: &str = "hypereyes_search_failures_total";
/// Seconds of the searches of one call, waiting for their turn included; label `tool`.
pub const SEARCH_SECONDS: &str = "hypereyes_search_seconds";
/// Queries cut to the words that a search reads.
pub const QUERY_CUT: &str = "hypereyes_search_query_words_cut_total";
/// Requests to services; labels `service`, `outcome`: `ok`, a `Fault` label, `budget` or `not_asked`.
pub const ATTEMPTS: &str = "hypereyes_search_requests_total";
/// Seconds that a request waited for a service's rate; label `service`.
pub const WAITED: &str = "hypereyes_search_rate_wait_seconds";
/// Queries that were looked for among what is kept; labels `service`, `how`: `kept`, `missing`, `broken`, `not_kept`.
pub const CACHED: &str = "hypereyes_search_cache_total";
/// Queries that another one in the air answered; label `service`.
pub const FLIGHTS_JOINED: &str = "hypereyes_search_flights_joined_total";
/// Queries that went to another service; labels `from`, `to`.
pub const FELL_BACK: &str = "hypereyes_search_fallbacks_total";
/// Engines of a metasearch server that failed within an answer.
pub const ENGINES_FAILED: &str = "hypereyes_search_engines_failed_total";
/// MCP servers that were asked for their tools; labels `revision`, `why`: `first`, or `again` where a session was lost or tools had changed.
pub const MCP_OPENED: &str = "hypereyes_search_mcp_opened_total";
/// Requests taken from the budget; label `service`.
pub const SPENT_REQUESTS: &str = "hypereyes_search_budget_requests_total";
/// Dollars spent of the budget, by earlier processes too.
pub const SPENT_USD: &str = "hypereyes_search_budget_spent_usd";
/// Crops that were published for a service; label `outcome`: `ok`, `failed`.
pub const PUBLISHED: &str = "hypereyes_search_crops_published_total";
/// Crops that somebody fetched from this process, or asked for in vain; label `outcome`: `ok`, `unknown`.
pub const PUBLISHED_SERVED: &str = "hypereyes_search_crops_served_total";
/// Bytes of crops that this process serves.
pub const PUBLISHED_HELD: &str = "hypereyes_search_crops_held_bytes";
/// Pages that were fetched by ourselves; label `outcome`: `ok`, `none`, or a `Fault` label.
pub const FETCHED: &str = "hypereyes_search_pages_fetched_total";
/// Pages cut to the part that is read.
pub const PAGES_CUT: &str = "hypereyes_search_pages_cut_total";

/// Registers the descriptions with the installed recorder; call once after installing it.
pub fn describe() {
    hypereyes_world::metrics::describe();
    describe_counter!(SEARCHES, "Searches started, by tool");
    describe_counter!(SEARCH_FAILURES, "Searches without a result list, by tool and reason");
    describe_histogram!(SEARCH_SECONDS, "Seconds of the searches of one call, waiting included, by tool");
    describe_counter!(QUERY_CUT, "Queries cut to the words that a search reads");
    describe_counter!(ATTEMPTS, "Requests to search services, by service and outcome");
    describe_histogram!(WAITED, "Seconds that a request waited for a search service's rate, by service");
    describe_counter!(CACHED, "Queries looked for among what is kept, by service and whether they were there");
    describe_counter!(FLIGHTS_JOINED, "Queries answered by an equal one in the air, by service");
    describe_counter!(FELL_BACK, "Queries that went to another service, by which and which");
    describe_counter!(ENGINES_FAILED, "Engines of a metasearch server that failed within an answer");
    describe_counter!(MCP_OPENED, "MCP servers that were asked for their tools, by revision and whether for the first time");
    describe_counter!(SPENT_REQUESTS, "Requests taken from the search budget, by service");
    describe_gauge!(SPENT_USD, "Dollars spent of the search budget");
    describe_counter!(PUBLISHED, "Crops published for a service that is told addresses, by outcome");
    describe_counter!(PUBLISHED_SERVED, "Crops fetched from this process, by outcome");
    describe_gauge!(PUBLISHED_HELD, "Bytes of crops that this process serves");
    describe_counter!(FETCHED, "Pages fetched by ourselves, by outcome");
    describe_counter!(PAGES_CUT, "Pages cut to the part that is read");
}
