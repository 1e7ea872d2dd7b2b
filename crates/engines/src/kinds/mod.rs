//! The kinds of engines, and which one a `kind` of the settings stands for. In: the settings, and a policy to sample from. Out: an
//! [`Engine`], or which key is wrong.

mod local;
mod openai;

use std::path::Path;
use std::sync::Arc;

use hypereyes_pictures::{Processor, Store};
use hypereyes_policy::Error;
use hypereyes_policy::checkpoint::Snapshot;
use hypereyes_policy::config::ModelConfig;

use crate::{Engine, EngineConfig, remote};

/// The kind that computes in this process.
pub(crate) const LOCAL: &str = "local";
/// The kind that speaks text.
pub(crate) const OPENAI: &str = "openai";

/// Makes an engine of one kind.
type Open = fn(&EngineConfig, Policy<'_>) -> Result<Engine, Error>;

/// Every kind. A new one is a file beside this one, or a dialect of [`remote`], and a line here.
const KINDS: &[(&str, Open)] = &[(LOCAL, local::open), ("vllm", remote::vllm), ("sglang", remote::sglang), (OPENAI, openai::open)];

/// A policy, and what it takes to sample from it.
#[derive(Clone, Debug)]
pub struct Policy<'a> {
    /// Its shape.
    pub model: ModelConfig,
    /// Its weights, and the version that those are.
    pub snapshot: Snapshot,
    /// Tokens that end a turn, any of them.
    pub end_tokens: Vec<u32>,
    /// What its vision tower reads of a picture.
    pub processor: Processor,
    /// Where the pictures are that chunks name.
    pub pictures: Arc<Store>,
    /// Its folder: what lies beside weights goes to servers from there.
    pub folder: &'a Path,
}

/// Opens the engine that the settings name. Work for threads that may be busy: a model is built, or a policy is written to a folder.
///
/// # Errors
/// [`Error::Input`] for settings that cannot be used or do not fit the policy, naming the key; [`Error::Device`] where a device fails.
pub fn open(config: &EngineConfig, policy: Policy<'_>) -> Result<Engine, Error> {
    config.check().map_err(Error::Input)?;
    let (_, open) = KINDS.iter().find(|(name, _)| *name == config.kind).expect("just checked");
    open(config, policy)
}

/// Whether there is such a kind.
///
/// # Errors
/// A sentence that begins with the key and names those that there are.
pub(crate) fn check(kind: &str) -> Result<(), String> {
    if KINDS.iter().any(|(name, _)| *name == kind) {
        return Ok(());
    }
    let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    Err(format!("kind is {kind:?}, which is no engine: give {}", known.join(", ")))
}
