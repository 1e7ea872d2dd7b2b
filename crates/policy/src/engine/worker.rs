//! The thread that owns the model: takes commands, and between them runs one step after another.
//!
//! Consumes commands of the [`super::Engine`] handles; produces replies. What a step does is in [`super::step`]. Weights change
//! between steps only. Waits for commands only when idle.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, TryRecvError};

use hypereyes_domain::{Failure, PolicyVersion, Sampled, Stop};

use super::cache::{Cache, beside_the_prompt, most_siblings};
use super::images::Images;
use super::sampler::Sampler;
use super::sequence::{Opening, Reply, Sequence, Turn, fail};
use super::sight::Input;
use super::{Command, EngineConfig, Placeholders, metrics};
use crate::config::ModelConfig;
use crate::lanes::Lanes;
use crate::models::Model;
use crate::ops::{Kernels, guards};
use crate::{Error, checkpoint};

/// A group that waits for room: its prompt, how each sibling samples, who asked.
type Waiting = (Input, Vec<Sampler>, Reply<Vec<u64>>);

/// Largest model whose lanes each read all weights: what fits a cache is read for free. The operations of a larger one are
/// worth splitting one by one.
const LANE_WEIGHTS: u128 = 8 << 20;

/// Most lanes of an engine: beyond, waking them costs what they save.
const MOST_LANES: usize = 8;

pub(super) struct Worker<B: Kernels, C: Cache<B>> {
    pub(super) model: Model<B>,
    pub(super) lanes: Lanes,
    /// Whether lanes pay (see [`LANE_WEIGHTS`]).
    pub(super) small: bool,
    pub(super) config: ModelConfig,
    pub(super) engine: EngineConfig,
    pub(super) cache: C,
    pub(super) version: PolicyVersion,
    pub(super) device: B::Device,
    pub(super) sequences: BTreeMap<u64, Sequence<B, C::Slot>>,
    next_id: u64,
    waiting: VecDeque<Waiting>,
}

impl<B: Kernels, C: Cache<B>> Worker<B, C> {
    pub(super) fn new(
        model: Model<B>,
        config: ModelConfig,
        engine: EngineConfig,
        version: PolicyVersion,
        cache: C,
        device: B::Device,
    ) -> Result<Self, Error> {
        let lanes = Lanes::of_this_pool(if engine.device.has_lanes() { MOST_LANES } else { 1 })?;
        let small = config.parameters() <= LANE_WEIGHTS;
        engine.check().map_err(Error::Input)?;
        if cache.slots() == 0 {
            return Err(Error::Input(format!(
                "an engine needs room for a sequence: max_sequences is {}, and cache_bytes = {} holds {} of {} tokens",
                engine.max_sequences,
                engine.cache_bytes,
                cache.slots(),
                engine.max_context
            )));
        }
        let (sequences, waiting) = (BTreeMap::new(), VecDeque::new());
        Ok(Self { model, lanes, small, config, engine, cache, version, device, sequences, next_id: 0, waiting })
    }

