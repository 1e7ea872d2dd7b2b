//! What model folders say about the settings: whether the parts of a model belong together, whether policy and teacher speak one
//! language, whether caches hold groups of it, and whether what is to be trained is there.
//!
//! In: settings, a world, model folders. Out: findings. It reads whole folders and computes nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;
use hypereyes_chassis::{BadInput, Findings, exit};
use hypereyes_miniature::shipped::Shipped;
use hypereyes_pictures::Processor;
use hypereyes_policy::config::ModelConfig;
use hypereyes_run::RunFolder;
use hypereyes_teacher_service::vocabulary::Vocabulary;
use hypereyes_world::World;

use super::{pairs, world};
use crate::config::Config;
use crate::services::{self, Services};
use crate::{parts, protocol};

/// The model folders of a run before it begins. Models that are compiled in are unpacked into a folder that goes with this value.
pub struct Folders {
    /// Where training starts.
    pub policy: PathBuf,
    /// What failed rollouts are distilled from.
    pub teacher: Option<PathBuf>,
    _scratch: tempfile::TempDir,
}

impl Folders {
    /// The folders that the settings name.
    ///
    /// # Errors
    /// When a model is not compiled in, or nothing can be written into the system's temporary folder.
    pub fn of(config: &Config) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let place = |configured: &Path, shipped: Shipped| -> Result<PathBuf> {
            if !configured.as_os_str().is_empty() {
                return Ok(configured.to_owned());
            }
            let folder = scratch.path().join(shipped.label());
            parts::unpack(shipped, &folder)?;
            Ok(folder)
        };
        let policy = place(&config.policy, Shipped::Policy)?;
        let teacher = config.up.distill.then(|| place(&config.teacher, Shipped::Teacher)).transpose()?;
        Ok(Self { policy, teacher, _scratch: scratch })
    }
}

/// Whether a task set of the run is made of its world; those that `up.tasks` and `up.held_out` name are not.
fn makes_tasks(config: &Config) -> bool {
    [&config.up.tasks, &config.up.held_out].iter().any(|set| set.as_os_str().is_empty())
}

/// Findings about the models of a run in `folder`.
///
/// # Errors
/// When a model folder cannot be read: bad input that names the file.
pub fn run(config: &Config, folder: &RunFolder, world: &World, folders: &Folders) -> Result<Findings> {
    let mut found = Findings::default();
    let shape = named("policy", shape(&mut found, "policy", &folders.policy))?;
    let planned = Services::planned(config, folder)?;
    let (learner, actor) = (planned.learner_settings(0), planned.actor_settings(&services::actor(0))?);
    let services = pairs::Loop { learner: &learner, actor: &actor, teacher: None, rollout: "rollout", model: Some(&shape) };
    for inner in [pairs::of_loop(&services), pairs::of_engine(config, Some(&shape))] {
        inner.refused().iter().for_each(|finding| found.refuse(finding.key.clone(), finding.message.clone()));
    }
    if let Some(teacher) = &folders.teacher {
        let other = named("teacher", shape_of_teacher(&mut found, &folders.policy, &shape, teacher))?;
        if other.text.vocab_size != shape.text.vocab_size {
            let (teacher, policy) = (other.text.vocab_size, shape.text.vocab_size);
            found.refuse("teacher", format!("has {teacher} tokens and the policy {policy}: a teacher must be of the policy's family"));
        }
    }
    let processor = Processor::load_from(&folders.policy).map_err(|error| BadInput::new(error.to_string()))?.processor;
    found.extend(protocol::of_pictures(config, &processor));
    if makes_tasks(config) {
        found.extend(world::tasks(config, world));
    }
    let context = config.rollout.max_context_tokens;
    found.extend(world::findings(config, world, &*parts::chat(&folders.policy)?, context));
    if found.is_refused() {
        // Weights are gigabytes: not before the rest is right.
        return Ok(found);
    }
    let (_, weights) = named("policy", parts::check_model(&folders.policy))?;
    found.under("learner", learner.of_model(&weights));
    drop(weights);
    if let Some(teacher) = folders.teacher.as_deref().filter(|_| !config.teacher.as_os_str().is_empty()) {
        named("teacher", parts::check_model(teacher))?;
    }
    Ok(found)
}

/// The same with the key in front of what is wrong.
fn named<T>(key: &str, read: Result<T>) -> Result<T> {
    read.map_err(|error| BadInput::new(format!("{key}: {}", exit::line_of(error.as_ref()))).into())
}

/// The shape of the model in `folder`; what does not fit in it is found under `key`.
///
/// # Errors
/// When it cannot be read.
pub fn shape(found: &mut Findings, key: &str, folder: &Path) -> Result<ModelConfig> {
    let shape = parts::shape(folder)?;
    let chat = parts::chat(folder)?;
    if chat.vocab_size() > shape.text.vocab_size || chat.image_pad() != shape.image_token_id {
        found.refuse(key, format!("is {}, whose tokenizer and config.json do not belong together", folder.display()));
    }
    Ok(shape)
}

fn shape_of_teacher(found: &mut Findings, policy: &Path, of_policy: &ModelConfig, teacher: &Path) -> Result<ModelConfig> {
    let shape = shape(found, "teacher", teacher)?;
    if vocabulary(policy, of_policy)? != vocabulary(teacher, &shape)? {
        let message = format!(
            "({}) and policy ({}) have different vocabularies: the same token id means another word to each, and distilling would teach \
             noise; give a teacher with the policy's tokenizer, or set up.distill = false",
            teacher.display(),
            policy.display()
        );
        found.refuse("teacher", message);
    }
    Ok(shape)
}

/// What the token ids of the model in `folder` mean.
///
/// # Errors
/// Bad input that names the tokenizer's file.
pub fn vocabulary(folder: &Path, shape: &ModelConfig) -> Result<Vocabulary> {
    Ok(Vocabulary::load(folder, shape.image_token_id).map_err(BadInput::new)?)
}
