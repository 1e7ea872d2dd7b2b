//! `hypereyes teacher`: the models of a running teacher service: list, load, check, promote, retire. Nothing is restarted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use hypereyes_chassis::{BadInput, Security};
use hypereyes_domain::{ModelInfo, ModelState, Roster, TeacherId};
use hypereyes_proto::teacher::Load;
use hypereyes_proto::{CallError, TeacherPeer, client, ports};
use hypereyes_run::{Addresses, RUNS, RunFolder, read_json};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::teacher_check::{self, CheckArgs};
use crate::config::Config;
use crate::progress::Bar;
use crate::{output, parts};

/// Longest wait for a small answer.
const SMALL: Duration = Duration::from_secs(15);
/// Pause between looks at a model that is being loaded.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Where a teacher service listens by default; certificates have names.
fn default(config: &Config) -> String {
    if config.tls.is_some() { format!("localhost:{}", ports::TEACHER) } else { ports::here(ports::TEACHER).to_string() }
}

/// Arguments of `teacher`.
#[derive(Args, Debug)]
#[command(
    after_help = "A swap, while a run goes on:\n  hypereyes teacher load green /models/teacher-v2\n  hypereyes teacher check green\n  \
    hypereyes teacher promote green\n  hypereyes teacher retire blue\n  hypereyes teacher promote blue          (instead: go back)\n\n\
    A SOURCE is a folder on the service's machine, s3://bucket/prefix (also gs://, az://, http://), or a server: grpc://host:port \
    (another teacher service), sglang+http://host:port?tokenizer=FOLDER, vllm+http://host:port?tokenizer=FOLDER&model=NAME."
)]
pub struct TeacherArgs {
    /// Address of the service. Default: that of the run in `run_dir` or the newest one that is going on, else this machine's port
    /// 7002. With `tls.certificate`, `tls.key` and `tls.authority` set it is spoken to by mutual TLS.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub at: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub what: What,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum What {
    /// Show the models and which one answers.
    List,
    /// Load and verify a model beside the others; it answers nobody yet.
    Load {
        /// The name that it will go by.
        id: String,
        /// Where it is.
        source: String,
        /// Digest that its files must have (BLAKE3, hex; `list` shows it).
        #[arg(long, default_value = "")]
        digest: String,
        /// Seconds to wait until it is ready; 0 does not wait. What is being loaded goes on whether anybody waits or not.
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        wait: u64,
    },
    /// Play held-out tasks with a policy and see how far the teachers are from it.
    Check(CheckArgs),
    /// Make a loaded model the one that answers. Groups that have asked before keep to theirs.
    Promote {
        /// Which.
        id: String,
    },
    /// Unload a model that no longer answers, once its last group is done.
    Retire {
        /// Which.
        id: String,
    },
}

/// Does it.
pub fn run(config: &Config, args: &TeacherArgs, json: bool) -> Result<()> {
    parts::telemetry()?;
    let address = address(config, args.at.as_deref());
    parts::runtime()?.block_on(async {
        let clients = client::secure(&Security::new(config.tls.as_ref())?);
        let peer = TeacherPeer::new(clients.teacher(&address).map_err(|error| BadInput::new(error.to_string()))?);
        let said = |error: CallError| said(&address, error);
        match &args.what {
            What::List => show(&peer.roster(SMALL).await.map_err(said)?, json),
            What::Load { id, source, digest, wait } => {
                let id = TeacherId::new(id.clone());
                let load = Load { source: absolute(source)?, id: id.clone(), digest: digest.clone(), background: true };
                peer.load(load, SMALL).await.map_err(said)?;
                if *wait == 0 {
                    return Ok(());
                }
                let ready = timeout(Duration::from_secs(*wait), ready(&peer, &id)).await;
                let info = ready.map_err(|_| {
                    anyhow!("{id} is still being loaded after {wait} s and goes on: `hypereyes teacher list` says when it is ready")
                })?;
                let info = info.map_err(said)?;
                if let ModelState::Failed(reason) = &info.state {
                    return Err(BadInput::new(format!("{id}: {reason}")).into());
                }
                tell(&info, json);
            }
            What::Check(check) => teacher_check::run(config, check, &peer, json).await?,
            What::Promote { id } => {
                let promotion = peer.promote(&TeacherId::new(id.clone()), SMALL).await.map_err(said)?;
                let before = promotion.previous.as_ref().map_or(String::new(), |before| format!("; before it {before}"));
                if json {
                    output::json(&promotion);
                } else {
                    output::say(&format!("{id} answers now, epoch {}{before}", promotion.revision));
                }
            }
            What::Retire { id } => tell(&peer.retire(&TeacherId::new(id.clone()), SMALL).await.map_err(said)?, json),
        }
        Ok(())
    })
}

