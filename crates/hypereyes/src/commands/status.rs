//! `hypereyes status`: what a run is doing, or what became of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use hypereyes_chassis::{Announcement, BadInput};
use hypereyes_eval::{Evaluation, curve};
use hypereyes_run::{Addresses, RUNS, RunFolder, State, audit, follow, read_json};
use serde::Serialize;

use crate::config::Config;
use crate::services::{LearnerState, ask_learner};
use crate::{output, parts};

/// Arguments of `status`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes status\n  hypereyes status runs/20251122-094207-0 --json\n  hypereyes status --audit")]
pub struct StatusArgs {
    /// Run folder. Default: `run_dir` of the settings, else the newest under `runs/`.
    pub run: Option<PathBuf>,
    /// Check the ledger: that every group was trained once, or dropped for a reason. Contradictions fail the command.
    #[arg(long)]
    pub audit: bool,
}

/// What a service announced.
#[derive(Serialize)]
struct Service {
    name: String,
    addr: String,
    metrics: Option<String>,
    pid: u32,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Status {
    run_dir: PathBuf,
    /// `running`, `stopped`, `finished` or `broken` (held by `up`, but the learner does not answer).
    state: &'static str,
    step: Option<u64>,
    accuracy: Option<f64>,
    rounds: Option<f64>,
    learner: Option<LearnerState>,
    trouble: Option<String>,
    services: Vec<Service>,
    /// The version that was measured last while the policy was trained, and the best so far.
    evaluation: Option<Evaluation>,
    best: Option<Evaluation>,
}

/// Checks what became of every group.
fn check_ledger(folder: &RunFolder, json: bool) -> Result<()> {
    let path = folder.ledger();
    anyhow::ensure!(path.exists(), "there is no ledger at {}: nothing can be said of this run's groups", path.display());
    let audit = audit::audit(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if json {
        output::json(&audit);
    } else {
        let summary = &audit.summary;
        let others: Vec<String> = summary.others.iter().map(|(what, count)| format!("{count} {what}")).collect();
        output::say(&format!(
            "{}: {} lines, {} groups leased; {} trained, {} void, {} open{}{}",
            path.display(),
            audit.lines,
            summary.leased,
            summary.trained,
            summary.void,
            summary.open,
            if others.is_empty() { "" } else { "; " },
            others.join(", ")
        ));
        audit.listed.iter().for_each(|contradiction| output::say(&contradiction.to_string()));
    }
    anyhow::ensure!(audit.contradictions == 0, "{} lines of the ledger contradict others", audit.contradictions);
    let open = audit.summary.open;
    let still = if open == 0 { String::new() } else { format!("; {open} are still open") };
    output::note(&format!("every group was trained once, or ended for a reason{still}"));
    Ok(())
}

/// Looks and prints.
pub fn run(config: &Config, args: &StatusArgs, json: bool) -> Result<()> {
    let named = args.run.clone().or_else(|| Some(config.run_dir.clone()).filter(|path| !path.as_os_str().is_empty()));
    let folder = match named {
        Some(run) => RunFolder::new(run),
        None => RunFolder::newest(Path::new(RUNS), |_| true)
            .ok_or_else(|| BadInput::new(format!("no run under {RUNS}/: start one with `hypereyes up`")))?,
    };
    if !matches!(folder.state(), State::Unfinished | State::Finished) {
        return Err(BadInput::new(format!("{} holds no run", folder.root().display())).into());
    }
    folder.readable()?;
    if args.audit {
        return check_ledger(&folder, json);
    }
    let status = look(&folder)?;
    if json {
        output::json(&status);
        return Ok(());
    }
    output::say(&format!("{}: {}", folder.root().display(), status.state));
    if let Some(step) = follow::read_all(&folder.metrics()).unwrap_or_default().last() {
        output::say(&format!("step {}  {}", step.step, step.line()));
    }
    if let Some(learner) = &status.learner {
        output::say(&format!(
            "learner: version {}, epoch {}, groups {} trained, {} dropped, {} under way",
            learner.version, learner.epoch, learner.groups_trained, learner.groups_dropped, learner.groups_outstanding
        ));
        if learner.tasks_set_aside > 0 {
            let (count, ledger) = (learner.tasks_set_aside, folder.ledger());
            output::say(&format!("tasks set aside because they failed again and again: {count}; why is in {}", ledger.display()));
        }
    }
    if let Some(last) = &status.evaluation {
        output::say(&format!("held out: {}", told(last)));
    }
    if let Some(best) = &status.best {
        output::say(&format!("best:     {}; {}", told(best), folder.best().display()));
    }
    for service in &status.services {
        let metrics = service.metrics.as_ref().map(|at| format!(", metrics at http://{at}/metrics")).unwrap_or_default();
        output::say(&format!("{}: {} (process {}){metrics}", service.name, service.addr, service.pid));
    }
    match status.state {
        "finished" => {
            if let Ok(outcome) = hypereyes_report::outcome(&folder) {
                let (before, after) = (&outcome.summary.before, &outcome.summary.after);
                let (was, is) = (before.accuracy * 100.0, after.accuracy * 100.0);
                output::say(&format!("accuracy {was:.1} % to {is:.1} %, rounds {:.2} to {:.2}", before.rounds, after.rounds));
            }
            output::say(&format!("report: {}", folder.report().display()));
        }
        "stopped" => output::say(&format!("go on with: hypereyes up --resume --set run_dir={}", folder.root().display())),
        _ => {}
    }
    if let Some(trouble) = &status.trouble {
        output::say(&format!("the learner does not answer: {trouble}; see {}", folder.logs().display()));
    }
    Ok(())
}

/// A measurement on one line.
fn told(evaluation: &Evaluation) -> String {
    let Evaluation { step, report, .. } = evaluation;
    let [accuracy, low, high] = [report.accuracy, report.accuracy_interval.low, report.accuracy_interval.high].map(|share| share * 100.0);
    format!("step {step}, {accuracy:.1} % right [{low:.1}, {high:.1}] in {:.2} rounds, CAS {:.2}", report.rounds, report.cas)
}

fn look(folder: &RunFolder) -> Result<Status> {
    let last = follow::read_all(&folder.metrics()).unwrap_or_default().pop().unwrap_or_default();
    let held = folder.is_held();
    let mut status = Status {
        run_dir: folder.root().to_owned(),
        state: if folder.state() == State::Finished { "finished" } else { "stopped" },
        step: Some(last.step).filter(|step| *step > 0),
        accuracy: last.accuracy,
        rounds: last.rounds,
        learner: None,
        trouble: None,
        services: Vec::new(),
        evaluation: curve::read(&folder.evaluations()).unwrap_or_default().pop(),
        best: read_json(&folder.best_json()).ok(),
    };
    if !held {
        return Ok(status);
    }
    status.state = "running";
    // Before training and after it nobody listens, which is no trouble: there are no addresses then.
    let Ok(addresses) = read_json::<Addresses>(&folder.addresses()) else { return Ok(status) };
    match parts::runtime()?.block_on(ask_learner(addresses.learner)) {
        Ok(learner) => status.learner = Some(learner),
        Err(trouble) => (status.state, status.trouble) = ("broken", Some(trouble)),
    }
    status.services = services(folder);
    Ok(status)
}

fn services(folder: &RunFolder) -> Vec<Service> {
    let Ok(entries) = std::fs::read_dir(folder.services()) else { return Vec::new() };
    let service = |path: PathBuf| {
        let name = path.file_stem()?.to_str()?.to_owned();
        let announced: Announcement = read_json(&path).ok()?;
        Some(Service { name, addr: announced.addr.to_string(), metrics: announced.metrics.map(|at| at.to_string()), pid: announced.pid })
    };
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut services: Vec<Service> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_json).filter_map(service).collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}
