//! The thread that owns the model: takes commands, and between them runs one step after another.
//!
//! Consumes commands of the [`super::Engine`] handles; produces replies. A step feeds, for every sequence that has
//! tokens to feed, as many as the row budget allows; sequences whose feed is used up and whose turn is open sample their
//! next token. The sequences of a step are shared out to lanes of cores, one pass of the model each, unless the model is
//! large. Weights change between steps only. Waits for commands only when idle.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use burn::tensor::{Int, Tensor, TensorData};
use hypereyes_domain::{Failure, GenerateError, PolicyVersion, Sampled, Stop};
use hypereyes_pictures::Patches;
use rayon::prelude::*;
use tokio::sync::oneshot;

use super::cache::{Cache, CacheRow, CachedAttention, beside_the_prompt, most_siblings};
use super::sampler::Sampler;
use super::shares::shares;
use super::sight::Input;
use super::{Command, EngineConfig, Placeholders, metrics};
use crate::config::ModelConfig;
use crate::lanes::Lanes;
use crate::model::{Positions, Qwen3Vl, Rows, VisualTokens, rotary_tables};
use crate::ops::{Kernels, guards};
use crate::{Error, checkpoint, faults};

/// A sampled turn under way.
struct Turn {
    reply: oneshot::Sender<Result<Sampled, GenerateError>>,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    versions: Vec<PolicyVersion>,
    max_tokens: usize,
}

/// Pictures whose placeholder tokens are still to be fed.
struct Pending<B: burn::tensor::backend::Backend> {
    visual: VisualTokens<B>,
    /// Merged grids of the pictures, and the next visual row.
    grids: Vec<(usize, usize)>,
    next_row: usize,
    next_picture: usize,
    rows_into_picture: usize,
}

struct Sequence<B: burn::tensor::backend::Backend, S> {
    slot: S,
    positions: Positions,
    fed: usize,
    feed: Vec<u32>,
    pictures: Option<Pending<B>>,
    sampler: Option<Sampler>,
    turn: Option<Turn>,
    /// A prompt being processed for its siblings-to-be.
    opening: Option<Opening>,
}

/// A group that waits for room: its prompt, how each sibling samples, who asked.
type Waiting = (Input, Vec<Sampler>, oneshot::Sender<Result<Vec<u64>, GenerateError>>);

struct Opening {
    samplers: Vec<Sampler>,
    last: u32,
    reply: oneshot::Sender<Result<Vec<u64>, GenerateError>>,
}

/// A sequence in a step.
struct Taken<B: burn::tensor::backend::Backend, S> {
    id: u64,
    sequence: Sequence<B, S>,
    /// Tokens that it feeds.
    count: usize,
    /// A placeholder had no picture.
    broken: bool,
}

/// Largest model whose lanes each read all weights: what fits a cache is read for free. The operations of a larger one are
/// worth splitting one by one.
const LANE_WEIGHTS: u128 = 8 << 20;

/// Logits from which choosing tokens is worth a task of the pool.
const LOGITS_PER_TASK: usize = 16 << 10;

/// Rows from which a pass runs on a thread of the pool.
const POOL_ROWS: usize = 32;

/// Most lanes of an engine: beyond, waking them costs what they save.
const MOST_LANES: usize = 8;

pub(super) struct Worker<B: Kernels, C: Cache<B>> {
    model: Qwen3Vl<B>,
    lanes: Lanes,
    /// Whether lanes pay (see [`LANE_WEIGHTS`]).
    small: bool,
    config: ModelConfig,
    engine: EngineConfig,
    cache: C,
    version: PolicyVersion,
    device: B::Device,
    sequences: BTreeMap<u64, Sequence<B, C::Slot>>,
    next_id: u64,
    waiting: VecDeque<Waiting>,
}

