//! Engines at stand-ins, sequences with pictures, and what is counted meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use hypereyes_domain::{Chunk, Generate, GenerateError, PolicyVersion, Sampled, Sampling, Sequence, SetWeights, Stop, turn_seed};
use hypereyes_engines::{Engine, EngineConfig};
use hypereyes_pictures::Picture;
use hypereyes_policy::checkpoint::{HostWeights, Snapshot};
use hypereyes_standin::audit::prompt_digest;
use hypereyes_standin::{Dialect, Entry, Lie};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::sync::{Mutex, MutexGuard};

use crate::support::{CONTEXT, Policy};

/// The name of the counter of answers.
const ANSWERS: &str = "hypereyes_engine_answers_total";

/// Counters are the process's: tests of this program that count run one after another.
pub async fn alone() -> (MutexGuard<'static, ()>, Counts) {
    static ALONE: Mutex<()> = Mutex::const_new(());
    static RECORDER: OnceLock<Snapshotter> = OnceLock::new();
    let guard = ALONE.lock().await;
    let snapshotter = RECORDER.get_or_init(|| {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().expect("nobody else has one");
        snapshotter
    });
    let mut counts = Counts { snapshotter, sums: BTreeMap::new(), others: BTreeMap::new() };
    // What others counted is theirs.
    counts.since();
    counts.sums.clear();
    counts.others.clear();
    (guard, counts)
}

/// Answers of servers by outcome, and what else is counted.
pub struct Counts {
    snapshotter: &'static Snapshotter,
    sums: BTreeMap<String, u64>,
    /// Everything else, by name and label.
    others: BTreeMap<(String, String), u64>,
}

impl Counts {
    /// Outcomes since this was asked last.
    pub fn since(&mut self) -> BTreeMap<String, u64> {
        let mut fresh = BTreeMap::new();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            // A snapshot takes what it shows with it.
            let DebugValue::Counter(count) = value else { continue };
            let label = key.key().labels().next().map(|label| label.value().to_owned()).unwrap_or_default();
            match key.key().name() {
                ANSWERS => *fresh.entry(label).or_default() += count,
                name => *self.others.entry((name.to_owned(), label)).or_default() += count,
            }
        }
        fresh.retain(|_, count| *count > 0);
        for (outcome, count) in &fresh {
            *self.sums.entry(outcome.clone()).or_default() += count;
        }
        fresh
    }

    /// All outcomes since the beginning of the test.
    pub fn all(&mut self) -> &BTreeMap<String, u64> {
        self.since();
        &self.sums
    }

    /// Another counter, `hypereyes_engine_{name}_total`, under a label's value where it has one, since the beginning of the test.
    pub fn of(&mut self, name: &str, label: &str) -> u64 {
        self.since();
        self.others.get(&(format!("hypereyes_engine_{name}_total"), label.to_owned())).copied().unwrap_or(0)
    }
}

/// Settings of an engine at servers.
pub fn config(dialect: Dialect, urls: &[&str], folder: &Path) -> EngineConfig {
    EngineConfig {
        kind: if dialect == Dialect::Vllm { "vllm" } else { "sglang" }.into(),
        url: urls.iter().map(|url| (*url).to_owned()).collect(),
        policy_folder: folder.to_owned(),
        request_timeout_s: 20,
        reload_timeout_s: 30,
        start_timeout_s: 60,
        health_interval_s: 1,
        max_context: CONTEXT,
        ..EngineConfig::default()
    }
}

/// An engine of a policy, which is not ready yet.
pub fn open(policy: &Policy, config: &EngineConfig) -> Engine {
    ending(policy, config, vec![policy.chat.end_token()])
}

/// The same with other tokens that end a turn: without any, each is as long as it may be.
pub fn ending(policy: &Policy, config: &EngineConfig, end_tokens: Vec<u32>) -> Engine {
    let what = hypereyes_engines::Policy {
        model: policy.model.clone(),
        snapshot: Snapshot::new(&policy.weights, PolicyVersion(0)),
        end_tokens,
        processor: policy.chat.processor().clone(),
        pictures: policy.store.clone(),
        folder: &policy.start(),
    };
    hypereyes_engines::open(config, what).expect("opens")
}

/// The engine of this process.
pub fn local(policy: &Policy) -> Engine {
    open(policy, &EngineConfig { max_context: CONTEXT, ..EngineConfig::default() })
}

/// Publishes weights.
pub async fn push(engine: &Engine, weights: &HostWeights, version: u64) -> Result<(), String> {
    let version = PolicyVersion(version);
    SetWeights::<Snapshot>::set_weights(engine, Snapshot::new(weights, version), version).await.map_err(|error| error.message)
}

