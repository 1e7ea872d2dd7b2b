//! `hypereyes sft`: cold start. Demonstrations in, a policy folder out.
//!
//! Everything that can be wrong with settings and folders is said before the first step; what is trained is kept every so many
//! steps beside the folder to be written, and a run that was cut goes on from there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use hypereyes_chassis::{BadInput, Shutdown};
use hypereyes_dataset::DataSet;
use hypereyes_miniature::{self as miniature, Curriculum, Lesson};
use hypereyes_pictures::{Limits, Processor};
use hypereyes_policy::checkpoint::save::{Saved, keep_apart};
use hypereyes_policy::checkpoint::{self, HostWeights, Saver, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_trainer::Trainer;
use hypereyes_trainer::sft::checkpoint::{State, Terms};
use hypereyes_trainer::sft::{self, Cursor, Example, Plain, SftConfig, Source};
use serde::Serialize;

use crate::config::Config;
use crate::kept::Kept;
use crate::progress::Bar;
use crate::{check, parts};

/// Arguments of `sft`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  hypereyes sft --data data/train --model models/qwen3-vl --out policies/cold --set sft.steps=500 --set sft.batch_tokens=65536\n  \
    hypereyes sft --data data/train --out policies/cold                a fresh tiny policy, by the miniature's recipe\n  \
    hypereyes sft --data data/train --out policies/cold --resume      go on with the same command that was cut\n\n\
    plain shows every demonstration whole, once per pass; sft.lr is 1e-5 unless it is set. miniature is the curriculum of the embedded\n\
    policy (the table `miniature` of the settings): reading before looking, glances, drills; sft.lr is 2e-3 unless it is set.\n\n\
    Every sft.checkpoint_every steps, and at Ctrl-C, what is needed to go on is kept in OUT.checkpoint, until OUT is written."
)]
pub struct SftArgs {
    /// Data set folder made by `hypereyes synth`.
    #[arg(long)]
    pub data: PathBuf,
    /// Policy folder to go on from. Without it, a fresh tiny policy is made for the world.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// How demonstrations are shown. Default plain; without --model, where a fresh tiny policy is made, miniature.
    #[arg(long, value_enum)]
    pub recipe: Option<Recipe>,
    /// Policy folder to write (Hugging Face layout). A model that is there is replaced as a whole.
    #[arg(long)]
    pub out: PathBuf,
    /// Also write the policy after this many steps, as `<out>-<step>`. May be repeated.
    #[arg(long, value_name = "STEP")]
    pub keep: Vec<usize>,
    /// Store weights in bf16 (half the size) instead of f32.
    #[arg(long)]
    pub bf16: bool,
    /// Go on with a run that was cut: the same command again, with this.
    #[arg(long)]
    pub resume: bool,
}

/// How demonstrations are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// Every demonstration whole, once per pass in random order.
    Plain,
    /// The embedded policy's curriculum: reading before looking, glances, look-up drills of the world.
    Miniature,
}

impl SftArgs {
    fn recipe(&self) -> Recipe {
        self.recipe.unwrap_or(if self.model.is_some() { Recipe::Plain } else { Recipe::Miniature })
    }
}

/// A file system's complaint is bad input as long as nothing has been trained.
fn bad(error: impl std::fmt::Display) -> BadInput {
    BadInput::new(error.to_string())
}

