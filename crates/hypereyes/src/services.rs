//! The services of a run on one machine: their settings files, and how to start them as processes.
//!
//! In: settings, addresses, model folders, a run folder. Out: `services/<service>.toml` and plans for the supervisor. It knows
//! every service's settings and no service's work.

mod service;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use hypereyes_chassis::supervise::{MakeCommand, OnExit, Plan};
use hypereyes_chassis::{ProcessConfig, config, ready};
use hypereyes_engines::EngineConfig;
use hypereyes_miniature::shipped::Shipped;
use hypereyes_run::{Addresses, RunFolder};
use tokio::process::Command;

pub use service::{LearnerState, ask_learner};

use crate::config::Config;

/// The learner's name.
pub const LEARNER: &str = "learner";
/// The reward service's name.
pub const REWARD: &str = "reward";
/// The teacher service's name.
pub const TEACHER: &str = "teacher";
/// The evaluator's name.
pub const EVALUATOR: &str = "evaluator";

/// The name of a rank of the learner; rank 0 is [`LEARNER`].
pub fn rank(number: usize) -> String {
    if number == 0 { LEARNER.into() } else { format!("rank-{number}") }
}

/// The name of an actor.
pub fn actor(number: usize) -> String {
    format!("actor-{number}")
}

/// Everything that decides how services are started.
#[derive(Clone, Debug)]
pub struct Services {
    /// Settings of the run.
    pub config: Config,
    /// Where things lie; an absolute path.
    pub folder: RunFolder,
    /// Where services listen.
    pub addresses: Addresses,
    /// The start policy.
    pub policy: PathBuf,
    /// The teacher; `None` without distillation.
    pub teacher: Option<PathBuf>,
    /// The program that has the `service` command.
    pub program: PathBuf,
}

