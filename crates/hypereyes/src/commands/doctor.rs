//! `hypereyes doctor`: what would go wrong later, found now. Every check is one line; none leaves anything behind.

use hypereyes_miniature::shipped::Shipped;
use std::path::Path;

use anyhow::{Result, anyhow};
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_chassis::service_process::Sources;
use hypereyes_run::{RUNS, RunFolder};
use serde::Serialize;

use crate::check::models::Folders;
use crate::config::Config;
use crate::{check, output, parts, ports};

/// Memory below which a run of the tiny policy gets tight, in MiB.
const ENOUGH_MEMORY_MIB: u64 = 3 * 1024;

/// Arguments of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes doctor\n  hypereyes doctor --config my.toml --set policy=policies/cold --json\n\n\
    Every search service of [search] is asked once, fallbacks as well, and what that costs is said; --no-search asks none.")]
pub struct DoctorArgs {
    /// Ask no search service: each is asked once otherwise, and a request may cost.
    #[arg(long)]
    pub no_search: bool,
}

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Slow,
    Bad,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    detail: String,
}

impl Check {
    fn of(check: &'static str, result: Result<String>) -> Self {
        match result {
            Ok(detail) => Self { check, verdict: Verdict::Good, detail },
            Err(error) => Self { check, verdict: Verdict::Bad, detail: format!("{error:#}") },
        }
    }
}

/// Checks and prints; bad input when something would fail.
pub fn run(sources: &Sources, args: &DoctorArgs, json: bool) -> Result<()> {
    let checks = match Config::load(sources) {
        Ok(config) => all(&config, !args.no_search)?,
        Err(error) => vec![Check::of("settings", Err(error))],
    };
    if json {
        output::json(&checks);
    } else {
        for check in &checks {
            let mark = match check.verdict {
                Verdict::Good => "ok  ",
                Verdict::Slow => "slow",
                Verdict::Bad => "BAD ",
            };
            output::say(&format!("{mark} {:<12} {}", check.check, check.detail));
        }
    }
    let bad = checks.iter().filter(|check| check.verdict == Verdict::Bad).count();
    if bad > 0 {
        // The lines above say what; whoever reads nothing but this one is told the first.
        let first = checks.iter().find(|check| check.verdict == Verdict::Bad).map_or("", |check| &check.detail);
        return Err(BadInput::new(format!("{bad} of {} checks failed; `hypereyes up` would, too: {first}", checks.len())).into());
    }
    Ok(())
}

/// Every check; `search` is whether search services are asked, which may cost.
fn all(config: &Config, search: bool) -> Result<Vec<Check>> {
    let runtime = parts::runtime()?;
    let ports_asked = [config.up.ports.learner, config.up.ports.reward, config.up.ports.teacher];
    let world = Check::of("world", parts::world(config).map(|world| format!("{}: {} entities", world.name(), world.entities().len())));
    let policy = Check::of("policy", model(&config.policy, Shipped::Policy));
    let teacher = Check::of(
        "teacher",
        if config.up.distill { model(&config.teacher, Shipped::Teacher) } else { Ok("not needed: up.distill is off".into()) },
    );
    let readable = [&world, &policy, &teacher].iter().all(|check| check.verdict == Verdict::Good);
    // Nobody is asked who is not needed.
    let servers = check::servers::are_named(config).then(|| Check::of("servers", runtime.block_on(servers(config))));
    let mut checks = vec![
        Check::of("settings", settings(config, readable)),
        world,
        policy,
        teacher,
        Check::of("ports", runtime.block_on(ports::resolve(&ports_asked)).map(|found| format!("{found:?} are free"))),
        Check::of("run folder", writable(config)),
        Check::of(
            "program",
            std::env::current_exe().map(|path| path.display().to_string()).map_err(|error| anyhow!("cannot find itself: {error}")),
        ),
        cores(),
        memory(),
    ];
    checks.extend(servers);
    if search && config.search.check().is_ok() {
        checks.extend(runtime.block_on(check::services::asked(config)).into_iter().map(|told| Check::of("search", told)));
    }
    Ok(checks)
}

