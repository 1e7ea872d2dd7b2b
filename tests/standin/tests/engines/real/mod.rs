//! Real vLLM servers, whatever a stand-in says: that log-probs are ours, before, after and across swaps, that servers are alike, and what a
//! kill does. They are ignored, and run where the environment names servers: `bench/peers/vllm/check` starts some and runs these.

mod kill;
mod relay;
mod swaps;
mod twins;

use std::path::Path;

use hypereyes_engines::EngineConfig;
use hypereyes_standin::Dialect;

use crate::fleet::config;

/// The variable with the roots of servers that serve the shipped policy, a list with commas.
const SERVERS: &str = "HYPEREYES_VLLM";
/// The variable with the folder of an environment to start servers from.
const ENVIRONMENT: &str = "HYPEREYES_VLLM_ENV";
/// The largest mean gap between a server's log-probs and ours: both compute in f32, and add in another order.
const GAP: f64 = 1e-4;

/// So many servers, or a word that they are not here.
fn servers(count: usize) -> Option<Vec<String>> {
    let named = std::env::var(SERVERS).unwrap_or_default();
    let urls: Vec<String> = named.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
    if urls.len() < count {
        hypereyes_tests::skip(&format!("{SERVERS} names {} vLLM servers, and it takes {count}", urls.len()));
        return None;
    }
    Some(urls)
}

/// Settings of an engine at servers that share their cores with us.
fn patient(urls: &[&str], folder: &Path) -> EngineConfig {
    // Two on two cores are ready long after each other.
    let health_interval_s = 20;
    EngineConfig {
        request_timeout_s: 120,
        reload_timeout_s: 120,
        start_timeout_s: 300,
        health_interval_s,
        ..config(Dialect::Vllm, urls, folder)
    }
}
