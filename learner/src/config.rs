//! Settings of the learner, the same for every rank. In: a settings file. Out: a checked [`Config`].

use std::net::SocketAddr;
use std::path::PathBuf;

use hypereyes_chassis::{BadInput, Findings, Moved, ProcessConfig, ServerConfig, Settings};
use hypereyes_domain::SamplingConfig;
use hypereyes_objective::{Correction, ObjectiveError, Options};
use hypereyes_policy::checkpoint::{HostWeights, StoredDtype};
use hypereyes_policy::device::Device;
use hypereyes_proto::limits::{MAX_BATCH_GROUPS, MAX_GROUP_SIZE};
use hypereyes_proto::{client, ports};
use hypereyes_trainer::{OptimConfig, Placement, StepOptions};
use serde::{Deserialize, Serialize};

use crate::ranks::RanksConfig;

/// How weights are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publish {
    /// Exactly as they are trained.
    #[default]
    F32,
    /// Rounded to nearest even.
    Bf16,
}

impl From<Publish> for StoredDtype {
    fn from(publish: Publish) -> Self {
        match publish {
            Publish::F32 => Self::F32,
            Publish::Bf16 => Self::Bf16,
        }
    }
}

/// Settings of the learner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where gRPC is served. Default 127.0.0.1:7000.
    pub listen: SocketAddr,
    /// What every process has: metrics, health, certificates, logs, and a parent that is told.
    pub process: ProcessConfig,
    /// Address of the reward service, which commits references at epoch ends. Default 127.0.0.1:7001.
    pub reward: String,
    /// Policy folder to start from.
    pub policy: PathBuf,
    /// Data set folder to train on.
    pub tasks: PathBuf,
    /// Folder for metrics, ledger, trajectories, checkpoint and the newest policy.
    pub out: PathBuf,
    /// Optimiser steps of the run.
    pub steps: u64,
    /// Seconds of training after which the run ends even if steps are left; 0 is no limit. Default 0.
    pub time_limit_s: u64,
    /// Groups per step. Default 8.
    pub groups_per_step: usize,
    /// Rollouts per group. Default 8, as in the paper.
    pub group_size: u32,
    /// Versions that the oldest token of a group may lag behind. Default 2: actors sample one step ahead while the learner
    /// trains, and the short batches of an epoch's end drop nothing.
    pub max_staleness: u64,
    /// Seconds that a lease lives without a heartbeat. Default 20.
    pub lease_s: u64,
    /// Seconds that a lease lives at most, however often it is renewed; `lease_s` where that is more. Default 3600: above
    /// the slowest honest group.
    pub lease_most_s: u64,
    /// How often in a row a task may fail (its lease given back or expired, its group of no use) before it is set aside and the run
    /// goes on without it; 0 tries for ever. Default 5.
    pub task_tries: u32,
    /// Whether groups that would teach nothing (no spread of rewards, and no word of a teacher) are replaced by groups of other tasks
    /// before they are trained, as in DAPO. Default false.
    pub skip_zero_variance: bool,
    /// Groups that one step passes over at most; then it is trained with what there is. Default 32.
    pub skip_zero_variance_most: usize,
    /// Longest rollout in tokens, prompt included, that is taken. Default 40960, above the published recipe's; `up` puts its
    /// `rollout.max_context_tokens` there.
    pub max_context_tokens: usize,
    /// Least and greatest reward that is taken. Default `[-0.5, 1.2]`: what TRACE gives with its published constants; `up` widens it
    /// to what its own can give, and a learner by itself must be told.
    pub reward_range: [f64; 2],
    /// How rollouts are sampled; leases tell it to actors. Default temperature 1, where the distillation's KL is defined, so that nothing
    /// else is accepted with it, and nucleus 1: a truncated distribution has other log-probs than the ones corrected for.
    pub sampling: SamplingConfig,
    /// Learning rate after warm-up. Default 3e-4 for the tiny policy (the paper's 30B takes 1e-6).
    pub lr: f64,
    /// Steps of linear warm-up. Default 5.
    pub warmup: u64,
    /// Share of the learning rate left at the last step, reached linearly. Default 0.3.
    pub final_lr: f64,
    /// Optimiser updates that a batch makes. Default 1: the ratio that `objective` clips is then 1. With more, log-probs of the
    /// policy before the step are taken once, and the groups of the batch are dealt into as many minibatches, each with its own update.
    pub updates_per_batch: usize,
    /// The objective: advantages, clipping, importance correction, aggregation, distillation.
    pub objective: Options,
    /// Optimiser.
    pub optim: OptimConfig,
    /// Where the model is trained: `cpu`, `cuda` or `cuda-bf16` (compute in bf16; weights and moments stay f32). Default `cpu`.
    pub device: Device,
    /// Tokens of one pass. Default 2048.
    pub micro_tokens: usize,
    /// How weights are published: `f32`, or `bf16` at half the bytes. Default `f32`: actors sample with what is trained.
    pub publish: Publish,
    /// Ranks that train together. Default: this process alone.
    pub ranks: RanksConfig,
    /// Steps between checkpoints; one is always written at the end. Default 20.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept; the newest is the one in force. Default 1.
    pub checkpoint_keep: usize,
    /// Whether a resumed run goes back to the TRACE references of its checkpoint, so that what it repeats is scored as it was.
    /// Default false: references that were tightened since stay tightened.
    pub restore_references: bool,
    /// Whether a run that is killed and resumed ends with the bits of one that was not: every batch is the next tasks in order,
    /// sampled by the policy that it trains, and references go back to the checkpoint's. Actors wait for the learner then.
    /// Default false.
    pub deterministic: bool,
    /// Seconds that a step under way may go on once the learner was told to stop. A rank that is alone breaks it off at the next
    /// micro-batch and saves what was before it; where the time is not enough, the last checkpoint stays in force. Default 30.
    pub stop_s: u64,
    /// Steps between recorded batches in `trajectories.jsonl`. Default 20.
    pub record_every: u64,
    /// Encoded bytes of pictures held beside those of the tasks. Default 256 MiB. Those of groups that wait to be trained stay; when
    /// they fill it, a batch is trained before it is full.
    pub pictures_bytes: usize,
    /// Bytes of pictures cut into patches that are kept from step to step. Default 256 MiB; 0 keeps none.
    pub patches_bytes: usize,
    /// Threads of the pool that computes; 0 takes all cores. Default 0.
    pub threads: usize,
    /// Seed of task order and rollouts.
    pub seed: u64,
    /// Limits of the gRPC server.
    pub server: ServerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ports::here(ports::LEARNER),
            process: ProcessConfig::default(),
            reward: ports::here(ports::REWARD).to_string(),
            policy: PathBuf::new(),
            tasks: PathBuf::new(),
            out: PathBuf::new(),
            steps: 100,
            time_limit_s: 0,
            groups_per_step: 8,
            group_size: 8,
            max_staleness: 2,
            lease_s: 20,
            lease_most_s: 3600,
            task_tries: 5,
            skip_zero_variance: false,
            skip_zero_variance_most: 32,
            max_context_tokens: 40_960,
            reward_range: [-0.5, 1.2],
            sampling: SamplingConfig::of(1.0, 1.0),
            lr: 3e-4,
            warmup: 5,
            final_lr: 0.3,
            updates_per_batch: 1,
            objective: Options::default(),
            optim: OptimConfig { weight_decay: 0.0, ..OptimConfig::default() },
            device: Device::Cpu,
            micro_tokens: 2048,
            publish: Publish::F32,
            ranks: RanksConfig::default(),
            checkpoint_every: 20,
            checkpoint_keep: 1,
            restore_references: false,
            deterministic: false,
            stop_s: 30,
            record_every: 20,
            pictures_bytes: 256 << 20,
            patches_bytes: 256 << 20,
            threads: 0,
            seed: 0,
            server: ServerConfig::default(),
        }
    }
}

