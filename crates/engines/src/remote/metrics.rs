//! What engines at servers count. Nothing comes in; dashboards read what goes out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hypereyes_policy::engine::metrics::SAMPLED;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::outcome::Outcome;

/// Answers of servers that sample, by `outcome`: `ok`, or which lie or failure it was (see [`Outcome`]).
const ANSWERS: &str = "hypereyes_engine_answers_total";
/// Turns that were sampled at servers, by `swap`: `within` one version, or `across` several, and then of the older one.
const TURNS: &str = "hypereyes_engine_turns_total";
/// Attempts that were repeated.
const REPEATS: &str = "hypereyes_engine_repeats_total";
/// Time of a turn at servers, waiting for a place and repeats included.
const TURN_SECONDS: &str = "hypereyes_engine_turn_seconds";
/// Requests under way.
const UNDER_WAY: &str = "hypereyes_engine_requests";
/// Servers that take part.
const SERVERS: &str = "hypereyes_engine_servers";
/// Servers that were taken out, by `reason` (`failures`, `unwell`, `stale`, `weights`, `behind`).
const EJECTED: &str = "hypereyes_engine_ejections_total";
/// Servers that were taken (back) in.
const ADMITTED: &str = "hypereyes_engine_admissions_total";
/// Weights into servers, by `outcome` (`ok`, `put_back`, `lost`).
const SWAPS: &str = "hypereyes_engine_server_swaps_total";
/// Time for which a server stood still for other weights.
const PAUSE_SECONDS: &str = "hypereyes_engine_pause_seconds";
/// The longest of those.
const LONGEST_PAUSE: &str = "hypereyes_engine_longest_pause_seconds";
/// Requests that nobody waited for any longer.
const DROPPED: &str = "hypereyes_engine_dropped_requests_total";

/// The longest pause so far, in microseconds: of the process, as gauges are.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// Describes the metrics.
pub fn describe() {
    describe_counter!(ANSWERS, "answers of servers that sample, by outcome");
    describe_counter!(TURNS, "turns sampled at servers, by whether weights changed meanwhile");
    describe_counter!(REPEATS, "attempts at servers that were repeated");
    describe_histogram!(TURN_SECONDS, Unit::Seconds, "time of a turn at servers, with waiting and repeats");
    describe_gauge!(UNDER_WAY, "requests under way at servers");
    describe_gauge!(SERVERS, "servers that take part");
    describe_counter!(EJECTED, "servers that were taken out, by reason");
    describe_counter!(ADMITTED, "servers that were taken in, or back in");
    describe_counter!(SWAPS, "weights into servers, by outcome");
    describe_histogram!(PAUSE_SECONDS, Unit::Seconds, "time for which a server stood still for other weights");
    describe_gauge!(LONGEST_PAUSE, Unit::Seconds, "the longest time for which a server stood still for other weights");
    describe_counter!(DROPPED, "requests at servers that nobody waited for any longer");
}

pub(super) fn answer(outcome: Outcome) {
    counter!(ANSWERS, "outcome" => outcome.label()).increment(1);
}

pub(super) fn turn(tokens: usize, straddles: bool, took: Duration) {
    counter!(SAMPLED).increment(tokens as u64);
    counter!(TURNS, "swap" => if straddles { "across" } else { "within" }).increment(1);
    histogram!(TURN_SECONDS).record(took.as_secs_f64());
}

pub(super) fn repeated() {
    counter!(REPEATS).increment(1);
}

pub(super) fn servers(count: usize) {
    gauge!(SERVERS).set(count as f64);
}

pub(super) fn ejected(reason: &'static str) {
    counter!(EJECTED, "reason" => reason).increment(1);
}

pub(super) fn admitted() {
    counter!(ADMITTED).increment(1);
}

pub(super) fn swapped(outcome: &'static str) {
    counter!(SWAPS, "outcome" => outcome).increment(1);
}

pub(super) fn paused(time: Duration) {
    histogram!(PAUSE_SECONDS).record(time.as_secs_f64());
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let longest = LONGEST.fetch_max(micros, Ordering::Relaxed).max(micros);
    gauge!(LONGEST_PAUSE).set(longest as f64 / 1e6);
}

/// A request under way. One that ends without [`UnderWay::answered`] was dropped.
pub(super) struct UnderWay {
    answered: bool,
}

impl UnderWay {
    pub(super) fn begin() -> Self {
        gauge!(UNDER_WAY).increment(1.0);
        Self { answered: false }
    }

    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        gauge!(UNDER_WAY).decrement(1.0);
        if !self.answered {
            counter!(DROPPED).increment(1);
        }
    }
}
