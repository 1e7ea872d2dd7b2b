//! A model that writes questions. In: settings. Out: it, once its server has answered; and the file in which everything that it writes is
//! kept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use hypereyes_run::Lines;
use hypereyes_synth::author::Author;
use serde_json::Value;

use crate::config::Config;
use crate::endpoint;

/// Questions that may fail one after the other, where few are asked at the same time: nobody is there then.
pub(super) const FAILED_IN_A_ROW: usize = 4;
/// Everything that models wrote.
const WRITTEN: &str = "written.jsonl";

/// The model behind `engine.url`, which must be a chat endpoint.
///
/// # Errors
/// [`BadInput`] for another kind of engine, which `flag` cannot use, and a server that does not answer.
pub(super) async fn author(config: &Config, flag: &str) -> Result<Author> {
    config.engine.check().map_err(|error| BadInput::new(format!("engine.{error}")))?;
    if !config.engine.speaks_text() {
        let kind = &config.engine.kind;
        return Err(BadInput::new(format!(
            "{flag} has a model write, which takes a chat endpoint, and engine.kind is {kind:?}: add --engine openai --url URL"
        ))
        .into());
    }
    let client = endpoint::client(config).await?;
    Ok(Author {
        client: Arc::new(client),
        sampling: config.sampling.train.sampling(),
        max_tokens: config.synth.entities.max_tokens,
        replies: config.synth.entities.replies,
        attempt: config.engine.request_timeout(),
        patience: Duration::from_secs(config.rollout.turn_timeout_s),
    })
}

/// `written.jsonl` of a folder.
pub(super) struct Written {
    lines: Lines,
    path: PathBuf,
}

impl Written {
    /// Opens it; what is there stays.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(WRITTEN);
        let lines = Lines::open(&path, "written").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { lines, path })
    }

    /// Keeps something that a model wrote; it is on disk when this returns, as what is said of it will be.
    ///
    /// # Errors
    /// A sentence, where it cannot be kept.
    pub(super) fn keep(&mut self, written: &Value) -> Result<(), String> {
        self.lines.append(written);
        let kept = self.lines.flush() && File::open(&self.path).and_then(|file| file.sync_data()).is_ok();
        if kept { Ok(()) } else { Err(format!("{}: what the model wrote cannot be kept", self.path.display())) }
    }
}
