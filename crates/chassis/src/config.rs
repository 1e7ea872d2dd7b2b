//! Configuration in layers: defaults, then a TOML file, then the environment, then `--set key=value`.
//!
//! In: a config type with defaults and what the user said. Out: the config, or a [`ConfigError`] that lists everything
//! that is wrong with what the user said: which key, in which layer, and what was probably meant.
//!
//! What keys exist is known from the config type alone: its structs must be `#[serde(deny_unknown_fields, default)]`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

mod layers;
mod merge;
mod moved;

use layers::Layer;
pub use moved::{Moved, Now};

/// A file larger than this is not a configuration.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A config type: what keys there are, and what became of those that there were.
pub trait Settings: Serialize + DeserializeOwned {
    /// Former keys, each with where it is now; the first that fits is told.
    fn moved() -> Vec<Moved> {
        Vec::new()
    }
}

/// Reads a configuration.
///
/// `file` is TOML. The environment speaks as `PREFIX__LEARNER__LR=1e-5`, which is `learner.lr = 1e-5`; other variables are
/// left alone. `sets` are `learner.lr=1e-5`. Values of both are TOML if they can be read as such where they stand, and
/// text otherwise. Later layers win, key by key; lists are replaced whole.
///
/// # Errors
/// [`ConfigError`] with every problem found, not only the first.
pub fn load<T: Settings>(defaults: T, file: Option<&Path>, env_prefix: &str, sets: &[String]) -> Result<T, ConfigError> {
    // Variables that are not Unicode cannot be meant for us.
    let env = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    load_from(defaults, file, env_prefix, env, sets)
}

/// [`load`] with an environment that is given rather than the process's.
///
/// # Errors
/// As [`load`].
pub fn load_from<T: Settings>(
    defaults: T,
    file: Option<&Path>,
    env_prefix: &str,
    env: impl IntoIterator<Item = (String, String)>,
    sets: &[String],
) -> Result<T, ConfigError> {
    let base = toml::Table::try_from(&defaults).map_err(|error| ConfigError::Defaults(error.to_string()))?;
    let mut problems = Vec::new();
    let mut layers = Vec::new();
    if let Some(path) = file {
        match read(path) {
            Ok(table) => layers.push(Layer::file(path, table)),
            Err(problem) => problems.push(problem),
        }
    }
    layers.extend(Layer::env(env_prefix, env));
    for set in sets {
        match Layer::set(set) {
            Ok(layer) => layers.push(layer),
            Err(problem) => problems.push(problem),
        }
    }
    let merged = merge::apply::<T>(base, layers, &mut problems)?;
    if problems.is_empty() { Ok(merged) } else { Err(ConfigError::Problems(problems)) }
}

/// The config as TOML text, as a user would write it. Keys without a value are left out.
///
/// # Errors
/// [`ConfigError::Defaults`] when the type cannot be written as TOML.
pub fn to_toml<T: Serialize>(config: &T) -> Result<String, ConfigError> {
    toml::to_string_pretty(config).map_err(|error| ConfigError::Defaults(error.to_string()))
}

/// Writes the config to `path` at once, so that a run can be repeated from it.
///
/// # Errors
/// [`ConfigError::Dump`] when the file cannot be written.
pub fn dump<T: Serialize>(config: &T, path: &Path) -> Result<(), ConfigError> {
    let text = to_toml(config)?;
    crate::atomic::write(path, text.as_bytes()).map_err(|source| ConfigError::Dump { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<toml::Table, Problem> {
    let layer = format!("file {}", path.display());
    let problem = |message: String| Problem { key: String::new(), layer: layer.clone(), message, suggestion: None };
    let text = text(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    text.parse::<toml::Table>().map_err(|error| {
        let line = error.span().map_or(0, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        problem(format!("is not TOML (line {line}): {}", error.message().replace('\n', " ")))
    })
}

/// The text of a file, or of a pipe that a shell has opened for this process.
fn text(path: &Path) -> io::Result<String> {
    if !is_handed_over(path) {
        return hypereyes_outside::files::read_to_string(path, MAX_FILE_BYTES);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("has more than {MAX_FILE_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8 text"))
}

/// Whether a path names a pipe among this process's own descriptors: `--config <(make settings)`, `--config /dev/stdin`. Whoever
/// started the process holds its other end; a pipe with a name of its own may have nobody there, for ever.
fn is_handed_over(path: &Path) -> bool {
    let own = ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder)) || path == Path::new("/dev/stdin");
    own && std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// One thing that is wrong with what the user said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Key path with dots, such as `learner.lr`; empty when the layer as a whole is wrong.
    pub key: String,
    /// Where it was said: `file run.toml`, `environment HYPEREYES__LEARNER__LR`, `--set learner.lr=x`.
    pub layer: String,
    /// What is wrong.
    pub message: String,
    /// The key that was probably meant.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.layer, self.message)?;
        } else {
            write!(f, "{} (from {}): {}", self.key, self.layer, self.message)?;
        }
        match &self.suggestion {
            Some(key) => write!(f, "; did you mean {key}?"),
            None => Ok(()),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The user said something that is wrong; never empty.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "))]
    Problems(Vec<Problem>),
    /// The config type or its defaults cannot be TOML: a mistake in the program.
    #[error("the configuration type cannot be used: {0}")]
    Defaults(String),
    /// The config could not be written.
    #[error("cannot write the configuration to {path}: {source}")]
    Dump {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl From<ConfigError> for crate::BadInput {
    fn from(error: ConfigError) -> Self {
        crate::BadInput::new(error.to_string())
    }
}

#[cfg(test)]
mod tests;
