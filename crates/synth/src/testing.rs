//! What the tests of this crate share: the embedded world with a tiny tokenizer made of its words.

use std::sync::{Arc, OnceLock};

use hypereyes_chat::Chat;
use hypereyes_miniature::tokenizer;
use hypereyes_pictures::{Limits, Store};
use hypereyes_rollout::{RolloutConfig, Setup};
use hypereyes_search::EmbeddedSearch;
use hypereyes_world::World;

use crate::{SynthConfig, Workshop};

/// A workshop for small sets; the world is loaded once per test binary.
pub fn workshop(tasks: usize, held_out: usize) -> Workshop {
    static PARTS: OnceLock<(Arc<World>, Setup)> = OnceLock::new();
    let (world, setup) = PARTS.get_or_init(|| {
        let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let summary = tokenizer::of_world(&world, folder.path()).expect("sound words");
        eprintln!("tiny vocabulary of the embedded world: {}", summary.vocab_size);
        let chat = Arc::new(Chat::load(folder.path()).expect("what was just written"));
        let pictures = Arc::new(Store::new(1 << 20, Limits::default()));
        let setup = Setup { chat, search: Arc::new(EmbeddedSearch::new(world.clone())), pictures, config: RolloutConfig::default() };
        (world, setup)
    });
    let mut config = SynthConfig { tasks, held_out, ..SynthConfig::default() };
    // Few layers: each costs an index.
    config.layers.count = 4;
    config.held_out_layers.count = 2;
    Workshop { world: world.clone(), setup: setup.clone(), config, need_search: None }
}
