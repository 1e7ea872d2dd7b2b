//! The engine: prefill, time to first token, decoding at several batch sizes; the engine of this process alone, or beside one outside.
//!
//! In: a policy, the counts, the settings of an engine. Out: one row per engine and batch size. A batch is a group: one prompt, forked.
//! Engines that are compared are asked for the same, in turns, through the port that rollouts use; ratios are of one repeat each.

mod outside;
mod prompts;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampled, Sampling, Sequence};
use hypereyes_engines::{Engine, EngineConfig, EngineSequence};
use hypereyes_policy::Error;
use hypereyes_policy::checkpoint::{HostWeights, Snapshot};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use serde_json::{Map, Value};
use tokio::task::JoinSet;

pub use self::outside::check;
use self::prompts::Prompts;
use super::median;

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Where the model computes in this process.
    pub device: Device,
    /// Sequences at once, one row each.
    pub batches: Vec<usize>,
    /// Tokens of the prompt, without those of its pictures; at least 2.
    pub prompt: usize,
    /// Tokens that each sequence samples; at least 2.
    pub new: usize,
    /// Pictures of the prompt.
    pub pictures: usize,
    /// Sides of each in pixels.
    pub picture_side: u32,
    /// Runs, of which the median counts.
    pub repeats: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self { device: Device::Cpu, batches: vec![1, 8, 32], prompt: 300, new: 128, pictures: 0, picture_side: 448, repeats: 3 }
    }
}

impl Load {
    fn largest_batch(&self) -> usize {
        self.batches.iter().copied().max().unwrap_or(1)
    }
}

/// What is sampled from.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Its shape.
    pub model: &'a ModelConfig,
    /// Its weights.
    pub weights: &'a HostWeights,
    /// Where it lies, if it does: servers need one, and it says how pictures are cut.
    pub folder: Option<&'a Path>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// One per engine and batch size; beside an engine outside a last one, of the log-probs.
    pub rows: Vec<Map<String, Value>>,
    /// What makes the rows doubtful.
    pub warnings: Vec<String>,
}

