//! Every setting of the front door, one struct per part. In: TOML, environment, `--set`. Out: a checked [`Config`].
//!
//! The defaults are the embedded job: small contexts, one hit per search, no pictures of crops in observations, because a
//! laptop pays for every token. Large models take the published values; see `docs/configuration.md`.

use std::path::PathBuf;

use hypereyes_chassis::{BadInput, TlsConfig};
use hypereyes_eval::EvalConfig;
use hypereyes_learner::optim::OptimConfig;
use hypereyes_learner::sft::SftConfig;
use hypereyes_objective::Options;
use hypereyes_policy::config::TinyConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::engine::EngineConfig;
use hypereyes_policy::init::InitConfig;
use hypereyes_rollout::RolloutConfig;
use hypereyes_search::EnvConfig;
use hypereyes_synth::SynthConfig;
use serde::{Deserialize, Serialize};

use crate::supervise::RestartConfig;

/// Settings of all commands; each command reads the parts it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seed of everything that is drawn. Default 0.
    pub seed: u64,
    /// Where a run writes. Empty: a fresh folder under `runs/`.
    pub run_dir: PathBuf,
    /// Where every model of the command computes, those of all rooms of `up` included: `cpu`, `cuda` or `cuda-bf16`. Default
    /// `cpu`, which leaves the parts' own `device` keys as they are.
    pub device: Device,
    /// World pack folder. Empty: the embedded countries.
    pub world: PathBuf,
    /// Policy to start from (Hugging Face folder). Empty: the shipped one.
    pub policy: PathBuf,
    /// Teacher (Hugging Face folder of the same family). Empty: the shipped one.
    pub teacher: PathBuf,
    /// Certificates with which `teacher` speaks to a service that wants mutual TLS. Default none. The rooms of `up` are on one
    /// machine and speak in plaintext; rooms elsewhere have a `tls` of their own.
    pub tls: Option<TlsConfig>,
    /// Tasks and demonstrations. Default 192 training tasks: an epoch, after which references tighten, is then 24 steps.
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
    /// What `up` starts and how it watches.
    pub up: UpConfig,
    /// The learner of `up`. Default 80 steps, a few minutes on two cores, and `objective.opd_coef` 0.2: a tiny policy
    /// has a hundred sampled tokens per rollout, not thousands, so each may weigh more than the paper's 0.05. Addresses, paths and the seed in it are set by `up`.
    pub learner: hypereyes_learner::Config,
    /// The actors of `up`. Addresses, paths, the id and `rollout` in it are set by `up`.
    pub actor: hypereyes_actor::Config,
    /// The reward service of `up`. Addresses and paths in it are set by `up`; `judge` and `trace` also serve `eval` and `score`.
    pub reward_service: hypereyes_reward_service::Config,
    /// The teacher service of `up`. Addresses and paths in it are set by `up`.
    pub teacher_service: hypereyes_teacher_service::Config,
}

/// What `up` starts and how it watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpConfig {
    /// Actor processes. Default 2: while one waits for weights the other samples.
    pub actors: usize,
    /// Learner processes that train together. Default 1; more pay where each has a machine or a GPU of its own.
    pub ranks: usize,
    /// Whether failed rollouts are distilled from the teacher. Default true; without, no teacher is started.
    pub distill: bool,
    /// Loopback ports of the rooms. Default 0 each: any free one.
    pub ports: Ports,
    /// Restarts of rooms that die.
    pub restarts: RestartConfig,
    /// Seconds that a room may take to come up. Default 120: a large model loads for a while.
    pub start_timeout_s: u64,
    /// Seconds without an optimiser step after which the run is ended. Default 900.
    pub stall_timeout_s: u64,
    /// Seconds that actors and services get to stop. Default 10.
    pub grace_s: u64,
    /// Seconds that the learner gets to stop: a step and a checkpoint. Default 120.
    pub learner_grace_s: u64,
}

impl Default for UpConfig {
    fn default() -> Self {
        Self {
            actors: 2,
            ranks: 1,
            distill: true,
            ports: Ports::default(),
            restarts: RestartConfig::default(),
            start_timeout_s: 120,
            stall_timeout_s: 900,
            grace_s: 10,
            learner_grace_s: 120,
        }
    }
}

