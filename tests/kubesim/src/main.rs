//! `kubesim`: rendered manifests as a tiny cluster on this machine.

mod stand_in;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};
use hypereyes_kubesim::{Cluster, Options, Permit, Phase, Snapshot, Verdict, duration, table};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// Runs rendered Kubernetes manifests on this machine: real binaries, one network namespace per pod.
///
/// It needs root, `ip`, `nsenter`, `unshare`, `mount` and `setpriv`, and touches nothing of the host: all namespaces are
/// nameless and end with the program, however it ends.
#[derive(Parser)]
#[command(
    name = "kubesim",
    version,
    after_help = "Exit codes: 0 every Job completed (or, without Jobs, every pod was ready at the end); \
1 a Job failed, or time ran out; 2 the call or the manifests are wrong, or namespaces are not permitted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the manifests' pods, show them, and end with the Jobs.
    #[command(after_help = "Example:\n  kubectl kustomize k8s/overlays/dev-cpu > run.yaml\n  \
kubesim up run.yaml --binary hypereyes=target/release/hypereyes --for 10m --scratch runs/kubesim\n\n\
Then: runs/kubesim/logs has a file per container, runs/kubesim/events.jsonl everything that happened.")]
    Up(Up),
    /// The program of the tests' pods.
    #[command(hide = true)]
    StandIn(stand_in::StandIn),
}

#[derive(Args)]
struct Up {
    /// What `kubectl kustomize` printed; `-` reads standard input.
    manifests: PathBuf,
    /// A binary that stands for an image: NAME=PATH. NAME is the last word of the image (`ghcr.io/me/NAME:tag`); a single
    /// binary stands for every image.
    #[arg(long = "binary", value_name = "NAME=PATH", required = true, value_parser = binary)]
    binaries: Vec<(String, PathBuf)>,
    /// Stop after this time: 30s, 10m, 1h. Without it, the Jobs or Ctrl-C end it.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    limit: Option<Duration>,
    /// Folder for logs, claims and events, kept afterwards. A temporary one by default.
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// How often autoscalers look (Kubernetes: 15s). Their windows and rates shrink by the same factor.
    #[arg(long, default_value = "15s", value_parser = duration)]
    hpa_period: Duration,
    /// Try probes at least this often; the time after which a container is given up stays what the manifests say.
    #[arg(long, value_parser = duration)]
    probe_period: Option<Duration>,
    /// Print every event to standard error.
    #[arg(long)]
    events: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(up) => run(up).await,
        Command::StandIn(options) => stand_in::run(options).await.map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("kubesim: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(up: Up) -> Result<bool> {
    Permit::check().map_err(|reason| anyhow!(reason))?;
    let mut text = String::new();
    if up.manifests.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(&up.manifests).with_context(|| format!("cannot read {}", up.manifests.display()))?;
    }
    let options = Options {
        binaries: BTreeMap::from_iter(up.binaries),
        scratch: up.scratch,
        hpa_period: up.hpa_period,
        probe_period: up.probe_period,
        echo: up.events,
        ..Options::default()
    };
    let cluster = Cluster::start(&text, options).await?;
    for line in &cluster.ignored {
        println!("ignored: {line}");
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (start, mut shown) = (Instant::now(), String::new());
    loop {
        let snapshot = cluster.snapshot().await?;
        let now = table(&snapshot);
        if now != shown {
            println!("\n{now}");
            shown = now;
        }
        let over = !snapshot.jobs.is_empty() && snapshot.jobs.values().all(Option::is_some);
        let late = up.limit.is_some_and(|limit| start.elapsed() > limit);
        let told = tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            () = tokio::time::sleep(Duration::from_millis(500)), if !over && !late => false,
            () = std::future::ready(()), if over || late => true,
        };
        if told {
            let good = good(&snapshot);
            if !good {
                explain(&cluster, &snapshot)?;
            }
            return Ok(good);
        }
    }
}

/// The last words of every pod that did not do its work.
fn explain(cluster: &Cluster, snapshot: &Snapshot) -> Result<()> {
    for pod in snapshot.pods.iter().filter(|pod| pod.phase != Phase::Succeeded && !pod.serving()) {
        let log = cluster.logs(&pod.name)?;
        let lines: Vec<_> = log.lines().collect();
        println!("--- {}: {}", pod.name, pod.reason);
        println!("{}", lines[lines.len().saturating_sub(10)..].join("\n"));
    }
    Ok(())
}

/// Whether a cluster that ends like this has done what its manifests are for.
fn good(snapshot: &Snapshot) -> bool {
    if snapshot.jobs.is_empty() {
        return snapshot.pods.iter().all(|pod| pod.serving());
    }
    snapshot.jobs.values().all(|verdict| verdict == &Some(Verdict::Complete))
}

fn binary(written: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = written.split_once('=').ok_or("write NAME=PATH")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}