/// Trains and writes the policy.
pub fn run(config: &Config, args: &SftArgs, json: bool) -> Result<()> {
    let mut found = check::cold_start(config);
    found.result()?;
    let (recipe, usual) = (args.recipe(), Config::default());
    let settings = match recipe {
        Recipe::Plain => config.sft.clone(),
        Recipe::Miniature => SftConfig { lr: config.sft.lr.or(Some(miniature::LR)), ..config.sft.clone() },
    };
    if recipe != Recipe::Miniature && config.miniature != usual.miniature {
        found.warn("miniature", "has no effect without --recipe miniature");
    }
    if args.model.is_some() {
        for (table, differs) in [("tiny", config.tiny != usual.tiny), ("init", config.init != usual.init)] {
            if differs {
                found.warn(table, "has no effect with --model, whose shape and weights are taken");
            }
        }
    }
    let store = if args.bf16 { StoredDtype::Bf16 } else { StoredDtype::F32 };
    parts::telemetry()?;
    let runtime = parts::runtime()?;
    let shutdown = runtime.block_on(async { Shutdown::on_signal() }).context("cannot listen for signals")?;
    let targets = targets(config, args)?;
    let (mut kept, resumed) = Kept::find(&targets.out, args.resume)?;
    let scratch = tempfile::tempdir()?;
    let (model, weights) = start(config, args.model.as_deref(), scratch.path())?;
    let tokenizer = args.model.as_deref().unwrap_or(scratch.path());
    let savers = Savers::new(&targets, tokenizer)?;
    // A checkpoint is written while the one before is still there; weights and both moments have four bytes each.
    savers.out.check_free(&model, store, 12 * model.parameters()).map_err(bad)?;
    let set = DataSet::load(&args.data, &Limits::default()).map_err(bad)?;
    let chat = parts::chat(tokenizer)?;
    let to = args.model.as_ref().map_or_else(|| "the fresh policy of this world".to_owned(), |folder| folder.display().to_string());
    let vocabulary = check::models::vocabulary(tokenizer, &model)?.digest();
    found.extend(check::data::findings(&set, &chat, &vocabulary, &args.data.display().to_string(), &to));
    found.under("sft_optim", config.sft_optim.of_model(weights.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.len()))));
    if config.sft_optim.freezes_all(weights.keys().map(String::as_str)) {
        found.refuse("sft_optim.groups", "freezes every parameter: nothing would be learned; give one a rate above 0");
    }
    found.result()?;
    found.warned().iter().for_each(|warning| crate::output::note(&format!("warning: {warning}")));
    let processor = Processor::load(tokenizer).map_err(bad)?;
    let terms = Terms::default()
        .with("sft", &SftConfig { lr: Some(settings.peak()), ..settings.clone() })
        .with("recipe", &recipe)
        .with("sft_optim", &config.sft_optim)
        .with("seed", &config.seed)
        .with("bf16", &args.bf16)
        .with("the start's weights", &digest_of(&weights))
        .with("the picture settings", &format!("{processor:?}"))
        .with("the demonstrations", &digest(&set.demonstrations));
    let images: BTreeMap<_, _> = set.pictures.into_iter().map(|(id, picture)| (id, picture.image)).collect();
    let mut demonstrations = vec![];
    for demonstration in &set.demonstrations {
        let pictures = demonstration.trajectory.pictures.iter().map(|id| images.get(id).cloned()).collect::<Option<Vec<_>>>();
        let pictures = pictures.with_context(|| format!("task {}: a picture is not in the data set", demonstration.task))?;
        demonstrations.push((&demonstration.trajectory, pictures));
    }
    let (source, terms): (Box<dyn Source>, Terms) = match recipe {
        Recipe::Plain => {
            let examples = demonstrations.into_iter().map(|(trajectory, pictures)| Example::new(trajectory, pictures)).collect();
            (Box::new(Plain { examples, processor, observation_weight: settings.observation_weight }), terms)
        }
        Recipe::Miniature => {
            let (world, system) = (parts::world(config)?, config.rollout.system_text());
            let drills = miniature::drill::drills(&world, &chat, &system, miniature::drill::COUNT, config.seed).map_err(bad)?;
            let terms = terms.with("miniature", &config.miniature).with("the drills (world, system prompt, tokenizer)", &digest(&drills));
            let lessons = demonstrations.into_iter().map(|(trajectory, pictures)| Lesson::new(trajectory, pictures)).collect();
            let curriculum = Curriculum::new(lessons, &drills, processor, config.miniature.clone(), settings.observation_weight, &model);
            (Box::new(curriculum), terms)
        }
    };
    let (mut cursor, before, weights, moments) = match resumed {
        Some(state) => {
            kept.check_terms(&state, &terms)?;
            (state.cursor, state.seconds, state.weights, Some(state.moments))
        }
        None => (Cursor::new(config.seed), 0.0, weights, None),
    };
    let mut trainer = Trainer::new(model.clone(), weights, config.sft_optim.clone(), settings.placement()).map_err(parts::refusal)?;
    if let Some(moments) = &moments {
        trainer.resume(moments);
    }
    for left in savers.out.left_out() {
        crate::output::note(&format!("does not go along with the trained policy: {left}"));
    }
    kept.hold()?;
    let bar = Bar::new("sft", "steps");
    let (began, mut tokens, mut failed, mut last) = (Instant::now(), 0usize, None, None);
    let seconds = |began: Instant| before + began.elapsed().as_secs_f64();
    let state = |trainer: &mut Trainer, cursor: &Cursor| -> Result<State> {
        let (terms, cursor) = (terms.clone(), cursor.clone());
        Ok(State { terms, cursor, seconds: seconds(began), moments: trainer.moments()?, weights: trainer.state() })
    };
    let trained = sft::train(&mut trainer, &*source, &settings, &mut cursor, |trainer, cursor, step| {
        tokens += step.tokens;
        let speed = tokens as f64 / began.elapsed().as_secs_f64();
        let text = format!(
            "loss {:.4} likely {:.3} norm {:.2} lr {:.1e} {:.0} tokens/s{}",
            step.loss,
            step.likely,
            step.grad_norm,
            step.lr,
            speed,
            if step.note.is_empty() { String::new() } else { format!(" ({})", step.note) }
        );
        bar.at(step.step, config.sft.steps, &text);
        last = Some(step);
        if !step.loss.is_finite() {
            failed = Some(anyhow!("the loss of step {} is {}: try a lower sft.lr", step.step, step.loss));
            return false;
        }
        if let Some(saver) = savers.kept.get(&step.step) {
            failed = saver.save(&model, trainer.weights(), store).err().map(anyhow::Error::from);
        }
        let stopped = shutdown.is_triggered() && step.step < config.sft.steps;
        let due = config.sft.checkpoint_every > 0 && step.step.is_multiple_of(config.sft.checkpoint_every);
        if failed.is_none() && (due || stopped) && step.step < config.sft.steps {
            failed = state(trainer, cursor).and_then(|state| kept.save(&state)).err();
        }
        if failed.is_none() && stopped {
            failed = Some(anyhow!("stopped by a signal after step {} of {}", step.step, config.sft.steps));
        }
        failed.is_none()
    });
    bar.done();
    if let Some(error) = trained.err().map(anyhow::Error::from).or(failed) {
        return Err(kept.with_advice(error));
    }
    let saved = match savers.out.save(&model, trainer.weights(), store) {
        Ok(saved) => saved,
        Err(error) => {
            // What was trained is worth more than the folder it could not be written to.
            let error = match state(&mut trainer, &cursor).and_then(|state| kept.save(&state)) {
                Ok(()) => error.into(),
                Err(second) => anyhow!("{error}; {second:#}"),
            };
            return Err(kept.with_advice(error));
        }
    };
    kept.done();
    say(args, json, config, &saved, &cursor, seconds(began), last.as_ref());
    Ok(())
}

