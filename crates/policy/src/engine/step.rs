//! One step of the engine: the pictures that wait are encoded, and every sequence that has tokens to feed feeds as many as the row
//! budget allows; those whose feed is used up and whose turn is open sample their next token.
//!
//! The sequences of a step are shared out to lanes of cores, one pass of the model each, unless the model is large; pictures
//! likewise. Decoding goes on whatever else comes: a step encodes no more pictures than the row budget holds, and prompts share the
//! rows that decoding leaves. A result does not depend on who shares a step: an element's sum is the same however many rows there are.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use hypereyes_domain::{Failure, Stop};
use hypereyes_pictures::Patches;
use rayon::prelude::*;

use super::cache::{Cache, CacheRow, CachedAttention};
use super::images::Visuals;
use super::sequence::{Sequence, fail};
use super::shares::shares;
use super::worker::Worker;
use super::{Placeholders, metrics};
use crate::faults;
use crate::models::{Rows, VisualTokens, Vlm};
use crate::ops::Kernels;

/// Logits from which choosing tokens is worth a task of the pool.
const LOGITS_PER_TASK: usize = 16 << 10;

/// Rows from which a pass runs on a thread of the pool.
const POOL_ROWS: usize = 32;

/// A sequence in a step.
struct Scheduled<B: Kernels, S> {
    id: u64,
    sequence: Sequence<B, S>,
    /// Tokens that it feeds.
    count: usize,
    /// A placeholder had no picture.
    broken: bool,
}

impl<B: Kernels, C: Cache<B>> Worker<B, C> {
    /// One step: pictures first, then one pass of the model per lane, each over its share of the sequences that have something to feed.
    pub(super) fn step(&mut self) {
        self.encode_images();
        let mut scheduled = self.schedule();
        if scheduled.is_empty() {
            return;
        }
        let rows: Vec<usize> = scheduled.iter().map(|scheduled| scheduled.count).collect();
        let worker = &*self;
        let passed = catch_unwind(AssertUnwindSafe(|| worker.on_lanes(&rows, scheduled.as_mut_slice(), &|part| worker.pass(part))));
        if let Err(panic) = passed {
            let message = format!("the engine's thread has ended: {}", faults::words(&*panic));
            for Scheduled { mut sequence, .. } in scheduled {
                sequence.fail(Failure::Infrastructure, &message);
            }
            resume_unwind(panic);
        }
        for Scheduled { id, mut sequence, broken, .. } in scheduled {
            if broken {
                // Its cache can no longer be trusted: tell whoever waits and drop it.
                sequence.fail(Failure::Policy, "a picture placeholder has no picture");
                self.give_back(sequence);
                continue;
            }
            match sequence.opening.take_if(|_| sequence.feed.is_empty()) {
                Some(opening) => self.open(sequence, opening),
                None => drop(self.sequences.insert(id, sequence)),
            }
        }
    }

    /// Encodes pictures that sequences wait for, as many as the row budget holds and at least one, in the order of the sequences. One
    /// that several show is encoded once.
    fn encode_images(&mut self) {
        let mut pictures: Vec<Arc<Patches>> = vec![];
        let mut shown: Vec<(u64, usize, usize)> = vec![];
        let (mut budget, mut full) = (self.engine.max_rows, false);
        for (id, sequence) in self.sequences.iter().filter(|(_, sequence)| sequence.is_awaited()) {
            for (at, picture) in sequence.images.cut() {
                let known = pictures.iter().position(|known| Arc::ptr_eq(known, picture));
                if known.is_none() {
                    let rows = picture.grid.0 * picture.grid.1;
                    // From the first that has no room on, none overtakes it.
                    full |= rows > budget && !pictures.is_empty();
                    if full {
                        continue;
                    }
                    budget = budget.saturating_sub(rows);
                    pictures.push(picture.clone());
                }
                shown.push((*id, at, known.unwrap_or(pictures.len() - 1)));
            }
        }
        if pictures.is_empty() {
            return;
        }
        let encoded = self.encode(pictures);
        for (id, at, picture) in shown {
            self.sequences.get_mut(&id).expect("it is held").images.encoded(at, encoded[picture].clone());
        }
    }

