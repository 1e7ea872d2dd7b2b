//! An engine for the policy in a folder, whose weights will follow a learner's. In: the settings, a folder, a place for pictures. Out:
//! the engine, its tokenizer, and the weights that it begins with, to which the learner's next version may come as a difference.

use std::path::Path;
use std::sync::Arc;

use hypereyes_chassis::BadInput;
use hypereyes_chat::Chat;
use hypereyes_domain::PolicyVersion;
use hypereyes_pictures::Store;
use hypereyes_policy::Error;
use hypereyes_policy::checkpoint::{self, Snapshot};
use hypereyes_policy::config::ModelConfig;

use crate::{Engine, EngineConfig, Policy, kept, open};

/// A policy that can be asked.
pub struct Opened {
    /// Its tokenizer.
    pub chat: Arc<Chat>,
    /// Who samples.
    pub engine: Engine,
    /// The weights that the engine begins with.
    pub base: Snapshot,
}

/// What keeps a policy from being asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something that another try will find as it is; it names the key.
    #[error("{0}")]
    Input(#[source] BadInput),
    /// A device that fails, or servers that are away: it may pass.
    #[error("{0}")]
    Device(String),
}

impl OpenError {
    /// With the key in front of what is wrong, as `key: `; empty for errors that name it themselves.
    fn named(key: &str, error: Error) -> Self {
        match error {
            Error::Device(reason) => Self::Device(reason),
            error => Self::Input(BadInput::new(format!("{key}{error}"))),
        }
    }
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::named("", error)
    }
}

/// Opens the engine that the settings name for the policy in `folder`. Servers are given what they had last: most of what the learner has
/// by now is in it, or all. Otherwise it is that of the folder, which a learner that starts from the same files publishes, in its type.
/// Pictures have at most `picture_tokens` visual tokens, 0 for what the folder says.
/// Work for threads that may be busy, and for one that is in a runtime. To be [`ready`](Engine::ready) is waited for afterwards.
///
/// # Errors
/// [`OpenError`] that names the key.
pub fn open_folder(config: &EngineConfig, folder: &Path, picture_tokens: usize, pictures: &Arc<Store>) -> Result<Opened, OpenError> {
    let of = |key: &'static str| move |error: Error| OpenError::named(key, error);
    config.device.admits_folder(folder).map_err(of("engine: "))?;
    let chat = Chat::load(folder).map_err(|error| of("policy: ")(Error::Input(error.to_string())))?.seeing_at_most(picture_tokens);
    let (model, base) = begin(config, folder).map_err(of("policy: "))?;
    if chat.vocab_size() > model.text.vocab_size || chat.image_pad() != model.image_token_id {
        let reason = format!("tokenizer and config.json of {} do not belong together", folder.display());
        return Err(of("policy: ")(Error::Input(reason)));
    }
    let policy = Policy {
        model,
        snapshot: base.clone(),
        end_tokens: vec![chat.end_token()],
        processor: chat.processor().clone(),
        pictures: pictures.clone(),
        folder,
    };
    let engine = open(config, policy).map_err(of(if config.is_remote() { "engine: " } else { "policy: " }))?;
    Ok(Opened { chat: Arc::new(chat), engine, base })
}

/// The policy to begin with.
fn begin(config: &EngineConfig, folder: &Path) -> Result<(ModelConfig, Snapshot), Error> {
    if let Some(kept) = kept(config, folder) {
        return Ok((ModelConfig::load(folder)?, kept));
    }
    let (model, weights) = checkpoint::read(folder)?;
    Ok((model, Snapshot::exact(weights, PolicyVersion(0))))
}