fn say(args: &SftArgs, json: bool, config: &Config, saved: &Saved, cursor: &Cursor, seconds: f64, last: Option<&sft::SftStep>) {
    if json {
        crate::output::json(&serde_json::json!({
            "steps": config.sft.steps, "tokens": cursor.tokens, "seconds": seconds, "last": last, "out": args.out, "digest": saved.digest,
        }));
    } else {
        crate::output::say(&format!("wrote {} after {} tokens in {seconds:.0} s", args.out.display(), cursor.tokens));
    }
}

/// Where policies are written.
struct Targets {
    out: PathBuf,
    kept: BTreeMap<usize, PathBuf>,
}

/// Checks what is written where, as far as names go.
fn targets(config: &Config, args: &SftArgs) -> Result<Targets> {
    // Without a slash at the end, behind which nothing could be added.
    let out: PathBuf = args.out.components().collect();
    let mut kept = BTreeMap::new();
    for step in &args.keep {
        if !(1..=config.sft.steps).contains(step) {
            return Err(BadInput::new(format!("--keep {step} is none of the steps 1..={} (sft.steps)", config.sft.steps)).into());
        }
        let mut name = out.as_os_str().to_owned();
        name.push(format!("-{step}"));
        kept.insert(*step, PathBuf::from(name));
    }
    let world = (!config.world.as_os_str().is_empty()).then_some(config.world.as_path());
    for target in [&out].into_iter().chain(kept.values()) {
        for (what, path) in [("--data", Some(args.data.as_path())), ("--model", args.model.as_deref()), ("world", world)] {
            path.map_or(Ok(()), |path| keep_apart(target, what, path)).map_err(bad)?;
        }
    }
    Ok(Targets { out, kept })
}

/// What writes them.
struct Savers {
    out: Saver,
    kept: BTreeMap<usize, Saver>,
}

impl Savers {
    fn new(targets: &Targets, start: &Path) -> Result<Self> {
        let out = Saver::new(&targets.out, Some(start)).map_err(bad)?;
        let another = |(step, target): (&usize, &PathBuf)| Ok((*step, out.into_another(target).map_err(bad)?));
        let kept = targets.kept.iter().map(another).collect::<Result<_, BadInput>>()?;
        Ok(Self { out, kept })
    }
}

/// The policy to start from: a folder's, or fresh weights with the tokenizer of the world written into `scratch`.
fn start(config: &Config, model: Option<&Path>, scratch: &Path) -> Result<(ModelConfig, HostWeights)> {
    match model {
        Some(folder) => Ok(checkpoint::read(folder).map_err(bad)?),
        None => {
            let words = miniature::tokenizer::of_world(&*parts::world(config)?, scratch).map_err(bad)?;
            let model = config.tiny.model(words.vocab_size, words.image, words.vision_start, words.vision_end);
            let weights = miniature::init::fresh(&model, &config.init, config.seed);
            Ok((model, weights))
        }
    }
}

/// One name for a list of plain values.
fn digest<T: Serialize>(values: &[T]) -> String {
    let mut hasher = blake3::Hasher::new();
    for value in values {
        hasher.update(&serde_json::to_vec(value).expect("plain values"));
    }
    hasher.finalize().to_hex().to_string()
}

fn digest_of(weights: &HostWeights) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in weights {
        hasher.update(format!("{name} {:?}\n", tensor.shape).as_bytes());
        for value in &tensor.values {
            hasher.update(&value.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}
