//! The command line: parse, load the configuration, run one command.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use hypereyes_chassis::service_process::Sources;
use hypereyes_chassis::{BadInput, exit};
use hypereyes_offline::{generate, logprobs, loss, score};

use crate::commands::{
    ask, bench, coldstart, compare, data, doctor, eval, index, prepare, report, search, service, sft, status, study, synth, teacher, up,
    world,
};
use crate::config::Config;
use crate::{parts, protocol};

/// Train parallel multimodal search agents: search wider, not longer.
#[derive(Parser, Debug)]
#[command(name = "hypereyes", version, about, long_about = None)]
#[command(after_help = "Start here:\n  hypereyes up                      train an agent on this machine, watch it, get a report\n  \
    hypereyes ask mosaic.png \"Which one has currency sol?\"\n\n\
    Every setting has a key: `hypereyes up --dry-run` prints them all. Exit codes: 0 done, 1 failed, 2 wrong input.")]
pub struct Cli {
    /// Settings file (TOML).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, such as `--set seed=3` or `--set synth.tasks=500`. May be repeated; wins over file and environment.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Print the result as JSON on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Train an agent on this machine: all services as processes, before and after, a report.
    Up(up::UpArgs),
    /// Make tasks and cold-start demonstrations from a world pack.
    Synth(synth::SynthArgs),
    /// World packs of your own: what is wrong with one, and who can use it.
    World(world::WorldArgs),
    /// Bring data sets in (parquet, Arrow, JSON lines), look at them, and write task sets as parquet.
    Data(data::DataArgs),
    /// Train a policy on demonstrations (cold start).
    Sft(sft::SftArgs),
    /// Make a policy and its teacher of a world pack, in so many minutes.
    Coldstart(coldstart::ColdstartArgs),
    /// Measure a policy: accuracy, rounds, searches, tokens, CAS, closed book.
    Eval(eval::EvalArgs),
    /// Compare two evaluations item by item, or put several into one table.
    Compare(compare::CompareArgs),
    /// Ask a trained agent one question about a picture and see every round.
    Ask(ask::AskArgs),
    /// Search once, through the service, cache and budget of the settings; look at what is kept, share it.
    Search(search::SearchArgs),
    /// Serve what can be searched to others.
    Index(index::IndexArgs),
    /// Run an experiment: arms by seeds of `up`, a table with intervals, curves, a verdict per claim.
    Study(study::StudyArgs),
    /// Show what a run is doing, or what became of it.
    Status(status::StatusArgs),
    /// Make the report of a finished run again.
    Report(report::ReportArgs),
    /// Look at and swap the teachers of a running service: list, load, check, promote, retire.
    Teacher(teacher::TeacherArgs),
    /// Write models and tasks into a folder, for services that are started on other machines.
    Prepare(prepare::PrepareArgs),
    /// Check what would go wrong later: settings, models, ports, folders, cores, memory.
    Doctor(doctor::DoctorArgs),
    /// Score groups of rollouts offline, as the reward service does.
    Score(score::ScoreArgs),
    /// The log-prob of every token of given sequences.
    Logprobs(logprobs::LogprobsArgs),
    /// Continue prompts, greedily or sampled.
    Generate(generate::GenerateArgs),
    /// Measure the speed of the parts on this machine.
    Bench(bench::BenchArgs),
    /// Evaluate the policy-gradient objective on cases of log-probs and rewards.
    Loss(loss::LossArgs),
    /// Run one service; `up` starts its own with it. `room` is the same.
    #[command(hide = true, alias = "room")]
    Service(service::ServiceArgs),
}

impl Cli {
    /// Parses the process's command line; wrong ones end the process with usage and exit code 2, a service's with 42.
    pub fn of_process() -> Self {
        let arguments = sets_behind_command(std::env::args_os().collect());
        Self::try_parse_from(&arguments).unwrap_or_else(|error| {
            if error.use_stderr() && means_service(&arguments) {
                // Nobody is left to be told if stderr is gone.
                let _ = error.print();
                std::process::exit(exit::SERVICE_BAD_INPUT.into());
            }
            error.exit()
        })
    }

    /// Whether this process is a service and nothing else.
    pub fn is_service(&self) -> bool {
        matches!(self.command, Command::Service(_))
    }

