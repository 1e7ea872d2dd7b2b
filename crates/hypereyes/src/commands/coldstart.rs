//! `hypereyes coldstart`: from a world pack to a policy that reinforcement learning can begin with, and its teacher.
//!
//! In: a world, minutes. Out: a folder with both policies and what they are worth. It is the recipe by which the shipped policies were made
//! (`assets/README.md`), each step a command of this program that could be typed: demonstrations that look at everything at once, a cold
//! start on them (the teacher; what it was before its rate had decayed is kept), demonstrations of mixed habits, some steps on those from
//! what was kept (the policy), and an evaluation of both. What is done is not done again by the same command.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use hypereyes_chassis::{BadInput, Shutdown, config as settings};
use hypereyes_outside::atomic;
use hypereyes_run::{read_json, write_json};
use hypereyes_trainer::sft::SftConfig;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::{again, check, output, parts};

/// Steps of a cold start below which nothing is learned but to copy.
const LEAST_STEPS: usize = 200;
/// Steps beyond which nobody has tried this recipe.
const MOST_STEPS: usize = 12_000;
/// Steps by which the speed of this machine is measured, half of them without pictures.
const TRIED: usize = 24;
/// Seconds that are spent whatever the minutes: trying the speed, and both evaluations.
const FIXED_SECONDS: f64 = 45.0;
/// Share of the other time that training of the teacher takes; the rest is demonstrations and habits.
const TEACHER_SHARE: f64 = 0.75;
/// Part of the teacher's steps after which the policy goes its own way: it can see then, and is not yet sure.
const PARTING: f64 = 0.8;
/// Steps on mixed habits as a part of the teacher's, and the fewest.
const HABITS: f64 = 0.08;
const LEAST_HABITS: usize = 120;
/// Rate of the steps on mixed habits.
const HABITS_LR: f64 = 8e-4;
/// Share of the teacher's steps without pictures; of a long training as many as the usual.
const BLIND_SHARE: f64 = 0.14;
/// Demonstrations for each step of training: every one is then seen once or twice.
const DEMONSTRATIONS: usize = 6;
/// What the recipe reached in the embedded world of 197 entities: steps of the teacher, questions of a picture right (percent).
const SEEN: [(usize, u32); 3] = [(1200, 52), (2000, 73), (3200, 92)];

/// Arguments of `coldstart`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes coldstart --world worlds/mine --minutes 30 --out policies/mine\n  \
    hypereyes up --set world=worlds/mine --set policy=policies/mine/policy --set teacher=policies/mine/teacher\n\n\
    The same command goes on where it was cut. `hypereyes world check DIR` says beforehand whether a pack is sound; --set changes what the \
    steps are told (synth, sft, miniature, tiny, rollout, seed).")]
pub struct ColdstartArgs {
    /// The world pack: a folder with world.toml, entities.jsonl and pictures/.
    #[arg(long, value_name = "DIR")]
    pub world: PathBuf,
    /// How long it may take on this machine, about.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub minutes: u32,
    /// Folder to write: policy/, teacher/, what they were made of, and result.json.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// What a folder was begun with: the same command goes on with it, another one is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Terms {
    world: String,
    minutes: u32,
    settings: String,
}

/// How the time is spent, decided once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Schedule {
    /// Seconds of a step with pictures, as measured.
    step_seconds: f64,
    /// Steps of the teacher.
    teacher: usize,
    /// Step after which the policy parts from it.
    parting: usize,
    /// Steps on mixed habits.
    habits: usize,
    /// Demonstrations that look at everything at once.
    wide: usize,
}

/// What `--json` prints, and `result.json`. Field order is the order of the keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reached {
    policy: PathBuf,
    teacher: PathBuf,
    /// Of the policy, on held-out tasks, 0..=1.
    accuracy: f64,
    /// Of the policy.
    rounds: f64,
    /// Optimiser steps of the teacher and of the habits.
    steps: usize,
    /// Over all starts.
    seconds: f64,
    /// Of the policy without tools: what guessing comes to.
    closed_book_accuracy: f64,
    teacher_accuracy: f64,
    teacher_rounds: f64,
    /// What more time would buy.
    advice: String,
}

/// The folder of a cold start.
struct Place {
    root: PathBuf,
}

impl Place {
    fn of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.of(name).display().to_string()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }
}

