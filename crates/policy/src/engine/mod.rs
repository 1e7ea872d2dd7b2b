//! The engine: continuous batching over one model, reached through a cheap handle.
//!
//! In: prompts, observations, new weights. Out: sampled turns with log-probs and versions. One OS thread owns the model
//! ([`worker`]); handles talk to it by channel. A sequence keeps its cache from turn to turn, so a round costs only its
//! new tokens; a group's prompt is processed once.

mod cache;
mod config;
mod device_cache;
mod host_cache;
mod images;
pub mod metrics;
mod sampler;
mod sequence;
mod shares;
mod sight;
mod step;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};

use hypereyes_domain::{Chunk, Failure, Generate, GenerateError, PolicyVersion, Sampled, Sampling};
use hypereyes_pictures::PatchSource;
use tokio::sync::oneshot;

use self::cache::{Cache, most_siblings};
pub use self::config::{EngineConfig, Placeholders};
use self::device_cache::DeviceCache;
use self::host_cache::KvPool;
use self::sight::{Input, Sight};
use self::worker::Worker;
use crate::backend::Cpu;
use crate::checkpoint::{self, HostWeights};
use crate::config::ModelConfig;
use crate::device::{Device, OnDevice};
use crate::models::{self, Model, Vlm};
use crate::ops::Kernels;
use crate::{Error, faults};

pub(crate) enum Command {
    Start { prompt: Input, seeds: Vec<u64>, sampling: Sampling, reply: oneshot::Sender<Result<Vec<u64>, GenerateError>> },
    Advance { id: u64, observation: Input, max_tokens: usize, reply: oneshot::Sender<Result<Sampled, GenerateError>> },
    Release { id: u64 },
    Load { weights: HostWeights, version: PolicyVersion, reply: oneshot::Sender<Result<(), String>> },
}

/// A handle to the engine's thread; the thread ends when the last handle and sequence are dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    /// Why its thread has ended, if that was no order.
    fate: Fate,
    most_siblings: usize,
    sight: Sight,
}

type Fate = Arc<OnceLock<String>>;

impl Engine {
    /// Loads a model folder and starts its thread.
    pub fn load(dir: &Path, config: EngineConfig, version: PolicyVersion) -> Result<Self, Error> {
        config.device.admits_folder(dir)?;
        let (model, weights) = checkpoint::read(dir)?;
        Self::start_from(model, &weights, config, version)
    }

    /// Starts an engine from weights in memory.
    pub fn start_from(model: ModelConfig, weights: &HostWeights, config: EngineConfig, version: PolicyVersion) -> Result<Self, Error> {
        config.device.admits(&model)?;
        let (sizes, most, bytes) = (config.max_context, config.max_sequences, config.cache_bytes);
        match config.device {
            Device::Cpu => {
                let cache = KvPool::new(models::state(&model), sizes, most, bytes);
                start::<Cpu, _>(model, weights, config, version, cache, Default::default())
            }
            device => device.run(OnGpu { model, weights, config, version })?,
        }
    }

    /// The same, finding pictures in `source`; without one, whoever names a picture is refused.
    #[must_use]
    pub fn seeing(self, source: PatchSource) -> Self {
        Self { sight: Sight::of(source), ..self }
    }

    /// The largest group that it holds; larger ones it will never hold.
    pub fn most_siblings(&self) -> usize {
        self.most_siblings
    }

    /// Puts new weights in between two steps; sequences under way go on with them.
    pub async fn swap(&self, weights: HostWeights, version: PolicyVersion) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Device(gone(&self.fate).message);
        self.commands.send(Command::Load { weights, version, reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(Error::Input)
    }
}

/// An engine whose cache is where its model is.
struct OnGpu<'a> {
    model: ModelConfig,
    weights: &'a HostWeights,
    config: EngineConfig,
    version: PolicyVersion,
}

impl OnDevice for OnGpu<'_> {
    type Output = Result<Engine, Error>;

    fn run<B: Kernels>(self, device: B::Device) -> Self::Output {
        let Self { model, weights, config, version } = self;
        let cache = DeviceCache::<B>::new(&models::state(&model), config.max_context, config.max_sequences, config.cache_bytes, &device);
        start(model, weights, config, version, cache, device)
    }
}

/// Builds the model and starts the thread that owns it.
fn start<B: Kernels, C: Cache<B> + 'static>(
    model: ModelConfig,
    weights: &HostWeights,
    config: EngineConfig,
    version: PolicyVersion,
    cache: C,
    device: B::Device,
) -> Result<Engine, Error> {
    let built = checkpoint::from_host(Model::<B>::init(&model, 0, &device), weights)?;
    let most_siblings = most_siblings(cache.slots());
    let mut worker = Worker::new(built, model, config, version, cache, device)?;
    let (commands, inbox) = mpsc::channel();
    let fate = Fate::default();
    let ended = fate.clone();
    let run = move || {
        // Without its engine a process is of no use, and what is left of this one cannot be trusted.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.run(&inbox))) {
            let reason = faults::words(&*panic);
            let _ = ended.set(reason.clone()); // It panics once.
            faults::report(format!("the engine's thread panicked: {reason}"));
        }
        // Whoever waits is told when the worker goes, not before the reason is known.
        drop(worker);
    };
    std::thread::Builder::new().name("engine".into()).spawn(run).map_err(|source| Error::Io { path: "engine thread".into(), source })?;
    Ok(Engine { commands, fate, most_siblings, sight: Sight::default() })
}