/// What the parts refuse at their start and what they know of each other; with readable models, of these as well.
fn settings(config: &Config, readable: bool) -> Result<String> {
    let folder = RunFolder::new(std::path::absolute(&config.run_dir).unwrap_or_else(|_| config.run_dir.clone()));
    let mut found = check::run(config, &folder)?;
    found.result()?;
    if readable {
        let (world, folders) = (parts::world(config)?, Folders::of(config)?);
        found.extend(check::models::run(config, &folder, &world, &folders)?);
        found.result()?;
    }
    let warnings: String = found.warned().iter().map(|warning| format!("; warning: {warning}")).collect();
    Ok(format!(
        "seed {}, {} steps of {} groups of {}{warnings}",
        config.seed, config.learner.steps, config.learner.groups_per_step, config.learner.group_size
    ))
}

/// Whoever must answer while a run goes on.
async fn servers(config: &Config) -> Result<String> {
    let found = check::servers::findings(config).await;
    found.result()?;
    let warnings: String = found.warned().iter().map(|warning| format!("; warning: {warning}")).collect();
    Ok(format!("the judge at {} answers{warnings}", config.reward_service.judge_model.url))
}

fn model(folder: &Path, shipped: Shipped) -> Result<String> {
    let scratch = tempfile::tempdir()?;
    let (folder, name) = if folder.as_os_str().is_empty() {
        shipped.unpack(scratch.path())?;
        (scratch.path(), "shipped".to_owned())
    } else {
        (folder, folder.display().to_string())
    };
    let (config, _) = parts::check_model(folder)?;
    Ok(format!("{name}: width {}, {} layers, {} tokens", config.text.hidden_size, config.text.num_hidden_layers, config.text.vocab_size))
}

/// Tries to write where the run would: in `run_dir`, or the nearest folder above it that exists.
fn writable(config: &Config) -> Result<String> {
    let wanted = if config.run_dir.as_os_str().is_empty() { Path::new(RUNS) } else { &config.run_dir };
    let wanted = std::path::absolute(wanted)?;
    let there = wanted.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let tried = tempfile::Builder::new().prefix(".hypereyes-doctor").tempfile_in(there);
    tried.map_err(|error| anyhow!("cannot write into {}: {error}", there.display()))?;
    Ok(format!("{} can be written", wanted.display()))
}

fn cores() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let verdict = if cores >= 2 { Verdict::Good } else { Verdict::Slow };
    Check { check: "cores", verdict, detail: format!("{cores}; the services share them, two or more are wanted") }
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let Some(mib) = available_mib(&text) else {
        return Check { check: "memory", verdict: Verdict::Good, detail: "this system does not say how much is free".into() };
    };
    let verdict = if mib >= ENOUGH_MEMORY_MIB { Verdict::Good } else { Verdict::Slow };
    Check { check: "memory", verdict, detail: format!("{mib} MiB free; {ENOUGH_MEMORY_MIB} are wanted for the default run") }
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(available_mib("MemTotal:       24576000 kB\nMemAvailable:   2048000 kB\n"), Some(2000));
        assert_eq!(available_mib("nonsense"), None);
    }

    #[test]
    fn what_would_fail_is_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config { world: folder.path().join("none"), policy: folder.path().to_owned(), ..Config::default() };
        config.up.actors = 0;
        let checks = all(&config, true).expect("checks run");
        let verdict = |name: &str| checks.iter().find(|check| check.check == name).map(|check| check.verdict);
        for bad in ["settings", "world", "policy"] {
            assert_eq!(verdict(bad), Some(Verdict::Bad), "{bad}");
        }
        assert_eq!(verdict("ports"), Some(Verdict::Good));
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 0, "nothing is left behind");
    }
}
