//! Child processes that are kept alive: started, watched, restarted when they die, stopped in the order that is asked for.
//!
//! In: plans (how to start, what an exit means). Out: events, and in the end silence. It knows no service and no protocol.
//!
//! A child holds the reading end of a pipe on its stdin. Closing our end is the request to stop, and happens by itself when
//! this process dies, however it dies: no child outlives its supervisor. A program that does not look at its stdin is started on a
//! [`leash`](crate::leash). Children get their own process group, so that a
//! Ctrl-C on the terminal reaches the supervisor alone and the order of stopping stays its decision.

use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backoff::{Backoff, BackoffConfig};
use crate::exit;

/// Window in which restarts are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// End of a log that is searched for the last words of a process.
const LAST_WORDS_BYTES: u64 = 8 << 10;

/// How often a process may be restarted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestartConfig {
    /// Restarts of one process within a minute; one more ends the run. Default 5: a killed process is back, a broken one
    /// does not spin.
    pub per_minute: usize,
    /// Pauses before restarts. Default: up to 100 ms at first, up to 5 s later.
    pub backoff: BackoffConfig,
}

impl Default for RestartConfig {
    fn default() -> Self {
        Self { per_minute: 5, backoff: BackoffConfig { first_ms: 100, ..BackoffConfig::default() } }
    }
}

/// What an exit means that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// A service: every exit is a death.
    Restart,
    /// A worker: exit 0 means that its work is done; anything else is a death.
    DoneOnSuccess,
}

/// Makes the command for start number 0, 1, ...
pub type MakeCommand = Box<dyn FnMut(u32) -> Result<Command> + Send>;

/// A process to keep alive.
pub struct Plan {
    /// Unique name.
    pub name: String,
    /// How to start it; called again before each restart, so that what it prepares is prepared again.
    pub command: MakeCommand,
    /// What its exit means.
    pub on_exit: OnExit,
    /// How long it may take to stop when asked; then it is killed.
    pub grace: Duration,
    /// Where its stdout and stderr go, appended.
    pub log: PathBuf,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It runs.
    Started {
        /// Which.
        name: String,
        /// Its process id.
        pid: u32,
        /// How many times it was started before.
        restart: u32,
    },
    /// It died and will be started again.
    Died {
        /// Which.
        name: String,
        /// How it ended and its last words.
        how: String,
        /// How long until it is started again.
        pause: Duration,
    },
    /// Its work is done.
    Done {
        /// Which.
        name: String,
    },
    /// It was asked to stop and is gone.
    Stopped {
        /// Which.
        name: String,
        /// True when it had to be killed.
        killed: bool,
    },
    /// It is not started again.
    GaveUp {
        /// Which.
        name: String,
        /// Why.
        reason: String,
        /// True when it refused its input, so that trying again is useless.
        bad_input: bool,
    },
}

/// Counts restarts within the last minute.
#[derive(Debug)]
pub struct Allowance {
    most: usize,
    recent: VecDeque<Instant>,
}

impl Allowance {
    /// At most `most` per minute.
    pub fn new(most: usize) -> Self {
        Self { most, recent: VecDeque::new() }
    }

    /// Takes one at `now`; false when there is none left.
    pub fn take(&mut self, now: Instant) -> bool {
        while self.recent.front().is_some_and(|then| now.duration_since(*then) >= WINDOW) {
            self.recent.pop_front();
        }
        let allowed = self.recent.len() < self.most;
        if allowed {
            self.recent.push_back(now);
        }
        allowed
    }
}

struct Kept {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Keeps processes. Dropping it stops none of them: that happens when the runtime ends, which closes what they hold of us, out of order.
pub struct Supervisor {
    config: RestartConfig,
    kept: BTreeMap<String, Kept>,
    events: mpsc::UnboundedSender<Event>,
}

impl Supervisor {
    /// A supervisor without processes, and where it tells what happens. The channel needs no bound: a process makes at most
    /// three events per restart, and restarts are bounded.
    pub fn new(config: RestartConfig) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (events, inbox) = mpsc::unbounded_channel();
        (Self { config, kept: BTreeMap::new(), events }, inbox)
    }

    /// Starts a process and keeps it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the first start fails; later ones count as deaths.
    pub fn start(&mut self, mut plan: Plan) -> Result<()> {
        let child = spawn(&mut plan, 0)?;
        let stop = CancellationToken::new();
        let (name, keeper) =
            (plan.name.clone(), Keeper { plan, config: self.config.clone(), stop: stop.clone(), events: self.events.clone() });
        let task = tokio::spawn(keeper.keep(child));
        self.kept.insert(name, Kept { stop, task });
        Ok(())
    }

