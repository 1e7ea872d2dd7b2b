//! `hypereyes prepare`: what services on other machines start from, in one folder: the compiled-in models and the tasks.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use hypereyes_chassis::{BadInput, Findings};
use hypereyes_dataset::TASKS;
use hypereyes_miniature::shipped::Shipped;
use hypereyes_synth::Split;
use serde_json::json;

use super::synth;
use crate::config::Config;
use crate::{output, parts};

/// One folder that a service may read.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// The model that the learner trains and actors sample.
    Policy,
    /// The model that the teacher service serves.
    Teacher,
    /// The learner's tasks.
    Train,
    /// Tasks for `hypereyes eval`.
    HeldOut,
}

impl Part {
    const ALL: [Self; 4] = [Self::Policy, Self::Teacher, Self::Train, Self::HeldOut];

    /// Its folder, and its word in the report.
    fn folder(self) -> &'static str {
        match self {
            Self::Policy => Shipped::Policy.label(),
            Self::Teacher => Shipped::Teacher.label(),
            Self::Train => "train",
            Self::HeldOut => "held_out",
        }
    }

    /// What it is, for people.
    fn describe(self, config: &Config) -> String {
        match self {
            Self::Policy | Self::Teacher => self.folder().to_owned(),
            Self::Train => format!("{} tasks to train on", config.synth.tasks),
            Self::HeldOut => format!("{} tasks held out", config.synth.held_out),
        }
    }
}

/// Arguments of `prepare`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes prepare --out /data --set synth.tasks=400\n  \
    hypereyes prepare --out /data --only policy            what an actor reads\n  \
    hypereyes prepare --out /data --only policy,train      what a learner reads\n\n\
    The same settings make the same files on every machine: /data/policy, /data/teacher, /data/train, /data/held_out.")]
pub struct PrepareArgs {
    /// Folder to write into; what is there already stays.
    #[arg(long)]
    pub out: PathBuf,
    /// Only these parts; all four without it. Making tasks takes seconds, and only a learner reads them.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
}

/// Writes what is missing.
pub fn run(config: &Config, args: &PrepareArgs, json: bool) -> Result<()> {
    let wanted = |part: &Part| args.only.is_empty() || args.only.contains(part);
    let parts: Vec<Part> = Part::ALL.into_iter().filter(wanted).collect();
    check(config, &parts).result()?;
    for part in &parts {
        let folder = args.out.join(part.folder());
        match part {
            Part::Policy => parts::unpack(Shipped::Policy, &folder)?,
            Part::Teacher => parts::unpack(Shipped::Teacher, &folder)?,
            Part::Train => tasks(config, Split::Train, &folder)?,
            Part::HeldOut => tasks(config, Split::HeldOut, &folder)?,
        }
    }
    if json {
        let names: Vec<&str> = parts.iter().map(|part| part.folder()).collect();
        output::json(&json!({
            "out": args.out.display().to_string(), "parts": names,
            "train": config.synth.tasks, "held_out": config.synth.held_out, "seed": config.seed,
        }));
    } else {
        let said: Vec<String> = parts.iter().map(|part| part.describe(config)).collect();
        output::say(&format!("{}: {}", args.out.display(), said.join(", ")));
    }
    Ok(())
}

/// What is wrong with the settings of the parts that are wanted, and what they would not change.
fn check(config: &Config, parts: &[Part]) -> Findings {
    let mut found = Findings::default();
    for (part, key, folder) in [(Part::Policy, "policy", &config.policy), (Part::Teacher, "teacher", &config.teacher)] {
        if parts.contains(&part) && !folder.as_os_str().is_empty() {
            let message = format!(
                "is {}, but `prepare` writes the model that is compiled in: leave it out, or leave {key} out with --only and give services your \
                 folder",
                folder.display()
            );
            found.refuse(key, message);
        }
    }
    for (part, key, count) in [(Part::Train, "synth.tasks", config.synth.tasks), (Part::HeldOut, "synth.held_out", config.synth.held_out)] {
        if parts.contains(&part) {
            found.at_least_one(key, count as u64);
        }
    }
    for (part, key, folder) in [(Part::Train, "up.tasks", &config.up.tasks), (Part::HeldOut, "up.held_out", &config.up.held_out)] {
        if parts.contains(&part) && !folder.as_os_str().is_empty() {
            let folder = folder.display();
            found.refuse(key, format!("is {folder}, but `prepare` makes tasks from `synth`: leave it out, or give services your folder"));
        }
    }
    if parts.iter().any(|part| matches!(part, Part::Train | Part::HeldOut)) {
        found.extend(crate::check::tasks(config));
    }
    found
}

/// A set of tasks, unless it is there.
fn tasks(config: &Config, split: Split, folder: &std::path::Path) -> Result<()> {
    // The tasks' file is written last, so a set that has it is whole.
    if folder.join(TASKS).exists() {
        return Ok(());
    }
    let set = crate::parts::runtime()?.block_on(synth::make(config, split))?;
    set.write(folder).map_err(|error| BadInput::new(error.to_string()).into())
}
