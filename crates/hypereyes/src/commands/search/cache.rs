//! `hypereyes search cache`: what is kept of searches, and recordings of it that can be shared. In: the file of `search.cache.path`. Out:
//! totals, a recording, or a file with what a recording holds. Nobody is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::{Args, Subcommand};
use hypereyes_chassis::BadInput;
use hypereyes_search::recording::{self, About};
use hypereyes_search::store::{Store, Totals};
use serde::Serialize;

use crate::config::Config;
use crate::output;

/// Arguments of `search cache`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes search cache stats --set search.cache.path=search.redb\n  \
    hypereyes search cache export searches.jsonl --config my.toml      a file that can be shared, and replayed\n  \
    hypereyes search cache import searches.jsonl --config my.toml\n\n\
    One process at a time has a cache open: a run that uses it must have ended.")]
pub struct CacheArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CacheCommand,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum CacheCommand {
    /// How much is kept of whom, how old it is, what it cost, and what was spent in all. A recording can be looked at as well.
    Stats,
    /// Write everything that is kept into a recording (JSON lines), without keys and without what opens an address for a while.
    Export {
        /// Where to; a file that is there is replaced.
        file: PathBuf,
    },
    /// Take in what a recording holds.
    Import {
        /// The recording.
        file: PathBuf,
    },
}

/// What `stats` prints.
#[derive(Serialize)]
struct Stats {
    path: PathBuf,
    entries: u64,
    services: BTreeMap<String, Totals>,
    spent: Spent,
}

/// What was spent within the bounds of `search.budget`, which counts from the day there is one.
#[derive(Serialize)]
struct Spent {
    requests: u64,
    usd: f64,
}

/// What `export` and `import` print.
#[derive(Serialize)]
struct Moved {
    file: PathBuf,
    entries: u64,
    #[serde(flatten)]
    about: About,
}

/// Runs one.
///
/// # Errors
/// [`BadInput`] where a file is not there, is none, or is open elsewhere.
pub fn run(config: &Config, args: &CacheArgs, json: bool) -> Result<()> {
    let none = || BadInput::new("search.cache.path names no file: give --set search.cache.path=FILE, or a --config that does");
    let path = config.search.cache.path.clone().ok_or_else(none)?;
    let bad = |why: String| BadInput::new(format!("search.cache.path: {why}"));
    match &args.command {
        CacheCommand::Stats => {
            let store = read(&path)?;
            let spent = store.spent().map_err(bad)?;
            let spent = Spent { requests: spent.requests, usd: spent.micro_usd as f64 / 1e6 };
            let stats = Stats { entries: store.entries().map_err(bad)?, services: store.totals().map_err(bad)?, spent, path };
            if json {
                output::json(&stats);
            } else {
                told(&stats).iter().for_each(|line| output::say(line));
            }
        }
        CacheCommand::Export { file } => {
            if same(&path, file) {
                return Err(BadInput::new(format!("{} is the cache itself", file.display())).into());
            }
            let about = recording::export(&read(&path)?, file).map_err(BadInput::new)?;
            moved(file, "written", about, json);
        }
        CacheCommand::Import { file } => {
            if same(&path, file) {
                return Err(BadInput::new(format!("{} is the cache itself", file.display())).into());
            }
            let store = Store::open(&path).map_err(bad)?;
            let about = recording::import(file, &store).map_err(BadInput::new)?;
            moved(file, "taken in", about, json);
        }
    }
    Ok(())
}

/// The store of a file that must be there: nobody wants an empty one made by asking for it.
fn read(path: &Path) -> Result<Store> {
    let bad = |why: &dyn std::fmt::Display| BadInput::new(format!("search.cache.path: {why}"));
    if !path.exists() {
        return Err(bad(&format!("{} is not there", path.display())).into());
    }
    Ok(Store::read(path).map_err(|why| bad(&why))?)
}

fn same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn told(stats: &Stats) -> Vec<String> {
    let mut lines = vec![format!("{}: {} searches are kept", stats.path.display(), stats.entries)];
    if !stats.services.is_empty() {
        lines.push(format!("{:<12} {:>8} {:>8} {:>8} {:>10}  {}", "service", "kept", "empty", "failed", "cost", "age in days"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let days = |at: u64| now.saturating_sub(at) as f64 / 86_400.0;
    for (name, of) in &stats.services {
        let (cost, age) = (format!("${:.4}", of.usd), format!("{:.1} to {:.1}", days(of.to), days(of.from)));
        lines.push(format!("{name:<12} {:>8} {:>8} {:>8} {cost:>10}  {age}", of.entries, of.empty, of.failures));
    }
    let Spent { requests, usd } = stats.spent;
    lines.push(match requests {
        0 => "no budget was spent".to_owned(),
        requests => format!("spent of search.budget: {requests} requests, ${usd:.4}"),
    });
    lines
}

fn moved(file: &Path, how: &str, about: About, json: bool) {
    let entries = about.services.values().map(|of| of.entries).sum();
    let restricted: Vec<&str> = about.services.iter().filter(|(_, of)| of.restricted).map(|(name, _)| name.as_str()).collect();
    if !restricted.is_empty() {
        let names = restricted.join(", ");
        output::note(&format!("warning: the terms of {names} restrict passing on what they answered: read them before you share the file"));
    }
    if json {
        output::json(&Moved { file: file.to_owned(), entries, about });
        return;
    }
    let services: Vec<String> = about.services.iter().map(|(name, of)| format!("{name} {}", of.entries)).collect();
    let of = if services.is_empty() { String::new() } else { format!(" ({})", services.join(", ")) };
    output::say(&format!("{}: {entries} searches {how}{of}", file.display()));
}