    /// Asks these processes to stop, all at once, and waits until they are gone. Unknown names are fine.
    pub async fn stop(&mut self, names: &[String]) {
        let kept: Vec<Kept> = names.iter().filter_map(|name| self.kept.remove(name)).collect();
        kept.iter().for_each(|kept| kept.stop.cancel());
        for kept in kept {
            // The task ends within the grace of its process; a panic in it has ended it, too.
            let _ = kept.task.await;
        }
    }

    /// Names of the processes that were started and not stopped, done ones included.
    pub fn names(&self) -> Vec<String> {
        self.kept.keys().cloned().collect()
    }
}

/// The life of one process.
struct Keeper {
    plan: Plan,
    config: RestartConfig,
    stop: CancellationToken,
    events: mpsc::UnboundedSender<Event>,
}

impl Keeper {
    async fn keep(mut self, first: Child) {
        let mut allowance = Allowance::new(self.config.per_minute);
        let mut backoff = Backoff::new(&self.config.backoff);
        let mut running = Ok(first);
        for restart in 0.. {
            let how = match running {
                Ok(mut child) => {
                    // Waiting for a child closes its stdin, which is our way to stop it: so it is held apart.
                    let leash = child.stdin.take();
                    self.tell(Event::Started { name: self.name(), pid: child.id().unwrap_or(0), restart });
                    let began = Instant::now();
                    let ended = tokio::select! {
                        ended = child.wait() => ended,
                        () = self.stop.cancelled() => return self.end(child, leash).await,
                    };
                    if began.elapsed() >= WINDOW {
                        backoff.reset();
                    }
                    match ended {
                        Ok(status) if status.success() && self.plan.on_exit == OnExit::DoneOnSuccess => {
                            return self.tell(Event::Done { name: self.name() });
                        }
                        Ok(status) if status.code().is_some_and(exit::is_bad_input) => return self.give_up(describe(status), true),
                        Ok(status) => describe(status),
                        Err(error) => format!("cannot be waited for: {error}"),
                    }
                }
                Err(error) => format!("cannot be started: {error:#}"),
            };
            if !allowance.take(Instant::now()) {
                return self.give_up(format!("{how}, after {} restarts within a minute", self.config.per_minute), false);
            }
            let pause = backoff.next_delay();
            self.tell(Event::Died { name: self.name(), how: self.with_last_words(how), pause });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stop.cancelled() => return self.tell(Event::Stopped { name: self.name(), killed: false }),
            }
            running = spawn(&mut self.plan, restart + 1);
        }
    }

    /// Closes the child's stdin, waits for its grace, kills it.
    async fn end(self, mut child: Child, leash: Option<ChildStdin>) {
        drop(leash);
        let killed = tokio::time::timeout(self.plan.grace, child.wait()).await.is_err();
        if killed {
            // It may just have ended by itself, which is as good.
            let _ = child.kill().await;
        }
        self.tell(Event::Stopped { name: self.name(), killed });
    }

    fn give_up(&self, how: String, bad_input: bool) {
        self.tell(Event::GaveUp { name: self.name(), reason: self.with_last_words(how), bad_input });
    }

    fn name(&self) -> String {
        self.plan.name.clone()
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the supervisor's owner has gone on.
        let _ = self.events.send(event);
    }

    /// Adds the last line of the log, unless somebody else ended the process: then it had nothing to say of it.
    fn with_last_words(&self, how: String) -> String {
        match last_words(&self.plan.log).filter(|_| !how.starts_with("signal")) {
            Some(words) => format!("{how}; its last words: {words}"),
            None => how,
        }
    }
}

fn spawn(plan: &mut Plan, number: u32) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&plan.log);
    let log = log.with_context(|| format!("cannot write the log {}", plan.log.display()))?;
    let errors = log.try_clone().with_context(|| format!("cannot write the log {}", plan.log.display()))?;
    let mut command = (plan.command)(number)?;
    // Logs are files: no colours.
    command.env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(log).stderr(errors).process_group(0);
    command.spawn().with_context(|| format!("cannot start {}", plan.name))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("signal {signal} killed it"),
        (None, None) => "it ended".to_owned(),
    }
}

/// The last line of a log that is not blank; an `error:` line wins.
pub fn last_words(log: &Path) -> Option<String> {
    let tail = tail(log).ok()?;
    let lines: Vec<&str> = tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.iter().rev().find(|line| line.starts_with("error:")).or(lines.last())?;
    Some(last.chars().filter(|character| !character.is_control()).take(400).collect())
}

