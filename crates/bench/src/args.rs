//! What `hypereyes bench` is asked: options of every benchmark, and the benchmark that they name.
//!
//! In: a command line, the seed and the sizes of the settings. Out: a [`Bench`]. It prints nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use hypereyes_chassis::BadInput;
use hypereyes_collective::Transport;
use hypereyes_engines::EngineConfig;
use hypereyes_miniature::{InitConfig, init};
use hypereyes_policy::checkpoint::{self, HostWeights, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_trainer::Placement;

use crate::{Bench, Machine, Model, Size, device, engine, folder, index, learner, policy, ranks, reward, teacher};

/// Arguments of `bench`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes bench engine --json\n  hypereyes bench engine --size 100m --batch 1,32 --threads 2\n  \
    hypereyes bench engine --model policies/cold --engine vllm --url http://127.0.0.1:8000\n  \
    hypereyes bench policy --model policies/cold --sequences 8 --length 256\n  hypereyes bench reward --groups 50000\n  \
    hypereyes bench folder --parameters 1e9 --folder /dev/shm\n  \
    hypereyes bench index --documents 1000000 --pictures 100000 --folder /data/bench")]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub what: What,
}

/// What is measured.
#[derive(Subcommand, Debug)]
pub enum What {
    /// Prefill, time to first token, decoding; beside a server where --engine names one.
    Engine(EngineArgs),
    /// Log-probs of given tokens, a training step.
    Policy(PolicyArgs),
    /// The learner alone: groups coming in, steps of growing batches.
    Learner(LearnerArgs),
    /// Scoring, the reward service over gRPC with a durable store, memory of its references.
    Reward(RewardArgs),
    /// The teacher: scoring of siblings, swaps under load over gRPC.
    Teacher(TeacherArgs),
    /// A device: products, attention, kernels made on first use, agreement with the CPU.
    Device(DeviceArgs),
    /// Kernels of a device against what is right, at every shape at which kernels go wrong; fails when one is wrong.
    Kernels(KernelsArgs),
    /// Ranks: sums and copies between them.
    Ranks(RanksArgs),
    /// Policy versions as folders for inference servers: time and bytes of each.
    Folder(FolderArgs),
    /// A corpus of one's own: building, opening and searching an index of texts and one of pictures.
    Index(IndexArgs),
}

/// Which model, and with what.
#[derive(Args, Debug)]
pub struct Common {
    /// A model folder instead of fresh weights.
    #[arg(long, conflicts_with = "size")]
    pub model: Option<PathBuf>,
    /// Size of a model with fresh weights.
    #[arg(long, value_enum, default_value = "tiny")]
    pub size: Size,
    /// Where models compute: cpu, cuda, cuda-bf16.
    #[arg(long, default_value_t = Device::Cpu)]
    pub device: Device,
    /// Threads that compute; 0 takes all cores.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Runs, of which the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    pub repeats: u8,
}

/// Arguments of `bench engine`.
#[derive(Args, Debug)]
#[command(
    after_help = "With --engine a server is measured beside the engine of this process, with the same prompts and in turns, as a rollout\n\
    reaches it: over HTTP, every answer checked. It must serve the folder of --model and read files of this machine: the weights are\n\
    put in over engine.policy_folder, by default a folder of temporary files. Its context must hold --prompt, pictures and --new; of\n\
    its other keys (engine.model, engine.api_key_env, ..) the settings' values count, and sizes follow the flags here.\n\n\
    Its rows have ratios of speed to the engine of this process, 2 being twice as fast: medians over repeats, each with the lowest and\n\
    the highest. turn_s is what a rollout waits for a turn. The last row compares log-probs of sampled tokens with a forward pass of\n\
    ours; more than 1e-3 is warned of. --threads is for this process: give the server as many."
)]
pub struct EngineArgs {
    /// Which model.
    #[command(flatten)]
    pub common: Common,
    /// Kind of an engine outside to measure as well, vllm or sglang: short for `--set engine.kind=KIND`.
    #[arg(long, value_name = "KIND")]
    pub engine: Option<String>,
    /// Address of its server: short for `--set engine.url=URL`.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Sequences at once; may be repeated, or a list as 1,8,32.
    #[arg(long, default_values_t = [1, 8, 32], value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub batch: Vec<u16>,
    /// Tokens of the prompt without those of pictures, at least 2.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub prompt: u32,
    /// Tokens that each sequence samples, at least 2; no token ends it.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub new: u32,
    /// Pictures of the prompt, each a new one for every run.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub pictures: u16,
    /// Sides of a picture in pixels; it is resized as the model's folder says.
    #[arg(long, default_value_t = 448, value_parser = clap::value_parser!(u32).range(32..=4096))]
    pub picture_side: u32,
}

