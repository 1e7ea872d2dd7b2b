//! Running a study: every arm with every seed as an `up` of its own.
//!
//! In: a plan, its lines, a folder. Out: a line per arm and seed that is done, in the study's file as soon as it is; the table, the page
//! and the curves in the folder, made anew each time. What was cut goes on where it was: `up` from its run folder, the study from its
//! lines.

pub mod cells;
pub mod models;
pub mod settings;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use hypereyes_outside::atomic;
use hypereyes_run::RunFolder;
use hypereyes_study::{Arm, Lines, Plan, Summary, curves, page};

/// Where a study writes.
#[derive(Clone, Debug)]
pub struct StudyFolder {
    root: PathBuf,
}

impl StudyFolder {
    /// The folder at `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The run of an arm with a seed.
    pub fn run(&self, arm: &str, seed: u64) -> RunFolder {
        RunFolder::new(self.root.join("runs").join(format!("{arm}-{seed}")))
    }

    /// What `up` is told for it.
    pub fn settings(&self, arm: &str, seed: u64) -> PathBuf {
        self.root.join("settings").join(format!("{arm}-{seed}.toml"))
    }

    /// On what terms its run was begun.
    pub fn terms(&self, arm: &str, seed: u64) -> PathBuf {
        self.root.join("settings").join(format!("{arm}-{seed}.terms.json"))
    }

    /// What a command of the study said.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    /// A model of the study, or a shipped one.
    pub fn model(&self, name: &str) -> PathBuf {
        self.root.join("models").join(name)
    }

    /// The page.
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// [`BadInput`] where they cannot be made.
    pub fn make(&self) -> Result<(), BadInput> {
        for name in ["runs", "settings", "logs", "models", "curves"] {
            let path = self.root.join(name);
            std::fs::create_dir_all(&path).map_err(|error| BadInput::new(format!("cannot make {}: {error}", path.display())))?;
        }
        Ok(())
    }

    /// Writes everything that people look at: the page, the table, the numbers, the curves.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn tell(&self, name: &str, plan: &Plan, lines: &Lines) -> Result<Summary> {
        let (summary, panels) = (Summary::of(plan, lines), curves::panels(plan, lines));
        let json = |value: serde_json::Value| value.to_string().into_bytes();
        let mut files = vec![
            (self.report(), page::render(name, plan, lines, &summary, &panels).into_bytes()),
            (self.root.join("table.md"), summary.markdown().into_bytes()),
            (self.root.join("summary.json"), json(serde_json::to_value(&summary)?)),
            (self.root.join("curves").join("curves.json"), json(serde_json::to_value(&panels)?)),
        ];
        files.extend(page::drawings(&panels).into_iter().map(|(name, text)| (self.root.join("curves").join(name), text.into_bytes())));
        for (path, bytes) in files {
            atomic::write(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(summary)
    }
}

/// What an arm with a seed is called in messages, logs and folders.
pub fn name(arm: &Arm, seed: u64) -> String {
    format!("{}-{seed}", arm.name)
}
