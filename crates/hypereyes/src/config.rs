//! Every setting of the command line, one struct per part. In: TOML, environment, `--set`. Out: a checked [`Config`].
//!
//! The defaults are the embedded job: small contexts, one hit per search, no pictures of crops in observations, because a
//! laptop pays for every token. Large models take the published values; see `docs/configuration.md`.

use std::path::PathBuf;

use hypereyes_chassis::service_process::Sources;
use hypereyes_chassis::supervise::RestartConfig;
use hypereyes_chassis::{BadInput, Findings, Moved, Settings, TlsConfig, config};
use hypereyes_domain::SamplingConfig;
use hypereyes_engines::EngineConfig;
use hypereyes_environment::EnvConfig;
use hypereyes_eval::EvalConfig;
use hypereyes_miniature::{CurriculumConfig, InitConfig, TinyConfig};
use hypereyes_objective::Options;
use hypereyes_policy::device::Device;
use hypereyes_rollout::RolloutConfig;
use hypereyes_search::SearchConfig;
use hypereyes_synth::SynthConfig;
use hypereyes_trainer::OptimConfig;
use hypereyes_trainer::sft::SftConfig;
use serde::{Deserialize, Serialize};

/// Variables `HYPEREYES__LEARNER__LR=1e-4` say the same as `--set learner.lr=1e-4`.
pub const ENV_PREFIX: &str = "HYPEREYES";

/// Settings of all commands; each command reads the parts it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Seed of everything that is drawn. Default 0.
    pub seed: u64,
    /// Where a run writes. Empty: a fresh folder under `runs/`.
    pub run_dir: PathBuf,
    /// Where every model of the command computes, those of all services of `up` included: `cpu`, `cuda` or `cuda-bf16`. Default
    /// `cpu`, which leaves the parts' own `device` keys as they are.
    pub device: Device,
    /// World pack folder. Empty: the embedded countries.
    pub world: PathBuf,
    /// Policy to start from (Hugging Face folder). Empty: the shipped one.
    pub policy: PathBuf,
    /// Teacher (Hugging Face folder of the same family). Empty: the shipped one.
    pub teacher: PathBuf,
    /// Certificates with which `teacher` speaks to a service that wants mutual TLS. Default none. The services of `up` are on one
    /// machine and speak in plaintext; services elsewhere have a `process.tls` of their own.
    pub tls: Option<TlsConfig>,
    /// Tasks and demonstrations. Default 192 training tasks: an epoch, after which references tighten, is then 24 steps.
    pub synth: SynthConfig,
    /// Episodes.
    pub rollout: RolloutConfig,
    /// Where searches go, those of the actors of `up` included, and within which bounds.
    pub search: SearchConfig,
    /// How turns are sampled.
    pub sampling: SamplingTable,
    /// Size of a fresh policy.
    pub tiny: TinyConfig,
    /// Weights of a fresh policy.
    pub init: InitConfig,
    /// Cold start.
    pub sft: SftConfig,
    /// The curriculum of `sft --recipe miniature`.
    pub miniature: CurriculumConfig,
    /// Optimiser of the cold start.
    pub sft_optim: OptimConfig,
    /// The engine of `eval`, `ask` and `synth`. Under `up` the actors have one of the same kind, at the same servers.
    pub engine: EngineConfig,
    /// Evaluation.
    pub eval: EvalConfig,
    /// What `up` starts and how it watches.
    pub up: UpConfig,
    /// The learner of `up`. Default 80 steps, a few minutes on two cores, and `objective.opd_coef` 0.2: a tiny policy
    /// has a hundred sampled tokens per rollout, not thousands, so each may weigh more than the paper's 0.05. Addresses, paths, the
    /// seed and `sampling` in it are set by `up`.
    pub learner: hypereyes_learner::Config,
    /// The actors of `up`. Addresses, paths, the id, `rollout`, `search` and where `engine` is are set by `up`.
    pub actor: hypereyes_actor::Config,
    /// The evaluator of `up`, with `eval.every`. It measures as `up` does before and after training, with the engine of `engine`, whose
    /// policy is its own: servers that sample for it are `evaluator.engine.url`. All else but `threads`, `fetch_ms`, `pictures_bytes`,
    /// `backoff` and `process` is set by `up`.
    pub evaluator: hypereyes_evaluator::Config,
    /// The reward service of `up`. Addresses and paths in it are set by `up`; `judge` and `judge_model` also judge what `eval` and `up`
    /// measure, and `judge` and `trace` serve `score`.
    pub reward_service: hypereyes_reward_service::Config,
    /// The teacher service of `up`. Addresses and paths in it are set by `up`.
    pub teacher_service: hypereyes_teacher_service::Config,
}

