//! `hypereyes sft`: cold start. Demonstrations in, a policy folder out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::DataSet;
use hypereyes_learner::sft::{self, Example};
use hypereyes_learner::trainer::Trainer;
use hypereyes_pictures::{Limits, Processor};
use hypereyes_policy::checkpoint::{self, HostWeights, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::init;

use crate::commands::synth::write_tokenizer;
use crate::config::Config;
use crate::progress::Bar;
use crate::{check, parts};

/// Distinct look-up drills; far more than are used twice.
const DRILLS: usize = 4000;

/// Arguments of `sft`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  hypereyes sft --data data/train --out policies/cold\n  \
    hypereyes sft --data data/wide --model policies/cold --out policies/teacher --set sft.steps=4000")]
pub struct SftArgs {
    /// Data set folder made by `hypereyes synth`.
    #[arg(long)]
    pub data: PathBuf,
    /// Policy folder to go on from. Without it, a fresh tiny policy is made for the world.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Policy folder to write (Hugging Face layout).
    #[arg(long)]
    pub out: PathBuf,
    /// Also write the policy after this many steps, as `<out>-<step>`. May be repeated.
    #[arg(long, value_name = "STEP")]
    pub keep: Vec<usize>,
    /// Store weights in bf16 (half the size) instead of f32.
    #[arg(long)]
    pub bf16: bool,
}

/// Trains and writes the policy.
pub fn run(config: &Config, args: &SftArgs, json: bool) -> Result<()> {
    let bad = |error: &dyn std::fmt::Display| BadInput::new(error.to_string());
    let mut found = check::cold_start(config);
    found.result()?;
    if args.model.is_some() {
        let usual = Config::default();
        for (table, differs) in [("tiny", config.tiny != usual.tiny), ("init", config.init != usual.init)] {
            if differs {
                found.warn(table, "has no effect with --model, whose shape and weights are taken");
            }
        }
    }
    let limits = Limits::default();
    let set = DataSet::load(&args.data, &limits).map_err(|error| bad(&error))?;
    let scratch = tempfile::tempdir()?;
    let (model, weights) = start(config, args.model.as_deref(), scratch.path())?;
    let tokenizer = args.model.as_deref().unwrap_or(scratch.path());
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
    let processor = Processor::load(tokenizer).map_err(|error| bad(&error))?;
    let images: BTreeMap<_, _> = set.pictures.into_iter().map(|(id, picture)| (id, Arc::new(picture.image))).collect();
    let mut examples = vec![];
    for demonstration in &set.demonstrations {
        let pictures = demonstration.trajectory.pictures.iter().map(|id| images.get(id).cloned()).collect::<Option<Vec<_>>>();
        let pictures = pictures.with_context(|| format!("task {}: a picture is not in the data set", demonstration.task))?;
        examples.push(Example::new(&demonstration.trajectory, pictures));
    }
    let drills = hypereyes_synth::drill::drills(&*parts::world(config)?, &chat, &config.rollout.system_text(), DRILLS, config.seed);
    let drills: Vec<Example> = drills.iter().map(|drill| Example::new(drill, vec![])).collect();
    let mut trainer = Trainer::new(model.clone(), weights, config.sft_optim.clone(), config.sft.placement()).map_err(parts::refusal)?;
    let store = if args.bf16 { StoredDtype::Bf16 } else { StoredDtype::F32 };
    let save = |folder: &Path, weights: &HostWeights| -> Result<()> {
        checkpoint::save(folder, &model, weights, store)?;
        parts::copy_tokenizer(tokenizer, folder)
    };
    let bar = Bar::new("sft", "steps");
    let (began, mut tokens, mut failed) = (Instant::now(), 0usize, None);
    let mut last = None;
    sft::train(&mut trainer, &examples, &drills, &processor, &config.sft, config.seed, |trainer, step| {
        tokens += step.tokens;
        let speed = tokens as f64 / began.elapsed().as_secs_f64();
        let text = format!(
            "loss {:.4} likely {:.3} norm {:.2} lr {:.1e} {:.0} tokens/s{}",
            step.loss,
            step.likely,
            step.grad_norm,
            step.lr,
            speed,
            if step.blind { " (blind)" } else { "" }
        );
        bar.at(step.step, config.sft.steps, &text);
        last = Some(step);
        if !step.loss.is_finite() {
            failed = Some(anyhow!("the loss of step {} is {}: nothing was written; try a lower sft.lr", step.step, step.loss));
        } else if args.keep.contains(&step.step) {
            let mut name = args.out.as_os_str().to_owned();
            name.push(format!("-{}", step.step));
            failed = save(Path::new(&name), trainer.weights()).err();
        }
        failed.is_none()
    })?;
    bar.done();
    if let Some(error) = failed {
        return Err(error);
    }
    save(&args.out, trainer.weights())?;
    if json {
        crate::output::json(&serde_json::json!({
            "steps": config.sft.steps, "tokens": tokens, "seconds": began.elapsed().as_secs_f64(), "last": last, "out": args.out,
        }));
    } else {
        crate::output::say(&format!("wrote {} after {tokens} tokens in {:.0} s", args.out.display(), began.elapsed().as_secs_f64()));
    }
    Ok(())
}

/// The policy to start from: a folder's, or fresh weights with the tokenizer of the world written into `scratch`.
fn start(config: &Config, model: Option<&Path>, scratch: &Path) -> Result<(ModelConfig, HostWeights)> {
    let bad = |error: hypereyes_policy::Error| BadInput::new(error.to_string());
    match model {
        Some(folder) => Ok(checkpoint::read(folder).map_err(bad)?),
        None => {
            let words = write_tokenizer(&*parts::world(config)?, scratch)?;
            let model = config.tiny.model(words.vocab_size, words.image, words.vision_start, words.vision_end);
            let weights = init::fresh(&model, &config.init, config.seed);
            Ok((model, weights))
        }
    }
}