    /// Runs until every handle is gone.
    pub(super) fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            loop {
                let command = if self.has_work() { commands.try_recv() } else { commands.recv().map_err(|_| TryRecvError::Disconnected) };
                match command {
                    Ok(command) => self.handle(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.admit();
            self.step();
        }
    }

    fn has_work(&self) -> bool {
        self.fits_next() || self.sequences.values().any(Sequence::is_awaited)
    }

    pub(super) fn handle(&mut self, command: Command) {
        match command {
            Command::Start { prompt, seeds, sampling, reply } => {
                let most = most_siblings(self.cache.slots());
                if seeds.is_empty() || seeds.len() > most {
                    let message = format!("{} sequences asked for; this engine holds 1 to {most}", seeds.len());
                    return fail(reply, Failure::Policy, message);
                }
                if let Some(message) = self.unknown(&prompt.tokens) {
                    return fail(reply, Failure::Policy, message);
                }
                let banned = (self.engine.placeholders == Placeholders::OfPictures).then_some(self.config.image_token_id);
                let samplers = seeds.into_iter().map(|seed| Sampler::new(sampling, seed, banned)).collect();
                self.waiting.push_back((prompt, samplers, reply));
            }
            Command::Advance { id, observation, max_tokens, reply } => self.advance(id, observation, max_tokens, reply),
            Command::Release { id } => self.release(id),
            Command::Load { weights, version, reply } => {
                let loaded = checkpoint::from_host(self.model.clone(), &weights).map(|model| {
                    self.model = model;
                    self.version = version;
                });
                metrics::weights_loaded(loaded.is_ok());
                // The sender may have stopped waiting; the weights are in all the same.
                let _ = reply.send(loaded.map_err(|error| error.to_string()));
            }
        }
    }

    /// Whether the next waiting group has room for its prompt and all its siblings.
    fn fits_next(&self) -> bool {
        let Some((_, samplers, _)) = self.waiting.front() else { return false };
        // Slots of siblings-to-be are spoken for while their prompts are read.
        let opening = self.sequences.values().filter_map(|held| held.opening.as_ref());
        let spoken_for: usize = opening.map(|opening| beside_the_prompt(opening.samplers.len())).sum();
        1 + beside_the_prompt(samplers.len()) + spoken_for <= self.cache.room()
    }

    /// Opens waiting groups in order.
    pub(super) fn admit(&mut self) {
        while self.fits_next() {
            let (mut prompt, samplers, reply) = self.waiting.pop_front().expect("there is a next one");
            let Some(last) = prompt.tokens.pop() else {
                fail(reply, Failure::Policy, "the prompt is empty".into());
                continue;
            };
            if prompt.tokens.len() + 2 > self.engine.max_context {
                let message = format!("the prompt has {} tokens; the context holds {}", prompt.tokens.len() + 1, self.engine.max_context);
                fail(reply, Failure::Policy, message);
                continue;
            }
            let mut images = Images::default();
            if let Err(message) = images.attach(&self.config, &prompt.tokens, &prompt.pictures) {
                fail(reply, Failure::Policy, message);
                continue;
            }
            let mut sequence = Sequence::of_prompt(self.cache.take(), prompt.tokens, images);
            let opening = Opening { samplers, last, reply };
            if sequence.feed.is_empty() {
                // A prompt of one token: its siblings share nothing.
                self.open(sequence, opening);
                continue;
            }
            sequence.opening = Some(opening);
            let id = self.fresh_id();
            self.sequences.insert(id, sequence);
        }
    }

    /// The prompt is in: its siblings go on from it, each on its own.
    pub(super) fn open(&mut self, prompt: Sequence<B, C::Slot>, opening: Opening) {
        let siblings = opening.samplers.len();
        metrics::forked(prompt.fed * beside_the_prompt(siblings));
        let Sequence { slot, positions, fed, .. } = prompt;
        let mut ids = vec![];
        for (slot, sampler) in self.cache.fork(slot, fed, siblings).into_iter().zip(opening.samplers) {
            let id = self.fresh_id();
            self.sequences.insert(id, Sequence::of_sibling(slot, positions.clone(), fed, opening.last, sampler));
            ids.push(id);
        }
        if let Err(Ok(ids)) = opening.reply.send(Ok(ids)) {
            ids.into_iter().for_each(|id| self.release(id));
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn advance(&mut self, id: u64, observation: Input, max_tokens: usize, reply: Reply<Sampled>) {
        if let Some(message) = self.unknown(&observation.tokens) {
            return fail(reply, Failure::Policy, message);
        }
        let Some(sequence) = self.sequences.get_mut(&id) else {
            return fail(reply, Failure::Infrastructure, format!("sequence {id} is not held by this engine"));
        };
        if sequence.turn.take().is_some() {
            // A sequence has one owner, who has given up waiting for the turn before.
            metrics::aborted();
        }
        if sequence.feed.is_empty() && observation.tokens.is_empty() {
            return fail(reply, Failure::Policy, "there is no token to go on from: the turn before was given up".into());
        }
        let turn = Turn::new(reply, max_tokens);
        if sequence.fed + sequence.feed.len() + observation.tokens.len() + 1 > self.engine.max_context {
            return turn.end(Stop::ContextFull);
        }
        if let Err(message) = sequence.images.attach(&self.config, &observation.tokens, &observation.pictures) {
            return fail(turn.reply, Failure::Policy, message);
        }
        let sampler = sequence.sampler.as_mut().expect("opened sequences have a sampler");
        // Who brings nothing goes on with the turn that a limit cut.
        if !(observation.tokens.is_empty() && sampler.is_in_turn()) {
            sampler.begin_turn();
        }
        sequence.feed.extend(observation.tokens);
        sequence.turn = Some(turn);
    }

    /// Gives a sequence's slot back; a turn under way is told.
    pub(super) fn release(&mut self, id: u64) {
        if let Some(sequence) = self.sequences.remove(&id) {
            self.give_back(sequence);
        }
    }

    /// The same for one that was taken out.
    pub(super) fn give_back(&mut self, sequence: Sequence<B, C::Slot>) {
        self.cache.give_back(sequence.slot);
        if let Some(turn) = sequence.turn {
            metrics::aborted();
            fail(turn.reply, Failure::Cancelled, "the sequence was released in the middle of a turn".into());
        }
    }

    /// What is wrong with tokens that the model has no embedding for.
    fn unknown(&self, tokens: &[u32]) -> Option<String> {
        guards::tokens(tokens, self.config.text.vocab_size).err()
    }
}