    /// The settings that this command line asks for.
    ///
    /// # Errors
    /// A [`hypereyes_chassis::ConfigError`], which is bad input.
    pub fn settings(&self) -> Result<Config> {
        match &self.command {
            // Benchmarks have limits of their own, unless somebody says others.
            Command::Eval(args) if args.benchmark.is_some() => {
                let mut config = Config::load_over(protocol::published(), &self.sources())?;
                protocol::make_room(&mut config);
                Ok(config)
            }
            _ => Config::load(&self.sources()),
        }
    }

    /// Where this command line takes its settings from.
    pub fn sources(&self) -> Sources {
        let engine = match &self.command {
            Command::Synth(args) => args.engine.sets(),
            Command::Eval(args) => args.engine.sets(),
            Command::Ask(args) => args.engine.sets(),
            Command::Bench(args) => bench::sets(args),
            _ => vec![],
        };
        Sources { file: self.config.clone(), sets: [self.sets.clone(), engine].concat() }
    }
}

/// Whether arguments that cannot be read were meant for a service.
fn means_service(arguments: &[OsString]) -> bool {
    let guessed = Cli::command().ignore_errors(true).try_get_matches_from(arguments);
    guessed.is_ok_and(|matches| matches.subcommand_name() == Some("service"))
}

/// Moves every `--set` that stands before the command behind it: clap forgets the earlier ones when both places have some.
fn sets_behind_command(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let (mut front, mut sets): (Vec<OsString>, Vec<OsString>) = (arguments.next().into_iter().collect(), Vec::new());
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        if text == "--set" {
            sets.push(argument);
            sets.extend(arguments.next());
        } else if text.starts_with("--set=") {
            sets.push(argument);
        } else {
            front.push(argument);
            if text == "--config" {
                front.extend(arguments.next());
            } else if !text.starts_with('-') {
                break;
            }
        }
    }
    front.into_iter().chain(sets).chain(arguments).collect()
}

