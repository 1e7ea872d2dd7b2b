//! The history of a run's settings: a line, and the settings as a whole, for each time that it was started.
//!
//! In: settings with which a run begins or goes on. Out: a line of `attempts.jsonl` and `attempts/<number>.toml` in its folder. A run of
//! before there was one begins its history with the settings that its folder has.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hypereyes_chassis::config;
use hypereyes_run::{Attempt, Change, RunFolder, attempts::record};

use crate::config::Config;

/// Keeps the settings of a start. What `config.toml` holds until then is kept first, if nobody did.
///
/// # Errors
/// Those of the file system.
pub fn keep(folder: &RunFolder, config: &Config, attempt: u32, step: u64, changes: &[Change]) -> Result<()> {
    let kept = |number: u32| folder.attempts().join(format!("{number}.toml"));
    let made = fs::create_dir_all(folder.attempts());
    made.with_context(|| format!("cannot make {}", folder.attempts().display()))?;
    let before = attempt.saturating_sub(1);
    if before > 0 && folder.config().exists() && !kept(before).exists() {
        fs::copy(folder.config(), kept(before)).with_context(|| format!("cannot write {}", kept(before).display()))?;
    }
    config::dump(config, &kept(attempt))?;
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = Attempt { attempt, time, version: env!("CARGO_PKG_VERSION").to_owned(), step, changes: changes.to_vec() };
    record(folder, now).with_context(|| format!("cannot write {}", folder.attempts_list().display()))
}

#[cfg(test)]
mod tests {
    use hypereyes_run::attempts::{read, told};

    use super::*;

    #[test]
    fn every_start_is_kept_whole_and_the_first_of_an_older_run_too() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::new(root.path());
        let mut config = Config::default();
        config::dump(&config, &folder.config()).expect("written");
        config.learner.lr = 1e-5;
        let changes = [Change { key: "learner.lr".into(), was: "0.0003".into(), is: "0.00001".into() }];
        keep(&folder, &config, 2, 12, &changes).expect("kept");
        let text = |number: u32| fs::read_to_string(folder.attempts().join(format!("{number}.toml"))).expect("kept");
        assert!(text(1).contains("lr = 0.0003") && text(2).contains("lr = 0.00001") && !text(1).contains("lr = 0.00001"), "{}", text(2));
        keep(&folder, &config, 3, 20, &[]).expect("kept");
        let all = read(&folder);
        assert_eq!((all.len(), all[0].attempt, all[1].step), (2, 2, 20));
        assert_eq!(told(&all), ["from step 12 on: learner.lr = 0.00001 (was 0.0003)"]);
        // A start that was killed before it was counted is started again under its number.
        keep(&folder, &config, 3, 21, &[]).expect("kept");
        assert_eq!(read(&folder).iter().map(|one| (one.attempt, one.step)).collect::<Vec<_>>(), [(2, 12), (3, 21)]);
    }
}
