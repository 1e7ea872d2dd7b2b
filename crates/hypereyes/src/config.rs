//! Every setting of the front door, one struct per part. In: TOML, environment, `--set`. Out: a checked [`Config`].
//!
//! The defaults are the embedded job: small contexts, one hit per search, no pictures of crops in observations, because a
//! laptop pays for every token. Large models take the published values; see `docs/configuration.md`.

use std::path::PathBuf;

use hypereyes_eval::EvalConfig;
use hypereyes_learner::optim::OptimConfig;
use hypereyes_learner::sft::SftConfig;
use hypereyes_policy::config::TinyConfig;
use hypereyes_policy::engine::EngineConfig;
use hypereyes_policy::init::InitConfig;
use hypereyes_rollout::RolloutConfig;
use hypereyes_search::EnvConfig;
use hypereyes_synth::SynthConfig;
use serde::{Deserialize, Serialize};

/// Settings of all commands; each command reads the parts it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seed of everything that is drawn. Default 0.
    pub seed: u64,
    /// Where a run writes. Empty: a fresh folder under `runs/`.
    pub run_dir: PathBuf,
    /// World pack folder. Empty: the embedded countries.
    pub world: PathBuf,
    /// Policy to start from (Hugging Face folder). Empty: the shipped one.
    pub policy: PathBuf,
    /// Teacher (Hugging Face folder of the same family). Empty: the shipped one.
    pub teacher: PathBuf,
    /// Tasks and demonstrations.
    pub synth: SynthConfig,
    /// Episodes.
    pub rollout: RolloutConfig,
    /// Size of a fresh policy.
    pub tiny: TinyConfig,
    /// Weights of a fresh policy.
    pub init: InitConfig,
    /// Cold start.
    pub sft: SftConfig,
    /// Optimiser of the cold start.
    pub sft_optim: OptimConfig,
    /// In-process engine of `eval` and `ask`.
    pub engine: EngineConfig,
    /// Evaluation.
    pub eval: EvalConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            run_dir: PathBuf::new(),
            world: PathBuf::new(),
            policy: PathBuf::new(),
            teacher: PathBuf::new(),
            synth: SynthConfig::default(),
            rollout: RolloutConfig {
                max_turn_tokens: 128,
                max_context_tokens: 768,
                temperature: 1.0,
                top_p: 1.0,
                env: EnvConfig { crop_pictures: false, image_hits: 1, text_hits: 1, ..EnvConfig::default() },
                ..RolloutConfig::default()
            },
            tiny: TinyConfig::default(),
            init: InitConfig::default(),
            sft: SftConfig::default(),
            sft_optim: OptimConfig { beta2: 0.95, weight_decay: 0.05, ..OptimConfig::default() },
            engine: EngineConfig { max_sequences: 64, ..EngineConfig::default() },
            eval: EvalConfig::default(),
        }
    }
}
