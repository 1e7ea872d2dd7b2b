//! What `up` is told for an arm with a seed. In: the arm. Out: checked settings; nothing of this process's environment is in them, so that
//! a study is the same wherever it runs.

use std::path::Path;

use anyhow::Result;
use hypereyes_chassis::{BadInput, config};
use hypereyes_study::{Arm, Model};
use toml::{Table, Value};

use super::StudyFolder;
use crate::config::{Config, ENV_PREFIX};

/// Settings of the command line with a table on top of their defaults.
///
/// # Errors
/// [`BadInput`] that begins with `key`.
pub fn of_table(key: &str, table: &Table) -> Result<Config, BadInput> {
    let named = |error: &dyn std::fmt::Display| BadInput::new(format!("{key}: {error}"));
    let file = tempfile::NamedTempFile::new().map_err(|error| named(&error))?;
    std::fs::write(file.path(), toml::to_string(table).map_err(|error| named(&error))?).map_err(|error| named(&error))?;
    let read: Result<Config, _> = config::load_from(Config::default(), Some(file.path()), ENV_PREFIX, [], &[]);
    // The name of a file that nobody has written says nothing.
    let config = read.map_err(|error| named(&error.to_string().replace(&file.path().display().to_string(), "settings")))?;
    config.check_places().map_err(|error| named(&error))?;
    Ok(config)
}

/// Settings of an arm with a seed, whose run is in the study's folder. The models that it names need not be there yet.
///
/// # Errors
/// [`BadInput`] that names the arm and the key.
pub fn of_arm(arm: &Arm, seed: u64, folder: &StudyFolder) -> Result<Config, BadInput> {
    let key = format!("arms.{}", arm.name);
    let mut table = arm.settings.clone();
    // As TOML has no larger ones.
    let seed = i64::try_from(seed).map_err(|_| BadInput::new(format!("{key}: seed {seed} is too large: give one below 2^63")))?;
    table.insert("seed".into(), Value::Integer(seed));
    let mut config = of_table(&key, &table)?;
    config.run_dir = folder.run(&arm.name, config.seed).root().to_owned();
    let model = |name: &Option<String>| name.as_ref().map(|name| folder.model(name)).unwrap_or_default();
    (config.policy, config.teacher) = (model(&arm.policy), model(&arm.teacher));
    Ok(config)
}

/// Writes what `up --config` reads.
///
/// # Errors
/// When it cannot be written.
pub fn write(config: &Config, path: &Path) -> Result<()> {
    Ok(config::dump(&config.clone().unplaced(), path)?)
}

/// Settings of the commands that make a model.
///
/// # Errors
/// [`BadInput`] that names the model and the key.
pub fn of_model(model: &Model) -> Result<Config, BadInput> {
    of_table(&format!("models.{}.settings", model.name), &model.settings)
}
