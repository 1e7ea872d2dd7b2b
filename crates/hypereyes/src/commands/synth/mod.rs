//! `hypereyes synth`: tasks and cold-start demonstrations. In: a world pack, tasks that are there, triples, or named pictures; who
//! explores. Out: a task folder, with a demonstration of every task that somebody solved.

mod entities;
mod served;
mod terms;
mod triples;
mod world;
mod writer;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use hypereyes_chassis::BadInput;
use hypereyes_synth::Split;

pub use self::world::make;
use self::world::{Knows, make_with};
use crate::commands::EngineArgs;
use crate::config::Config;
use crate::{check, endpoint, parts};

/// Arguments of `synth`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  hypereyes synth --out data/train\n  hypereyes synth --out data/held_out --held-out --set synth.held_out=500\n  \
    hypereyes synth --out data/wide --set synth.explorer.serial=0 --set synth.explorer.pairs=0 --set synth.explorer.parallel=1\n\n\
    A served model explores (progressive rejection sampling); the same command goes on after a kill:\n  \
    hypereyes synth --tasks data/own --model Qwen3-VL-8B-Instruct --engine openai --url http://127.0.0.1:8000/v1 --out data/cold\n  \
    hypereyes synth --tasks data/own --model policies/teacher --engine vllm --url http://127.0.0.1:8000 --set engine.policy_folder=/shared/p --out data/cold\n\n\
    Tasks of one's own, which are then explored:\n  \
    hypereyes synth --triples facts.tsv --out data/walks\n  \
    hypereyes synth --entities photos --engine openai --url http://127.0.0.1:8000/v1 --set 'synth.canvas=[1024, 768]' --out data/mosaics\n\n\
    docs/synthesis.md has the forms of files, and what is written."
)]
pub struct SynthArgs {
    /// Folder to write: tasks.jsonl, demonstrations.jsonl, pictures/; with a served explorer also attempts.jsonl and written.jsonl.
    #[arg(long)]
    pub out: PathBuf,
    /// Make the held-out set (other layers, other combinations of entities) instead of the training set.
    #[arg(long, conflicts_with_all = ["tasks", "triples", "entities"])]
    pub held_out: bool,
    /// Task folder whose tasks are explored, such as one of `data import`. Default: tasks of the world, made on the spot.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["triples", "entities"])]
    pub tasks: Option<PathBuf>,
    /// Make textual tasks from a file of triples: subject, relation and object apart by tabs, or JSON lines.
    #[arg(long, value_name = "FILE", conflicts_with = "entities")]
    pub triples: Option<PathBuf>,
    /// Make visual tasks from a folder of named pictures (NAME.jpg) with what is known of each (NAME.txt or facts.jsonl); the model of
    /// `--engine openai` writes the questions.
    #[arg(long, value_name = "DIR")]
    pub entities: Option<PathBuf>,
    /// Folder of the policy that is to learn: demonstrations are written in its tokenizer and chat template. With `--engine openai` its
    /// weights are not read; with every other kind it is also who explores.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["triples", "entities"])]
    pub model: Option<PathBuf>,
    /// Who solves tasks. Default: `engine` for tasks that are given and where `--engine` is said without `--need-search`, else `scripted`.
    #[arg(long, value_enum, conflicts_with_all = ["triples", "entities"])]
    pub explorer: Option<Who>,
    /// Leave out tasks that this policy answers without tools (need-search filter). On counterfactual layers hardly any is. With
    /// `--engine openai` the policy is the server's, and no folder is given; where the engine explores, it is asked itself.
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with_all = ["triples", "entities"])]
    pub need_search: Option<Option<PathBuf>>,
    /// Have the model of `--engine openai` word the questions of `--triples`.
    #[arg(long, requires = "triples")]
    pub reword: bool,
    /// Who explores, or samples for `--need-search`, or writes.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Who solves tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Who {
    /// Scripts that know what questions of the world mean.
    Scripted,
    /// Whoever the settings' `engine` is.
    Engine,
}

impl SynthArgs {
    fn who(&self) -> Who {
        let said = self.engine != EngineArgs::default() && self.need_search.is_none();
        self.explorer.unwrap_or(if said || self.tasks.is_some() || self.model.is_some() { Who::Engine } else { Who::Scripted })
    }
}

/// Closed-book tries per task of the need-search filter; one right answer in them may be luck, two are knowledge.
const CLOSED_BOOK_TRIES: u32 = 4;

/// Makes the set, writes it and says what it holds.
///
/// # Errors
/// [`BadInput`] for arguments and settings that do not go together, and whatever the parts say.
pub fn run(config: &Config, args: &SynthArgs, json: bool) -> Result<()> {
    if let Some(file) = &args.triples {
        return triples::run(config, args, file, json);
    }
    if let Some(folder) = &args.entities {
        return entities::run(config, args, folder, json);
    }
    match args.who() {
        Who::Engine => served::run(config, args, json),
        Who::Scripted if args.tasks.is_some() => {
            Err(BadInput::new("--tasks are solved by --explorer engine: scripts know what questions of a world mean, and no others").into())
        }
        Who::Scripted if args.model.is_some() => {
            Err(BadInput::new("--model has no effect with --explorer scripted: demonstrations of a world are in the words of that world")
                .into())
        }
        Who::Scripted => scripted(config, args, json),
    }
}

/// Tasks of the world, solved by scripts.
fn scripted(config: &Config, args: &SynthArgs, json: bool) -> Result<()> {
    let mut found = check::tasks(config);
    let knows = match &args.need_search {
        None if args.engine != EngineArgs::default() => {
            return Err(BadInput::new("--engine and --url say who samples for --need-search: add it, or leave them out").into());
        }
        None => Knows::Nobody,
        Some(folder) => {
            found.told("engine", config.engine.check());
            endpoint::needs_no_folder(config, "--need-search", folder.as_deref())?;
            match folder {
                Some(folder) => Knows::Policy(folder.clone()),
                None if config.engine.speaks_text() => Knows::Endpoint,
                None => return Err(BadInput::new("--need-search wants the folder of a policy, unless engine.kind is openai").into()),
            }
        }
    };
    found.result()?;
    let set = parts::runtime()?.block_on(make_with(config, split(args), &knows))?;
    set.write(&args.out).map_err(|error| BadInput::new(error.to_string()))?;
    let stats = set.stats();
    if json {
        crate::output::json(&stats);
    } else {
        crate::output::say(&format!(
            "{} tasks ({} select, {} hop, {} textual), demonstrations of {:.2} rounds and {:.0} tokens in {}",
            stats.tasks,
            stats.visual_select,
            stats.visual_hop,
            stats.textual,
            stats.mean_rounds,
            stats.mean_tokens,
            args.out.display()
        ));
        let dropped: Vec<String> = stats.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        if !dropped.is_empty() {
            crate::output::say(&format!("passed over: {}", dropped.join(", ")));
        }
    }
    Ok(())
}

fn split(args: &SynthArgs) -> Split {
    if args.held_out { Split::HeldOut } else { Split::Train }
}
