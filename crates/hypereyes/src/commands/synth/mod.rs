//! `hypereyes synth`: tasks and cold-start demonstrations from a world pack.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::DataSet;
use hypereyes_miniature::tokenizer;
use hypereyes_scoring::AliasJudge;
use hypereyes_search::EmbeddedSearch;
use hypereyes_synth::{Split, Workshop, need_search, synthesise};
use hypereyes_teacher_service::vocabulary::Vocabulary;

use crate::commands::EngineArgs;
use crate::config::Config;
use crate::progress::Bar;
use crate::{check, endpoint, parts};

/// Arguments of `synth`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  hypereyes synth --out data/train\n  hypereyes synth --out data/held_out --held-out --set synth.held_out=500\n  \
    hypereyes synth --out data/wide --set synth.explorer.serial=0 --set synth.explorer.pairs=0 --set synth.explorer.parallel=1"
)]
pub struct SynthArgs {
    /// Folder to write: tasks.jsonl, demonstrations.jsonl, pictures/.
    #[arg(long)]
    pub out: PathBuf,
    /// Make the held-out set (other layers, other combinations of entities) instead of the training set.
    #[arg(long)]
    pub held_out: bool,
    /// Leave out tasks that this policy answers without tools (need-search filter). On counterfactual layers hardly any is. With
    /// `--engine openai` the policy is the server's, and no folder is given.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    pub need_search: Option<Option<PathBuf>>,
    /// Who samples for `--need-search`.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Closed-book tries per task of the need-search filter; one right answer in them may be luck, two are knowledge.
const CLOSED_BOOK_TRIES: u64 = 4;

/// Makes the set, writes it and says what it holds.
pub fn run(config: &Config, args: &SynthArgs, json: bool) -> Result<()> {
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
    let split = if args.held_out { Split::HeldOut } else { Split::Train };
    let set = parts::runtime()?.block_on(make_with(config, split, &knows))?;
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

/// Makes a set in memory. Demonstrations are tokenised with the tokenizer of the world's own words.
pub async fn make(config: &Config, split: Split) -> Result<DataSet> {
    make_with(config, split, &Knows::Nobody).await
}

/// Whom the need-search filter asks.
enum Knows {
    Nobody,
    Policy(PathBuf),
    Endpoint,
}

async fn make_with(config: &Config, split: Split, knows: &Knows) -> Result<DataSet> {
    let world = parts::world(config)?;
    let folder = tempfile::tempdir()?;
    let words = tokenizer::of_world(&world, folder.path()).map_err(|error| BadInput::new(error.to_string()))?;
    // Tasks are of the world, and so is what solves them: no service is asked, or paid, for what is known here.
    let search = Arc::new(EmbeddedSearch::new(world.clone()));
    let setup = parts::setup_with(config, search, parts::chat(folder.path())?);
    let asked = match knows {
        Knows::Nobody => None,
        Knows::Policy(model) => Some(parts::tokens(config, &world, model, model.display().to_string()).await?),
        Knows::Endpoint => Some(endpoint::open(config, &world).await?),
    };
    let sampling = config.sampling.train.sampling();
    let need_search = asked.map(|asked| need_search(asked.player, Arc::new(AliasJudge), sampling, CLOSED_BOOK_TRIES, 1));
    let workshop = Workshop { world, setup, config: config.synth.clone(), need_search };
    let bar = Bar::new("synth", "tasks");
    let made = synthesise(&workshop, config.seed, split, |progress| bar.at(progress.done, progress.of, "")).await;
    bar.done();
    let mut made = made.map_err(|error| BadInput::new(error.to_string()))?;
    made.tokenizer = Some(Vocabulary::load(folder.path(), words.image).map_err(BadInput::new)?.digest());
    Ok(made)
}
