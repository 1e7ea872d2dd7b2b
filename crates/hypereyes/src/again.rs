//! This program again, as a child: a command of a longer job, which ends when we do.
//!
//! In: a command line, a file for what it says. Out: what it printed as its result, or its last words.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use hypereyes_chassis::supervise::last_words;
use hypereyes_chassis::{BadInput, Shutdown, exit, leash};
use tokio::io::AsyncReadExt;

use crate::config::ENV_PREFIX;
use crate::progress::Bar;

/// How long a command may take to stop: a learner ends its step and writes a checkpoint.
pub const GRACE: Duration = Duration::from_secs(180);
/// How often its log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest result that is read: a report as JSON.
const MAX_RESULT: u64 = 16 << 20;

/// A command of this very program on a leash. What our own environment says of settings does not reach it: it is told all of it.
///
/// # Errors
/// When the program cannot be found.
pub fn command(arguments: &[&str]) -> Result<tokio::process::Command> {
    let program = std::env::current_exe().context("cannot find this program, to start it again")?;
    let line: Vec<String> = std::iter::once(program.display().to_string()).chain(arguments.iter().map(|text| (*text).to_owned())).collect();
    let mut command = leash::command(&program, GRACE, &line);
    let prefix = format!("{ENV_PREFIX}__");
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with(&prefix)) {
        command.env_remove(key);
    }
    command.process_group(0);
    Ok(command)
}

/// Runs a command to its end and gives what it printed on stdout. What it says on stderr goes into `log`, whose last line is shown on the
/// way as what `what` is doing.
///
/// # Errors
/// Its last words where it failed, as [`BadInput`] where that is what it was; that it was told to stop.
pub async fn run(what: &'static str, arguments: &[&str], log: &Path, shutdown: &Shutdown) -> Result<String> {
    let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = command(arguments)?;
    command.env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", arguments[0]))?;
    // Waiting closes its stdin, which would end it.
    let (held, stdout) = (child.stdin.take(), child.stdout.take().context("its stdout is piped")?);
    let bar = Bar::open(what);
    let said = async {
        let mut said = Vec::new();
        stdout.take(MAX_RESULT).read_to_end(&mut said).await.map(|_| String::from_utf8_lossy(&said).into_owned())
    };
    let shown = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(words) = last_words(log) {
                bar.doing(&words);
            }
        }
    };
    let ended = tokio::select! {
        (said, ended) = async { (said.await, child.wait().await) } => (said?, ended?),
        () = shown => unreachable!("it looks for ever"),
        () = shutdown.cancelled() => {
            drop(held);
            let _ = child.wait().await; // It was told to.
            bar.done();
            bail!("stopped while {what} was under way; the same command goes on");
        }
    };
    bar.done();
    let (said, status) = ended;
    if status.success() {
        return Ok(said);
    }
    let text =
        format!("{what}: {} ended with {status}: {}; its log is {}", arguments[0], last_words(log).unwrap_or_default(), log.display());
    Err(if status.code().is_some_and(exit::is_bad_input) { BadInput::new(text).into() } else { anyhow!(text) })
}