/// Runs a parsed command line.
pub fn run(cli: &Cli) -> Result<()> {
    match &cli.command {
        Command::Service(args) => service::run(&cli.sources(), args),
        Command::Up(args) => up::run(&cli.sources(), args, cli.json),
        Command::Synth(args) => synth::run(&cli.settings()?, args, cli.json),
        Command::World(args) => world::run(&cli.settings()?, args, cli.json),
        Command::Data(args) => data::run(args, cli.json),
        Command::Sft(args) => sft::run(&cli.settings()?, args, cli.json),
        Command::Coldstart(args) => coldstart::run(&cli.settings()?, args, cli.json),
        Command::Eval(args) => eval::run(&cli.settings()?, args, cli.json),
        Command::Compare(args) => compare::run(args, cli.json),
        Command::Ask(args) => ask::run(&cli.settings()?, args, cli.json),
        Command::Search(args) => search::run(&cli.settings()?, args, cli.json),
        Command::Index(args) => index::run(&cli.settings()?, args, cli.json),
        Command::Study(args) => study::run(&cli.sources(), args, cli.json),
        Command::Status(args) => status::run(&cli.settings()?, args, cli.json),
        Command::Teacher(args) => teacher::run(&cli.settings()?, args, cli.json),
        Command::Prepare(args) => prepare::run(&cli.settings()?, args, cli.json),
        Command::Report(args) => report::run(args, cli.json),
        Command::Doctor(args) => doctor::run(&cli.sources(), args, cli.json),
        Command::Score(args) => {
            let service = cli.settings()?.reward_service;
            score::run(&service.trace, service.judge.rule(), args)
        }
        Command::Logprobs(args) => {
            parts::telemetry()?;
            logprobs::run(args, cli.json)
        }
        Command::Generate(args) => {
            let config = cli.settings()?;
            if config.engine.is_remote() {
                let kind = &config.engine.kind;
                return Err(BadInput::new(format!("engine.kind is {kind:?}, but `generate` computes in this process: leave it out")).into());
            }
            parts::telemetry()?;
            generate::run(&config.engine.sizes(), config.seed, args)
        }
        Command::Bench(args) => bench::run(&cli.settings()?, args, cli.json),
        Command::Loss(args) => loss::run(args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_can_be_said_before_and_after_the_command() {
        let line = ["hypereyes", "--set", "seed=3", "--set=world=w", "up", "--set", "up.actors=1", "--json", "--set", "world="];
        let cli = Cli::parse_from(sets_behind_command(line.map(OsString::from).to_vec()));
        assert_eq!(cli.sets, ["seed=3", "world=w", "up.actors=1", "world="], "later ones win");
        let config = cli.settings().expect("sound");
        assert_eq!((config.seed, config.up.actors, cli.json), (3, 1, true));
    }

    #[test]
    fn flags_say_who_samples_and_win() {
        let line = ["hypereyes", "--set", "engine.kind=local", "eval", "--engine", "openai", "--url", "http://a:1/v1"];
        let cli = Cli::parse_from(sets_behind_command(line.map(OsString::from).to_vec()));
        let config = cli.settings().expect("sound");
        assert_eq!((config.engine.kind.as_str(), &config.engine.url[..]), ("openai", &["http://a:1/v1".to_owned()][..]));
        let line = ["hypereyes", "ask", "a.png", "q", "--url", "http://a:1", "--url", "http://b:1"];
        assert_eq!(Cli::parse_from(line).settings().expect("sound").engine.url, ["http://a:1", "http://b:1"]);
        let line = ["hypereyes", "bench", "engine", "--engine", "sglang", "--url", "http://a:1"];
        let config = Cli::parse_from(line).settings().expect("sound");
        assert_eq!((config.engine.kind.as_str(), &config.engine.url[..]), ("sglang", &["http://a:1".to_owned()][..]));
        let named = |line: &[&str]| match Cli::parse_from(line).command {
            Command::Synth(args) => args.need_search,
            _ => None,
        };
        assert_eq!(named(&["hypereyes", "synth", "--need-search", "--out", "d"]), Some(None));
        assert_eq!(named(&["hypereyes", "synth", "--need-search", "p", "--out", "d"]), Some(Some("p".into())));
    }

    #[test]
    fn a_benchmark_has_the_published_limits_and_what_is_said_wins() {
        let of = |words: &[&str]| {
            let line = [&["hypereyes", "eval"], words].concat();
            Cli::parse_from(line).settings().expect("sound")
        };
        let usual = of(&[]);
        assert_eq!((usual.rollout.env.max_rounds, usual.rollout.max_context_tokens, usual.engine.max_context), (8, 768, 768));
        let published = of(&["--benchmark", "browsecomp-vl", "--data", "d"]);
        assert_eq!((published.rollout.env.max_rounds, published.rollout.env.max_turns), (18, 19));
        assert_eq!((published.rollout.max_context_tokens, published.engine.max_context), (38_000, 38_000));
        assert_eq!(published.eval.max_picture_tokens, 1200);
        let said = ["--set", "rollout.env.max_rounds=4", "--set", "engine.max_context=9000", "--set", "rollout.max_context_tokens=9000"];
        let said = of(&[&["--benchmark", "browsecomp-vl", "--data", "d"][..], &said].concat());
        assert_eq!((said.rollout.env.max_rounds, said.rollout.env.max_turns, said.engine.max_context), (4, 19, 9000));
        let endpoint = of(&["--benchmark", "browsecomp-vl", "--data", "d", "--engine", "openai", "--url", "http://a:1/v1"]);
        assert!(endpoint.engine.check().is_ok() && endpoint.rollout.max_context_tokens == 38_000);
    }

    #[test]
    fn wrong_arguments_of_a_service_are_told_from_a_commands() {
        let service = |line: &[&str]| means_service(&line.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(service(&["hypereyes", "room", "attic"]) && service(&["hypereyes", "--config", "x", "service", "actor", "--laesh"]));
        assert!(
            !service(&["hypereyes", "up", "service"])
                && !service(&["hypereyes", "ask", "x.png", "service", "--wat"])
                && !service(&["hypereyes"])
        );
    }

    #[test]
    fn an_unknown_key_is_bad_input() {
        let cli = Cli::parse_from(["hypereyes", "up", "--set", "sead=3"]);
        let error = cli.settings().expect_err("no such key");
        assert_eq!(hypereyes_chassis::exit::code_of(error.as_ref()), hypereyes_chassis::exit::BAD_INPUT);
        assert!(error.to_string().contains("did you mean seed?"), "{error}");
    }
}
