//! One check of the settings, before anything is made: what every part refuses at its own start, and what the parts know of
//! each other.
//!
//! In: resolved settings. Out: [`Findings`]: each names its key and what would do. Parts look at themselves with the functions
//! that they start with; [`pairs`] knows two parts at a time, [`overwritten`] what `up` decides itself, [`models`] and [`world`]
//! what model folders and a world say, [`servers`] who must answer, [`services`] who is searched. It makes nothing and keeps nothing.

pub mod data;
pub mod leaves;
pub mod models;
pub mod overwritten;
pub mod pairs;
pub mod servers;
pub mod services;
pub mod world;

use anyhow::Result;
use hypereyes_chassis::Findings;
use hypereyes_run::RunFolder;

use crate::config::Config;
use crate::services::{Services, actor as actor_name};

/// What is wrong with the settings of a run of `up` in `folder`, as far as they alone can tell: only certificates and a backup that is
/// to be taken in are read, and nobody is called.
///
/// # Errors
/// When the current folder is gone.
pub fn run(config: &Config, folder: &RunFolder) -> Result<Findings> {
    let mut found = config.findings();
    let planned = Services::planned(config, folder)?;
    let (learner, reward) = (planned.learner_settings(0), planned.reward_settings());
    let (actor, teacher) = (planned.actor_settings(&actor_name(0))?, planned.teacher_settings());
    // `up` fills this in; what is wrong with it is said under its own name.
    let (sampling, learner_itself) = apart(learner.findings(), "sampling");
    found.under("sampling.train", sampling);
    found.under("learner", learner_itself);
    found.under("reward_service", reward.findings());
    // Likewise; `rollout`, `search` and who samples are looked at with the other tables of their names.
    let of_actor = ["rollout", "search", "engine.kind"].into_iter().fold(actor.findings(), |found, table| apart(found, table).1);
    found.under("actor", of_actor);
    if let Some(teacher) = &teacher {
        found.under("teacher_service", teacher.findings());
    }
    // Likewise; who samples for it is looked at in pairs.
    let filled_in = ["rollout", "search", "eval", "sampling", "judge_model", "engine"];
    let of_evaluator = filled_in.into_iter().fold(planned.evaluator_settings()?.findings(), |found, table| apart(found, table).1);
    found.under("evaluator", of_evaluator);
    found.extend(overwritten::findings(config));
    found.extend(crate::task_sets::findings(config));
    found.extend(pairs::of_up(config));
    found.extend(pairs::of_search(config));
    found.extend(pairs::of_evaluator(config));
    found.extend(pairs::of_loop(&pairs::Loop {
        learner: &learner,
        actor: &actor,
        teacher: teacher.as_ref(),
        rollout: "rollout",
        model: None,
    }));
    found.extend(pairs::of_engine(config, None));
    Ok(found)
}

/// Findings about the keys of a table, named as there, and the others.
fn apart(found: Findings, table: &str) -> (Findings, Findings) {
    let (mut of_table, mut others) = (Findings::default(), Findings::default());
    let place = |key: &str| match key.strip_prefix(table) {
        Some("") => Some(String::new()),
        Some(rest) => rest.strip_prefix('.').map(str::to_owned),
        None => None,
    };
    for it in found.refused() {
        match place(&it.key) {
            Some(key) => of_table.refuse(key, it.message.clone()),
            None => others.refuse(it.key.clone(), it.message.clone()),
        }
    }
    for it in found.warned() {
        match place(&it.key) {
            Some(key) => of_table.warn(key, it.message.clone()),
            None => others.warn(it.key.clone(), it.message.clone()),
        }
    }
    (of_table, others)
}

/// What is wrong with the settings with which tasks are made.
pub fn tasks(config: &Config) -> Findings {
    let mut found = Findings::default();
    found.told("", config.synth.check());
    found.told("rollout", config.rollout.check());
    found.told("sampling.train", config.sampling.train.check());
    found.told("search", config.search.check());
    found.extend(overwritten::search(config));
    found.extend(pairs::of_search(config));
    found
}

/// What is wrong with the settings of an evaluation in this process.
pub fn evaluation(config: &Config) -> Findings {
    let mut found = tasks(config);
    found.told("sampling.eval", config.sampling.eval.check());
    found.told("eval", config.eval.check());
    found.told("engine", config.engine.check());
    found.under("reward_service", config.reward_service.judge.findings(&config.reward_service.judge_model));
    found.extend(pairs::of_engine(config, None));
    if let Err(error) = config.engine.device.check() {
        found.refuse("engine.device", format!("cannot be had: {error}"));
    }
    found
}

/// What is wrong with the settings of one episode in this process.
pub fn asking(config: &Config) -> Findings {
    let mut found = Findings::default();
    found.told("rollout", config.rollout.check());
    found.told("search", config.search.check());
    found.extend(overwritten::search(config));
    found.extend(pairs::of_search(config));
    found.told("engine", config.engine.check());
    found.extend(pairs::of_engine(config, None));
    found
}

/// What is wrong with the settings of a cold start.
pub fn cold_start(config: &Config) -> Findings {
    let mut found = Findings::default();
    found.told("", config.sft.check());
    found.told("miniature", config.miniature.check());
    found.told("tiny", config.tiny.check());
    found.told("init", config.init.check());
    found.under("sft_optim", config.sft_optim.findings());
    if let Err(error) = config.sft.device.check() {
        found.refuse("sft.device", format!("cannot be had: {error}"));
    }
    if config.sft.lr == Some(0.0) {
        found.warn("sft.lr", "is 0: every step is taken and no weight moves");
    }
    found
}