/// Where the service is.
fn address(config: &Config, said: Option<&str>) -> String {
    let configured = Some(&config.run_dir).filter(|path| !path.as_os_str().is_empty()).map(RunFolder::new);
    let running = || configured.or_else(|| RunFolder::newest(Path::new(RUNS), RunFolder::is_held));
    let of_run = || read_json::<Addresses>(&running()?.addresses()).ok()?.teacher;
    said.map(str::to_owned).or_else(|| of_run().map(|address| address.to_string())).unwrap_or_else(|| default(config))
}

/// A refusal is the asker's to mend; everything else may pass.
fn said(address: &str, error: CallError) -> anyhow::Error {
    if error.refused { BadInput::new(error.message).into() } else { anyhow!("the teacher service at {address}: {}", error.message) }
}

/// A folder as the service finds it, whose working folder may be another.
fn absolute(source: &str) -> Result<String> {
    if source.contains("://") || !Path::new(source).exists() {
        return Ok(source.to_owned());
    }
    Ok(crate::services::absolute(Path::new(source))?.display().to_string())
}

/// Waits until a model is no longer being loaded, as long as the caller lets it.
async fn ready(peer: &TeacherPeer, id: &TeacherId) -> Result<ModelInfo, CallError> {
    let bar = Bar::new("load", "models");
    loop {
        let roster = peer.roster(SMALL).await?;
        match roster.models.into_iter().find(|model| model.id == *id) {
            Some(model) if model.state != ModelState::Loading => {
                bar.done();
                return Ok(model);
            }
            Some(model) => bar.at(0, 1, &model.source),
            None => return Err(CallError::nonsense("list_models", format!("{id} is not in the list any more"))),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn show(roster: &Roster, json: bool) {
    if json {
        let models: Vec<Value> = roster.models.iter().map(value).collect();
        output::json(&json!({"active": roster.active(), "models": models, "history": roster.history}));
        return;
    }
    let mut rows = vec![["", "model", "state", "parameters", "memory", "sees", "groups", "source"].map(str::to_owned)];
    for model in &roster.models {
        let active = if model.state == ModelState::Active { "*" } else { "" };
        let of_card = |of: &dyn Fn(&hypereyes_domain::ModelCard) -> String| model.card.as_ref().map_or(String::new(), of);
        let detail = if let ModelState::Failed(reason) = &model.state { reason.clone() } else { model.source.clone() };
        rows.push([
            active.into(),
            model.id.to_string(),
            model.state.label().into(),
            of_card(&|card| if card.parameters == 0 { "?".into() } else { format!("{:.1} M", card.parameters as f64 / 1e6) }),
            of_card(&|card| format!("{} MiB", card.bytes >> 20)),
            of_card(&|card| if card.sighted { "yes".into() } else { "no".into() }),
            model.pinned.to_string(),
            detail,
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        output::say(cells.join("  ").trim_end());
    }
    if let Some(active) = roster.active() {
        output::say(&format!("epoch {}; promotions: {}", active.revision, roster.history.len()));
    }
}

fn tell(info: &ModelInfo, json: bool) {
    if json {
        output::json(&value(info));
        return;
    }
    let card = info.card.as_ref().map_or(String::new(), |card| {
        let eyes = if card.sighted { "" } else { "; it does not see pictures" };
        format!(": {:.1} M parameters, {} MiB, digest {}{eyes}", card.parameters as f64 / 1e6, card.bytes >> 20, card.digest)
    });
    let groups = if info.pinned > 0 { format!(" ({} groups keep to it for now)", info.pinned) } else { String::new() };
    output::say(&format!("{} is {}{groups}{card}", info.id, info.state.label()));
}

fn value(info: &ModelInfo) -> Value {
    let detail = if let ModelState::Failed(reason) = &info.state { reason.as_str() } else { "" };
    json!({
        "id": info.id, "source": info.source, "state": info.state.label(), "detail": detail, "card": info.card,
        "in_flight": info.in_flight, "pinned": info.pinned,
    })
}