    /// The visual tokens of each picture.
    fn encode(&self, pictures: Vec<Arc<Patches>>) -> Vec<VisualTokens<B>> {
        let rows: Vec<usize> = pictures.iter().map(|picture| picture.grid.0 * picture.grid.1).collect();
        metrics::encoded(pictures.len(), rows.iter().sum());
        let join = self.config.vision.spatial_merge_size * self.config.vision.spatial_merge_size;
        let mut encoded: Vec<(Arc<Patches>, Option<VisualTokens<B>>)> = pictures.into_iter().map(|picture| (picture, None)).collect();
        self.on_lanes(&rows, &mut encoded, &|part| {
            let seen: Vec<&Patches> = part.iter().map(|(picture, _)| picture.as_ref()).collect();
            let Some(visual) = self.model.encode_images(&seen, &self.device) else { return };
            let lengths: Vec<usize> = seen.iter().map(|picture| picture.grid.0 * picture.grid.1 / join).collect();
            for ((_, tokens), own) in part.iter_mut().zip(visual.split(&lengths)) {
                *tokens = Some(own);
            }
        });
        encoded.into_iter().map(|(_, tokens)| tokens.expect("every picture was in a part")).collect()
    }

    /// Does `work` on parts of `items`, each on its lane, where lanes pay; otherwise on all of them at once. `rows` is what each costs.
    fn on_lanes<T: Send>(&self, rows: &[usize], items: &mut [T], work: &(dyn Fn(&mut [T]) + Sync)) {
        let mut parts = vec![];
        let mut rest = items;
        for share in shares(rows, if self.small { self.lanes.count() } else { 1 }) {
            let (part, others) = rest.split_at_mut(share);
            parts.push(part);
            rest = others;
        }
        match parts.len() {
            // Alone, a pass may use every core for each of its operations. One that will do so runs on a thread of the pool,
            // where handing work over costs little; a short one is done before another thread is awake.
            1 if rows.iter().sum::<usize>() >= POOL_ROWS => rayon::scope(|_| work(parts.remove(0))),
            1 => work(parts.remove(0)),
            _ => drop(self.lanes.map(parts, |_, part| work(part))),
        }
    }

    /// Takes out the sequences of this step and decides how many tokens each feeds. Sequences that decode come first, so
    /// that a long prompt never stops them; prompts share what the row budget leaves.
    fn schedule(&mut self) -> Vec<Scheduled<B, C::Slot>> {
        let mut busy: Vec<(usize, u64)> =
            self.sequences.iter().map(|(id, sequence)| (sequence.ready(), *id)).filter(|(ready, _)| *ready > 0).collect();
        busy.sort_by_key(|(ready, id)| (*ready > 1, *id));
        let mut budget = self.engine.max_rows;
        let mut scheduled = vec![];
        for (ready, id) in busy {
            let count = ready.min(budget);
            if count == 0 {
                break;
            }
            budget -= count;
            let sequence = self.sequences.remove(&id).expect("listed");
            scheduled.push(Scheduled { id, sequence, count, broken: false });
        }
        scheduled
    }

    /// Feeds the sequences of one share in one pass of the model, and samples for those whose feed is used up.
    fn pass(&self, part: &mut [Scheduled<B, C::Slot>]) {
        let mut rows = Rows::default();
        let mut places = vec![];
        let mut visuals = Visuals::default();
        let mut sampling: Vec<(usize, i64)> = vec![];
        for (slot, scheduled) in part.iter_mut().enumerate() {
            self.lay_out(slot, scheduled, &mut rows, &mut places, &mut visuals);
            let Scheduled { sequence, broken, .. } = scheduled;
            if sequence.feed.is_empty() && sequence.turn.is_some() && !*broken {
                sampling.push((slot, rows.tokens.len() as i64 - 1));
            }
        }
        if rows.tokens.is_empty() {
            return;
        }
        let of_prompts = places.iter().filter(|place| part[place.slot].sequence.opening.is_some()).count();
        metrics::step(rows.tokens.len(), of_prompts, sampling.len());
        let visual = visuals.join();
        let mut slots: Vec<&mut C::Slot> = part.iter_mut().map(|scheduled| &mut scheduled.sequence.slot).collect();
        let mut attend = CachedAttention::new(&self.cache, &mut slots, &places, &self.device);
        let hidden = self.model.hidden(&self.config, &rows, visual.as_ref(), &mut attend, &self.device);
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
        part.par_iter_mut().zip(given).with_min_len(LOGITS_PER_TASK.div_ceil(vocab)).for_each(|(scheduled, logits)| {
            if let Some(logits) = logits {
                self.sample(&mut scheduled.sequence, logits);
            }
        });
    }

