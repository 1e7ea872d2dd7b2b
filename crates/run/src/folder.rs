//! The folder of one run of `up`, and the learner's in it: where everything lies, what state it is in, and who holds it.
//!
//! In: a path, or the question for a fresh or the newest one. Out: paths, a [`State`], a lock. It knows no process and no model.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use hypereyes_outside::atomic;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::format;

/// Folder that holds run folders when none is named.
pub const RUNS: &str = "runs";
/// What an `up` of a release before the folder `services` holds.
const FORMER_LOCK: &str = "rooms/lock";
/// Larger JSON files than this are none of ours.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// What a run folder holds so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not there, or an empty folder.
    Fresh,
    /// A run that did not come to its end.
    Unfinished,
    /// A run with its result.
    Finished,
    /// Files that are no run.
    Foreign,
}

/// Kept beside the run so that a resumed one can go on counting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Seconds of all attempts that have ended.
    pub wall_seconds: f64,
    /// Attempts begun: 1 for a run that was never interrupted.
    #[serde(alias = "sittings")]
    pub attempts: u32,
    /// Restarts of each service.
    pub restarts: BTreeMap<String, u32>,
}

/// Where the services of a run listen, while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// The learner.
    pub learner: SocketAddr,
    /// The reward service.
    pub reward: SocketAddr,
    /// The teacher service; absent without distillation.
    pub teacher: Option<SocketAddr>,
}

/// A run folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    root: PathBuf,
}

/// The right to write into a run folder; given back when dropped.
#[derive(Debug)]
pub struct Held {
    lock: File,
}

impl Drop for Held {
    /// A program that is being started at this moment still has the descriptor: closing ours would leave the lock with it.
    fn drop(&mut self) {
        let _ = self.lock.unlock(); // Closing it is the next best.
    }
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        $($(#[$doc])* pub fn $name(&self) -> PathBuf { self.root.join($path) })*
    };
}

/// What a learner writes: a part of a run folder, or by itself where a learner runs alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnerFolder {
    root: PathBuf,
}

impl LearnerFolder {
    /// The folder at `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    paths! {
        /// One line per optimiser step: [`Step`](crate::Step).
        metrics = "metrics.jsonl";
        /// One line per event of a group: [`ledger`](crate::ledger).
        ledger = "groups.jsonl";
        /// Groups of some steps: [`Recorded`](crate::Recorded).
        trajectories = "trajectories.jsonl";
        /// Checkpoints.
        checkpoint = "checkpoint";
        /// What the newest checkpoint holds.
        manifest = "checkpoint/manifest.json";
        /// The newest policy.
        policy = "policy";
        /// Which policy that is: [`SavedPolicy`](crate::SavedPolicy).
        saved = "policy.json";
    }
}

impl RunFolder {
    /// The folder at `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A name for a run that begins now: `runs/<UTC date and time>-<seed>`.
    pub fn fresh(seed: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::new(Path::new(RUNS).join(format!("{}-{seed}", stamp(now))))
    }

