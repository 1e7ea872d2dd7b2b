//! Whether a judge answers at all, asked before anything depends on it. In: its settings. Out: what it says of a right answer, or why
//! it says nothing.

use std::time::Duration;

use hypereyes_scoring::Verdict;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::Verdicts;
use crate::config::ModelConfig;
use crate::model::ModelJudge;

/// What it is asked.
const QUESTION: &str = "What is the capital of France?";
/// The right answer, and the one that it is to judge.
const ANSWER: &str = "Paris";

/// Asks once, within `limit`, whether a right answer is right; `false` when the judge denies it.
///
/// # Errors
/// A sentence that says why there is no verdict.
pub async fn probe(config: &ModelConfig, limit: Duration) -> Result<bool, String> {
    let until = Instant::now() + limit;
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    // A verdict of another run says nothing of who answers now.
    let once = ModelConfig { attempts: 1, attempt_timeout_ms: milliseconds, deadline_ms: milliseconds, cache_path: None, ..config.clone() };
    let judge = ModelJudge::new(&once).map_err(|error| error.to_string())?;
    let late = |what: &str| format!("{what} within {} s", limit.as_secs());
    timeout_at(until, reach(&config.url)).await.map_err(|_| late("nobody takes a connection there"))??;
    let answers = [ANSWER.to_owned()];
    let asked = timeout_at(until, judge.verdicts(QUESTION, &[ANSWER], &answers)).await;
    match asked.ok().and_then(|verdicts| verdicts.first().copied().flatten()) {
        Some(verdict) => Ok(verdict == Verdict::Correct),
        None => Err(late(&format!("model {:?} gave no verdict on a plain question", config.model))),
    }
}

/// Connects and hangs up: who does not even listen is told from who does not answer.
async fn reach(url: &str) -> Result<(), String> {
    let url = Url::parse(url).map_err(|error| format!("it is no address: {error}"))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err("it names no host".into()) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((host, port)).await.map(drop).map_err(|error| format!("nobody listens at {host}:{port} ({error})"))
}