impl Services {
    /// The services that a run in `folder` would have, before anything of it is there: ports that are not asked for are open, and
    /// models that are compiled in lie where they would be unpacked.
    ///
    /// # Errors
    /// When the current folder is gone.
    pub fn planned(config: &Config, folder: &RunFolder) -> Result<Self> {
        let place = |configured: &Path, shipped: Shipped| match configured.as_os_str().is_empty() {
            true => Ok(folder.models().join(shipped.label())),
            false => absolute(configured),
        };
        // A port that is still to be found is some port: addresses are looked at, nobody is called.
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port.max(1)));
        let ports = config.up.ports;
        Ok(Self {
            folder: folder.clone(),
            addresses: Addresses {
                learner: at(ports.learner),
                reward: at(ports.reward),
                teacher: config.up.distill.then(|| at(ports.teacher)),
            },
            policy: place(&config.policy, Shipped::Policy)?,
            teacher: config.up.distill.then(|| place(&config.teacher, Shipped::Teacher)).transpose()?,
            program: PathBuf::new(),
            config: config.clone(),
        })
    }

    /// Names in the order in which they are started. They are stopped in the order of the flow: [`Services::stop_order`].
    pub fn names(&self) -> Vec<String> {
        let services = [Some(REWARD), self.teacher.as_ref().map(|_| TEACHER), Some(LEARNER)];
        let services = services.into_iter().flatten().map(str::to_owned);
        services.chain(self.followers()).chain(self.actors()).chain(self.evaluator()).collect()
    }

    /// Whoever measures while the policy is trained, if anybody does. Nothing waits for it.
    pub fn evaluator(&self) -> Option<String> {
        (self.config.eval.every > 0).then(|| EVALUATOR.to_owned())
    }

    /// The learner's other ranks; they serve nobody and announce nothing.
    pub fn followers(&self) -> Vec<String> {
        (1..self.config.up.ranks.max(1)).map(rank).collect()
    }

    /// Who stops first: what sends stops before what it sends to, so that nothing is sent into the void.
    pub fn stop_order(&self) -> Vec<Vec<String>> {
        let of_the_flow = vec![self.actors(), vec![REWARD.into()], vec![TEACHER.into()], vec![LEARNER.into()], self.followers()];
        self.evaluator().map(|name| vec![name]).into_iter().chain(of_the_flow).collect()
    }

    fn actors(&self) -> Vec<String> {
        (0..self.config.actors()).map(actor).collect()
    }

    /// The engine of an actor: where it is, of `engine`; its sizes, of `actor.engine`. Servers are dealt out, and no two actors write
    /// policies into one folder.
    fn engine_settings(&self, name: &str) -> Result<EngineConfig> {
        let sizes = self.config.actor.engine.clone();
        let EngineConfig { kind, url, command, model, policy_folder, api_key_env, .. } = self.config.engine.clone();
        let EngineConfig { request_timeout_s, reload_timeout_s, start_timeout_s, health_interval_s, .. } = self.config.engine;
        if !self.config.engine.is_remote() {
            return Ok(EngineConfig { kind, ..sizes });
        }
        // No more than servers, however many are asked for.
        let actors = self.actors();
        let number = actors.iter().position(|actor| actor == name).unwrap_or_default();
        let url = url.into_iter().skip(number).step_by(actors.len().max(1)).collect();
        let policy_folder = if policy_folder.as_os_str().is_empty() { policy_folder } else { absolute(&policy_folder)?.join(name) };
        let times = EngineConfig { request_timeout_s, reload_timeout_s, start_timeout_s, health_interval_s, ..sizes };
        // Each actor has a server of its own, where it is to start one.
        let log = if command.is_empty() { times.log.clone() } else { self.folder.log(&format!("{name}-engine")) };
        Ok(EngineConfig { kind, url, command, log, model, policy_folder, api_key_env, ..times })
    }

    /// Writes the settings file of a service and forgets what an earlier process announced.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn write(&self, name: &str) -> Result<()> {
        let path = self.folder.service_config(name);
        let announce = self.folder.announcement(name);
        ready::clear(&announce)?;
        // Each serves its metrics at a free port and says where.
        let announced = |process: ProcessConfig| ProcessConfig {
            metrics_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            announce: Some(announce),
            ..process
        };
        match name {
            REWARD => {
                let mut reward = self.reward_settings();
                reward.process = announced(reward.process);
                config::dump(&reward, &path)?;
            }
            TEACHER => {
                let mut teacher = self.teacher_settings().context("a teacher has an address and a model")?;
                teacher.process = announced(teacher.process);
                config::dump(&teacher, &path)?;
            }
            LEARNER => {
                let mut learner = self.learner_settings(0);
                learner.process = announced(learner.process);
                config::dump(&learner, &path)?;
            }
            EVALUATOR => {
                let mut evaluator = self.evaluator_settings()?;
                evaluator.process = announced(evaluator.process);
                config::dump(&evaluator, &path)?;
            }
            name if self.followers().iter().any(|follower| follower == name) => {
                // It serves nobody, and nobody waits for it to.
                let number = name.trim_start_matches("rank-").parse().context("ranks are numbered")?;
                config::dump(&self.learner_settings(number), &path)?;
            }
            actor => {
                let mut actor = self.actor_settings(actor)?;
                actor.process = announced(actor.process);
                config::dump(&actor, &path)?;
            }
        }
        Ok(())
    }

    /// The settings of the reward service.
    pub fn reward_settings(&self) -> hypereyes_reward_service::Config {
        let base = self.config.reward_service.clone();
        hypereyes_reward_service::Config { listen: self.addresses.reward, store: Some(self.folder.reward()), ..base }
    }

    /// The settings of the teacher service; `None` without distillation.
    pub fn teacher_settings(&self) -> Option<hypereyes_teacher_service::Config> {
        let base = self.config.teacher_service.clone();
        let (listen, model) = (self.addresses.teacher?, self.teacher.as_ref()?.display().to_string());
        // Its port is this machine's, and whoever runs `up` may read what he may read.
        let roots = if base.roots.is_empty() { vec!["/".into()] } else { base.roots.clone() };
        let hosts = if base.hosts.is_empty() { vec!["127.0.0.0/8".into(), "::1".into()] } else { base.hosts.clone() };
        Some(hypereyes_teacher_service::Config { listen, model, store: Some(self.folder.teacher()), roots, hosts, ..base })
    }

    /// The settings of the actor of this name.
    ///
    /// # Errors
    /// When the current folder is gone.
    pub fn actor_settings(&self, name: &str) -> Result<hypereyes_actor::Config> {
        let (addresses, world) = (&self.addresses, &self.config.world);
        Ok(hypereyes_actor::Config {
            // Each process adds its own suffix: what a dead actor leased is not its heir's.
            id: name.to_owned(),
            learner: addresses.learner.to_string(),
            reward: addresses.reward.to_string(),
            teacher: addresses.teacher.map(|address| address.to_string()),
            policy: self.policy.clone(),
            world: if world.as_os_str().is_empty() { None } else { Some(absolute(world)?) },
            rollout: self.config.rollout.clone(),
            search: self.config.search.clone(),
            engine: self.engine_settings(name)?,
            ..self.config.actor.clone()
        })
    }

    /// The settings of the evaluator: it measures as `up` does before and after training, on an engine of its own.
    ///
    /// # Errors
    /// When the current folder is gone.
    pub fn evaluator_settings(&self) -> Result<hypereyes_evaluator::Config> {
        let (config, base) = (&self.config, self.config.evaluator.clone());
        let (url, own) = (base.engine.url.clone(), &config.engine.policy_folder);
        let policy_folder = if own.as_os_str().is_empty() { own.clone() } else { absolute(own)?.join(EVALUATOR) };
        let log = if config.engine.command.is_empty() { config.engine.log.clone() } else { self.folder.log("evaluator-engine") };
        Ok(hypereyes_evaluator::Config {
            learner: self.addresses.learner.to_string(),
            policy: self.policy.clone(),
            world: if config.world.as_os_str().is_empty() { None } else { Some(absolute(&config.world)?) },
            tasks: self.folder.held_out(),
            out: self.folder.root().to_owned(),
            last: Some(config.learner.steps),
            eval: config.eval.clone(),
            sampling: config.sampling.eval,
            judge: config.reward_service.judge,
            judge_model: config.reward_service.judge_model.clone(),
            rollout: config.rollout.clone(),
            engine: EngineConfig { url, policy_folder, log, ..config.engine.clone() },
            search: config.search.clone(),
            ..base
        })
    }

    /// The settings of a rank of the learner.
    pub fn learner_settings(&self, rank: usize) -> hypereyes_learner::Config {
        let mut base = self.config.learner.clone();
        if self.teacher.is_none() {
            base.objective.opd_coef = 0.0;
        }
        let (world, leader) = (self.config.up.ranks.max(1), self.addresses.learner.to_string());
        hypereyes_learner::Config {
            listen: self.addresses.learner,
            reward: self.addresses.reward.to_string(),
            policy: self.policy.clone(),
            tasks: self.folder.train(),
            out: self.folder.learner(),
            seed: self.config.seed,
            sampling: self.config.sampling.train,
            max_context_tokens: self.config.rollout.max_context_tokens,
            reward_range: range_of(&self.config.reward_service.trace, base.reward_range),
            ranks: hypereyes_learner::ranks::RanksConfig { rank, world, leader, ..base.ranks },
            ..base
        }
    }

    /// How a service is started and what its exit means.
    pub fn plan(&self, name: &str) -> Plan {
        let up = &self.config.up;
        let (on_exit, grace) = match name {
            REWARD | TEACHER => (OnExit::Restart, up.grace_s),
            LEARNER => (OnExit::DoneOnSuccess, up.learner_grace_s),
            _ => (OnExit::DoneOnSuccess, up.grace_s),
        };
        let (services, service) = (self.clone(), name.to_owned());
        let command: MakeCommand = Box::new(move |_| {
            services.write(&service)?;
            let mut command = Command::new(&services.program);
            command.args(["service", kind(&service), "--leash", "--config"]).arg(services.folder.service_config(&service));
            Ok(command)
        });
        Plan { name: name.to_owned(), command, on_exit, grace: Duration::from_secs(grace), log: self.folder.log(name) }
    }
}