impl EngineArgs {
    fn load(&self) -> engine::Load {
        engine::Load {
            device: self.common.device,
            batches: self.batch.iter().map(|batch| usize::from(*batch)).collect(),
            prompt: self.prompt as usize,
            new: self.new as usize,
            pictures: usize::from(self.pictures),
            picture_side: self.picture_side,
            repeats: usize::from(self.common.repeats),
        }
    }
}

/// Arguments of `bench policy`.
#[derive(Args, Debug)]
pub struct PolicyArgs {
    /// Which model.
    #[command(flatten)]
    pub common: Common,
    /// Sequences of a step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub sequences: u16,
    /// Tokens of each, at least 2.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub length: u32,
}

/// Arguments of `bench learner`.
#[derive(Args, Debug)]
pub struct LearnerArgs {
    /// Which model.
    #[command(flatten)]
    pub common: Common,
    /// Groups of the smallest batch; the others are 2, 4, 8 and 16 times as large.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub groups: u16,
    /// Rollouts per group.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub group_size: u16,
    /// Tokens of a rollout, at least 4.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(4..=65536))]
    pub length: u32,
    /// Groups that go through the intake.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub intake: u32,
}

/// Arguments of `bench reward`.
#[derive(Args, Debug)]
pub struct RewardArgs {
    /// Groups of eight scored over the wire.
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub groups: u32,
    /// Distinct tasks among them.
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(1..))]
    pub tasks: u32,
    /// Connections.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub connections: u16,
    /// Groups under way on each connection.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub depth: u16,
    /// References whose memory is measured.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub references: u32,
    /// Runs of scoring by itself, of which the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub repeats: u8,
}

/// Arguments of `bench teacher`.
#[derive(Args, Debug)]
pub struct TeacherArgs {
    /// A model folder. Default: the shipped teacher.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Where the model computes: cpu, cuda, cuda-bf16.
    #[arg(long, default_value_t = Device::Cpu)]
    pub device: Device,
    /// Threads that compute; 0 takes all cores.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Groups of one scoring run.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub groups: u16,
    /// Siblings of a group.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub siblings: u16,
    /// Prompt tokens, at least 1.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub prompt: u32,
    /// Response tokens, at least 1.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub response: u32,
    /// Questions per second while models are swapped.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub rate: u32,
    /// Swaps; 0 measures scoring only.
    #[arg(long, default_value_t = 50)]
    pub swaps: u16,
    /// Runs of scoring, of which the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub repeats: u8,
}

/// Arguments of `bench device`.
#[derive(Args, Debug)]
pub struct DeviceArgs {
    /// Which: cpu, cuda, cuda-bf16.
    #[arg(long, default_value_t = Device::Cpu)]
    pub device: Device,
    /// Rows and columns of the product's factors.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub side: u32,
    /// Threads that compute; 0 takes all cores.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Runs, of which the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub repeats: u8,
}

/// Arguments of `bench kernels`.
#[derive(Args, Debug)]
pub struct KernelsArgs {
    /// Which: cpu, cuda, cuda-bf16.
    #[arg(long, default_value_t = Device::Cpu)]
    pub device: Device,
    /// Every shape, in minutes; without it one of each kind.
    #[arg(long)]
    pub full: bool,
}

/// Arguments of `bench ranks`.
#[derive(Args, Debug)]
pub struct RanksArgs {
    /// What carries them: tcp, nccl.
    #[arg(long, default_value_t = Transport::Tcp)]
    pub transport: Transport,
    /// Ranks; NCCL takes one GPU each.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub world: u16,
    /// Values of a sum.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub values: u32,
    /// Runs, of which the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    pub repeats: u8,
}

/// Arguments of `bench folder`.
#[derive(Args, Debug)]
pub struct FolderArgs {
    /// Parameters of the model, about, as 1e9.
    #[arg(long, default_value_t = 1e8)]
    pub parameters: f64,
    /// Experts of a layer; 0 is a dense model.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub experts: u16,
    /// Share of the values that a step changes.
    #[arg(long, default_value_t = 0.015)]
    pub changed: f64,
    /// How values are written.
    #[arg(long, value_enum, default_value_t = Dtype::Bf16)]
    pub dtype: Dtype,
    /// Where to write, on the disk that is meant; three times the weights. Default: the folder of temporary files.
    #[arg(long)]
    pub folder: Option<PathBuf>,
}

