//! The task sets that `up` trains and measures on where somebody names them, instead of having them made from `synth`.
//!
//! In: settings. Out: what is wrong with the folders, how many tasks they hold, and the folders in their places in the run. It makes no
//! task.

use std::path::Path;

use anyhow::{Context, Result};
use hypereyes_chassis::Findings;
use hypereyes_dataset::Tasks;

use crate::config::Config;
use crate::services::absolute;

/// The folders by their keys; one that is not named is empty.
fn named(config: &Config) -> [(&'static str, &Path); 2] {
    [("up.tasks", &config.up.tasks), ("up.held_out", &config.up.held_out)]
}

/// The same settings with folders that are found from anywhere: a run may be gone on with from elsewhere.
///
/// # Errors
/// Where this folder has no name.
pub fn placed(mut config: Config) -> Result<Config> {
    for path in [&mut config.up.tasks, &mut config.up.held_out] {
        if !path.as_os_str().is_empty() {
            *path = absolute(path)?;
        }
    }
    Ok(config)
}

/// What is wrong with the folders that are named.
pub fn findings(config: &Config) -> Findings {
    let mut found = Findings::default();
    for (key, path) in named(config) {
        if path.as_os_str().is_empty() {
            continue;
        }
        match Tasks::open(path) {
            Ok(tasks) if tasks.is_empty() => found.refuse(key, format!("is {}, which holds no task", path.display())),
            Ok(_) => {}
            Err(error) => found.refuse(key, format!("cannot be read: {error}")),
        }
    }
    found
}

/// Tasks to train on and held out, as far as they are known beforehand.
pub fn counts(config: &Config) -> [usize; 2] {
    let made = [config.synth.tasks, config.synth.held_out];
    let of = |at: usize| {
        let (_, path) = named(config)[at];
        if path.as_os_str().is_empty() { made[at] } else { Tasks::open(path).map_or(0, |tasks| tasks.len()) }
    };
    [of(0), of(1)]
}

/// Puts a set that is named into its place in a run, as a link to it. A link that is there, of a run that was cut here, is replaced.
///
/// # Errors
/// What the file system says, and a set of its own in that place.
pub fn link(set: &Path, place: &Path) -> Result<()> {
    let told = || format!("cannot link {} to {}", place.display(), set.display());
    if let Some(around) = place.parent() {
        std::fs::create_dir_all(around).with_context(told)?;
    }
    if place.is_symlink() {
        std::fs::remove_file(place).with_context(told)?;
    }
    std::os::unix::fs::symlink(set, place).with_context(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_are_named_are_looked_at_counted_and_linked() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let row = r#"{"id": "a", "kind": "k", "question": "q", "answers": ["1"]}"#;
        std::fs::write(folder.path().join("tasks.jsonl"), row).expect("written");
        let mut config = Config::default();
        assert_eq!(counts(&config), [config.synth.tasks, config.synth.held_out]);
        config.up.held_out = folder.path().to_owned();
        assert_eq!(counts(&config), [config.synth.tasks, 1]);
        assert!(findings(&config).result().is_ok());
        config.up.tasks = folder.path().join("none");
        let error = findings(&config).result().expect_err("no set").to_string();
        assert!(error.contains("up.tasks") && error.contains("data import"), "{error}");
        let place = folder.path().join("run/tasks/held_out");
        link(folder.path(), &place).expect("linked");
        link(folder.path(), &place).expect("linked again");
        assert_eq!(Tasks::open(&place).expect("the same").len(), 1);
        let made = folder.path().join("run/tasks/train");
        std::fs::create_dir(&made).expect("a folder");
        assert!(link(folder.path(), &made).is_err_and(|error| error.to_string().contains("run/tasks/train")), "nobody's set is replaced");
    }
}