/// Measures every batch size on the engine of this process, and on that of the settings where they name servers.
///
/// # Errors
/// [`BadInput`] for what cannot be measured ([`check`]); an engine that fails.
pub async fn measure(policy: &Policy<'_>, settings: &EngineConfig, load: &Load, seed: u64) -> Result<Measured> {
    check(settings, policy.folder)?;
    let folder = policy.folder.filter(|_| load.pictures > 0 || settings.is_remote());
    let mut prompts = Prompts::new(policy.model, folder, load, seed)?;
    let scratch = tempfile::tempdir().context("no temporary folder")?;
    let (mut there, mut last, mut warnings) = (None, None, vec![]);
    if settings.is_remote() {
        let engine = outside::start(settings, policy, &prompts, load, scratch.path()).await?;
        let prompt = prompts.draw()?;
        let (compared, difference) = outside::difference(&engine, policy, &prompts, &prompt, (load.new, load.device)).await?;
        warnings.extend(outside::warning(&settings.kind, difference));
        let fields = [
            ("engine", Value::from(settings.kind.as_str())),
            ("compared_logprobs", compared.into()),
            ("largest_difference", f64::from(difference).into()),
        ];
        last = Some(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        there = Some(engine);
    }
    // One more for the prompt itself while it is read; no token ends a turn.
    let sizes = EngineConfig {
        max_sequences: load.largest_batch() + 1,
        max_context: prompts.length() + load.new + 1,
        device: load.device,
        ..EngineConfig::default()
    };
    let here = open(&sizes, policy, PolicyVersion(0), &prompts)?;
    let mut rows = vec![];
    for batch in &load.batches {
        let (ours, theirs) = compared(&here, there.as_ref(), &mut prompts, *batch, load, seed).await?;
        let about = |engine: &str, runs: &[Parts]| row(engine, *batch, prompts.length(), load, runs);
        rows.push(about(&sizes.kind, &ours));
        if there.is_some() {
            let mut row = about(&settings.kind, &theirs);
            row.extend(ratios(&ours, &theirs));
            rows.push(row);
        }
    }
    rows.extend(last);
    Ok(Measured { rows, warnings })
}

fn open(config: &EngineConfig, policy: &Policy<'_>, version: PolicyVersion, prompts: &Prompts) -> Result<Engine> {
    let policy = hypereyes_engines::Policy {
        model: policy.model.clone(),
        snapshot: Snapshot::new(policy.weights, version),
        end_tokens: vec![],
        processor: prompts.processor.clone(),
        pictures: prompts.store.clone(),
        folder: policy.folder.unwrap_or(Path::new("")),
    };
    hypereyes_engines::open(config, policy).map_err(refusal)
}

fn refusal(error: Error) -> anyhow::Error {
    match error {
        Error::Input(message) => BadInput::new(message).into(),
        other => other.into(),
    }
}

/// Runs of one batch size on both engines, in turns: whoever came second comes first the next time. The same prompts for both.
async fn compared(
    here: &Engine,
    there: Option<&Engine>,
    prompts: &mut Prompts,
    batch: usize,
    load: &Load,
    seed: u64,
) -> Result<(Vec<Parts>, Vec<Parts>)> {
    let (mut ours, mut theirs) = (vec![], vec![]);
    for repeat in 0..=load.repeats {
        let group = Group { seeds: (0..batch as u64).map(|number| seed ^ number).collect(), new: load.new };
        // Held until both have read them: pictures are lent.
        let (prompt, another) = (prompts.draw()?, prompts.draw()?);
        let own = async || group.here(here, &prompt.chunk).await;
        let other = async || match there {
            Some(there) => Ok(Some(group.there(there, &prompt.chunk, &another.chunk).await?)),
            None => anyhow::Ok(None),
        };
        let (one, its) = if repeat % 2 == 0 {
            let one = own().await?;
            (one, other().await?)
        } else {
            let its = other().await?;
            (own().await?, its)
        };
        // The first run of a batch size warms caches up.
        if repeat > 0 {
            ours.push(one);
            theirs.extend(its);
        }
    }
    Ok((ours, theirs))
}

/// Seconds of the parts of one run.
#[derive(Clone, Copy, Debug)]
struct Parts {
    /// The prompt alone, where that can be told.
    prefill: Option<f64>,
    /// Prompt to the first token of every sequence.
    first: f64,
    /// Prompt to the last token of every sequence.
    turn: f64,
}

impl Parts {
    /// All tokens after the first; nothing where a whole turn took no longer than a first token.
    fn decode(&self) -> Option<f64> {
        Some(self.turn - self.first).filter(|seconds| *seconds > 0.0)
    }
}

/// The sequences of one run.
struct Group {
    seeds: Vec<u64>,
    new: usize,
}

impl Group {
    /// In this process a turn that goes on costs nothing more: it is stopped after the first token.
    async fn here(&self, engine: &Engine, prompt: &Chunk) -> Result<Parts> {
        let began = Instant::now();
        let sequences = self.start(engine, prompt).await?;
        let prefill = began.elapsed().as_secs_f64();
        let sequences = advance(sequences, 1).await?;
        let first = began.elapsed().as_secs_f64();
        advance(sequences, self.new - 1).await?;
        Ok(Parts { prefill: Some(prefill), first, turn: began.elapsed().as_secs_f64() })
    }

    /// A server is sent all tokens again with every turn: its first token and its whole turn are of two prompts.
    async fn there(&self, engine: &Engine, prompt: &Chunk, another: &Chunk) -> Result<Parts> {
        let began = Instant::now();
        advance(self.start(engine, prompt).await?, 1).await?;
        let first = began.elapsed().as_secs_f64();
        let began = Instant::now();
        advance(self.start(engine, another).await?, self.new).await?;
        Ok(Parts { prefill: None, first, turn: began.elapsed().as_secs_f64() })
    }

    async fn start(&self, engine: &Engine, prompt: &Chunk) -> Result<Vec<EngineSequence>> {
        Ok(engine.start(prompt.clone(), self.seeds.clone(), Sampling::of(1.0, 1.0)).await?)
    }
}

/// All sequences by `count` tokens, at the same time.
async fn advance(sequences: Vec<EngineSequence>, count: usize) -> Result<Vec<EngineSequence>> {
    let mut running = JoinSet::new();
    for mut sequence in sequences {
        running.spawn(async move {
            let sampled: Sampled = sequence.advance(Chunk::default(), count).await?;
            anyhow::ensure!(sampled.tokens.len() == count, "the engine gave {} of {count} tokens", sampled.tokens.len());
            Ok(sequence)
        });
    }
    let mut done = vec![];
    while let Some(one) = running.join_next().await {
        done.push(one.context("a sequence was abandoned")??);
    }
    Ok(done)
}

/// What one engine did with one batch size.
fn row(engine: &str, batch: usize, length: usize, load: &Load, runs: &[Parts]) -> Map<String, Value> {
    let of = |value: &dyn Fn(&Parts) -> Option<f64>| -> Value {
        let values: Option<Vec<f64>> = runs.iter().map(value).collect();
        values.map(median).into()
    };
    let mut row = Map::new();
    row.insert("engine".into(), engine.into());
    row.insert("batch".into(), batch.into());
    row.insert("pictures".into(), load.pictures.into());
    row.insert("prompt_tokens".into(), length.into());
    row.insert("new_tokens".into(), load.new.into());
    if runs.iter().all(|run| run.prefill.is_some()) {
        row.insert("prefill_tokens_per_s".into(), of(&|run| Some((length - 1) as f64 / run.prefill?)));
    }
    row.insert("first_token_s".into(), of(&|run| Some(run.first)));
    row.insert("decode_tokens_per_s".into(), of(&|run| Some((batch * (load.new - 1)) as f64 / run.decode()?)));
    row.insert("turn_s".into(), of(&|run| Some(run.turn)));
    row
}

/// How many times as fast as ours theirs was, repeat by repeat: the median, and the lowest and highest.
fn ratios(ours: &[Parts], theirs: &[Parts]) -> Map<String, Value> {
    type Seconds = fn(&Parts) -> Option<f64>;
    let parts: [(&str, Seconds); 3] =
        [("first_token_ratio", |run| Some(run.first)), ("decode_ratio", Parts::decode), ("turn_ratio", |run| Some(run.turn))];
    let mut fields = Map::new();
    for (name, seconds) in parts {
        let ratio = |(ours, theirs): (&Parts, &Parts)| Some(seconds(ours)? / seconds(theirs)?);
        let mut all: Vec<f64> = ours.iter().zip(theirs).filter_map(ratio).collect();
        all.sort_by(f64::total_cmp);
        let whole = all.len() == ours.len();
        let range = all.first().zip(all.last()).filter(|_| whole).map(|(lowest, highest)| vec![*lowest, *highest]);
        fields.insert(name.into(), range.is_some().then(|| median(all)).into());
        fields.insert(format!("{name}_range"), range.into());
    }
    fields
}

#[cfg(test)]
mod tests;
