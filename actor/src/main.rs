//! `hypereyes-actor`: an actor as a process. In: a configuration file, the environment, `--set`. Out: an exit code (0 the run
//! is over or told to stop, 1 failed, 2 bad input).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hypereyes_actor::{Config, run};
use hypereyes_chassis::{Shutdown, config, exit};

/// Leases tasks from a learner, rolls them out and hands the groups in.
#[derive(Parser)]
#[command(name = "hypereyes-actor", version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as `learner=learner-0:7000`; may be repeated. Wins over file and environment
    /// (`HYPEREYES_ACTOR__LEARNER`).
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
    let config = config::load(Config::default(), arguments.config.as_deref(), "HYPEREYES_ACTOR", &arguments.sets)?;
    run(config, Shutdown::on_signal()?).await
}
