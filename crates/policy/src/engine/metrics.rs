//! What the engine counts.

use hypereyes_domain::Failure;
use metrics::{counter, histogram};

/// Model rows processed, prefill and decode.
const ROWS: &str = "hypereyes_engine_rows_total";
/// Tokens sampled.
const SAMPLED: &str = "hypereyes_engine_sampled_tokens_total";
/// Rows per step.
const STEP_ROWS: &str = "hypereyes_engine_step_rows";
/// Requests that failed, by `reason`.
const FAILED: &str = "hypereyes_engine_failures_total";
/// Weight swaps, by `outcome`.
const WEIGHTS: &str = "hypereyes_engine_weight_swaps_total";

pub(super) fn step(rows: usize, sampled: usize) {
    counter!(ROWS).increment(rows as u64);
    counter!(SAMPLED).increment(sampled as u64);
    histogram!(STEP_ROWS).record(rows as f64);
}

pub(super) fn failed(failure: Failure) {
    counter!(FAILED, "reason" => failure.label()).increment(1);
}

pub(super) fn weights_loaded(ok: bool) {
    counter!(WEIGHTS, "outcome" => if ok { "ok" } else { "refused" }).increment(1);
}