    /// The newest run under `runs` that satisfies `wanted`, by the time of its resolved configuration.
    pub fn newest(runs: &Path, wanted: impl Fn(&RunFolder) -> bool) -> Option<Self> {
        let began = |folder: &RunFolder| fs::metadata(folder.config()).and_then(|meta| meta.modified()).ok();
        let folders = fs::read_dir(runs).ok()?.filter_map(|entry| Some(RunFolder::new(entry.ok()?.path())));
        folders
            .filter_map(|folder| Some((began(&folder)?, folder)))
            .filter(|(_, folder)| wanted(folder))
            .max_by(|a, b| a.0.cmp(&b.0))
            .map(|it| it.1)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    paths! {
        /// The resolved configuration.
        config = "config.toml";
        /// Configurations and announcements of services.
        services = "services";
        /// Logs of services.
        logs = "logs";
        /// Tasks to train on.
        train = "tasks/train";
        /// Tasks to measure with.
        held_out = "tasks/held_out";
        /// Models that were compiled in, unpacked.
        models = "models";
        /// The settings of every start.
        attempts = "attempts";
        /// One line per start.
        attempts_list = "attempts.jsonl";
        /// What the learner writes.
        learner = "learner";
        /// The reward service's store.
        reward = "reward";
        /// The teacher service's store.
        teacher = "teacher";
        /// What the start policy scored; there once it was measured.
        before = "before.json";
        /// Its trajectories.
        held_out_before = "held_out_before.jsonl";
        /// Trajectories of the trained policy.
        held_out_after = "held_out_after.jsonl";
        /// One line per version that was measured while it was trained.
        evaluations = "evaluations.jsonl";
        /// The best of those, as a model folder.
        best = "best";
        /// What it was measured to be.
        best_json = "best.json";
        /// Time and restarts so far.
        progress = "progress.json";
        /// Where the services listen.
        addresses = "services/addresses.json";
        /// The result; there once the run is finished.
        result = "result.json";
        /// The report.
        report = "report.html";
    }

    /// What the learner writes.
    pub fn of_learner(&self) -> LearnerFolder {
        LearnerFolder::new(self.learner())
    }

    /// The learner's checkpoints.
    pub fn checkpoint(&self) -> PathBuf {
        self.of_learner().checkpoint()
    }

    /// The newest policy.
    pub fn policy(&self) -> PathBuf {
        self.of_learner().policy()
    }

    /// One line per optimiser step.
    pub fn metrics(&self) -> PathBuf {
        self.of_learner().metrics()
    }

    /// One line per event of a group.
    pub fn ledger(&self) -> PathBuf {
        self.of_learner().ledger()
    }

    /// A service's configuration.
    pub fn service_config(&self, service: &str) -> PathBuf {
        self.services().join(format!("{service}.toml"))
    }

    /// Where a service announces its addresses.
    pub fn announcement(&self, service: &str) -> PathBuf {
        self.services().join(format!("{service}.json"))
    }

    /// A service's log.
    pub fn log(&self, service: &str) -> PathBuf {
        self.logs().join(format!("{service}.log"))
    }

    /// The step of the learner's newest checkpoint, if there is one.
    pub fn checkpoint_step(&self) -> Option<u64> {
        let manifest: serde_json::Value = read_json(&self.of_learner().manifest()).ok()?;
        manifest.get("manifest")?.get("step")?.as_u64()
    }

    /// What is there.
    pub fn state(&self) -> State {
        let empty = || fs::read_dir(&self.root).map_or(true, |mut entries| entries.next().is_none());
        match (self.result().exists(), self.config().exists()) {
            (true, _) => State::Finished,
            (false, true) => State::Unfinished,
            (false, false) if !self.root.exists() || (self.root.is_dir() && empty()) => State::Fresh,
            (false, false) => State::Foreign,
        }
    }

    /// Refuses a folder that a later release wrote.
    ///
    /// # Errors
    /// [`BadInput`] that says which.
    pub fn readable(&self) -> Result<()> {
        Ok(format::admit(&self.root).map(drop)?)
    }

    /// Whether a run may begin (or, with `resume`, go on) here.
    ///
    /// # Errors
    /// [`BadInput`] that says what is there and what to do.
    pub fn admit(&self, resume: bool) -> Result<()> {
        self.readable()?;
        let root = self.root.display();
        let refusal = match (self.state(), resume) {
            (State::Fresh, false) | (State::Unfinished, true) => return Ok(()),
            (State::Fresh, true) => format!("{root} holds no run that could be resumed: leave --resume out to start one there"),
            (State::Unfinished, false) => {
                format!("{root} holds an unfinished run: add --resume to go on with it, or choose another run_dir")
            }
            (State::Finished, _) => {
                format!("{root} holds a finished run (its report is {}): choose another run_dir", self.report().display())
            }
            (State::Foreign, _) => format!("{root} is not empty and holds no run: choose another run_dir"),
        };
        Err(BadInput::new(refusal).into())
    }

    /// Makes the folder with its inner folders and takes the right to write into it.
    ///
    /// # Errors
    /// [`BadInput`] when it cannot be made or another process holds it.
    pub fn hold(&self) -> Result<Held> {
        for folder in [self.services(), self.logs()] {
            let failed = |error| BadInput::new(format!("cannot make {}: {error}; choose a run_dir that can be written", folder.display()));
            fs::create_dir_all(&folder).map_err(failed)?;
        }
        let path = self.services().join("lock");
        let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) if is_locked(&self.root.join(FORMER_LOCK)) => Err(self.held_by_another()),
            Ok(()) => {
                format::mark(&self.root).with_context(|| format!("cannot write into {}", self.root.display()))?;
                Ok(Held { lock })
            }
            Err(TryLockError::WouldBlock) => Err(self.held_by_another()),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    fn held_by_another(&self) -> anyhow::Error {
        let root = self.root.display();
        BadInput::new(format!("another `hypereyes up` is running in {root}: stop it first, or choose another run_dir")).into()
    }

    /// Whether some process holds the right to write here.
    pub fn is_held(&self) -> bool {
        is_locked(&self.services().join("lock")) || is_locked(&self.root.join(FORMER_LOCK))
    }
}

/// Whether some process has locked a file; none has one that is not there.
fn is_locked(path: &Path) -> bool {
    File::open(path).is_ok_and(|lock| match lock.try_lock_shared() {
        Ok(()) => lock.unlock().is_err(),
        Err(error) => matches!(error, TryLockError::WouldBlock),
    })
}

/// Writes a value as JSON, whole.
///
/// # Errors
/// Those of the file system.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(value).expect("our values are plain");
    atomic::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a JSON file of ours.
///
/// # Errors
/// When it is not there or not what it should be; the text names the file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = hypereyes_outside::files::read(path, MAX_JSON_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

/// The day of a moment in UTC, as `2025-11-22`; one before 1970 is the first of that year.
pub fn day(moment: SystemTime) -> String {
    let stamp = stamp(moment.duration_since(UNIX_EPOCH).unwrap_or_default());
    let (date, _) = stamp.split_once('-').expect("a date and a time");
    let (year, month_day) = date.split_at(date.len() - 4);
    format!("{year}-{}-{}", &month_day[..2], &month_day[2..])
}

/// `20251122-094207` in UTC.
fn stamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, within) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil-from-days: years begin in March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", within / 3600, within / 60 % 60, within % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_admits_what_fits_its_state_and_says_what_to_do_otherwise() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::new(parent.path().join("run"));
        assert_eq!(folder.state(), State::Fresh);
        folder.admit(false).expect("nothing is there");
        assert!(folder.admit(true).expect_err("nothing to resume").to_string().contains("leave --resume out"));

        let held = folder.hold().expect("made");
        fs::write(folder.config(), "seed = 1").expect("written");
        assert_eq!(folder.state(), State::Unfinished);
        folder.admit(true).expect("resumable");
        assert!(folder.admit(false).expect_err("would mix two runs").to_string().contains("--resume"));

        fs::write(folder.result(), "{}").expect("written");
        for resume in [false, true] {
            let error = folder.admit(resume).expect_err("finished");
            assert!(error.is::<BadInput>() && error.to_string().contains("report.html"), "{error}");
        }
        drop(held);

        let foreign = RunFolder::new(parent.path().join("photos"));
        fs::create_dir(foreign.root()).expect("made");
        fs::write(foreign.root().join("cat.png"), "x").expect("written");
        assert_eq!(foreign.state(), State::Foreign);
        assert!(foreign.admit(false).is_err() && foreign.admit(true).is_err());
    }

    #[test]
    fn two_runs_cannot_hold_one_folder() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = RunFolder::new(parent.path());
        assert!(!folder.is_held());
        let held = folder.hold().expect("free");
        assert!(folder.is_held());
        assert!(folder.hold().expect_err("taken").to_string().contains("another"));
        drop(held);
        assert!(!folder.is_held());
        folder.hold().expect("free again");
        // A process of the release before holds it where that one looked.
        let path = parent.path().join(FORMER_LOCK);
        fs::create_dir(path.parent().expect("it is in a folder")).expect("made");
        let former = File::create(path).expect("made");
        folder.hold().expect("nobody has it");
        former.try_lock().expect("free");
        assert!(folder.is_held() && folder.hold().is_err());
    }

    #[test]
    fn the_newest_run_is_found_by_what_is_wanted() {
        let runs = tempfile::tempdir().expect("a temporary folder");
        let make = |name: &str, finished: bool, age: u64| {
            let folder = RunFolder::new(runs.path().join(name));
            folder.hold().expect("made");
            let config = File::create(folder.config()).expect("made");
            config.set_modified(SystemTime::now() - Duration::from_secs(age)).expect("set");
            if finished {
                fs::write(folder.result(), "{}").expect("written");
            }
        };
        make("a", true, 10);
        make("b", false, 20);
        make("c", false, 30);
        let newest = |state: State| RunFolder::newest(runs.path(), |folder| folder.state() == state);
        assert_eq!(newest(State::Unfinished).expect("two").root(), runs.path().join("b"));
        assert_eq!(newest(State::Finished).expect("one").root(), runs.path().join("a"));
        assert_eq!(RunFolder::newest(&runs.path().join("none"), |_| true), None);
    }

    #[test]
    fn stamps_are_dates_in_utc() {
        assert_eq!(stamp(Duration::ZERO), "19700101-000000");
        assert_eq!(stamp(Duration::from_secs(951_782_400)), "20000229-000000");
        assert_eq!(stamp(Duration::from_secs(1_763_804_527)), "20251122-094207");
        assert_eq!(day(UNIX_EPOCH + Duration::from_secs(1_763_804_527)), "2025-11-22");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_bad_input() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        fs::write(parent.path().join("file"), "x").expect("written");
        let error = RunFolder::new(parent.path().join("file/run")).hold().expect_err("a file is in the way");
        assert!(error.is::<BadInput>(), "{error}");
    }
}