    /// Lays the tokens that a sequence feeds out as rows.
    fn lay_out(
        &self,
        slot: usize,
        Scheduled { sequence, count, broken, .. }: &mut Scheduled<B, C::Slot>,
        rows: &mut Rows,
        places: &mut Vec<CacheRow>,
        visuals: &mut Visuals<B>,
    ) {
        let text_only = sequence.images.never() && self.engine.placeholders == Placeholders::Text;
        let mut under_way = None;
        for token in sequence.feed.drain(..*count) {
            let place = if token == self.config.image_token_id && !text_only {
                let Some((row, grid)) = sequence.images.feed(visuals, &mut under_way) else {
                    *broken = true;
                    return;
                };
                rows.visual.push(Some(row));
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
    }

    /// Samples the next token of a sequence, unless whoever asked has given up.
    fn sample(&self, sequence: &mut Sequence<B, C::Slot>, logits: &[f32]) {
        let Some(mut turn) = sequence.turn.take() else { return };
        if turn.reply.is_closed() {
            // The sequence waits for its release, and the rest of the turn is not computed.
            return metrics::aborted();
        }
        if !logits.iter().all(|logit| logit.is_finite()) {
            return fail(turn.reply, Failure::Infrastructure, "the model gave a logit that is not finite".into());
        }
        let (token, logprob) = sequence.sampler.as_mut().expect("opened sequences have a sampler").sample(logits);
        turn.tokens.push(token);
        turn.logprobs.push(logprob);
        turn.versions.push(self.version);
        sequence.feed.push(token);
        if self.engine.end_tokens.contains(&token) {
            turn.end(Stop::EndToken);
        } else if turn.tokens.len() >= turn.max_tokens {
            turn.end(Stop::Length);
        } else if sequence.fed + sequence.feed.len() >= self.engine.max_context {
            turn.end(Stop::ContextFull);
        } else {
            sequence.turn = Some(turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{PolicyVersion, Sampling};
    use tokio::sync::oneshot;

    use super::super::host_cache::KvPool;
    use super::super::sight::Input;
    use super::super::{Command, EngineConfig};
    use super::*;
    use crate::backend::Cpu;
    use crate::config::SmallShape;
    use crate::{checkpoint, init};

    const PICTURE: u32 = 61;

    #[test]
    fn decoding_goes_on_while_pictures_of_others_wait_for_the_tower() {
        let model = SmallShape { width: 32, layers: 1, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 }.model(64, PICTURE, 62, 63);
        let weights = init::fresh(&model, &Default::default(), 3);
        // One of the pictures below fills a step.
        let sizes = EngineConfig { max_rows: 24, ..EngineConfig::default() };
        let cache = KvPool::new(crate::models::state(&model), sizes.max_context, sizes.max_sequences, sizes.cache_bytes);
        let built = checkpoint::from_host(crate::models::Model::<Cpu>::init(&model, 0, &Default::default()), &weights).unwrap();
        let mut worker = Worker::new(built, model.clone(), sizes, PolicyVersion(0), cache, Default::default()).unwrap();
        let start = |worker: &mut Worker<Cpu, KvPool>, prompt: Input| {
            let (reply, answer) = oneshot::channel();
            worker.handle(Command::Start { prompt, seeds: vec![1], sampling: Sampling::of(1.0, 1.0), reply });
            worker.admit();
            answer
        };
        let mut text = start(&mut worker, Input { tokens: vec![1, 2, 3], pictures: vec![] });
        worker.step();
        let id = text.try_recv().unwrap().unwrap()[0];
        let (reply, _answer) = oneshot::channel();
        worker.handle(Command::Advance { id, observation: Input::default(), max_tokens: 99, reply });

        let picture = |salt: usize| {
            let values = (0..24 * model.patch_values()).map(|at| ((at + salt) % 7) as f32 / 7.0).collect();
            Arc::new(Patches { grid: (4, 6), values })
        };
        let [one, two] = [picture(1), picture(2)];
        // Three pictures, one of them twice.
        let tokens = [vec![5], vec![PICTURE; 18], vec![6]].concat();
        let mut shown = start(&mut worker, Input { tokens, pictures: vec![one.clone(), two, one] });
        let sampled = |worker: &Worker<Cpu, KvPool>| worker.sequences[&id].turn.as_ref().unwrap().tokens.len();
        let waiting = |worker: &Worker<Cpu, KvPool>| worker.sequences.values().map(|held| held.images.cut().count()).sum::<usize>();
        assert_eq!((sampled(&worker), waiting(&worker)), (0, 3));
        worker.step();
        assert_eq!((sampled(&worker), waiting(&worker)), (1, 1), "one picture, for both of its places, and a token");
        worker.step();
        assert_eq!((sampled(&worker), waiting(&worker)), (2, 0));
        assert!(shown.try_recv().unwrap().is_ok(), "a prompt is read in the step that encodes its last picture");
    }
}
