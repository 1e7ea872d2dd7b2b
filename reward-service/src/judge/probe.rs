//! Whether a judge answers at all, asked before anything depends on it. In: its settings. Out: what it says of a right answer, or why
//! it says nothing.

use std::time::Duration;

use hypereyes_scoring::Verdict;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Verdicts;
use super::model::{ModelConfig, ModelJudge};

/// What it is asked.
const QUESTION: &str = "What is the capital of France?";
/// The right answer, and the one that it is to judge.
const ANSWER: &str = "Paris";

/// Asks whether a right answer is right, as often and as patiently as a run would; `false` when the judge denies it. Whoever does
/// not even take a connection within `limit` is not asked.
///
/// # Errors
/// A sentence that says why there is no verdict.
pub async fn probe(config: &ModelConfig, limit: Duration) -> Result<bool, String> {
    let judge = ModelJudge::new(config).map_err(|error| error.to_string())?;
    let late = |what: &str, limit: Duration| format!("{what} within {} s", limit.as_secs_f64());
    timeout(limit, reach(&config.url)).await.map_err(|_| late("nobody takes a connection there", limit))??;
    let answers = [ANSWER.to_owned()];
    // It has a deadline of its own: `judge_model.deadline_ms`.
    match judge.verdicts(QUESTION, &[ANSWER], &answers).await.first().copied().flatten() {
        Some(verdict) => Ok(verdict == Verdict::Correct),
        None => {
            let what =
                format!("model {:?} gave no verdict on a plain question in judge_model.attempts = {}", config.model, config.attempts);
            Err(late(&what, Duration::from_millis(config.deadline_ms)))
        }
    }
}

/// Connects and hangs up: who does not even listen is told from who does not answer.
async fn reach(url: &str) -> Result<(), String> {
    let url = Url::parse(url).map_err(|error| format!("it is no address: {error}"))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err("it names no host".into()) };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((host, port)).await.map(drop).map_err(|error| format!("nobody listens at {host}:{port} ({error})"))
}
