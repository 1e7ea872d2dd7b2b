//! `hypereyes-teacher`: the teacher service as a process. In: a configuration file, the environment, `--set`. Out: an exit
//! code (0 told to stop, 1 failed, 2 bad input).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hypereyes_chassis::{Shutdown, config, exit};
use hypereyes_teacher_service::{Config, run};

/// Gives log-probs of given tokens under a model that can be swapped while serving.
#[derive(Parser)]
#[command(name = "hypereyes-teacher", version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as `model=/models/teacher`; may be repeated. Wins over file and environment
    /// (`HYPEREYES_TEACHER__MODEL`).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match start(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        // The error itself, not a box around it: its type decides the exit code.
        Err(error) => exit::report(error.as_ref()),
    }
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let config = config::load(Config::default(), arguments.config.as_deref(), "HYPEREYES_TEACHER", &arguments.sets)?;
    run(config, Shutdown::on_signal()?).await
}
