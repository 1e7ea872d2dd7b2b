//! `hypereyes-reward`: the reward service as a process. In: a configuration file, the environment, `--set`. Out: an exit
//! code (0 told to stop, 1 failed, 2 bad input).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use hypereyes_chassis::{Shutdown, config, exit};
use hypereyes_reward_service::{Config, run};

/// Scores groups of rollouts over gRPC and keeps the TRACE references.
#[derive(Parser)]
#[command(name = "hypereyes-reward", version)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as `store=/data/references`; may be repeated. Wins over file and environment
    /// (`HYPEREYES_REWARD__STORE`).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit::finish(start(Arguments::parse()).await)
}

async fn start(arguments: Arguments) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let config = config::load(Config::default(), arguments.config.as_deref(), "HYPEREYES_REWARD", &arguments.sets)?;
    Ok(run(config, Shutdown::on_signal()?).await?)
}
