//! Tasks of a world, solved by scripted explorers. In: settings, and whom the need-search filter asks. Out: a set in memory.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::DataSet;
use hypereyes_miniature::tokenizer;
use hypereyes_scoring::JudgeKind;
use hypereyes_search::EmbeddedSearch;
use hypereyes_synth::{Split, Workshop, need_search, synthesise};
use hypereyes_teacher_service::vocabulary::Vocabulary;

use super::CLOSED_BOOK_TRIES;
use crate::config::Config;
use crate::progress::Bar;
use crate::{endpoint, parts};

/// Makes a set in memory. Demonstrations are tokenised with the tokenizer of the world's own words.
pub async fn make(config: &Config, split: Split) -> Result<DataSet> {
    make_with(config, split, &Knows::Nobody).await
}

/// Whom the need-search filter asks.
pub(super) enum Knows {
    /// There is no filter.
    Nobody,
    /// The policy of a folder.
    Policy(PathBuf),
    /// A chat endpoint.
    Endpoint,
}

/// The same, with a filter.
pub(super) async fn make_with(config: &Config, split: Split, knows: &Knows) -> Result<DataSet> {
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
    let need_search = asked.map(|asked| need_search(asked.player, Arc::new(JudgeKind::Alias), sampling, CLOSED_BOOK_TRIES, 1));
    let workshop = Workshop { world, setup, config: config.synth.clone(), need_search };
    let bar = Bar::new("synth", "tasks");
    let made = synthesise(&workshop, config.seed, split, |progress| bar.at(progress.done, progress.of, "")).await;
    bar.done();
    let mut made = made.map_err(|error| BadInput::new(error.to_string()))?;
    made.tokenizer = Some(Vocabulary::load(folder.path(), words.image).map_err(BadInput::new)?.digest());
    Ok(made)
}