/// How turns are sampled, by what for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingTable {
    /// In training, and in the filter of `synth --need-search`. Default temperature 1, because distillation compares log-probs there,
    /// and nucleus 1.
    pub train: SamplingConfig,
    /// In evaluation. Default temperature 0.8 and nucleus 0.7 (docs/spec.md#sampling): a greedy policy trained on mixed habits flips
    /// wholly to one.
    pub eval: SamplingConfig,
}

impl Default for SamplingTable {
    fn default() -> Self {
        Self { train: SamplingConfig::of(1.0, 1.0), eval: SamplingConfig::of(0.8, 0.7) }
    }
}

impl Settings for Config {
    fn moved() -> Vec<Moved> {
        let mut moved = Vec::new();
        for (was, now) in [("learner", "train"), ("rollout", "train"), ("actor.rollout", "train"), ("eval", "eval")] {
            for key in ["temperature", "top_p"] {
                moved.push(Moved::to(&format!("{was}.{key}"), &format!("sampling.{now}.{key}")));
            }
        }
        for key in ["blind_steps", "blind_drills", "drills", "blind_share", "glances"] {
            moved.push(Moved::to(&format!("sft.{key}"), &format!("miniature.{key}")));
        }
        moved.extend(Moved::under("learner", hypereyes_learner::Config::moved()));
        moved.extend(Moved::under("actor", hypereyes_actor::Config::moved()));
        moved.extend(Moved::under("evaluator", hypereyes_evaluator::Config::moved()));
        moved.extend(Moved::under("reward_service", hypereyes_reward_service::Config::moved()));
        moved.extend(Moved::under("teacher_service", hypereyes_teacher_service::Config::moved()));
        moved
    }
}

/// What `up` starts and how it watches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpConfig {
    /// Task set to train on: a folder, such as `hypereyes data import` makes. Empty: made from `synth`.
    pub tasks: PathBuf,
    /// Task set that is measured before and after. Empty: made from `synth`.
    pub held_out: PathBuf,
    /// Actor processes. Default 2: while one waits for weights the other samples. Servers that sample are dealt out to actors, at most
    /// one actor to each.
    pub actors: usize,
    /// Learner processes that train together. Default 1; more pay where each has a machine or a GPU of its own.
    pub ranks: usize,
    /// Whether failed rollouts are distilled from the teacher. Default true; without, no teacher is started.
    pub distill: bool,
    /// Loopback ports of the services. Default 0 each: any free one.
    pub ports: Ports,
    /// Restarts of services that die.
    pub restarts: RestartConfig,
    /// Seconds that a service may take to come up. Default 120: a large model loads for a while.
    pub start_timeout_s: u64,
    /// Seconds without an optimiser step after which the run is ended. Default 900.
    pub stall_timeout_s: u64,
    /// Seconds that actors and services get to stop. Default 10.
    pub grace_s: u64,
    /// Seconds that the learner gets to stop: a step and a checkpoint. Default 120.
    pub learner_grace_s: u64,
}

/// Processes of one kind above this are a slip.
const MOST_PROCESSES: usize = 1024;

impl UpConfig {
    /// What is wrong with the settings.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.within("actors", self.actors, 1..=MOST_PROCESSES);
        found.within("ranks", self.ranks, 1..=MOST_PROCESSES);
        found.span("start_timeout_s", self.start_timeout_s, 1, 1);
        found.span("stall_timeout_s", self.stall_timeout_s, 1, 1);
        found.span("grace_s", self.grace_s, 0, 1);
        found.span("learner_grace_s", self.learner_grace_s, 0, 1);
        found.under("restarts.backoff", self.restarts.backoff.findings());
        found
    }
}

