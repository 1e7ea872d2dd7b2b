//! `hypereyes-standin`: a stand-in for an inference server, as a process.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hypereyes_chassis::leash;
use hypereyes_standin::{Dialect, Lies, LogprobsMode, Options, Standin};

/// Our own engine behind the HTTP of vLLM or SGLang, honest or lying on demand.
#[derive(Parser, Debug)]
#[command(name = "hypereyes-standin", version)]
struct Args {
    /// Model folder.
    #[arg(long)]
    model: PathBuf,
    /// Where to listen on this machine; 0 is any free port.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Whose HTTP to speak.
    #[arg(long, value_enum, default_value = "vllm")]
    dialect: Dialect,
    /// The model's name.
    #[arg(long, default_value = "policy")]
    name: String,
    /// Tokens of a sequence.
    #[arg(long, default_value_t = 1024)]
    max_model_len: usize,
    /// Sequences at once.
    #[arg(long, default_value_t = 33)]
    max_sequences: usize,
    /// What is told as log-probs; the dialect's own way where nothing is said.
    #[arg(long, value_enum)]
    logprobs_mode: Option<LogprobsMode>,
    /// A key that must be shown.
    #[arg(long)]
    api_key: Option<String>,
    /// How often to lie in which way, such as `busy=0.01`; `all=0.05` is every way together. May be repeated.
    #[arg(long = "lie", value_name = "NAME=RATE")]
    lies: Vec<String>,
    /// What lies are drawn from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How long nobody answers after a restart that is a lie.
    #[arg(long, default_value_t = 50)]
    down_ms: u64,
    /// Seconds to wait before listening, as a server does that loads a large model.
    #[arg(long, default_value_t = 0.0)]
    load_s: f64,
    /// File to which a line is appended per answer.
    #[arg(long)]
    audit: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Some(code) = leash::of_process() {
        return code;
    }
    match serve(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told if stderr is gone.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> anyhow::Result<()> {
    let mut lies = Lies { seed: args.seed, rates: vec![] };
    for lie in &args.lies {
        lies.add(lie).map_err(anyhow::Error::msg)?;
    }
    let usual = Options::new(args.model, args.dialect);
    let options = Options {
        port: args.port,
        name: args.name,
        max_model_len: args.max_model_len,
        max_sequences: args.max_sequences,
        logprobs: args.logprobs_mode.unwrap_or(usual.logprobs),
        api_key: args.api_key,
        lies,
        down: Duration::from_millis(args.down_ms),
        audit: args.audit,
        ..usual
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::time::sleep(Duration::try_from_secs_f64(args.load_s)?).await;
        let standin = Standin::start(options).await?;
        // Whoever chose no port reads it here.
        writeln!(std::io::stdout(), "listening at {}", standin.url())?;
        standin.forever().await;
        Ok(())
    })
}
