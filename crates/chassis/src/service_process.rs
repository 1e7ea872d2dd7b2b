//! A service: a part of the system that is a process of its own.
//!
//! In: what a service is called, its settings and its work. Out: its `main`, so that every service takes its settings from the
//! same places, logs, stops and ends alike, whether it has a process to itself or runs in somebody else's.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tokio::runtime::Runtime;

use crate::config::Settings;
use crate::{Shutdown, config, exit, leash, trace};

/// A service at work. It is boxed where it is defined: there it is compiled, once, and not again with every program and every test that
/// starts it.
pub type Work = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// A part of the system that can be a process.
pub trait ServiceProcess {
    /// The program's name.
    const NAME: &'static str;
    /// One line on what it does, for `--help`.
    const ABOUT: &'static str;
    /// Prefix of the environment variables that set it: `PREFIX__KEY=value`.
    const ENV: &'static str;
    /// Its settings.
    type Config: Default + Settings + Send;

    /// Works until it is done or told to stop; being told to stop is not an error.
    fn run(config: Self::Config, shutdown: Shutdown) -> Work;
}

/// What a command line says of settings: a file (the environment wins over it) and single ones (they win over both).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// `key=value` each; the last word.
    pub sets: Vec<String>,
}

/// A service as a program of its own, or as part of another. The crate that has the service has this as a `static`, with which all of
/// it is compiled.
pub struct ServiceProgram {
    name: &'static str,
    about: &'static str,
    env: &'static str,
    version: &'static str,
    begin: fn(&Sources, Shutdown) -> anyhow::Result<Work>,
}

impl ServiceProgram {
    /// The program of the service `R`; `version` is what `--version` says.
    pub const fn of<R: ServiceProcess>(version: &'static str) -> Self {
        Self { name: R::NAME, about: R::ABOUT, env: R::ENV, version, begin: begin::<R> }
    }

    /// Reads the service's settings and runs it.
    ///
    /// # Errors
    /// [`crate::ConfigError`] when a setting is wrong, and what the service itself fails with.
    pub async fn start(&self, sources: &Sources, shutdown: Shutdown) -> anyhow::Result<()> {
        trace::name(self.name);
        let ended = (self.begin)(sources, shutdown)?.await;
        // The last spans are those of the end.
        let _ = tokio::task::spawn_blocking(trace::flush).await;
        ended
    }

    /// The whole `main` of a service's own program: arguments, a runtime, signals, an exit code.
    pub fn main(&self) -> ExitCode {
        if let Some(code) = leash::of_process() {
            return code;
        }
        let matches = match self.command().try_get_matches() {
            Ok(matches) => matches,
            Err(error) => return misread(&error),
        };
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return exit::report_service(&error),
        };
        let ended = block_on(runtime, async { self.start(&sources(&matches), Shutdown::on_signal()?).await });
        match ended {
            Ok(()) => ExitCode::from(exit::OK),
            // The error itself, not a box around it: its type decides the exit code.
            Err(error) => exit::report_service(error.as_ref()),
        }
    }

    fn command(&self) -> Command {
        let set = format!("One setting; may be repeated. Wins over the file and the environment ({}__KEY)", self.env);
        Command::new(self.name)
            .version(self.version)
            .about(self.about)
            .arg(
                Arg::new("config").long("config").value_name("FILE").value_parser(value_parser!(PathBuf)).help("Configuration file (TOML)"),
            )
            .arg(Arg::new("set").long("set").value_name("KEY=VALUE").action(ArgAction::Append).help(set))
            .after_help("Exit codes: 0 done or told to stop, 1 failed and worth another try, 42 the input is wrong.")
    }
}

/// Reads the settings of a service, and has it begin.
fn begin<R: ServiceProcess>(sources: &Sources, shutdown: Shutdown) -> anyhow::Result<Work> {
    Ok(R::run(config::load(R::Config::default(), sources.file.as_deref(), R::ENV, &sources.sets)?, shutdown))
}

/// Longest wait at the end for threads that still read or write.
const LINGER: Duration = Duration::from_secs(10);

/// Runs `work` to its end. What its threads still do then is waited for only so long: one that reads from a disk that never
/// answers must not keep the process.
pub fn block_on<F: Future>(runtime: Runtime, work: F) -> F::Output {
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(LINGER);
    ended
}

/// Ends a service whose arguments ask for help, or cannot be read: the latter is wrong input like any other.
fn misread(error: &clap::Error) -> ExitCode {
    // Nobody is left to be told if the stream is gone.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { exit::SERVICE_BAD_INPUT } else { exit::OK })
}

fn sources(matches: &ArgMatches) -> Sources {
    Sources {
        file: matches.get_one("config").cloned(),
        sets: matches.get_many("set").map(|sets| sets.cloned().collect()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::BadInput;

    #[derive(Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Bench {
        length: u32,
    }

    impl Settings for Bench {}

    struct Attic;

    impl ServiceProcess for Attic {
        const NAME: &'static str = "attic";
        const ABOUT: &'static str = "Keeps a bench";
        const ENV: &'static str = "ATTIC_OF_TESTS";
        type Config = Bench;

        fn run(config: Bench, shutdown: Shutdown) -> Work {
            Box::pin(async move {
                anyhow::ensure!(!shutdown.is_triggered(), "told to stop");
                Err(BadInput::new(format!("a bench of {}", config.length)).into())
            })
        }
    }

    static PROGRAM: ServiceProgram = ServiceProgram::of::<Attic>("1");

    #[test]
    fn arguments_that_cannot_be_read_are_wrong_input() {
        let read = |argument: &str| misread(&PROGRAM.command().try_get_matches_from(["attic", argument]).expect_err(argument));
        assert_eq!(read("--sett"), ExitCode::from(exit::SERVICE_BAD_INPUT));
        assert_eq!(read("--version"), ExitCode::from(exit::OK));
    }

    #[tokio::test]
    async fn settings_reach_the_service_and_its_errors_keep_their_type() {
        let matches = PROGRAM.command().try_get_matches_from(["attic", "--set", "length=2", "--set", "length=3"]).expect("arguments");
        let error = PROGRAM.start(&sources(&matches), Shutdown::new()).await.expect_err("no bench is good");
        assert_eq!((error.to_string().as_str(), exit::code_of(error.as_ref())), ("a bench of 3", exit::BAD_INPUT));
        let wrong = Sources { sets: vec!["lenght=1".into()], ..Sources::default() };
        let error = PROGRAM.start(&wrong, Shutdown::new()).await.expect_err("no such key").to_string();
        assert!(error.contains("length"), "{error}");
    }
}