/// Makes policy and teacher, or goes on with it.
///
/// # Errors
/// [`BadInput`] for a world or settings that cannot be used, and for a folder that was begun otherwise; what a step says.
pub fn run(config: &Config, args: &ColdstartArgs, json: bool) -> Result<()> {
    for (key, named) in [("world", &config.world), ("policy", &config.policy), ("teacher", &config.teacher)] {
        if !named.as_os_str().is_empty() {
            return Err(
                BadInput::new(format!("{key} is {}, and `coldstart` makes or is given its own: leave it out", named.display())).into()
            );
        }
    }
    let mut config = Config { world: std::path::absolute(&args.world)?, ..config.clone() };
    config.run_dir = PathBuf::new();
    check::cold_start(&config).result()?;
    check::tasks(&config).result()?;
    let world = parts::world(&config)?;
    check::world::tasks(&config, &world).result()?;
    parts::telemetry()?;
    let place = Place { root: std::path::absolute(&args.out)? };
    let held = begin(&place, &config, args, &world.digest())?;
    let runtime = parts::runtime()?;
    let reached = runtime.block_on(async {
        let shutdown = Shutdown::on_signal().context("cannot listen for signals")?;
        all(&place, &config, args, &shutdown).await
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(held);
    let reached = reached?;
    if json {
        output::json(&reached);
        return Ok(());
    }
    let percent = |share: f64| share * 100.0;
    output::say(&format!(
        "policy   {}: {:.1} % right in {:.2} rounds",
        reached.policy.display(),
        percent(reached.accuracy),
        reached.rounds
    ));
    output::say(&format!(
        "teacher  {}: {:.1} % right in {:.2} rounds; without tools the policy guesses {:.1} %",
        reached.teacher.display(),
        percent(reached.teacher_accuracy),
        reached.teacher_rounds,
        percent(reached.closed_book_accuracy)
    ));
    output::say(&format!("{} steps in {:.0} s. {}", reached.steps, reached.seconds, reached.advice));
    output::say(&format!(
        "next: hypereyes up --set world={} --set policy={} --set teacher={}",
        args.world.display(),
        reached.policy.display(),
        reached.teacher.display()
    ));
    Ok(())
}

/// Takes the folder, and refuses one that was begun on other terms.
fn begin(place: &Place, config: &Config, args: &ColdstartArgs, world: &str) -> Result<std::fs::File> {
    let bad = |error: std::io::Error| BadInput::new(format!("cannot write into {}: {error}", place.root.display()));
    let terms = Terms { world: world.to_owned(), minutes: args.minutes, settings: settings::to_toml(config)? };
    let path = place.of("terms.json");
    if path.exists() {
        let known: Terms = read_json(&path)?;
        if known != terms {
            let key = match &known {
                known if known.minutes != terms.minutes => format!("--minutes {}", known.minutes),
                known if known.world != terms.world => "another world, or another state of it".to_owned(),
                _ => "other settings".to_owned(),
            };
            return Err(BadInput::new(format!("{} was begun with {key}: give another --out, or take it away", place.root.display())).into());
        }
    } else if place.root.exists() && std::fs::read_dir(&place.root).map_err(bad)?.next().is_some() {
        return Err(BadInput::new(format!("{} holds files that are no cold start: give another --out", place.root.display())).into());
    }
    std::fs::create_dir_all(place.of("logs")).map_err(bad)?;
    let lock = std::fs::File::create(place.of("lock")).map_err(bad)?;
    lock.try_lock().map_err(|_| BadInput::new(format!("another cold start is at work in {}", place.root.display())))?;
    write_json(&path, &terms)?;
    atomic::write(&place.of("settings.toml"), terms.settings.as_bytes()).map_err(bad)?;
    Ok(lock)
}

async fn all(place: &Place, config: &Config, args: &ColdstartArgs, shutdown: &Shutdown) -> Result<Reached> {
    if place.of("result.json").exists() {
        return read_json(&place.of("result.json"));
    }
    let began = Instant::now();
    let before: f64 = if place.of("seconds.json").exists() { read_json(&place.of("seconds.json"))? } else { 0.0 };
    let done = steps(place, config, args, shutdown).await;
    let seconds = before + began.elapsed().as_secs_f64();
    write_json(&place.of("seconds.json"), &seconds)?;
    let schedule = done?;
    let (policy, teacher): (Measured, Measured) = (read_json(&place.of("policy.json"))?, read_json(&place.of("teacher.json"))?);
    let reached = Reached {
        policy: place.of("policy"),
        teacher: place.of("teacher"),
        accuracy: policy.accuracy,
        rounds: policy.rounds,
        steps: schedule.teacher + schedule.habits,
        seconds,
        closed_book_accuracy: policy.closed_book_accuracy,
        teacher_accuracy: teacher.accuracy,
        teacher_rounds: teacher.rounds,
        advice: advice(&schedule, teacher.accuracy),
    };
    write_json(&place.of("result.json"), &reached)?;
    Ok(reached)
}

/// Of what `eval --json` prints.
#[derive(Clone, Debug, Deserialize)]
struct Measured {
    accuracy: f64,
    rounds: f64,
    closed_book_accuracy: f64,
}

/// Minutes in which the teacher has so many steps.
fn minutes_for(steps: usize, step_seconds: f64) -> f64 {
    ((steps as f64 * step_seconds / TEACHER_SHARE + FIXED_SECONDS) / 60.0).ceil()
}

fn advice(schedule: &Schedule, accuracy: f64) -> String {
    let known: Vec<String> = SEEN.iter().map(|(steps, right)| format!("{right} % after {steps}")).collect();
    let known = known.join(", ");
    if accuracy >= 0.85 {
        "More time would buy little: the teacher is right in most tasks".to_owned()
    } else if schedule.teacher >= MOST_STEPS {
        format!(
            "More steps than {MOST_STEPS} are not taken, nobody has tried them: fewer look-alikes, larger canvases (synth.canvas) or a larger policy \
             (tiny) may help"
        )
    } else {
        format!(
            "The teacher had {} steps at {:.2} s; with the embedded countries it was right in {known}, and another world may take more or less: \
             --minutes {} would double them",
            schedule.teacher,
            schedule.step_seconds,
            minutes_for(2 * schedule.teacher, schedule.step_seconds)
        )
    }
}

/// Every step that is not done.
async fn steps(place: &Place, config: &Config, args: &ColdstartArgs, shutdown: &Shutdown) -> Result<Schedule> {
    let told = place.text("settings.toml");
    let synth = async |name: &'static str, sets: &[String]| -> Result<()> {
        let data = place.of(name);
        // The tasks' file is written last, so a set that has it is whole.
        if data.join(hypereyes_dataset::TASKS).exists() {
            return Ok(());
        }
        let out = place.text(name);
        let mut line = vec!["synth", "--config", &told, "--out", &out];
        sets.iter().for_each(|set| line.extend(["--set", set.as_str()]));
        again::run(name, &line, &place.log(name), shutdown).await.map(|_| ())
    };
    let parallel = ["serial=0", "pairs=0", "parallel=1", "jitter=0", "hasty=0"].map(|set| format!("synth.explorer.{set}"));
    if !place.of("schedule.json").exists() {
        synth("sample", &[&parallel[..], &["synth.tasks=200".to_owned()]].concat()).await?;
        let schedule = scheduled(place, config, args, shutdown).await?;
        write_json(&place.of("schedule.json"), &schedule)?;
    }
    let schedule: Schedule = read_json(&place.of("schedule.json"))?;
    synth("wide", &[&parallel[..], &[format!("synth.tasks={}", schedule.wide)]].concat()).await?;
    let parted = place.of(&format!("teacher-{}", schedule.parting));
    if !(place.of("teacher").join("config.json").exists() && parted.join("config.json").exists()) {
        let blind = config.miniature.blind_steps.min((schedule.teacher as f64 * BLIND_SHARE) as usize);
        let sets = [format!("sft.steps={}", schedule.teacher), format!("miniature.blind_steps={blind}")];
        let (data, keep) = (place.of("wide"), schedule.parting.to_string());
        sft(place, shutdown, "teacher", &data, &["--keep", &keep], &sets).await?;
    }
    synth("mixed", &[format!("seed={}", config.seed.wrapping_add(1)), format!("synth.tasks={}", (schedule.wide / 4).max(200))]).await?;
    if !place.of("policy").join("config.json").exists() {
        let sets = [
            format!("sft.steps={}", schedule.habits),
            format!("sft.lr={}", config.sft.lr.unwrap_or(HABITS_LR)),
            "miniature.blind_steps=0".to_owned(),
            format!("miniature.glances={}", config.miniature.glances.min(0.2)),
        ];
        let from = parted.display().to_string();
        sft(place, shutdown, "policy", &place.of("mixed"), &["--model", &from], &sets).await?;
    }
    for name in ["teacher", "policy"] {
        let report = place.of(&format!("{name}.json"));
        if !report.exists() {
            let model = place.text(name);
            let said = again::run(
                "evaluation",
                &["eval", "--config", &told, "--model", &model, "--json"],
                &place.log(&format!("eval-{name}")),
                shutdown,
            )
            .await?;
            atomic::write(&report, said.as_bytes())?;
        }
    }
    Ok(schedule)
}

/// One cold start into `place/name`, gone on with where it was cut.
async fn sft(place: &Place, shutdown: &Shutdown, name: &'static str, data: &Path, more: &[&str], sets: &[String]) -> Result<String> {
    let (told, data, out) = (place.text("settings.toml"), data.display().to_string(), place.text(name));
    let mut line = vec!["sft", "--config", &told, "--recipe", "miniature", "--data", &data, "--out", &out, "--json"];
    line.extend(more);
    sets.iter().for_each(|set| line.extend(["--set", set.as_str()]));
    if place.of(&format!("{name}.checkpoint")).exists() {
        line.push("--resume");
    }
    again::run(name, &line, &place.log(name), shutdown).await
}

/// Measures how long a step takes on this machine, and deals out the minutes.
async fn scheduled(place: &Place, config: &Config, args: &ColdstartArgs, shutdown: &Shutdown) -> Result<Schedule> {
    let time = async |blind: usize| -> Result<f64> {
        let scratch = place.of("tried");
        let _ = std::fs::remove_dir_all(&scratch); // It is there after a cut only.
        let sets = [
            format!("sft.steps={TRIED}"),
            format!("miniature.blind_steps={blind}"),
            "sft.checkpoint_every=0".to_owned(),
            format!("sft.warmup={}", SftConfig::default().warmup),
        ];
        let said = sft(place, shutdown, "tried", &place.of("sample"), &[], &sets).await?;
        let told: serde_json::Value = serde_json::from_str(&said).context("what sft printed")?;
        std::fs::remove_dir_all(&scratch).context("cannot remove what was tried")?;
        Ok(told["seconds"].as_f64().context("sft says its seconds")? / TRIED as f64)
    };
    let step_seconds = time(0).await?;
    let seconds = (f64::from(args.minutes) * 60.0 - FIXED_SECONDS) * TEACHER_SHARE;
    let teacher = ((seconds / step_seconds) as usize).min(MOST_STEPS);
    if teacher < LEAST_STEPS {
        let needed = minutes_for(LEAST_STEPS, step_seconds);
        let text = format!(
            "--minutes {}: a step takes {step_seconds:.2} s here, and {teacher} of them teach nothing; give {needed} or more (a good policy \
             of the embedded world took 3200)",
            args.minutes
        );
        return Err(BadInput::new(text).into());
    }
    let parting = (teacher as f64 * PARTING) as usize;
    let habits = ((teacher as f64 * HABITS) as usize).max(LEAST_HABITS);
    // A larger batch shows more of them at a step.
    let shown = DEMONSTRATIONS * config.sft.batch_tokens.div_ceil(SftConfig::default().batch_tokens);
    let wide = (teacher * shown).clamp(400, 20_000);
    Ok(Schedule { step_seconds, teacher, parting, habits, wide })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_more_time_would_buy_is_said_as_far_as_it_is_known() {
        let schedule = Schedule { step_seconds: 0.18, teacher: 1000, parting: 800, habits: 120, wide: 6000 };
        assert!(advice(&schedule, 0.9).starts_with("More time would buy little"));
        let text = advice(&schedule, 0.4);
        assert!(
            text.contains("1000 steps at 0.18 s") && text.contains("73 % after 2000") && text.contains("--minutes 9 would double"),
            "{text}"
        );
        assert!(advice(&Schedule { teacher: MOST_STEPS, ..schedule }, 0.4).contains("a larger policy"));
    }
}
