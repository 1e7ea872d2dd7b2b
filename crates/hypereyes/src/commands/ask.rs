//! `hypereyes ask`: one question about one picture, every round shown.

use hypereyes_miniature::shipped::Shipped;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_domain::{Ending, Sampling, Task, TaskKind};
use hypereyes_pictures::{Filter, Limits, Picture, RgbImage, decode, resize};
use hypereyes_report::{told, transcript::Episode};
use hypereyes_run::{RUNS, RunFolder, State};

use crate::commands::EngineArgs;
use crate::config::Config;
use crate::parts::Chosen;
use crate::{check, endpoint, output, parts};

/// Arguments of `ask`.
#[derive(Args, Debug)]
#[command(
    after_help = "The policy is the server's with --engine openai, else --model, else the settings' `policy`, else the newest finished run's, else the shipped one.\n\n\
    Examples:\n  hypereyes ask mosaic.png \"Which one has currency sol?\"\n  \
    hypereyes ask mosaic.png \"What is the capital of the one whose currency is sol?\" --model runs/my-run/learner/policy\n  \
    hypereyes ask mosaic.png \"Which one has currency sol?\" --layer 1000001 --json\n  \
    hypereyes ask mosaic.png \"Which one has currency sol?\" --engine openai --url http://127.0.0.1:8000/v1"
)]
pub struct AskArgs {
    /// A PNG or JPEG picture that shows several entities of the world.
    pub image: PathBuf,
    /// The question, worded as tasks word theirs.
    pub question: String,
    /// Policy folder (Hugging Face layout). None with `--engine openai`.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Who samples.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Counterfactual layer of the world that the tools answer from; 0 is the world as it is.
    #[arg(long, default_value_t = 0)]
    pub layer: u64,
    /// Width and height in pixels that the picture is given before the policy sees it, such as 192x128. Default:
    /// `synth.canvas`, what it was trained on; with `--engine openai` as it is. `0x0` leaves the picture as it is.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub canvas: Option<[u32; 2]>,
}

fn size(text: &str) -> Result<[u32; 2], String> {
    let (width, height) = text.split_once('x').ok_or("write it like 192x128")?;
    let side = |side: &str| side.trim().parse::<u32>().ok().filter(|side| *side <= 4096).ok_or("sides are numbers up to 4096".to_owned());
    Ok([side(width)?, side(height)?])
}

/// Asks and prints.
pub fn run(config: &Config, args: &AskArgs, json: bool) -> Result<()> {
    parts::telemetry()?;
    let found = check::asking(config);
    found.result()?;
    found.warned().iter().for_each(|warning| output::note(&format!("warning: {warning}")));
    if args.question.trim().is_empty() {
        return Err(BadInput::new("the question is empty").into());
    }
    endpoint::needs_no_folder(config, "--model", args.model.as_deref())?;
    let canvas = if config.engine.speaks_text() { [0, 0] } else { config.synth.canvas };
    let picture = read(&args.image, args.canvas.unwrap_or(canvas))?;
    let world = parts::world(config)?;
    let scratch = tempfile::tempdir()?;
    let runtime = parts::runtime()?;
    let Chosen { player, chat, name, .. } = if config.engine.speaks_text() {
        runtime.block_on(endpoint::open(config, &world))?
    } else {
        let (model, name) = model(config, args, scratch.path())?;
        runtime.block_on(parts::tokens(config, &world, &model, name))?
    };
    let picture = Arc::new(Picture::from_image(picture)?);
    let task = Task {
        id: "ask".into(),
        kind: TaskKind::VISUAL_SELECT,
        question: args.question.trim().to_owned(),
        answers: vec!["unknown".into()],
        pictures: vec![picture.id.clone()],
        layer: Some(args.layer).filter(|layer| *layer != 0),
        metadata: Default::default(),
        shown: vec![],
        reference: None,
    };
    let pictures = [picture];
    let rollouts = runtime.block_on(player.play(&task, &pictures, &[0], Sampling::GREEDY));
    let rollouts = rollouts.map_err(|error| anyhow!("{error}"))?;
    let trajectory = rollouts.trajectories.first().ok_or_else(|| anyhow!("the engine gave no rollout"))?;
    let episode = Episode::read(chat.as_deref(), trajectory, &pictures.map(|picture| RgbImage::clone(&picture.image)));
    if json {
        output::json(&told::answer(trajectory, &episode, name, args.layer));
    } else {
        output::say(&format!("policy {name}, layer {}", args.layer));
        told::lines(&episode).iter().for_each(|line| output::say(line));
    }
    match trajectory.summary.ending {
        Ending::Failed(failure) => Err(anyhow!("the episode failed: {failure}")),
        _ => Ok(()),
    }
}

/// The picture within limits, on the policy's canvas. Boxes are ratios, so a change of shape moves none of them.
fn read(path: &Path, [width, height]: [u32; 2]) -> Result<RgbImage> {
    let bad = |error: &dyn std::fmt::Display| BadInput::new(format!("{}: {error}", path.display()));
    let limits = Limits::default();
    let bytes = hypereyes_outside::files::read(path, limits.max_bytes as u64).map_err(|error| bad(&error))?;
    let picture = decode(&bytes, &limits).map_err(|error| bad(&error))?;
    Ok(if width == 0 || height == 0 { picture } else { resize(&picture, width, height, Filter::Bicubic) })
}

fn model(config: &Config, args: &AskArgs, scratch: &Path) -> Result<(PathBuf, String)> {
    let configured = Some(config.policy.clone()).filter(|path| !path.as_os_str().is_empty());
    let trained = || RunFolder::newest(Path::new(RUNS), |folder| folder.state() == State::Finished).map(|folder| folder.policy());
    match args.model.clone().or(configured).or_else(trained) {
        Some(model) => Ok((model.clone(), model.display().to_string())),
        None => {
            parts::unpack(Shipped::Policy, scratch)?;
            Ok((scratch.to_owned(), "shipped".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_put_on_the_canvas_and_bad_ones_are_bad_input() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.png");
        RgbImage::new(300, 100).save(&path).expect("written");
        assert_eq!(read(&path, [192, 128]).expect("a picture").dimensions(), (192, 128));
        assert_eq!(read(&path, [0, 0]).expect("a picture").dimensions(), (300, 100));
        std::fs::write(&path, b"not a picture").expect("written");
        for path in [path, folder.path().join("none.png")] {
            let error = read(&path, [192, 128]).expect_err("no picture");
            assert!(error.is::<BadInput>() && error.to_string().contains(".png"), "{error}");
        }
    }

    #[test]
    fn canvas_sizes_are_read_or_explained() {
        assert_eq!(size("192x128"), Ok([192, 128]));
        assert!(size("192").is_err() && size("9999x1").is_err() && size("ax1").is_err());
    }
}