/// What rewards lie between: what is taken anyway, and what TRACE gives with these constants.
pub fn range_of(trace: &hypereyes_scoring::TraceConfig, [least, most]: [f64; 2]) -> [f64; 2] {
    let wrong = [trace.wrong_penalty, trace.wrong_in_band_bonus, hypereyes_scoring::UNANSWERED];
    let given = trace.good.iter().chain(&trace.bad).map(|bonus| 1.0 + bonus).chain(wrong);
    given.fold([least, most], |[least, most], reward| [least.min(reward), most.max(reward)])
}

/// The word of the `service` command for a service.
fn kind(name: &str) -> &str {
    match name {
        REWARD | TEACHER | LEARNER | EVALUATOR => name,
        name if name.starts_with("rank-") => LEARNER,
        _ => "actor",
    }
}

/// A path that means the same in every process.
///
/// # Errors
/// When the current folder is gone.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot tell where {} is", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(root: &Path) -> Services {
        let folder = RunFolder::new(root);
        folder.hold().expect("made");
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = Config { seed: 5, ..Config::default() };
        Services {
            config,
            folder,
            addresses: Addresses { learner: at(1), reward: at(2), teacher: Some(at(3)) },
            policy: "/p".into(),
            teacher: Some("/t".into()),
            program: "hypereyes".into(),
        }
    }

    #[test]
    fn settings_files_say_what_the_services_need_of_each_other() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let services = services(root.path());
        for name in services.names() {
            services.write(&name).expect("written");
        }
        let read = |name: &str| std::fs::read_to_string(services.folder.service_config(name)).expect("written");
        let learner: hypereyes_learner::Config = toml::from_str(&read(LEARNER)).expect("the learner reads it");
        assert_eq!((learner.seed, learner.reward.as_str(), learner.out), (5, "127.0.0.1:2", services.folder.learner()));
        let actor: hypereyes_actor::Config = toml::from_str(&read("actor-1")).expect("an actor reads it");
        assert_eq!((actor.id.as_str(), actor.learner.as_str(), actor.teacher.as_deref()), ("actor-1", "127.0.0.1:1", Some("127.0.0.1:3")));
        assert_eq!(actor.rollout, services.config.rollout);
        let reward: hypereyes_reward_service::Config = toml::from_str(&read(REWARD)).expect("the reward service reads it");
        assert_eq!(reward.store, Some(services.folder.reward()));
        let teacher: hypereyes_teacher_service::Config = toml::from_str(&read(TEACHER)).expect("the teacher service reads it");
        assert_eq!(teacher.listen.port(), 3);
        assert_eq!((teacher.roots, teacher.keys), (vec![PathBuf::from("/")], vec![]), "folders of this machine, and nobody's keys");
    }

    #[test]
    fn servers_that_sample_are_dealt_out_to_the_actors() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut services = services(root.path());
        services.config.engine.kind = "vllm".into();
        services.config.engine.url = ["http://a:1", "http://b:1", "http://c:1"].map(str::to_owned).to_vec();
        (services.config.engine.policy_folder, services.config.engine.model) = ("/shared".into(), "policy".into());
        services.config.engine.reload_timeout_s = 7;
        services.config.actor.engine.max_context = 4096;
        let engine = |services: &Services, name: &str| services.actor_settings(name).expect("the current folder is there").engine;
        let [first, second] = ["actor-0", "actor-1"].map(|name| engine(&services, name));
        assert_eq!((first.url, second.url), (vec!["http://a:1".into(), "http://c:1".into()], vec!["http://b:1".to_owned()]));
        assert_eq!((first.policy_folder, second.policy_folder), ("/shared/actor-0".into(), "/shared/actor-1".into()));
        assert_eq!((first.kind.as_str(), first.model.as_str(), first.reload_timeout_s, first.max_context), ("vllm", "policy", 7, 4096));
        services.config.engine.url.truncate(1);
        assert_eq!(services.actors(), ["actor-0"], "an actor drives its servers alone");
    }

    #[test]
    fn an_evaluator_measures_as_before_and_after_on_a_server_of_its_own() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut services = services(root.path());
        assert_eq!(services.evaluator(), None);
        (services.config.eval.every, services.config.eval.samples, services.config.learner.steps) = (5, 3, 40);
        services.config.sampling.eval.temperature = 0.0;
        services.config.engine.kind = "vllm".into();
        services.config.engine.url = vec!["http://a:1".to_owned()];
        services.config.engine.policy_folder = "/shared".into();
        services.config.evaluator.engine.url = vec!["http://b:1".to_owned()];
        services.write(EVALUATOR).expect("written");
        let read = std::fs::read_to_string(services.folder.service_config(EVALUATOR)).expect("written");
        let evaluator: hypereyes_evaluator::Config = toml::from_str(&read).expect("an evaluator reads it");
        assert_eq!((evaluator.learner.as_str(), evaluator.last, evaluator.threads), ("127.0.0.1:1", Some(40), 1));
        assert_eq!((evaluator.eval.every, evaluator.eval.samples, evaluator.sampling.temperature), (5, 3, 0.0));
        assert_eq!((&evaluator.tasks, evaluator.out.as_path()), (&services.folder.held_out(), services.folder.root()));
        assert_eq!((evaluator.engine.url, evaluator.engine.policy_folder), (vec!["http://b:1".into()], "/shared/evaluator".into()));
        assert_eq!(services.names().last().map(String::as_str), Some(EVALUATOR));
        assert_eq!(services.stop_order()[0], [EVALUATOR], "it only reads");
    }

    #[test]
    fn services_stop_along_the_flow_and_the_learner_last() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let services = services(root.path());
        let order = services.stop_order().concat();
        assert_eq!(order, ["actor-0", "actor-1", "reward", "teacher", "learner"]);
        assert_eq!(services.names(), ["reward", "teacher", "learner", "actor-0", "actor-1"]);
        let mut alone = Services { teacher: None, ..services };
        assert_eq!(alone.names(), ["reward", "learner", "actor-0", "actor-1"]);
        alone.config.up.ranks = 3;
        assert_eq!(alone.names(), ["reward", "learner", "rank-1", "rank-2", "actor-0", "actor-1"]);
        for name in alone.names() {
            alone.write(&name).expect("written");
        }
        let read = std::fs::read_to_string(alone.folder.service_config("rank-2")).expect("written");
        let rank: hypereyes_learner::Config = toml::from_str(&read).expect("the learner reads it");
        assert_eq!((rank.ranks.rank, rank.ranks.world, rank.ranks.leader.as_str()), (2, 3, "127.0.0.1:1"));
    }
}
