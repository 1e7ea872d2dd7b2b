//! `hypereyes report`: makes the report of a finished run again.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_run::{RUNS, RunFolder, State};

use crate::output;

/// Arguments of `report`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes report\n  hypereyes report runs/20251122-094207-0")]
pub struct ReportArgs {
    /// Run folder. Default: the newest finished one under `runs/`.
    pub run: Option<PathBuf>,
}

/// Writes `report.html` and says where.
pub fn run(args: &ReportArgs, json: bool) -> Result<()> {
    let folder = match &args.run {
        Some(run) => RunFolder::new(run),
        None => RunFolder::newest(Path::new(RUNS), |folder| folder.state() == State::Finished)
            .ok_or_else(|| BadInput::new(format!("no finished run under {RUNS}/: name a run folder, or start with `hypereyes up`")))?,
    };
    if folder.state() != State::Finished {
        return Err(
            BadInput::new(format!("{} holds no finished run: there is no {}", folder.root().display(), folder.result().display())).into()
        );
    }
    folder.readable()?;
    hypereyes_report::write(&folder)?;
    if json {
        output::json(&serde_json::json!({"report": folder.report()}));
    } else {
        output::say(&format!("wrote {}", folder.report().display()));
    }
    Ok(())
}