impl<B: Kernels, C: Cache<B>> Worker<B, C> {
    pub(super) fn new(
        model: Qwen3Vl<B>,
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
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.admit();
            self.step();
        }
    }

    fn has_work(&self) -> bool {
        self.fits_next() || self.sequences.values().any(|sequence| sequence.opening.is_some() || sequence.turn.is_some())
    }

    fn obey(&mut self, command: Command) {
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
            Command::Release { id } => {
                if let Some(sequence) = self.sequences.remove(&id) {
                    self.release(sequence);
                }
            }
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

    /// Gives a sequence's slot back; a turn under way is told.
    fn release(&mut self, sequence: Sequence<B, C::Slot>) {
        self.cache.give_back(sequence.slot);
        if let Some(turn) = sequence.turn {
            metrics::aborted();
            fail(turn.reply, Failure::Cancelled, "the sequence was released in the middle of a turn".into());
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
    fn admit(&mut self) {
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
            let mut sequence = Sequence {
                slot: self.cache.take(),
                positions: Positions::default(),
                fed: 0,
                feed: prompt.tokens,
                pictures: None,
                sampler: None,
                turn: None,
                opening: None,
            };
            if let Err(message) = self.show(&mut sequence, &prompt.pictures) {
                self.release(sequence);
                fail(reply, Failure::Policy, message);
                continue;
            }
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

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn advance(&mut self, id: u64, observation: Input, max_tokens: usize, reply: oneshot::Sender<Result<Sampled, GenerateError>>) {
        if let Some(message) = self.unknown(&observation.tokens) {
            return fail(reply, Failure::Policy, message);
        }
        let Some(mut sequence) = self.sequences.remove(&id) else {
            return fail(reply, Failure::Infrastructure, format!("sequence {id} is not held by this engine"));
        };
        if sequence.turn.take().is_some() {
            // A sequence has one owner, who has given up waiting for the turn before.
            metrics::aborted();
        }
        if sequence.feed.is_empty() && observation.tokens.is_empty() {
            self.sequences.insert(id, sequence);
            return fail(reply, Failure::Policy, "there is no token to go on from: the turn before was given up".into());
        }
        if sequence.fed + sequence.feed.len() + observation.tokens.len() + 1 > self.engine.max_context {
            let full = Sampled { tokens: vec![], logprobs: vec![], versions: vec![], stop: Stop::ContextFull };
            let _ = reply.send(Ok(full)); // The asker may be gone; nothing else to tell.
            self.sequences.insert(id, sequence);
            return;
        }
        if let Err(message) = self.show(&mut sequence, &observation.pictures) {
            self.sequences.insert(id, sequence);
            return fail(reply, Failure::Policy, message);
        }
        sequence.feed.extend(observation.tokens);
        sequence.turn = Some(Turn { reply, tokens: vec![], logprobs: vec![], versions: vec![], max_tokens: max_tokens.max(1) });
        self.sequences.insert(id, sequence);
    }

    /// What is wrong with tokens that the model has no embedding for.
    fn unknown(&self, tokens: &[u32]) -> Option<String> {
        guards::tokens(tokens, self.config.text.vocab_size).err()
    }

    /// Encodes pictures and checks that the feed has exactly their placeholders.
    fn show(&self, sequence: &mut Sequence<B, C::Slot>, pictures: &[Arc<Patches>]) -> Result<(), String> {
        if pictures.is_empty() {
            return Ok(());
        }
        let merge = self.config.vision.spatial_merge_size;
        pictures.iter().try_for_each(|picture| self.config.check_picture(picture))?;
        let seen: Vec<&Patches> = pictures.iter().map(AsRef::as_ref).collect();
        let visual = self.model.see(&seen, &self.device).expect("there are pictures");
        let grids = pictures.iter().map(|picture| (picture.grid.0 / merge, picture.grid.1 / merge)).collect();
        sequence.pictures = Some(Pending { visual, grids, next_row: 0, next_picture: 0, rows_into_picture: 0 });
        Ok(())
    }

    /// One step: one pass of the model per lane, each over its share of the sequences that have something to feed.
    fn step(&mut self) {
        let mut taken = self.take();
        if taken.is_empty() {
            return;
        }
        let rows: Vec<usize> = taken.iter().map(|taken| taken.count).collect();
        let shares = shares(&rows, if self.small { self.lanes.count() } else { 1 });
        let mut parts = vec![];
        let mut rest = taken.as_mut_slice();
        for share in shares {
            let (part, others) = rest.split_at_mut(share);
            parts.push(part);
            rest = others;
        }
        let worker = &*self;
        let passed = catch_unwind(AssertUnwindSafe(|| match parts.len() {
            // Alone, a pass may use every core for each of its operations. One that will do so runs on a thread of the pool,
            // where handing work over costs little; a short one is done before another thread is awake.
            1 if rows.iter().sum::<usize>() >= POOL_ROWS => rayon::scope(|_| worker.pass(parts.remove(0))),
            1 => worker.pass(parts.remove(0)),
            _ => drop(worker.lanes.map(parts, |_, part| worker.pass(part))),
        }));
        if let Err(panic) = passed {
            let message = || format!("the engine's thread has ended: {}", faults::words(&*panic));
            for Taken { sequence, .. } in taken {
                if let Some(turn) = sequence.turn {
                    fail(turn.reply, Failure::Infrastructure, message());
                }
                if let Some(opening) = sequence.opening {
                    fail(opening.reply, Failure::Infrastructure, message());
                }
            }
            resume_unwind(panic);
        }
        for Taken { id, mut sequence, broken, .. } in taken {
            if broken {
                // Its cache can no longer be trusted: tell whoever waits and drop it.
                let message = || "a picture placeholder has no picture".to_owned();
                if let Some(turn) = sequence.turn.take() {
                    fail(turn.reply, Failure::Policy, message());
                }
                if let Some(opening) = sequence.opening.take() {
                    fail(opening.reply, Failure::Policy, message());
                }
                self.release(sequence);
                continue;
            }
            match sequence.opening.take_if(|_| sequence.feed.is_empty()) {
                Some(opening) => self.open(sequence, opening),
                None => drop(self.sequences.insert(id, sequence)),
            }
        }
    }

    /// Takes out the sequences of this step and decides how many tokens each feeds. Sequences that decode come first, so
    /// that a long prompt never stops them; prompts share what the row budget leaves.
    fn take(&mut self) -> Vec<Taken<B, C::Slot>> {
        let wants =
            |sequence: &Sequence<B, C::Slot>| if sequence.turn.is_some() || sequence.opening.is_some() { sequence.feed.len() } else { 0 };
        let mut busy: Vec<(usize, u64)> =
            self.sequences.iter().map(|(id, sequence)| (wants(sequence), *id)).filter(|(wanted, _)| *wanted > 0).collect();
        busy.sort_by_key(|(wanted, id)| (*wanted > 1, *id));
        let mut budget = self.engine.max_rows;
        let mut taken = vec![];
        for (wanted, id) in busy {
            let count = wanted.min(budget);
            if count == 0 {
                break;
            }
            budget -= count;
            let sequence = self.sequences.remove(&id).expect("listed");
            taken.push(Taken { id, sequence, count, broken: false });
        }
        taken
    }

    /// Feeds the sequences of one share in one pass of the model, and samples for those whose feed is used up.
    fn pass(&self, part: &mut [Taken<B, C::Slot>]) {
        let mut rows = Rows::default();
        let mut places = vec![];
        let mut visuals: Vec<VisualTokens<B>> = vec![];
        let mut visual_rows = 0;
        let mut sampling: Vec<(usize, i64)> = vec![];
        for (slot, Taken { sequence, count, broken, .. }) in part.iter_mut().enumerate() {
            let mut offset = None;
            for token in sequence.feed.drain(..*count) {
                let text = sequence.pictures.is_none() && self.engine.placeholders == Placeholders::Text;
                let place = if token == self.config.image_token_id && !text {
                    let Some(pending) = sequence.pictures.as_mut().filter(|pending| pending.next_picture < pending.grids.len()) else {
                        *broken = true;
                        break;
                    };
                    let start = *offset.get_or_insert_with(|| {
                        visuals.push(pending.visual.clone());
                        visual_rows += pending.visual.embeddings.dims()[0];
                        visual_rows - pending.visual.embeddings.dims()[0]
                    });
                    let grid = pending.grids[pending.next_picture];
                    rows.visual.push(Some(start + pending.next_row));
                    pending.next_row += 1;
                    pending.rows_into_picture += 1;
                    if pending.rows_into_picture == grid.0 * grid.1 {
                        pending.next_picture += 1;
                        pending.rows_into_picture = 0;
                    }
                    sequence.positions.visual(grid)
                } else {
                    rows.visual.push(None);
                    sequence.positions.text()
                };
                rows.tokens.push(token);
                rows.positions.push(place);
                places.push(CacheRow { slot, at: sequence.fed });
                sequence.fed += 1;
            }
            if sequence.feed.is_empty() && sequence.turn.is_some() && !*broken {
                sampling.push((slot, rows.tokens.len() as i64 - 1));
            }
        }
        if rows.tokens.is_empty() {
            return;
        }
        let of_prompts = places.iter().filter(|place| part[place.slot].sequence.opening.is_some()).count();
        metrics::step(rows.tokens.len(), of_prompts, sampling.len());
        let visual = join(visuals);
        let rotary = rotary_tables(&self.config.text, &rows.positions, &self.device);
        let mut slots: Vec<&mut C::Slot> = part.iter_mut().map(|taken| &mut taken.sequence.slot).collect();
        let mut attend = CachedAttention::new(&self.cache, &mut slots, &places, &self.device);
        let hidden = self.model.hidden(&rows, &rotary, visual.as_ref(), &mut attend, &self.device);
        if sampling.is_empty() {
            return;
        }
        let index: Vec<i64> = sampling.iter().map(|(_, row)| *row).collect();
        let index = Tensor::<B, 1, Int>::from_data(TensorData::new(index, [sampling.len()]), &self.device);
        let logits = faults::floats_or_panic(self.model.logits(hidden.select(0, index)));
        let vocab = self.config.text.vocab_size;
        let mut given: Vec<Option<&[f32]>> = vec![None; part.len()];
        for ((slot, _), logits) in sampling.iter().zip(logits.chunks(vocab)) {
            given[*slot] = Some(logits);
        }
        part.par_iter_mut().zip(given).with_min_len(LOGITS_PER_TASK.div_ceil(vocab)).for_each(|(taken, logits)| {
            if let Some(logits) = logits {
                self.choose(&mut taken.sequence, logits);
            }
        });
    }

    /// The prompt is in: its siblings go on from it, each on its own.
    fn open(&mut self, prompt: Sequence<B, C::Slot>, opening: Opening) {
        metrics::forked(prompt.fed * beside_the_prompt(opening.samplers.len()));
        let mut ids = vec![];
        let slots = self.cache.fork(prompt.slot, prompt.fed, opening.samplers.len());
        for (slot, sampler) in slots.into_iter().zip(opening.samplers) {
            let sequence = Sequence {
                slot,
                positions: prompt.positions.clone(),
                fed: prompt.fed,
                feed: vec![opening.last],
                pictures: None,
                sampler: Some(sampler),
                turn: None,
                opening: None,
            };
            let id = self.fresh_id();
            self.sequences.insert(id, sequence);
            ids.push(id);
        }
        if let Err(Ok(ids)) = opening.reply.send(Ok(ids)) {
            for id in ids {
                self.obey(Command::Release { id });
            }
        }
    }

    fn choose(&self, sequence: &mut Sequence<B, C::Slot>, logits: &[f32]) {
        let Some(turn) = sequence.turn.take_if(|turn| turn.reply.is_closed()) else { return self.sample(sequence, logits) };
        // Whoever asked has given up: the sequence waits for its release, and the rest of the turn is not computed.
        metrics::aborted();
        drop(turn);
    }

    fn sample(&self, sequence: &mut Sequence<B, C::Slot>, logits: &[f32]) {
        let Some(turn) = &mut sequence.turn else { return };
        if !logits.iter().all(|logit| logit.is_finite()) {
            let turn = sequence.turn.take().expect("just seen");
            return fail(turn.reply, Failure::Infrastructure, "the model gave a logit that is not finite".into());
        }
        let (token, logprob) = sequence.sampler.as_mut().expect("opened sequences have a sampler").sample(logits);
        turn.tokens.push(token);
        turn.logprobs.push(logprob);
        turn.versions.push(self.version);
        sequence.feed.push(token);
        let stop = if self.engine.end_tokens.contains(&token) {
            Some(Stop::EndToken)
        } else if turn.tokens.len() >= turn.max_tokens {
            Some(Stop::Length)
        } else if sequence.fed + sequence.feed.len() >= self.engine.max_context {
            Some(Stop::ContextFull)
        } else {
            None
        };
        if let Some(stop) = stop {
            let turn = sequence.turn.take().expect("just seen");
            let sampled = Sampled { tokens: turn.tokens, logprobs: turn.logprobs, versions: turn.versions, stop };
            let _ = turn.reply.send(Ok(sampled)); // The asker may be gone; dropping its handle releases the sequence.
        }
    }
}

fn join<B: Kernels>(visuals: Vec<VisualTokens<B>>) -> Option<VisualTokens<B>> {
    let taps = visuals.first()?.deepstack.len();
    let deepstack = (0..taps).map(|tap| Tensor::cat(visuals.iter().map(|visual| visual.deepstack[tap].clone()).collect(), 0)).collect();
    Some(VisualTokens { embeddings: Tensor::cat(visuals.into_iter().map(|visual| visual.embeddings).collect(), 0), deepstack })
}

fn fail<T>(reply: oneshot::Sender<Result<T, GenerateError>>, failure: Failure, message: String) {
    metrics::failed(failure);
    let _ = reply.send(Err(GenerateError { failure, message })); // The asker may be gone; the failure is counted.
}