/// A turn that can be trained on, with all that it goes on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub prompt: Vec<u32>,
    pub seed: u64,
    pub sampled: Sampled,
}

/// One rollout: what it could be trained on, and how it ended where it failed.
#[derive(Debug)]
pub struct Rollout {
    pub turns: Vec<Turn>,
    pub error: Option<GenerateError>,
}

/// What a rollout is shown.
pub struct Play {
    pub prompt: Vec<u32>,
    pub pictures: Vec<Picture>,
    pub observation: Vec<u32>,
    pub shown: Vec<Picture>,
}

impl Play {
    /// A question about a picture, and a picture that every call returns.
    pub fn new(policy: &Policy) -> Arc<Self> {
        let (pictures, shown) = (vec![policy.picture(11, 64, 64)], vec![policy.picture(12, 64, 32)]);
        let prompt = policy.prompt("Which one has currency peso?", &pictures);
        let observation = policy.observation("peso", &shown);
        Arc::new(Self { prompt, pictures, observation, shown })
    }

    /// The pictures that were shown before a turn, in order.
    pub fn seen(&self, turn: u64) -> Vec<Picture> {
        let shown = (0..turn).flat_map(|_| &self.shown);
        self.pictures.iter().chain(shown).cloned().collect()
    }

    /// So many turns of up to `most` tokens, whatever they say.
    pub async fn roll_out(&self, engine: &Engine, seed: u64, turns: u64, most: usize) -> Rollout {
        self.roll_out_with(engine, seed, turns, most, async |_| ()).await
    }

    /// The same; before each turn something else happens.
    pub async fn roll_out_with(&self, engine: &Engine, seed: u64, turns: u64, most: usize, before: impl AsyncFn(u64)) -> Rollout {
        let mut rollout = Rollout { turns: vec![], error: None };
        let named = |pictures: &[Picture]| pictures.iter().map(|picture| picture.id.clone()).collect();
        let prompt = Chunk { tokens: self.prompt.clone(), pictures: named(&self.pictures) };
        let mut whole = self.prompt.clone();
        let mut sequence = match engine.start(prompt, vec![seed], Sampling::of(1.0, 1.0)).await {
            Ok(mut sequences) => sequences.remove(0),
            Err(error) => return Rollout { error: Some(error), ..rollout },
        };
        for turn in 0..turns {
            before(turn).await;
            let observation = match turn {
                0 => Chunk::default(),
                _ => Chunk { tokens: self.observation.clone(), pictures: named(&self.shown) },
            };
            whole.extend(&observation.tokens);
            match sequence.advance(observation, most).await {
                Ok(sampled) => {
                    let prompt = whole.clone();
                    whole.extend(&sampled.tokens);
                    assert_ne!(sampled.stop, Stop::ContextFull, "there is room");
                    rollout.turns.push(Turn { prompt, seed: turn_seed(seed, turn), sampled });
                }
                Err(error) => {
                    rollout.error = Some(error);
                    break;
                }
            }
        }
        rollout
    }
}

/// A seed as servers are sent it: they keep it in a signed number.
pub fn sent(seed: u64) -> u64 {
    seed & (u64::MAX >> 1)
}

/// The honest entry of an audit that a turn was made of; what is trained on must have one.
pub fn honest<'a>(turn: &Turn, entries: &'a [Entry]) -> Option<&'a Entry> {
    let prompt = prompt_digest(&turn.prompt);
    entries.iter().find(|entry| {
        entry.lie.is_none()
            && entry.seed == Some(sent(turn.seed))
            && entry.prompt == prompt
            && entry.tokens == turn.sampled.tokens
            && entry.logprobs == turn.sampled.logprobs
    })
}

/// The entry of a turn that was told under the name that the weights had before, and in all else as it was. Where others came in the middle
/// of it, nobody can tell that name from the truth; it counts as of the older version anyway, so that nothing untrue is trained.
pub fn old_name<'a>(turn: &Turn, entries: &'a [Entry]) -> Option<&'a Entry> {
    let prompt = prompt_digest(&turn.prompt);
    entries.iter().find(|entry| {
        let newer = |label: &str| version(label).is_some_and(|version| version > turn.sampled.versions[0].0);
        entry.lie == Some(Lie::StaleVersion)
            && entry.seed == Some(sent(turn.seed))
            && entry.prompt == prompt
            && entry.tokens == turn.sampled.tokens
            && entry.logprobs == turn.sampled.logprobs
            && entry.labels.iter().any(|(label, ..)| newer(label))
    })
}

/// The version in a label that this engine gives, `vN-..`; none of what others give.
pub fn version(label: &str) -> Option<u64> {
    label.strip_prefix('v')?.split_once('-')?.0.parse().ok()
}
