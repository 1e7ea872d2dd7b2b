//! Parts that several commands start with: the world, the chat of a model folder, what episodes run with.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use hypereyes_chat::Chat;
use hypereyes_rollout::Setup;
use hypereyes_search::{EmbeddedSearch, World};

use crate::config::Config;

/// The world of the configuration; a bad path is bad input.
pub fn world(config: &Config) -> Result<Arc<World>> {
    let loaded = if config.world.as_os_str().is_empty() { World::embedded() } else { World::load(&config.world) };
    Ok(Arc::new(loaded.map_err(|error| BadInput::new(error.to_string()))?))
}

/// Tokenizer and template of a model folder.
pub fn chat(model: &Path) -> Result<Arc<Chat>> {
    Ok(Arc::new(Chat::load(model).map_err(|error| BadInput::new(error.to_string()))?))
}

/// What episodes of this process run with.
pub fn setup(config: &Config, world: &Arc<World>, chat: Arc<Chat>) -> Setup {
    Setup { chat, search: Arc::new(EmbeddedSearch::new(world.clone())), config: config.rollout.clone() }
}

/// A tokio runtime for commands that are not services.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}

/// Copies the files beside weights and config that make a model folder whole.
pub fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    const FILES: [&str; 6] = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "preprocessor_config.json",
        "chat_template.jinja",
    ];
    for name in FILES {
        let source = from.join(name);
        if source.exists() {
            std::fs::copy(&source, to.join(name)).with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(())
}