/// Arguments of `bench index`.
#[derive(Args, Debug)]
pub struct IndexArgs {
    /// Documents, which are generated; 0 leaves texts out.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    pub documents: u64,
    /// Picture files, which are generated; 0 leaves them out.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    pub pictures: u32,
    /// Sides of a picture in pixels.
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u32).range(32..=4096))]
    pub side: u32,
    /// Queries of each kind.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub queries: u32,
    /// Queries at once, when they are asked again.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub at_once: u16,
    /// A model folder whose vision tower sees the pictures instead of the shipped policy's.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Where models compute: cpu, cuda, cuda-bf16.
    #[arg(long, default_value_t = Device::Cpu)]
    pub device: Device,
    /// Where documents, pictures and indexes are written, and stay. Default: a folder of temporary files.
    #[arg(long)]
    pub folder: Option<PathBuf>,
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Dtype {
    /// Four bytes.
    F32,
    /// Two bytes.
    Bf16,
}

/// What a benchmark takes of the settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Seed of weights and tokens.
    pub seed: u64,
    /// How fresh weights are drawn.
    pub init: InitConfig,
    /// `learner.micro_tokens`.
    pub micro_tokens: usize,
    /// The engine outside that is measured as well, if these are a server's.
    pub engine: EngineConfig,
}

