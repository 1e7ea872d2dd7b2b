//! Settings of an actor. In: what a file says. Out: values with defaults. Knows no peer and opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use hypereyes_chassis::{BackoffConfig, BadInput, BreakerConfig, Findings, Moved, ProcessConfig, Settings};
use hypereyes_engines::EngineConfig;
use hypereyes_proto::convert::ids;
use hypereyes_proto::limits::MAX_TOP;
use hypereyes_proto::{client, ports};
use hypereyes_rollout::RolloutConfig;
use hypereyes_search::SearchConfig;
use serde::{Deserialize, Serialize};

/// More groups than this at the same moment are a slip.
const MOST_GROUPS: usize = 1 << 16;

/// Settings of an actor.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the actor is called in logs and ledgers. A suffix of the process is added, so that a restarted actor is a new one
    /// and a zombie is never mistaken for its heir. Default `actor`.
    pub id: String,
    /// The learner's address. Default 127.0.0.1:7000.
    pub learner: String,
    /// The reward service's address. Default 127.0.0.1:7001.
    pub reward: String,
    /// The teacher service's address. Default none: failed rollouts are then trained by their reward alone.
    pub teacher: Option<String>,
    /// Model folder in Hugging Face layout: shape, tokenizer, and weights to start from. Default `policy`.
    pub policy: PathBuf,
    /// Folder of the world pack that is searched. Default none: the embedded one.
    pub world: Option<PathBuf>,
    /// Limits and wording of episodes. How turns are sampled comes with each lease; the context is at most the engine's.
    pub rollout: RolloutConfig,
    /// Who samples, and the sizes of it.
    pub engine: EngineConfig,
    /// Where searches go, and within which bounds.
    pub search: SearchConfig,
    /// Groups rolled out at the same moment. Default 2: one samples while the other searches or is scored.
    pub groups_in_flight: usize,
    /// Threads that compute; 0 takes all cores. Default 0. Has no effect where the process has set its pool up before.
    pub threads: usize,
    /// Milliseconds between heartbeats. Default 2000: several fit into any sensible lease.
    pub heartbeat_ms: u64,
    /// Longest time in milliseconds to fetch one version of the weights. Default 600000: gigabytes over a shared network.
    pub fetch_ms: u64,
    /// Longest time in milliseconds for the teacher's word on one group. Default 60000; after it the group goes on without.
    pub teacher_ms: u64,
    /// When a teacher that does not answer is no longer asked: groups go on without, and now and then one tries.
    pub teacher_breaker: BreakerConfig,
    /// The teacher's likeliest tokens to ask for at every sampled token, at most 64: they show how much of its choice the policy
    /// shares. Default 0: none.
    pub teacher_top_k: usize,
    /// Milliseconds that groups in flight get at the end before they are given back. Default 5000: most are better re-leased
    /// than waited for.
    pub grace_ms: u64,
    /// Bytes of task pictures held, encoded and decoded. Default 256 MiB: hundreds of mosaics.
    pub pictures_bytes: usize,
    /// How calls to peers that are away are repeated.
    pub backoff: BackoffConfig,
    /// What every process has: metrics, health, certificates, logs, and a parent that is told.
    pub process: ProcessConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            id: "actor".into(),
            learner: ports::here(ports::LEARNER).to_string(),
            reward: ports::here(ports::REWARD).to_string(),
            teacher: None,
            policy: PathBuf::from("policy"),
            world: None,
            rollout: RolloutConfig::default(),
            engine: EngineConfig::default(),
            search: SearchConfig::default(),
            groups_in_flight: 2,
            threads: 0,
            heartbeat_ms: 2000,
            fetch_ms: 600_000,
            teacher_ms: 60_000,
            teacher_breaker: BreakerConfig::default(),
            teacher_top_k: 0,
            grace_ms: 5000,
            pictures_bytes: 256 << 20,
            backoff: BackoffConfig::default(),
            process: ProcessConfig::default(),
        }
    }
}

impl Settings for Config {
    fn moved() -> Vec<Moved> {
        let instead = "leases say how rollouts are sampled; it is the learner's sampling";
        let own = vec![Moved::gone("rollout.temperature", instead), Moved::gone("rollout.top_p", instead)];
        [own, ProcessConfig::moved()].concat()
    }
}

impl Config {
    /// What is wrong with the settings, all of it on one line.
    ///
    /// # Errors
    /// [`BadInput`] that names the keys.
    pub fn check(&self) -> Result<(), BadInput> {
        self.findings().result()
    }

    /// What is wrong with the settings, as far as they alone can tell: no file but certificates is opened.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        if let Err(error) = ids::actor("id", self.id.clone()) {
            found.refuse("id", format!("is no name: {error}"));
        }
        let peers = [("learner", Some(&self.learner)), ("reward", Some(&self.reward)), ("teacher", self.teacher.as_ref())];
        for (key, address) in peers {
            if let Some(Err(error)) = address.map(|address| client::check_address(address, self.process.tls.is_some())) {
                found.refuse(key, format!("cannot be called: {error}"));
            }
        }
        if self.policy.as_os_str().is_empty() {
            found.refuse("policy", "is empty: name a model folder");
        }
        found.told("rollout", self.rollout.check());
        found.told("engine", self.engine.check());
        if self.engine.speaks_text() {
            found.refuse(
                "engine.kind",
                "is openai, which gives text and no log-probs: nothing can be trained on it; give local, vllm or sglang",
            );
        }
        if let Err(error) = self.engine.device.check() {
            found.refuse("engine.device", format!("cannot be had: {error}"));
        }
        found.told("search", self.search.check());
        found.within("groups_in_flight", self.groups_in_flight, 1..=MOST_GROUPS);
        found.at_least_one("pictures_bytes", self.pictures_bytes as u64);
        found.threads("threads", self.threads);
        for (key, time) in [("heartbeat_ms", self.heartbeat_ms), ("fetch_ms", self.fetch_ms), ("teacher_ms", self.teacher_ms)] {
            found.span(key, time, 1, 1000);
        }
        found.span("grace_ms", self.grace_ms, 0, 1000);
        found.under("teacher_breaker", self.teacher_breaker.findings());
        if self.teacher_top_k > MAX_TOP {
            found.refuse("teacher_top_k", format!("is {}; at most {MAX_TOP} are named", self.teacher_top_k));
        }
        found.under("backoff", self.backoff.findings());
        found.extend(self.process.findings(None));
        found
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.max(1))
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}
