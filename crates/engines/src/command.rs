//! An inference server that belongs to this process: `engine.command`. In: a list of arguments, a model folder, where the log goes. Out:
//! the address at which the server will listen ([`EngineCommand`]), and a handle that keeps it ([`EngineProcess`]): it is started, watched, started again with pauses when it
//! dies, and ended with us, however we end. It knows no dialect: a server is ready when `GET /health` is answered with 200.

use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hypereyes_chassis::backoff::BackoffConfig;
use hypereyes_chassis::leash;
use hypereyes_chassis::supervise::{Event, OnExit, Plan, RestartConfig, Supervisor};
use metrics::counter;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::http;
use crate::metrics::RESTARTS;

/// Stands for the port in the arguments.
const PORT: &str = "{port}";
/// Stands for the model folder in the arguments.
const MODEL: &str = "{model}";
/// The server's name in what is said of it.
const NAME: &str = "engine.command";
/// Between asking a server to stop and ending it: it may be in the middle of a batch.
const GRACE: Duration = Duration::from_secs(15);
/// Beyond that, for the leash to be gone.
const SLACK: Duration = Duration::from_secs(5);
/// Between two looks at whether it is up: it takes seconds to minutes.
const LOOK: Duration = Duration::from_millis(100);
/// Longest wait for one answer on its health.
const ANSWER: Duration = Duration::from_secs(5);

/// How often a server may be started again. One that is killed is back; one that cannot hold its memory does not spin.
fn restarts() -> RestartConfig {
    RestartConfig { per_minute: 5, backoff: BackoffConfig { first_ms: 1000, max_ms: 30_000, ..BackoffConfig::default() } }
}

/// What is wrong with a command, whatever machine it will run on.
///
/// # Errors
/// A sentence that begins with what the key is.
pub fn check(command: &[String]) -> Result<(), String> {
    match command.first() {
        None => Ok(()),
        Some(program) if program.is_empty() => Err("command begins with an empty word: name a program, such as \"vllm\"".to_owned()),
        Some(_) if command.iter().any(|word| word.contains('\0')) => Err("command has a word with a zero byte in it".to_owned()),
        Some(_) if !command.iter().any(|word| word.contains(PORT)) => {
            Err(format!("command has no {PORT}: the server must listen where it is asked, such as with \"--port\", \"{PORT}\""))
        }
        Some(_) => Ok(()),
    }
}

/// What became of the server.
#[derive(Clone, Debug, Default)]
struct State {
    /// Process id of its leash while it runs.
    process: Option<u32>,
    /// How often it was started again.
    restarts: u32,
    /// How it ended the last time.
    died: Option<String>,
    /// Why it is not started any more.
    gave_up: Option<String>,
}

/// A server that is kept. Dropping it asks the server to stop and waits for nothing; [`EngineProcess::stop`] waits.
#[derive(Debug)]
pub struct EngineProcess {
    url: String,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// A server that is to be started: where it will listen, and how.
#[derive(Debug)]
pub struct EngineCommand {
    url: String,
    holder: PathBuf,
    words: Vec<String>,
    log: PathBuf,
}

impl EngineCommand {
    /// `command` with a free port and the folder `model` in place of `{port}` and `{model}`; what it prints will be appended to `log`.
    ///
    /// # Errors
    /// A sentence: no port is free, or this program cannot be found any more.
    pub fn new(command: &[String], model: &Path, log: &Path) -> Result<Self, String> {
        check(command)?;
        let port = free_port().map_err(|error| format!("no port is free for {NAME}: {error}"))?;
        let model = model.to_str().ok_or_else(|| format!("{NAME}: {} is no path that can be written in an argument", model.display()))?;
        let words = command.iter().map(|word| word.replace(PORT, &port.to_string()).replace(MODEL, model)).collect();
        let holder = std::env::current_exe().map_err(|error| format!("{NAME}: this program cannot be found any more: {error}"))?;
        Ok(Self { url: format!("http://127.0.0.1:{port}"), holder, words, log: log.to_owned() })
    }

    /// With another program to hold the leash than this one.
    #[must_use]
    pub fn held_by(self, holder: impl Into<PathBuf>) -> Self {
        Self { holder: holder.into(), ..self }
    }

    /// The server's address, which stays the same when it is started again.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts the server, without a shell. Must be called inside a tokio runtime, in a program whose `main` calls [`leash::of_process`]
    /// first. A start that fails is told by [`EngineProcess::ready`].
    pub fn start(self) -> EngineProcess {
        let Self { url, holder, words, log } = self;
        let plan = Plan {
            name: NAME.to_owned(),
            command: Box::new(move |_| Ok(leash::command(&holder, GRACE, &words))),
            on_exit: OnExit::Restart,
            grace: GRACE + SLACK,
            log: log.clone(),
        };
        let (mut supervisor, events) = Supervisor::new(restarts());
        let failed = supervisor.start(plan).err().map(|error| format!("{error:#}"));
        let (told, state) = watch::channel(State { gave_up: failed, ..State::default() });
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(supervisor, events, told, stop.clone(), log.display().to_string()));
        EngineProcess { url, state, stop, task: Some(task) }
    }
}