impl Default for UpConfig {
    fn default() -> Self {
        Self {
            tasks: PathBuf::new(),
            held_out: PathBuf::new(),
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
                env: EnvConfig { crop_pictures: false, image_hits: 1, text_hits: 1, ..EnvConfig::default() },
                ..RolloutConfig::default()
            },
            search: SearchConfig::default(),
            sampling: SamplingTable::default(),
            tiny: TinyConfig::default(),
            init: InitConfig::default(),
            sft: SftConfig::default(),
            miniature: CurriculumConfig::default(),
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
            evaluator: hypereyes_evaluator::Config { threads: 1, ..hypereyes_evaluator::Config::default() },
            reward_service: hypereyes_reward_service::Config::default(),
            teacher_service: hypereyes_teacher_service::Config { threads: 1, ..hypereyes_teacher_service::Config::default() },
        }
    }
}

impl Config {
    /// The settings that a command line asks for, with its files and the environment.
    ///
    /// # Errors
    /// A [`hypereyes_chassis::ConfigError`], which is bad input.
    pub fn load(sources: &Sources) -> anyhow::Result<Self> {
        Self::load_over(Self::default(), sources)
    }

    /// The same with other defaults.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_over(defaults: Self, sources: &Sources) -> anyhow::Result<Self> {
        let config = config::load(defaults, sources.file.as_deref(), ENV_PREFIX, &sources.sets)?;
        config.check_places()?;
        Ok(config.placed())
    }

    /// What is wrong with the tables of the command line's own; services look at theirs, and [`crate::check`] at all of them together.
    pub fn findings(&self) -> Findings {
        let mut found = Findings::default();
        found.told("", self.synth.check());
        found.told("rollout", self.rollout.check());
        found.told("search", self.search.check());
        found.told("sampling.eval", self.sampling.eval.check());
        found.told("eval", self.eval.check());
        found.told("engine", self.engine.check());
        found.at_least_one("synth.tasks", self.synth.tasks as u64);
        found.at_least_one("synth.held_out", self.synth.held_out as u64);
        found.under("up", self.up.findings());
        if let Err(error) = self.device.check() {
            found.refuse("device", format!("cannot be had: {error}"));
        }
        if let Some(tls) = &self.tls {
            found.under("tls", tls.findings());
        }
        found
    }

    /// Devices of parts that [`Config::placed`] would overwrite with another.
    ///
    /// # Errors
    /// [`BadInput`] that names both keys.
    pub fn check_places(&self) -> Result<(), BadInput> {
        let mut found = Findings::default();
        let parts = [
            ("sft.device", self.sft.device),
            ("engine.device", self.engine.device),
            ("learner.device", self.learner.device),
            ("actor.engine.device", self.actor.engine.device),
            ("teacher_service.device", self.teacher_service.device),
        ];
        for (key, device) in parts {
            if self.device != Device::Cpu && device != Device::Cpu && device != self.device {
                found.refuse(key, format!("is {device}, but device = {} places every model: give one of them", self.device));
            }
        }
        found.result()
    }

    /// With [`Config::device`] given to every part that computes here.
    pub fn placed(mut self) -> Self {
        if self.device != Device::Cpu {
            let (device, remote) = (self.device, self.engine.is_remote());
            let (parts, engines) = self.devices();
            parts.into_iter().chain(engines.into_iter().filter(|_| !remote)).for_each(|own| *own = device);
        }
        self
    }

    /// As before [`Config::placed`]: a kept file has the parts' devices filled in, and another [`Config::device`] must reach them.
    pub fn unplaced(mut self) -> Self {
        let device = self.device;
        let (parts, engines) = self.devices();
        parts.into_iter().chain(engines).filter(|own| **own == device).for_each(|own| *own = Device::Cpu);
        self
    }

    /// Devices of parts that always compute here, and of engines, which may be elsewhere.
    fn devices(&mut self) -> ([&mut Device; 3], [&mut Device; 2]) {
        (
            [&mut self.sft.device, &mut self.learner.device, &mut self.teacher_service.device],
            [&mut self.engine.device, &mut self.actor.engine.device],
        )
    }

    /// Actor processes that `up` starts: an actor drives its servers alone, so that there are no more of them than servers.
    pub fn actors(&self) -> usize {
        let servers_elsewhere = self.engine.is_remote() && self.engine.command.is_empty();
        if servers_elsewhere { self.up.actors.min(self.engine.url.len().max(1)) } else { self.up.actors }
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
        let outside = load(&["device=cuda", "engine.kind=vllm"]);
        assert_eq!(all(&outside), [Device::Cuda, Device::Cpu, Device::Cuda, Device::Cpu, Device::Cuda], "servers know where they compute");
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
