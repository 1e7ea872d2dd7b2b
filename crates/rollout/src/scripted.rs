//! A policy that says what a test wrote down, and remembers every token that it was given.

use std::sync::{Arc, Mutex};

use hypereyes_chat::Chat;
use hypereyes_domain::{Chunk, Failure, Generate, GenerateError, PolicyVersion, Sampled, Sampling, Sequence, Stop, Task, TaskKind};
use hypereyes_miniature::tokenizer;
use hypereyes_pictures::{Limits, Picture, RgbImage, Store};
use hypereyes_search::EmbeddedSearch;
use hypereyes_world::World;

use crate::{RolloutConfig, Setup};

/// One scripted turn.
#[derive(Clone, Copy)]
pub enum Turn {
    /// This text and the end token.
    Says(&'static str),
    /// This text, cut at the token limit.
    Cut(&'static str),
    /// This text, cut because the slot is full.
    Full(&'static str),
    /// An error.
    Fails(Failure),
    /// No reply, ever.
    Hangs,
}

/// Seeds are indices into the script.
#[derive(Clone)]
pub struct Scripted {
    pub chat: Arc<Chat>,
    pub script: Vec<Vec<Turn>>,
    /// Per seed: everything that the engine holds.
    pub held: Arc<Mutex<Vec<Vec<u32>>>>,
    /// Prompts started.
    pub prompts: Arc<Mutex<Vec<Chunk>>>,
    /// Pictures given after the prompt.
    pub pictures: Arc<Mutex<usize>>,
}

impl Scripted {
    pub fn new(setup: &Setup, script: Vec<Vec<Turn>>) -> Self {
        let held = Arc::new(Mutex::new(vec![Vec::new(); script.len()]));
        Self { chat: setup.chat.clone(), script, held, prompts: Arc::default(), pictures: Arc::default() }
    }

    pub fn held(&self, seed: usize) -> Vec<u32> {
        self.held.lock().expect("no test panics with it")[seed].clone()
    }
}

pub struct ScriptedSequence {
    of: Scripted,
    seed: usize,
    turn: usize,
}

impl Generate for Scripted {
    type Sequence = ScriptedSequence;

    async fn start(&self, prompt: Chunk, seeds: Vec<u64>, _sampling: Sampling) -> Result<Vec<ScriptedSequence>, GenerateError> {
        let sequences = seeds.iter().map(|seed| ScriptedSequence { of: self.clone(), seed: *seed as usize, turn: 0 }).collect();
        let mut held = self.held.lock().expect("no test panics with it");
        seeds.iter().for_each(|seed| held[*seed as usize] = prompt.tokens.clone());
        self.prompts.lock().expect("no test panics with it").push(prompt);
        Ok(sequences)
    }
}

impl Sequence for ScriptedSequence {
    async fn advance(&mut self, observation: Chunk, max_tokens: usize) -> Result<Sampled, GenerateError> {
        let turn = self.of.script[self.seed][self.turn];
        self.turn += 1;
        let (text, stop) = match turn {
            Turn::Says(text) => (text, Stop::EndToken),
            Turn::Cut(text) => (text, Stop::Length),
            Turn::Full(text) => (text, Stop::ContextFull),
            Turn::Fails(failure) => return Err(GenerateError { failure, message: "as scripted".into() }),
            Turn::Hangs => std::future::pending().await,
        };
        let mut tokens = self.of.chat.encode(text);
        if stop == Stop::EndToken {
            tokens.push(self.of.chat.end_token());
        }
        tokens.truncate(max_tokens);
        *self.of.pictures.lock().expect("no test panics with it") += observation.pictures.len();
        let held = &mut self.of.held.lock().expect("no test panics with it")[self.seed];
        held.extend(&observation.tokens);
        held.extend(&tokens);
        let count = tokens.len();
        let version = PolicyVersion(self.turn as u64);
        Ok(Sampled { tokens, logprobs: vec![-0.5; count], versions: vec![version; count], stop })
    }
}

/// The embedded world with a tiny tokenizer made of its words.
pub fn setup() -> Setup {
    let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    tokenizer::of_world(&world, folder.path()).expect("sound words");
    let chat = Arc::new(Chat::load(folder.path()).expect("what was just written"));
    let pictures = Arc::new(Store::new(1 << 20, Limits::default()));
    Setup { chat, search: Arc::new(EmbeddedSearch::new(world)), pictures, config: RolloutConfig::default() }
}

/// Mexico on the left, Peru on the right.
pub fn task() -> (Task, Vec<Arc<Picture>>) {
    let world = World::embedded().expect("the embedded pack is sound");
    let mut canvas = RgbImage::new(128, 48);
    for (at, entity) in ["mx", "pe"].into_iter().enumerate() {
        let flag = world.picture(&entity.into()).expect("has a picture");
        flag.enumerate_pixels().for_each(|(x, y, pixel)| canvas.put_pixel(x + 64 * at as u32, y, *pixel));
    }
    let picture = Picture::from_image(canvas).expect("encodes");
    let task = Task {
        id: "t".into(),
        kind: TaskKind::VISUAL_SELECT,
        question: "Which one has currency peso?".into(),
        answers: vec!["Mexico".into()],
        pictures: vec![picture.id.clone()],
        layer: None,
        metadata: Default::default(),
        shown: vec![],
        reference: None,
    };
    (task, vec![Arc::new(picture)])
}