impl Settings for Config {
    fn moved() -> Vec<Moved> {
        let own = vec![Moved::to("temperature", "sampling.temperature"), Moved::to("top_p", "sampling.top_p")];
        [own, ProcessConfig::moved()].concat()
    }
}

/// Groups passed over per step above this are a slip: a run would roll out for hours and train nothing.
const MOST_SKIPPED: usize = 1 << 16;
/// Learning rates above this move every weight out of its range in one step.
const MOST_RATE: f64 = 10.0;

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
        for (key, count) in
            [("groups_per_step", self.groups_per_step as u64), ("group_size", u64::from(self.group_size)), ("steps", self.steps)]
        {
            found.at_least_one(key, count);
        }
        if self.group_size as usize > MAX_GROUP_SIZE {
            found.refuse("group_size", format!("is {}: give at most {MAX_GROUP_SIZE}", self.group_size));
        }
        if self.groups_per_step > MAX_BATCH_GROUPS {
            found.refuse("groups_per_step", format!("is {}: give at most {MAX_BATCH_GROUPS}", self.groups_per_step));
        }
        found.within("skip_zero_variance_most", self.skip_zero_variance_most, 1..=MOST_SKIPPED);
        found.at_least_one("updates_per_batch", self.updates_per_batch as u64);
        if self.updates_per_batch > self.groups_per_step.max(1) {
            let message = format!(
                "is {}, but a batch has groups_per_step = {} groups, and a minibatch has at least one: give at most that",
                self.updates_per_batch, self.groups_per_step
            );
            found.refuse("updates_per_batch", message);
        }
        if self.lease_s == 0 {
            found.refuse("lease_s", "is 0: no group could be rolled out in time; give at least 1");
        }
        if self.max_context_tokens < 2 {
            found.refuse("max_context_tokens", format!("is {}: a rollout has a prompt and a response", self.max_context_tokens));
        }
        let [least, most] = self.reward_range;
        if !(least.is_finite() && most.is_finite() && least < most) {
            found.refuse("reward_range", format!("is [{least}, {most}]: give two finite numbers, the lesser first"));
        }
        found.span("lease_most_s", self.lease_most_s, 0, 1);
        found.span("stop_s", self.stop_s, 0, 1);
        found.span("lease_s", self.lease_s.max(1), 1, 1);
        found.span("time_limit_s", self.time_limit_s, 0, 1);
        for (key, count) in [
            ("checkpoint_every", self.checkpoint_every),
            ("checkpoint_keep", self.checkpoint_keep as u64),
            ("record_every", self.record_every),
            ("micro_tokens", self.micro_tokens as u64),
            ("pictures_bytes", self.pictures_bytes as u64),
        ] {
            found.at_least_one(key, count);
        }
        found.told("sampling", self.sampling.check());
        if self.sampling.temperature == 0.0 {
            found.refuse("sampling.temperature", "is 0: siblings would all be the same; give a positive number");
        }
        for (key, rate) in [("lr", self.lr), ("final_lr", self.final_lr)] {
            if !(rate.is_finite() && rate >= 0.0) {
                found.refuse(key, format!("is {rate}: give a finite number of at least 0"));
            } else if rate > MOST_RATE {
                found.refuse(key, format!("is {rate}: give at most {MOST_RATE}"));
            }
        }
        found.threads("threads", self.threads);
        if self.objective.opd_coef != 0.0 && self.sampling.temperature != 1.0 {
            let message = format!(
                "is {}, and distillation compares log-probs at temperature 1: give 1, or set objective.opd_coef = 0",
                self.sampling.temperature
            );
            found.refuse("sampling.temperature", message);
        }
        found.under("ranks", self.ranks.findings());
        match self.objective.check() {
            Err(ObjectiveError::Option { key, value, range }) => {
                found.refuse(format!("objective.{key}"), format!("is {value}: give {range}"));
            }
            Err(error) => found.refuse("objective", format!("cannot be used: {error}")),
            Ok(()) => {}
        }
        found.under("optim", self.optim.findings());
        if let Err(error) = self.device.check() {
            found.refuse("device", format!("cannot be had: {error}"));
        }
        for (key, folder) in [("policy", &self.policy), ("tasks", &self.tasks), ("out", &self.out)] {
            if folder.as_os_str().is_empty() {
                found.refuse(key, "is empty: name a folder");
            }
        }
        let follows = (self.ranks.rank > 0).then_some(("ranks.leader", &self.ranks.leader));
        for (key, address) in [("reward", &self.reward)].into_iter().chain(follows) {
            if let Err(error) = client::check_address(address, self.process.tls.is_some()) {
                found.refuse(key, format!("cannot be called: {error}"));
            }
        }
        found.extend(self.nothing_to_learn());
        found.under("server", self.server.findings());
        found.extend(self.process.findings(Some(self.listen)));
        found
    }

    /// What is wrong with the settings for a policy with these weights.
    pub fn of_model(&self, weights: &HostWeights) -> Findings {
        let mut found = Findings::default();
        found.under("optim", self.optim.of_model(weights.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.len()))));
        if self.optim.freezes_all(weights.keys().map(String::as_str)) {
            found.refuse("optim.groups", "freezes every parameter: nothing would be learned; give one a rate above 0");
        }
        found
    }

    /// Settings with which steps are taken and nothing is learned.
    fn nothing_to_learn(&self) -> Findings {
        let mut found = Findings::default();
        let objective = &self.objective;
        if objective.opd_only && objective.opd_coef == 0.0 {
            let message = "drops the rewards, and without a teacher (objective.opd_coef = 0, as with up.distill = false) nothing would be \
                           learned; set objective.opd_coef above 0 with a teacher, or objective.opd_only = false";
            found.refuse("objective.opd_only", message);
        }
        if self.group_size == 1 {
            if objective.opd_coef == 0.0 {
                let message = "is 1 without a teacher (objective.opd_coef = 0, as with up.distill = false): a rollout without siblings is \
                               compared with nothing and would teach nothing; give at least 2";
                found.refuse("group_size", message);
            } else {
                found.warn("group_size", "is 1: rewards teach nothing, since there are no siblings to compare; only the teacher does");
            }
        }
        if let Some((low, high)) = objective.correction.bounds() {
            let drops = matches!(objective.correction, Correction::Icepop { .. }) && !(low..=high).contains(&1.0);
            if high == 0.0 || drops {
                let message = format!(
                    "is {low} to {high}: a token on which trainer and sampler agree would count nothing, and nothing would be learned; let it \
                     hold 1"
                );
                found.refuse("objective.correction", message);
            }
        }
        let usual = Options::default();
        let clips = [
            ("clip_low", objective.clip_low != usual.clip_low),
            ("clip_high", objective.clip_high != usual.clip_high),
            ("dual_clip", objective.dual_clip != usual.dual_clip),
        ];
        for (key, _) in clips.iter().filter(|(_, differs)| *differs && self.updates_per_batch <= 1) {
            let message = "changes nothing with updates_per_batch = 1, where the ratio that is clipped is 1: give more updates than one";
            found.warn(format!("objective.{key}"), message);
        }
        if self.lr == 0.0 {
            found.warn("lr", "is 0: every step is taken and no weight moves");
        } else if self.warmup >= self.steps && self.steps > 0 && self.warmup > 5 {
            found.warn("warmup", format!("is {}: the learning rate grows until the end of the {} steps", self.warmup, self.steps));
        }
        found
    }

    /// The pool of threads that computes; every rank's process has one.
    pub(crate) fn start_pool(&self) {
        if self.threads > 0 {
            // Fails only if a pool exists already, as when services share a process; then that pool is used.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build_global();
        }
    }

    /// How a batch is trained.
    pub(crate) fn step_options(&self) -> StepOptions {
        let temperature = f64::from(self.sampling.temperature);
        StepOptions { objective: self.objective, temperature, updates_per_batch: self.updates_per_batch }
    }

    /// Where and how the model is passed through.
    pub(crate) fn placement(&self) -> Placement {
        Placement { device: self.device, micro_tokens: self.micro_tokens }
    }

    /// The learning rate of a step, counted from 0.
    pub(crate) fn rate(&self, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let done = step as f64 / self.steps.max(1) as f64;
        self.lr * warm * (1.0 - (1.0 - self.final_lr) * done)
    }
}
