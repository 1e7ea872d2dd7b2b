//! `hypereyes bench`: how fast this machine runs the parts, with what it is beside the numbers.

use anyhow::Result;
pub use hypereyes_bench::args::BenchArgs;
use hypereyes_bench::args::{KernelsArgs, Settings, What};
use hypereyes_bench::kernels;
use hypereyes_miniature::shipped::Shipped;
use serde_json::json;

use super::EngineArgs;
use crate::config::Config;
use crate::{output, parts};

/// The engine outside that flags of `bench engine` name, as `--set` says it.
pub fn sets(args: &BenchArgs) -> Vec<String> {
    match &args.what {
        What::Engine(args) => EngineArgs { engine: args.engine.clone(), url: args.url.iter().cloned().collect() }.sets(),
        _ => vec![],
    }
}

/// Measures and prints.
///
/// # Errors
/// A model that cannot be used, a device that fails, a kernel that is wrong.
pub fn run(config: &Config, args: &BenchArgs, json: bool) -> Result<()> {
    if let What::Kernels(args) = &args.what {
        return kernels(args, json);
    }
    if let What::Engine(_) = &args.what {
        // What becomes of servers is logged.
        parts::telemetry()?;
    }
    let (init, engine) = (config.init.clone(), config.engine.clone());
    let settings = Settings { seed: config.seed, init, micro_tokens: config.learner.micro_tokens, engine };
    let bench = args.measure(&settings, |folder| parts::unpack(Shipped::Teacher, folder))?;
    bench.warnings.iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    if json {
        output::json(&bench)
    } else {
        output::say(&bench.table())
    }
    Ok(())
}

/// Kernels say each row as it is done: all of them take minutes.
fn kernels(args: &KernelsArgs, json: bool) -> Result<()> {
    let KernelsArgs { device, full } = args;
    let show = |line: &str| {
        if !json {
            output::say(line);
        }
    };
    let kernels::Tried { rows, failed, cases } = kernels::run(*device, *full, show).map_err(parts::refusal)?;
    if json {
        output::json(&json!({ "bench": "kernels", "device": device.name(), "full": full, "failed": failed, "cases": cases, "rows": rows }));
    } else {
        output::say(&format!("{device}: {} rows, {cases} cases, {failed} rows failed", rows.len()));
    }
    anyhow::ensure!(failed == 0, "{failed} of {} rows of kernels are wrong on {device}", rows.len());
    Ok(())
}