impl EngineProcess {
    /// Waits until the server answers on its health.
    ///
    /// # Errors
    /// A sentence: it died before it was up, with its last words, or the time has passed.
    pub async fn ready(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let client = http::build(reqwest::Client::builder().no_proxy().timeout(ANSWER))?;
        let health = format!("{}/health", self.url);
        let up = async {
            loop {
                if client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let mut state = self.state.clone();
        let died = async {
            match state.wait_for(|state| state.died.is_some() || state.gave_up.is_some()).await {
                Ok(state) => state.gave_up.clone().or_else(|| state.died.clone()).unwrap_or_default(),
                Err(_) => "it was stopped".to_owned(),
            }
        };
        tokio::select! {
            () = up => Ok(()),
            how = died => Err(format!("{NAME} did not come up: {how}")),
            () = sleep_until(deadline) => Err(format!("{NAME} does not answer at {health} after {} s: raise start_timeout_s, or see its log", within.as_secs())),
        }
    }

    /// The server's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether it is not started again any more.
    pub fn has_given_up(&self) -> bool {
        self.state.borrow().gave_up.is_some()
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.state.borrow().restarts
    }

    /// Process id of the leash that holds it; `None` while there is none.
    pub fn process(&self) -> Option<u32> {
        self.state.borrow().process
    }

    /// Waits until the server is not started any more; why. Never, as long as it is kept.
    pub fn gave_up(&self) -> impl Future<Output = String> + Send + 'static {
        let mut state = self.state.clone();
        async move {
            if let Ok(state) = state.wait_for(|state| state.gave_up.is_some()).await {
                return format!("{NAME}: {}", state.gave_up.clone().unwrap_or_default());
            }
            // Stopped by its owner, which is no failure.
            std::future::pending().await
        }
    }

    /// Asks the server to stop and waits until it is gone.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // It ends within the grace; a panic in it has ended it, too.
            let _ = task.await;
        }
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Tells what happens to the server until it is to stop.
async fn keep(
    mut supervisor: Supervisor,
    mut events: mpsc::UnboundedReceiver<Event>,
    told: watch::Sender<State>,
    stop: CancellationToken,
    log: String,
) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = stop.cancelled() => break,
        };
        let Some(event) = event else { return };
        told.send_modify(|state| match event {
            Event::Started { pid, restart, .. } => (state.process, state.restarts) = (Some(pid), restart),
            Event::Died { how, pause, .. } => {
                tracing::warn!(how, log, "the engine's server died and is started again in {:.1} s", pause.as_secs_f64());
                counter!(RESTARTS).increment(1);
                (state.process, state.died) = (None, Some(format!("{how}; its log is {log}")));
            }
            Event::GaveUp { reason, .. } => {
                tracing::error!(reason, log, "the engine's server is not started any more");
                (state.process, state.gave_up) = (None, Some(format!("{reason}; its log is {log}")));
            }
            Event::Done { .. } | Event::Stopped { .. } => state.process = None,
        });
    }
    supervisor.stop(&[NAME.to_owned()]).await;
}

/// A port that nobody listens at. Somebody else may take it before the server does; the server then dies, and is started again.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_work_is_refused_by_name() {
        let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&words(&["vllm", "serve", "{model}", "--port={port}"])), Ok(()));
        assert!(check(&words(&["vllm", "serve"])).expect_err("no port").contains("command has no {port}"));
        assert!(check(&words(&["", "{port}"])).expect_err("no program").contains("empty word"));
    }

    #[tokio::test]
    async fn a_server_that_does_not_come_up_says_why() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (command, log) = (["a-server".to_owned(), "{port}".to_owned()], folder.path().join("engine.log"));
        for (holder, why) in [("false", "exit code 1"), ("/no/such/program", "cannot start")] {
            // Whatever it is told to hold, it fails.
            let server = EngineCommand::new(&command, folder.path(), &log).expect("a free port").held_by(holder).start();
            assert!(server.url().starts_with("http://127.0.0.1:"), "{}", server.url());
            let error = server.ready(Duration::from_secs(60)).await.expect_err("nobody listens");
            assert!(error.starts_with("engine.command did not come up: ") && error.contains(why), "{error}");
            server.stop().await;
        }
    }
}