fn tail(log: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(log)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(LAST_WORDS_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(folder: &Path, on_exit: OnExit, script: &'static str) -> Plan {
        let command: MakeCommand = Box::new(move |number| {
            let mut command = Command::new("sh");
            command.arg("-c").arg(script).env("NUMBER", number.to_string());
            Ok(command)
        });
        Plan { name: "service".into(), command, on_exit, grace: Duration::from_millis(300), log: folder.join("service.log") }
    }

    fn quick() -> RestartConfig {
        RestartConfig { per_minute: 3, backoff: BackoffConfig { first_ms: 1, max_ms: 5, ..BackoffConfig::default() } }
    }

    async fn next(inbox: &mut mpsc::UnboundedReceiver<Event>) -> Event {
        tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await.expect("something happens").expect("the supervisor lives")
    }

    #[tokio::test]
    async fn a_dead_process_is_started_again_and_a_broken_one_is_given_up() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut supervisor, mut inbox) = Supervisor::new(quick());
        supervisor.start(plan(folder.path(), OnExit::Restart, "echo error: no luck; exit 1")).expect("starts");
        let mut starts = 0;
        loop {
            match next(&mut inbox).await {
                Event::Started { restart, .. } => {
                    assert_eq!(restart, starts);
                    starts += 1;
                }
                Event::Died { how, .. } => assert!(how.contains("exit code 1") && how.contains("no luck"), "{how}"),
                Event::GaveUp { reason, bad_input, .. } => {
                    assert!(!bad_input && reason.contains("3 restarts") && reason.contains("error: no luck"), "{reason}");
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(starts, 4, "the first start and three restarts");
    }

    #[tokio::test]
    async fn refused_input_is_not_tried_again() {
        for script in ["exit 2", "exit 42"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let (mut supervisor, mut inbox) = Supervisor::new(quick());
            supervisor.start(plan(folder.path(), OnExit::Restart, script)).expect("starts");
            assert!(matches!(next(&mut inbox).await, Event::Started { .. }));
            assert!(matches!(next(&mut inbox).await, Event::GaveUp { bad_input: true, .. }), "{script}");
        }
    }

    #[tokio::test]
    async fn a_worker_that_succeeds_is_done_and_one_that_fails_comes_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut supervisor, mut inbox) = Supervisor::new(quick());
        supervisor.start(plan(folder.path(), OnExit::DoneOnSuccess, "exit $((1 - NUMBER))")).expect("starts");
        assert!(matches!(next(&mut inbox).await, Event::Started { restart: 0, .. }));
        assert!(matches!(next(&mut inbox).await, Event::Died { .. }));
        assert!(matches!(next(&mut inbox).await, Event::Started { restart: 1, .. }));
        assert_eq!(next(&mut inbox).await, Event::Done { name: "service".into() });
    }

    #[tokio::test]
    async fn a_killed_service_is_back_under_a_new_process_id() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut supervisor, mut inbox) = Supervisor::new(quick());
        supervisor.start(plan(folder.path(), OnExit::Restart, "exec sleep 60")).expect("starts");
        let Event::Started { pid, .. } = next(&mut inbox).await else { panic!("it starts") };
        std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
        let Event::Died { how, .. } = next(&mut inbox).await else { panic!("it dies") };
        assert!(how.contains("signal 9"), "{how}");
        let Event::Started { pid: heir, restart: 1, .. } = next(&mut inbox).await else { panic!("it is back") };
        assert_ne!(pid, heir);
        supervisor.stop(&["service".into()]).await;
    }

    #[tokio::test]
    async fn closing_stdin_stops_a_process_that_listens_and_grace_ends_one_that_does_not() {
        for (script, want) in [("cat", false), ("exec sleep 60", true)] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let (mut supervisor, mut inbox) = Supervisor::new(quick());
            // Who is killed in the end need not be waited for long; who listens is not to be hurried.
            let grace = Duration::from_millis(if want { 300 } else { 20_000 });
            supervisor.start(Plan { grace, ..plan(folder.path(), OnExit::Restart, script) }).expect("starts");
            assert!(matches!(next(&mut inbox).await, Event::Started { .. }));
            let quiet = tokio::time::timeout(Duration::from_millis(200), inbox.recv()).await;
            assert!(quiet.is_err(), "nothing happens until it is asked to stop: {quiet:?}");
            supervisor.stop(&["service".into(), "nobody".into()]).await;
            assert_eq!(next(&mut inbox).await, Event::Stopped { name: "service".into(), killed: want }, "{script}");
        }
    }

    #[test]
    fn an_allowance_is_per_minute() {
        let mut allowance = Allowance::new(2);
        let start = Instant::now();
        assert!(allowance.take(start) && allowance.take(start + Duration::from_secs(1)));
        assert!(!allowance.take(start + Duration::from_secs(59)));
        assert!(allowance.take(start + Duration::from_secs(60)), "the first one is a minute old");
        assert!(!allowance.take(start + Duration::from_secs(60)));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_fails_the_first_start() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut supervisor, _inbox) = Supervisor::new(quick());
        let mut missing = plan(folder.path(), OnExit::Restart, "");
        missing.command = Box::new(|_| Ok(Command::new("/no/such/program")));
        let error = supervisor.start(missing).expect_err("nothing to start");
        assert!(format!("{error:#}").contains("cannot start service"), "{error:#}");
    }
}
