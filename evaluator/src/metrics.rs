//! Names of this crate's metrics, with their descriptions. In: nothing. Out: constants, and two functions: one tells the recorder what
//! they mean, one sets those of an evaluation.

use hypereyes_eval::Evaluation;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Share of right answers of the version measured last, 0..=1.
pub const ACCURACY: &str = "hypereyes_eval_accuracy_ratio";
/// Its mean tool rounds.
pub const ROUNDS: &str = "hypereyes_eval_rounds";
/// Its mean searches.
pub const SEARCHES: &str = "hypereyes_eval_searches";
/// Its mean thousands of tokens, prompt and response.
pub const KILOTOKENS: &str = "hypereyes_eval_kilotokens";
/// Its cost-aware score.
pub const CAS: &str = "hypereyes_eval_cas";
/// Optimiser steps that it has behind it.
pub const STEP: &str = "hypereyes_eval_step";
/// Optimiser steps of the version that is kept as the best.
pub const BEST_STEP: &str = "hypereyes_eval_best_step";
/// Versions measured.
pub const EVALUATIONS: &str = "hypereyes_eval_evaluations_total";
/// Time of a measurement.
pub const SECONDS: &str = "hypereyes_eval_evaluation_seconds";
/// Steps that were due and not measured, by `reason`: `gone` (the version was not published any more, and a later one stands in for it),
/// `overtaken` (a later step was due before this one's turn came), `down` (no evaluator was there), `failed` (no rollout got a verdict),
/// `ended` (the run ended before its turn came).
pub const SKIPPED: &str = "hypereyes_eval_skipped_total";
/// Best versions that could not be saved: the one before stays.
pub const BEST_FAILED: &str = "hypereyes_eval_best_failed_total";
/// Calls to the learner that failed and are repeated, by `op` (`watch`, `fetch`, `swap`).
pub const RECONNECTS: &str = "hypereyes_eval_reconnects_total";

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_gauge!(ACCURACY, "share of right answers of the version measured last");
    describe_gauge!(ROUNDS, "mean tool rounds of the version measured last");
    describe_gauge!(SEARCHES, "mean searches of the version measured last");
    describe_gauge!(KILOTOKENS, "mean thousands of tokens of the version measured last");
    describe_gauge!(CAS, "cost-aware score of the version measured last");
    describe_gauge!(STEP, "optimiser steps of the version measured last");
    describe_gauge!(BEST_STEP, "optimiser steps of the version that is kept as the best");
    describe_counter!(EVALUATIONS, "versions measured");
    describe_histogram!(SECONDS, Unit::Seconds, "time of a measurement");
    describe_counter!(SKIPPED, "steps that were due and not measured, by reason");
    describe_counter!(BEST_FAILED, "best versions that could not be saved");
    describe_counter!(RECONNECTS, "failed calls to the learner that are repeated, by operation");
}

/// Shows what was measured last.
pub fn show(last: &Evaluation) {
    let report = &last.report;
    gauge!(ACCURACY).set(report.accuracy);
    gauge!(ROUNDS).set(report.rounds);
    gauge!(SEARCHES).set(report.searches);
    gauge!(KILOTOKENS).set(report.kilotokens);
    gauge!(CAS).set(report.cas);
    gauge!(STEP).set(last.step as f64);
}

/// Counts what was measured now, in so many seconds.
pub fn count(now: &Evaluation, seconds: f64) {
    counter!(EVALUATIONS).increment(1);
    histogram!(SECONDS).record(seconds);
    show(now);
}

/// Counts steps that are not measured, and says so: `step`, or so many before it.
pub fn skipped(count: u64, step: u64, reason: &'static str) {
    if count > 0 {
        counter!(SKIPPED, "reason" => reason).increment(count);
        tracing::warn!(count, step, reason, "steps that were due are not measured");
    }
}
