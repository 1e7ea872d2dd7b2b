//! What the engine counts.

use hypereyes_domain::Failure;
use metrics::{counter, describe_counter, describe_histogram, histogram};

/// Model rows processed, by `kind`: `prompt` is what siblings share, `turn` what each sequence feeds for itself.
pub const ROWS: &str = "hypereyes_engine_rows_total";
/// Positions that siblings took over from their prompt instead of computing them.
pub const FORKED: &str = "hypereyes_engine_forked_tokens_total";
/// Pictures that the vision tower read; one that siblings show together is read once.
const PICTURES: &str = "hypereyes_engine_pictures_encoded_total";
/// Patches of those.
const PATCHES: &str = "hypereyes_engine_vision_rows_total";
/// Tokens sampled, in this process or at servers.
pub const SAMPLED: &str = "hypereyes_engine_sampled_tokens_total";
/// Rows per step.
const STEP_ROWS: &str = "hypereyes_engine_step_rows";
/// Requests that failed, by `reason`.
const FAILED: &str = "hypereyes_engine_failures_total";
/// Turns that nobody waited for any longer; the rest of them was not sampled.
const ABORTED: &str = "hypereyes_engine_aborted_turns_total";
/// Weight swaps, by `outcome`.
const WEIGHTS: &str = "hypereyes_engine_weight_swaps_total";

/// Describes the metrics.
pub(crate) fn describe() {
    describe_counter!(ROWS, "model rows processed, by kind");
    describe_counter!(FORKED, "positions that siblings took over from their prompt");
    describe_counter!(PICTURES, "pictures that the vision tower read");
    describe_counter!(PATCHES, "patches that the vision tower read");
    describe_counter!(SAMPLED, "tokens sampled");
    describe_histogram!(STEP_ROWS, "model rows per step");
    describe_counter!(FAILED, "requests to the engine that failed, by reason");
    describe_counter!(ABORTED, "turns that nobody waited for any longer");
    describe_counter!(WEIGHTS, "changes of weights, by outcome");
}

pub(super) fn step(rows: usize, of_prompts: usize, sampled: usize) {
    counter!(ROWS, "kind" => "prompt").increment(of_prompts as u64);
    counter!(ROWS, "kind" => "turn").increment((rows - of_prompts) as u64);
    counter!(SAMPLED).increment(sampled as u64);
    histogram!(STEP_ROWS).record(rows as f64);
}

pub(super) fn encoded(pictures: usize, patches: usize) {
    counter!(PICTURES).increment(pictures as u64);
    counter!(PATCHES).increment(patches as u64);
}

pub(super) fn forked(tokens: usize) {
    counter!(FORKED).increment(tokens as u64);
}

pub(super) fn aborted() {
    counter!(ABORTED).increment(1);
}

pub(super) fn failed(failure: Failure) {
    counter!(FAILED, "reason" => failure.label()).increment(1);
}

pub(super) fn weights_loaded(ok: bool) {
    counter!(WEIGHTS, "outcome" => if ok { "ok" } else { "refused" }).increment(1);
}
