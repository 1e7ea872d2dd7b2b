//! `hypereyes-learner`: the learner as a process. In: a configuration file, the environment, `--set`. Out: an exit code
//! (0 done or told to stop, 1 failed, 2 bad input).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hypereyes_chassis::{Shutdown, config, exit};
use hypereyes_learner::rl::{Config, run};

/// Trains a policy on groups that actors submit, and publishes versions.
#[derive(Parser)]
#[command(name = "hypereyes-learner", version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as `lr=1e-4`; may be repeated. Wins over file and environment (`HYPEREYES_LEARNER__LR`).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match start(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(error.as_ref()),
    }
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let config = config::load(Config::default(), arguments.config.as_deref(), "HYPEREYES_LEARNER", &arguments.sets)?;
    run(config, Shutdown::on_signal()?).await
}