/// Loopback ports; 0 is any free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ports {
    /// The learner's.
    pub learner: u16,
    /// The reward service's.
    pub reward: u16,
    /// The teacher service's.
    pub teacher: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            run_dir: PathBuf::new(),
            device: Device::Cpu,
            world: PathBuf::new(),
            policy: PathBuf::new(),
            teacher: PathBuf::new(),
            tls: None,
            synth: SynthConfig { tasks: 192, ..SynthConfig::default() },
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
            up: UpConfig::default(),
            learner: hypereyes_learner::Config {
                steps: 80,
                objective: Options { opd_coef: 0.2, ..Options::default() },
                ..hypereyes_learner::Config::default()
            },
            actor: hypereyes_actor::Config { threads: 1, teacher_top_k: 8, ..hypereyes_actor::Config::default() },
            reward_service: hypereyes_reward_service::Config::default(),
            teacher_service: hypereyes_teacher_service::Config { threads: 1, ..hypereyes_teacher_service::Config::default() },
        }
    }
}

impl Config {
    /// What is wrong with the settings of a job, as far as they alone can tell.
    ///
    /// # Errors
    /// [`BadInput`] that names the key.
    pub fn check(&self) -> Result<(), BadInput> {
        self.synth.check().map_err(|error| BadInput::new(error.to_string()))?;
        self.reward_service.trace.check().map_err(|error| BadInput::new(error.to_string()))?;
        let tables = [
            ("rollout", self.rollout.check()),
            ("eval", self.eval.check()),
            ("engine", self.engine.check()),
            ("actor.engine", self.actor.engine.check()),
        ];
        for (table, checked) in tables {
            checked.map_err(|error| BadInput::new(format!("{table}.{error}")))?;
        }
        let mut learner = self.learner.clone();
        if !self.up.distill {
            learner.objective.opd_coef = 0.0;
        }
        learner.check().map_err(|error| BadInput::new(format!("learner: {error}")))?;
        if self.up.actors == 0 || self.synth.tasks == 0 || self.synth.held_out == 0 {
            return Err(BadInput::new("up.actors, synth.tasks and synth.held_out must be at least 1"));
        }
        if self.rollout.max_context_tokens > self.engine.max_context {
            let (wants, has) = (self.rollout.max_context_tokens, self.engine.max_context);
            let text = format!("rollout.max_context_tokens is {wants}, but engine.max_context holds {has} tokens: raise the second");
            return Err(BadInput::new(text));
        }
        let Ports { learner, reward, teacher } = self.up.ports;
        if [(learner, reward), (learner, teacher), (reward, teacher)].iter().any(|(one, other)| one == other && *one != 0) {
            return Err(BadInput::new(format!(
                "up.ports are {learner}, {reward} and {teacher}: give each room its own, or 0 for a free one"
            )));
        }
        self.device.check().map_err(|error| BadInput::new(error.to_string()))
    }

    /// With [`Config::device`] given to every part.
    pub fn placed(mut self) -> Self {
        if self.device != Device::Cpu {
            let own = [&mut self.sft.device, &mut self.engine.device, &mut self.learner.device];
            let rooms = [&mut self.actor.engine.device, &mut self.teacher_service.device];
            own.into_iter().chain(rooms).for_each(|device| *device = self.device);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_survive_a_file() {
        let text = hypereyes_chassis::config::to_toml(&Config::default()).expect("TOML");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).expect("written");
        let read = hypereyes_chassis::config::load_from(Config::default(), Some(&path), "X", [], &[]).expect("ours");
        // What is not written (the engine's end token) is set from the tokenizer.
        assert_eq!(read, Config::default());
    }

    #[test]
    fn one_key_places_every_model() {
        let load = |sets: &[&str]| {
            let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
            hypereyes_chassis::config::load_from(Config::default(), None, "X", [], &sets).expect("there is").placed()
        };
        let all = |config: &Config| {
            [config.sft.device, config.engine.device, config.learner.device, config.actor.engine.device, config.teacher_service.device]
        };
        assert_eq!(all(&load(&["device=cuda-bf16"])), [Device::CudaBf16; 5]);
        let one = load(&["learner.device=cuda"]);
        assert_eq!(all(&one), [Device::Cpu, Device::Cpu, Device::Cuda, Device::Cpu, Device::Cpu]);
    }

    #[test]
    fn a_misspelt_key_is_refused_with_what_was_meant() {
        let load = |set: &str| hypereyes_chassis::config::load_from(Config::default(), None, "X", [], &[set.to_owned()]);
        let error = load("learner.step=5").expect_err("no such key").to_string();
        assert!(error.contains("did you mean learner.steps?"), "{error}");
        assert_eq!(load("up.actors=3").expect("there is").up.actors, 3);
    }
}
