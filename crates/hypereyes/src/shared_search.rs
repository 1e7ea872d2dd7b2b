//! The one search server of a run of `up`: a process that has the cache, the budget and the rates, while everything else of the run asks
//! it.
//!
//! In: settings, a run folder. Out: a server, what the others search with, and word of its end. It is started before anything searches
//! and stopped after everything else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use hypereyes_chassis::supervise::{Event, OnExit, Plan, Supervisor};
use hypereyes_chassis::{BadInput, ProcessConfig, Shutdown, config, ready};
use hypereyes_run::RunFolder;
use hypereyes_search::{SearchConfig, service};
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use crate::config::Config;
use crate::services::absolute;
use crate::{output, ports};

/// What it is called.
pub const SEARCH: &str = "search";

/// The server of a run.
pub struct SharedSearch {
    supervisor: Supervisor,
    events: UnboundedReceiver<Event>,
    folder: RunFolder,
    /// What everything else of the run searches with.
    pub settings: SearchConfig,
    /// How often it was started again.
    pub restarts: Arc<AtomicU32>,
}

impl SharedSearch {
    /// Starts the server and waits until it answers, if these settings want one.
    ///
    /// # Errors
    /// When it does not come up, or `shutdown` comes first.
    pub async fn start(config: &Config, folder: &RunFolder, shutdown: &Shutdown) -> Result<Option<Self>> {
        if !config.search.wants_one_server() {
            return Ok(None);
        }
        let address = ports::resolve(&[0]).await?.remove(0);
        let settings = server_settings(config, folder, address)?;
        let program = std::env::current_exe().context("cannot find this program, to start it again")?;
        let (path, announcement) = (folder.service_config(SEARCH), folder.announcement(SEARCH));
        let made = (path.clone(), announcement.clone());
        let plan = Plan {
            name: SEARCH.to_owned(),
            command: Box::new(move |_| {
                ready::clear(&made.1)?;
                config::dump(&settings, &made.0)?;
                let mut command = Command::new(&program);
                command.args(["service", SEARCH, "--leash", "--config"]).arg(&made.0);
                Ok(command)
            }),
            on_exit: OnExit::Restart,
            grace: Duration::from_secs(config.up.grace_s),
            log: folder.log(SEARCH),
        };
        let (mut supervisor, events) = Supervisor::new(config.up.restarts.clone());
        supervisor.start(plan)?;
        let settings = config.search.through(&format!("http://{address}"));
        let mut shared = Self { supervisor, events, folder: folder.clone(), settings, restarts: Arc::default() };
        let deadline = Instant::now() + Duration::from_secs(config.up.start_timeout_s);
        tokio::select! {
            announced = ready::await_announcement(&announcement, deadline) => {
                let log = folder.log(SEARCH);
                announced.with_context(|| format!("the search server did not come up; its log is {}", log.display()))?;
            }
            error = shared.ended() => return Err(error),
            () = shutdown.cancelled() => bail!("stopped while the search server was starting"),
        }
        Ok(Some(shared))
    }

    /// Waits until the server has ended for good, and says why: a budget that is spent, what it was told to do, or what it died of. What
    /// it recovers from is said and counted.
    pub async fn ended(&mut self) -> Error {
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Died { name, how, pause } => {
                    metrics::counter!(crate::metrics::RESTARTS, "service" => name.clone()).increment(1);
                    self.restarts.fetch_add(1, Ordering::Relaxed);
                    output::note(&format!("{name} died ({how}); starting it again in {:.1} s", pause.as_secs_f64()));
                }
                Event::Started { name, pid, restart } if restart > 0 => {
                    output::note(&format!("{name} is back (process {pid}, restart {restart})"));
                }
                Event::GaveUp { reason, bad_input, .. } => return self.why(&reason, bad_input),
                Event::Started { .. } | Event::Done { .. } | Event::Stopped { .. } => {}
            }
        }
        anyhow!("the supervisor of the search server is gone")
    }

    fn why(&self, reason: &str, bad_input: bool) -> Error {
        let words = reason.rsplit_once("last words: error: ").map_or(reason, |(_, words)| words);
        // Nothing is wrong with what was given: it is used up.
        if bad_input && words.contains("search.budget.") {
            return anyhow!("{words}");
        }
        let text = format!("{SEARCH} cannot run: {words}; its log is {}", self.folder.log(SEARCH).display());
        if bad_input { BadInput::new(text).into() } else { anyhow!(text) }
    }

    /// Stops it.
    pub async fn stop(&mut self) {
        self.supervisor.stop(&[SEARCH.to_owned()]).await;
    }
}

/// The server's own settings.
fn server_settings(config: &Config, folder: &RunFolder, listen: SocketAddr) -> Result<service::Config> {
    let world = &config.world;
    Ok(service::Config {
        listen,
        world: if world.as_os_str().is_empty() { None } else { Some(absolute(world)?) },
        search: config.search.clone().absolute(),
        ends_when_spent: true,
        process: ProcessConfig {
            metrics_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            announce: Some(folder.announcement(SEARCH)),
            ..ProcessConfig::default()
        },
    })
}

/// Waits as [`SharedSearch::ended`] does; for ever where there is none.
pub async fn ended(shared: Option<&mut SharedSearch>) -> Error {
    match shared {
        Some(shared) => shared.ended().await,
        None => std::future::pending().await,
    }
}
