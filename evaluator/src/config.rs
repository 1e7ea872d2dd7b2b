//! Settings of an evaluator. In: what a file says. Out: values with defaults. Knows no peer and opens nothing.

use std::path::PathBuf;
use std::time::Duration;

use hypereyes_chassis::{BackoffConfig, BadInput, Findings, Moved, ProcessConfig, Settings};
use hypereyes_domain::SamplingConfig;
use hypereyes_engines::EngineConfig;
use hypereyes_eval::EvalConfig;
use hypereyes_judge::{JudgeChoice, ModelConfig as JudgeModelConfig};
use hypereyes_proto::{client, ports};
use hypereyes_rollout::RolloutConfig;
use hypereyes_search::SearchConfig;
use serde::{Deserialize, Serialize};

/// Settings of an evaluator.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The learner's address. Default 127.0.0.1:7000.
    pub learner: String,
    /// Model folder in Hugging Face layout: shape, tokenizer, and weights to start from, those of the learner's start. Default `policy`.
    pub policy: PathBuf,
    /// Folder of the world pack that is searched. Default none: the embedded one.
    pub world: Option<PathBuf>,
    /// Task set folder that is measured on. Default `held_out`.
    pub tasks: PathBuf,
    /// Folder for `evaluations.jsonl`, `best/` and `best.json`. Default `evaluations`.
    pub out: PathBuf,
    /// Steps from this one on are measured by somebody else. Default none.
    pub last: Option<u64>,
    /// How much is measured, and how often. Default: as there, and `every` 10.
    pub eval: EvalConfig,
    /// How turns are sampled. Default temperature 0.8 and nucleus 0.7 (docs/spec.md#sampling).
    pub sampling: SamplingConfig,
    /// Who judges answers. Default as in training: `alias`.
    pub judge: JudgeChoice,
    /// The model that judges, with `judge = "model"`.
    pub judge_model: JudgeModelConfig,
    /// Limits and wording of episodes; the context is at most the engine's.
    pub rollout: RolloutConfig,
    /// Who samples, and the sizes of it. Servers must be its own: actors put other versions into theirs.
    pub engine: EngineConfig,
    /// Where searches go, and within which bounds.
    pub search: SearchConfig,
    /// Threads that compute; 0 takes all cores. Default 0; under `up` 1: what it takes is taken from training.
    pub threads: usize,
    /// Longest time in milliseconds to fetch one version of the weights. Default 600000: gigabytes over a shared network.
    pub fetch_ms: u64,
    /// Bytes of task pictures held, encoded and decoded. Default 256 MiB: hundreds of mosaics.
    pub pictures_bytes: usize,
    /// How calls to a learner that is away are repeated.
    pub backoff: BackoffConfig,
    /// What every process has: metrics, health, certificates, logs, and a parent that is told.
    pub process: ProcessConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            learner: ports::here(ports::LEARNER).to_string(),
            policy: PathBuf::from("policy"),
            world: None,
            tasks: PathBuf::from("held_out"),
            out: PathBuf::from("evaluations"),
            last: None,
            eval: EvalConfig { every: 10, ..EvalConfig::default() },
            sampling: SamplingConfig::of(0.8, 0.7),
            judge: JudgeChoice::default(),
            judge_model: JudgeModelConfig::default(),
            rollout: RolloutConfig::default(),
            engine: EngineConfig::default(),
            search: SearchConfig::default(),
            threads: 0,
            fetch_ms: 600_000,
            pictures_bytes: 256 << 20,
            backoff: BackoffConfig::default(),
            process: ProcessConfig::default(),
        }
    }
}

impl Settings for Config {
    fn moved() -> Vec<Moved> {
        ProcessConfig::moved()
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
        if let Err(error) = client::check_address(&self.learner, self.process.tls.is_some()) {
            found.refuse("learner", format!("cannot be called: {error}"));
        }
        for (key, path) in [("policy", &self.policy), ("tasks", &self.tasks), ("out", &self.out)] {
            if path.as_os_str().is_empty() {
                found.refuse(key, "is empty: name a folder");
            }
        }
        found.told("eval", self.eval.check());
        found.at_least_one("eval.every", self.eval.every);
        found.told("sampling", self.sampling.check());
        found.extend(self.judge.findings(&self.judge_model));
        found.told("rollout", self.rollout.check());
        found.told("engine", self.engine.check());
        if let Err(message) = self.engine.holds_group("engine", self.eval.samples, None) {
            found.refuse("eval.samples", message);
        }
        if self.engine.speaks_text() {
            found.refuse("engine.kind", "is openai, whose model is its own: a learner's versions are measured with local, vllm or sglang");
        }
        if let Err(error) = self.engine.device.check() {
            found.refuse("engine.device", format!("cannot be had: {error}"));
        }
        found.told("search", self.search.check());
        found.at_least_one("pictures_bytes", self.pictures_bytes as u64);
        found.threads("threads", self.threads);
        found.span("fetch_ms", self.fetch_ms, 1, 1000);
        found.under("backoff", self.backoff.findings());
        found.extend(self.process.findings(None));
        found
    }

    pub(crate) fn fetch_time(&self) -> Duration {
        Duration::from_millis(self.fetch_ms)
    }
}
