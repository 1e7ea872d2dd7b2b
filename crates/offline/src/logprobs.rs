//! `hypereyes logprobs`: the log-prob of every token of given sequences, as teacher and learner compute them.

use std::cell::LazyCell;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use hypereyes_chassis::{BadInput, output};
use hypereyes_policy::checkpoint;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{self, Frozen, ScoreOptions};
use hypereyes_policy::score::Sample;
use serde_json::{Value, json};

use crate::cases::{self, Case};
use crate::sights::Sights;
use crate::{lines, refusal};

/// Arguments of `logprobs`.
#[derive(Args, Debug)]
#[command(
    after_help = "A line of input is {\"id\": ..., \"input_ids\": [...], \"images\": [\"a.png\", ...]}; the images stand for the runs of\n\
    picture placeholders among the ids, in order. The answer is {\"id\": ..., \"next_logprobs\": [...]}: entry t is the log-prob of\n\
    token t + 1 given the tokens up to t.\n\n\
    Examples:\n  echo '{\"id\": 1, \"input_ids\": [5, 9, 11]}' | hypereyes logprobs --model policies/cold\n  \
    hypereyes logprobs --model DIR --cases expected.safetensors --json"
)]
pub struct LogprobsArgs {
    /// Policy folder (Hugging Face layout).
    #[arg(long)]
    pub model: PathBuf,
    /// Where the model computes: cpu, cuda, cuda-bf16.
    #[arg(long, default_value_t = Device::Cpu)]
    pub device: Device,
    /// Sequences, one JSON object each. Default: stdin.
    #[arg(conflicts_with = "cases")]
    pub file: Option<PathBuf>,
    /// Safetensors file with caseN.input_ids and, for pictures, caseN.pixel_values and caseN.image_grid_thw.
    #[arg(long, value_name = "FILE")]
    pub cases: Option<PathBuf>,
    /// Make the pictures of --cases from caseN.imageK.rgb with the model's picture processor.
    #[arg(long, requires = "cases")]
    pub images: bool,
    /// Compare with caseN.next_logprobs of --cases; a difference above this fails.
    #[arg(long, requires = "cases", value_name = "TOLERANCE")]
    pub check: Option<f32>,
}

/// Prints log-probs.
pub fn run(args: &LogprobsArgs, json: bool) -> Result<()> {
    // Who compares with what is right may ask a device that has not been shown to be.
    let freeze = if args.check.is_some() {
        frozen::freeze_to_verify
    } else {
        args.device.admits_folder(&args.model).map_err(refusal)?;
        frozen::freeze
    };
    let (config, weights) = checkpoint::read(&args.model).map_err(refusal)?;
    let model = freeze(&config, &weights, args.device, 1).map_err(refusal)?;
    let sights = Sights::assumed(&args.model);
    // A placeholder in a text without pictures is a token as any other, as transformers has it: to this model none is special.
    let of_text = LazyCell::new(|| freeze(&ModelConfig { image_token_id: u32::MAX, ..config.clone() }, &weights, args.device, 1));
    let of = |case: &Case| {
        let stray = case.pictures.is_empty() && case.ids.contains(&config.image_token_id);
        let model = if stray { of_text.as_deref().map_err(|error| hypereyes_policy::Error::Input(error.to_string()))? } else { &*model };
        logprobs(model, case)
    };
    match &args.cases {
        Some(path) => {
            let mut answers = vec![];
            for case in cases::file(path, &sights, args.images)? {
                let answer = of(&case).map_err(|error| {
                    let place = format!("{}, case {}", path.display(), case.id);
                    match error {
                        hypereyes_policy::Error::Device(_) => anyhow::Error::from(error).context(place),
                        error => BadInput::new(format!("{place}: {error}")).into(),
                    }
                })?;
                answers.push((case, answer));
            }
            if let Some(tolerance) = args.check {
                return check(&answers, args.device, tolerance, json);
            }
            if json {
                output::json(&answers.iter().map(|(case, answer)| json!({"case": case.id, "next_logprobs": answer})).collect::<Vec<_>>());
            } else {
                answers.iter().for_each(|(case, answer)| output::say(&summary(case, answer)));
            }
            Ok(())
        }
        None => lines::each(args.file.as_deref(), |value: &Value| {
            let case = cases::line(value, &sights)?;
            let answer = of(&case)?;
            Ok(json!({"id": case.id, "next_logprobs": answer}))
        }),
    }
}

fn logprobs(model: &dyn Frozen, case: &Case) -> Result<Vec<f32>, hypereyes_policy::Error> {
    let asked = (1..case.ids.len()).collect();
    let sample = Sample { tokens: case.ids.clone(), pictures: case.pictures.clone(), asked, trunk: 0 };
    Ok(model.score(&[sample], ScoreOptions::PLAIN)?.remove(0).logprobs)
}

/// Says how far the answers are from what the file expects.
fn check(answers: &[(Case, Vec<f32>)], device: Device, tolerance: f32, json: bool) -> Result<()> {
    let mut worst = 0.0f32;
    for (case, answer) in answers {
        let expected = case.expected.as_ref().filter(|expected| expected.len() == answer.len());
        let expected = expected.ok_or_else(|| BadInput::new(format!("case {}: there is no next_logprobs to compare with", case.id)))?;
        // A number that is none is as far away as can be.
        let far = |(a, b): (&f32, &f32)| if (a - b).is_finite() { (a - b).abs() } else { f32::INFINITY };
        worst = answer.iter().zip(expected).map(far).fold(worst, f32::max);
    }
    if json {
        output::json(&json!({"device": device.name(), "cases": answers.len(), "worst_difference": worst, "tolerance": tolerance}));
    } else {
        output::say(&format!("{} cases on {device}: largest difference {worst:.2e}, tolerance {tolerance:.0e}", answers.len()));
    }
    anyhow::ensure!(worst <= tolerance, "log-probs differ by {worst:.2e}; {tolerance:.0e} was allowed");
    Ok(())
}

fn summary(case: &Case, logprobs: &[f32]) -> String {
    let mean = logprobs.iter().map(|logprob| f64::from(*logprob)).sum::<f64>() / logprobs.len().max(1) as f64;
    let pictures = case.pictures.len();
    format!("case {}: {} tokens, {pictures} pictures, mean log-prob {mean:.4}, perplexity {:.2}", case.id, case.ids.len(), (-mean).exp())
}