impl BenchArgs {
    /// Measures what was named; `shipped_teacher` unpacks the shipped teacher into a folder.
    ///
    /// # Errors
    /// A model that cannot be used, a device that fails; [`What::Kernels`], which has rows of its own kind ([`crate::kernels`]).
    pub fn measure(&self, settings: &Settings, shipped_teacher: impl FnOnce(&Path) -> Result<()>) -> Result<Bench> {
        let mut warnings = vec![];
        let (what, model, repeats, rows) = match &self.what {
            What::Kernels(_) => anyhow::bail!("kernels have rows of their own"),
            What::Engine(args) => {
                engine::check(&settings.engine, args.common.model.as_deref())?;
                let (name, model, weights) = start(&args.common, settings)?;
                let load = args.load();
                let policy = engine::Policy { model: &model, weights: &weights, folder: args.common.model.as_deref() };
                let measured = runtime()?.block_on(engine::measure(&policy, &settings.engine, &load, settings.seed))?;
                warnings = measured.warnings;
                ("engine", Some(described(name, &model)), load.repeats, measured.rows)
            }
            What::Policy(args) => {
                let (name, model, weights) = start(&args.common, settings)?;
                let repeats = usize::from(args.common.repeats);
                let (sequences, length) = (usize::from(args.sequences), args.length as usize);
                let placement = Placement { device: args.common.device, micro_tokens: settings.micro_tokens };
                let load = policy::Load { sequences, length, placement, repeats };
                ("policy", Some(described(name, &model)), repeats, vec![policy::measure(&model, &weights, load, settings.seed)?])
            }
            What::Learner(args) => {
                let (name, model, weights) = start(&args.common, settings)?;
                let load = learner::Load {
                    placement: Placement { device: args.common.device, micro_tokens: settings.micro_tokens },
                    groups: usize::from(args.groups),
                    group_size: usize::from(args.group_size),
                    length: args.length as usize,
                    intake: args.intake as usize,
                    repeats: usize::from(args.common.repeats),
                };
                ("learner", Some(described(name, &model)), load.repeats, learner::measure(&model, &weights, load, settings.seed)?)
            }
            What::Reward(args) => {
                let load = reward::Load {
                    groups: args.groups as usize,
                    tasks: args.tasks as usize,
                    connections: usize::from(args.connections),
                    depth: usize::from(args.depth),
                    references: args.references as usize,
                    repeats: usize::from(args.repeats),
                };
                ("reward", None, load.repeats, runtime()?.block_on(reward::measure(&load, settings.seed))?)
            }
            What::Teacher(args) => {
                let _ = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global();
                let scratch = tempfile::tempdir()?;
                let folder = match &args.model {
                    Some(folder) => folder.clone(),
                    None => {
                        shipped_teacher(scratch.path())?;
                        scratch.path().to_owned()
                    }
                };
                let load = teacher::Load {
                    device: args.device,
                    groups: usize::from(args.groups),
                    siblings: usize::from(args.siblings),
                    prompt: args.prompt as usize,
                    response: args.response as usize,
                    rate: args.rate as usize,
                    swaps: usize::from(args.swaps),
                    repeats: usize::from(args.repeats),
                };
                ("teacher", None, load.repeats, runtime()?.block_on(teacher::measure(&folder, &load, settings.seed))?)
            }
            What::Device(args) => {
                let _ = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global();
                let repeats = usize::from(args.repeats);
                ("device", None, repeats, device::measure(args.device, args.side as usize, repeats, settings.seed)?)
            }
            What::Ranks(args) => {
                let load = ranks::Load {
                    transport: args.transport,
                    world: usize::from(args.world),
                    values: args.values as usize,
                    repeats: usize::from(args.repeats),
                };
                ("ranks", None, load.repeats, vec![ranks::measure(load)?])
            }
            What::Folder(args) => {
                if !(1.0..=1e12).contains(&args.parameters) || !(0.0..=1.0).contains(&args.changed) {
                    return Err(BadInput::new("--parameters takes 1 to 1e12, --changed 0 to 1").into());
                }
                let scratch = match &args.folder {
                    Some(folder) => tempfile::tempdir_in(folder),
                    None => tempfile::tempdir(),
                };
                let scratch = scratch.map_err(|error| BadInput::new(format!("--folder: {error}")))?;
                let dtype = if args.dtype == Dtype::F32 { StoredDtype::F32 } else { StoredDtype::Bf16 };
                let load = folder::Load { parameters: args.parameters as u64, experts: args.experts.into(), changed: args.changed, dtype };
                let (model, rows) = folder::measure(load, scratch.path(), settings.seed)?;
                ("folder", Some(described("random".into(), &model)), 1, rows)
            }
            What::Index(args) => {
                let scratch = tempfile::tempdir()?;
                let folder = args.folder.as_deref().unwrap_or(scratch.path());
                std::fs::create_dir_all(folder).map_err(|error| BadInput::new(format!("--folder: {error}")))?;
                let model = args.model.clone().map_or_else(|| index::shipped(scratch.path()), Ok)?;
                let load = index::Load {
                    documents: args.documents,
                    pictures: args.pictures as usize,
                    side: args.side,
                    queries: args.queries as usize,
                    at_once: usize::from(args.at_once),
                    device: args.device,
                };
                ("index", None, 1, index::measure(&load, &model, folder, settings.seed)?)
            }
        };
        Ok(Bench {
            bench: what,
            model,
            threads: rayon::current_num_threads(),
            repeats,
            seed: settings.seed,
            machine: Machine::here(),
            peak_bytes: crate::peak_bytes(),
            rows,
            warnings,
        })
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}

fn described(model: String, config: &ModelConfig) -> Model {
    Model { model, parameters: u64::try_from(config.parameters()).unwrap_or(u64::MAX) }
}

/// The model, after the pool of threads.
fn start(common: &Common, settings: &Settings) -> Result<(String, ModelConfig, HostWeights)> {
    // A pool that is there already is as good; a fresh process has none.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(common.threads).build_global();
    if let Some(folder) = &common.model {
        let (model, weights) = checkpoint::read(folder).map_err(|error| BadInput::new(error.to_string()))?;
        return Ok((folder.display().to_string(), model, weights));
    }
    let model = common.size.model();
    let weights = init::fresh(&model, &settings.init, settings.seed);
    let name = clap::ValueEnum::to_possible_value(&common.size).map_or(String::new(), |value| value.get_name().to_owned());
    Ok((name, model, weights))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use hypereyes_chassis::exit;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn engine_args(line: &str) -> EngineArgs {
        let line = Line::try_parse_from(["bench", "engine"].into_iter().chain(line.split_whitespace())).expect("sound");
        match line.bench.what {
            What::Engine(args) => args,
            what => panic!("{what:?}"),
        }
    }

    #[test]
    fn batches_are_a_list_or_several_flags() {
        for line in ["--batch 1,32", "--batch 1 --batch 32"] {
            assert_eq!(engine_args(line).batch, [1, 32]);
        }
        assert_eq!(engine_args("").load(), engine::Load::default(), "flags and values have the same defaults");
    }

    #[test]
    fn what_no_server_can_be_measured_with_is_refused_before_anything_is_loaded() {
        let url = || vec!["http://127.0.0.1:1".to_owned()];
        let kind = |kind: &str, url: Vec<String>| EngineConfig { kind: kind.into(), url, ..EngineConfig::default() };
        let cases = [
            ("--model /nowhere", kind("local", url()), "engine.url is set, but kind is \"local\""),
            ("--model /nowhere", kind("vllm", vec![]), "engine.url is empty, but kind is \"vllm\""),
            ("--model /nowhere", kind("vlm", url()), "engine.kind is \"vlm\", which is no engine"),
            ("--model /nowhere", kind("openai", url()), "engine.kind is openai, which speaks text"),
            ("--model /nowhere", kind("sglang", [url(), url()].concat()), "engine.url names 2 servers"),
            ("--size tiny", kind("vllm", url()), "give the same with --model"),
            ("--model /nowhere", kind("vllm", url()), "/nowhere"),
        ];
        for (line, engine, says) in cases {
            let settings = Settings { seed: 0, init: InitConfig::default(), micro_tokens: 1, engine };
            let bench = BenchArgs { what: What::Engine(engine_args(line)) };
            let error = bench.measure(&settings, |_| Ok(())).expect_err(says);
            assert_eq!(exit::code_of(error.as_ref()), exit::BAD_INPUT);
            assert!(error.to_string().contains(says), "{error}: {says}");
        }
    }
}