fn gone(fate: &Fate) -> GenerateError {
    let message = match fate.get() {
        Some(reason) => format!("the engine's thread has ended: {reason}"),
        None => "the engine's thread has ended".into(),
    };
    GenerateError { failure: Failure::Infrastructure, message }
}

/// One sequence held by the engine.
#[derive(Debug)]
pub struct EngineSequence {
    id: u64,
    commands: mpsc::Sender<Command>,
    fate: Fate,
    sight: Sight,
}

impl Drop for EngineSequence {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Release { id: self.id }); // The thread may be gone, and the slot with it.
    }
}

impl Generate for Engine {
    type Sequence = EngineSequence;

    async fn start(&self, prompt: Chunk, seeds: Vec<u64>, sampling: Sampling) -> Result<Vec<EngineSequence>, GenerateError> {
        let prompt = self.sight.input(prompt).await?;
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Start { prompt, seeds, sampling, reply }).map_err(|_| gone(&self.fate))?;
        let ids = answer.await.map_err(|_| gone(&self.fate))??;
        let sequence = |id| EngineSequence { id, commands: self.commands.clone(), fate: self.fate.clone(), sight: self.sight.clone() };
        Ok(ids.into_iter().map(sequence).collect())
    }
}

impl hypereyes_domain::Sequence for EngineSequence {
    async fn advance(&mut self, observation: Chunk, max_tokens: usize) -> Result<Sampled, GenerateError> {
        let observation = self.sight.input(observation).await?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Advance { id: self.id, observation, max_tokens, reply };
        self.commands.send(command).map_err(|_| gone(&self.fate))?;
        answer.await.map_err(|_| gone(&self.fate))?
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::cache::CacheRow;
    use super::*;
    use crate::config::SmallShape;
    use crate::init;

    /// A cache that has lost what it held.
    struct Broken(KvPool);

    impl Cache<Cpu> for Broken {
        type Slot = <KvPool as Cache<Cpu>>::Slot;
        type Plan = ();

        fn slots(&self) -> usize {
            self.0.slots()
        }

        fn room(&self) -> usize {
            self.0.room()
        }

        fn take(&mut self) -> Self::Slot {
            self.0.take()
        }

        fn fork(&mut self, prompt: Self::Slot, length: usize, siblings: usize) -> Vec<Self::Slot> {
            self.0.fork(prompt, length, siblings)
        }

        fn give_back(&mut self, slot: Self::Slot) {
            self.0.give_back(slot);
        }

        fn plan(&self, _: &[&mut Self::Slot], _: &[CacheRow], _: &burn_flex::FlexDevice) {}

        fn attend(&self, (): &(), _: &mut [&mut Self::Slot], _: &[CacheRow], _: usize, _: [Tensor<Cpu, 2>; 3]) -> Tensor<Cpu, 2> {
            panic!("slot 7 does not exist")
        }
    }

    #[test]
    fn a_panic_of_the_engines_thread_answers_every_call_and_ends_the_process() {
        let this = std::env::current_exe().unwrap();
        let args = ["--exact", "engine::tests::child_whose_engine_panics", "--ignored", "--nocapture", "--test-threads=1"];
        let ended = std::process::Command::new(this).args(args).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.status.code(), Some(1), "{out}{err}");
        assert!(out.contains("first: Infrastructure, the engine's thread has ended: slot 7 does not exist"), "{out}");
        assert!(out.contains("second: Infrastructure, the engine's thread has ended: slot 7 does not exist"), "{out}");
        assert!(err.contains("error: the engine's thread panicked: slot 7 does not exist"), "{err}");
    }

    #[tokio::test]
    #[ignore = "runs in a process of its own, which it ends"]
    async fn child_whose_engine_panics() {
        let model = SmallShape { width: 32, layers: 1, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 }.model(64, 61, 62, 63);
        let weights = init::fresh(&model, &Default::default(), 3);
        let sizes = EngineConfig::default();
        let cache = Broken(KvPool::new(models::state(&model), sizes.max_context, sizes.max_sequences, sizes.cache_bytes));
        let engine = start::<Cpu, _>(model, &weights, sizes, PolicyVersion(0), cache, Default::default()).unwrap();
        for call in ["first", "second"] {
            let prompt = Chunk { tokens: vec![1, 2, 3], pictures: vec![] };
            let error = engine.start(prompt, vec![1], Sampling::of(1.0, 1.0)).await.unwrap_err();
            println!("{call}: {:?}, {}", error.failure, error.message);
        }
        std::thread::sleep(std::time::Duration::from_secs(600));
    }
}
