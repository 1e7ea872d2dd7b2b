//! `hypereyes ask`: one question about one picture, every round shown.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_domain::{Call, Ending, PolicyVersion, Sampling, Task, TaskKind, Trajectory};
use hypereyes_pictures::{Filter, Limits, Picture, RgbImage, decode, resize};
use hypereyes_rollout::run_group;
use hypereyes_run::{RUNS, RunFolder, State};
use serde::Serialize;

use crate::config::Config;
use crate::shipped::Shipped;
use crate::transcript::{Episode, Found, Step};
use crate::{check, output, parts};

/// Arguments of `ask`.
#[derive(Args, Debug)]
#[command(after_help = "The policy is --model, else the settings' `policy`, else the newest finished run's, else the shipped one.\n\n\
    Examples:\n  hypereyes ask mosaic.png \"Which one has currency sol?\"\n  \
    hypereyes ask mosaic.png \"What is the capital of the one whose currency is sol?\" --model runs/my-run/learner/policy\n  \
    hypereyes ask mosaic.png \"Which one has currency sol?\" --layer 1000001 --json")]
pub struct AskArgs {
    /// A PNG or JPEG picture that shows several entities of the world.
    pub image: PathBuf,
    /// The question, worded as tasks word theirs.
    pub question: String,
    /// Policy folder (Hugging Face layout).
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Counterfactual layer of the world that the tools answer from; 0 is the world as it is.
    #[arg(long, default_value_t = 0)]
    pub layer: u64,
    /// Width and height in pixels that the picture is given before the policy sees it, such as 192x128. Default:
    /// `synth.canvas`, what it was trained on. `0x0` leaves the picture as it is.
    #[arg(long, value_name = "WxH", value_parser = size)]
    pub canvas: Option<[u32; 2]>,
}

fn size(text: &str) -> Result<[u32; 2], String> {
    let (width, height) = text.split_once('x').ok_or("write it like 192x128")?;
    let side = |side: &str| side.trim().parse::<u32>().ok().filter(|side| *side <= 4096).ok_or("sides are numbers up to 4096".to_owned());
    Ok([side(width)?, side(height)?])
}

/// What `--json` prints.
#[derive(Serialize)]
struct Answer<'a> {
    answer: Option<&'a str>,
    ending: Ending,
    rounds: u32,
    searches: u32,
    tokens: usize,
    /// Every executed round: its call and, per search, what was found.
    steps: Vec<RoundJson<'a>>,
    model: String,
    layer: u64,
}

#[derive(Serialize)]
struct RoundJson<'a> {
    call: Option<&'a Call>,
    found: Vec<Vec<String>>,
}

/// Asks and prints.
pub fn run(config: &Config, args: &AskArgs, json: bool) -> Result<()> {
    parts::telemetry()?;
    check::asking(config).result()?;
    if args.question.trim().is_empty() {
        return Err(BadInput::new("the question is empty").into());
    }
    let picture = read(&args.image, args.canvas.unwrap_or(config.synth.canvas))?;
    let world = parts::world(config)?;
    let scratch = tempfile::tempdir()?;
    let (model, name) = model(config, args, scratch.path())?;
    let (setup, engine) = parts::engine(config, &world, &model, PolicyVersion(0))?;
    let picture = Picture::from_image(picture)?;
    let task = Task {
        id: "ask".into(),
        kind: TaskKind::VisualSelect,
        question: args.question.trim().to_owned(),
        answers: vec!["unknown".into()],
        pictures: vec![picture.id.clone()],
        layer: args.layer,
        shown: vec![],
        reference: None,
    };
    let pictures = [picture.image];
    let rollouts = parts::runtime()?.block_on(run_group(&setup, &engine, &task, &pictures, &[0], Sampling::GREEDY));
    let rollouts = rollouts.map_err(|error| anyhow!("{error}"))?;
    let trajectory = rollouts.trajectories.first().ok_or_else(|| anyhow!("the engine gave no rollout"))?;
    let episode = Episode::read(&setup.chat, trajectory, &pictures);
    if json {
        output::json(&answer(trajectory, &episode, name, args.layer));
    } else {
        output::say(&format!("policy {name}, layer {}", args.layer));
        tell(&episode);
    }
    match trajectory.course.ending {
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
            Shipped::Policy.unpack(scratch)?;
            Ok((scratch.to_owned(), "shipped".into()))
        }
    }
}

fn answer<'a>(trajectory: &'a Trajectory, episode: &Episode, model: String, layer: u64) -> Answer<'a> {
    let texts = |found: &Found| -> Vec<String> {
        let hits = found.hits.iter().map(|hit| hit.text.clone());
        hits.chain(found.note.clone()).collect()
    };
    let found = |step: &Step| -> Option<Vec<Vec<String>>> {
        match step {
            Step::Images { shots, .. } => Some(shots.iter().map(|shot| texts(&shot.found)).collect()),
            Step::Texts { asked } => Some(asked.iter().map(|one| texts(&one.found)).collect()),
            Step::Refused { told, .. } => Some(vec![vec![told.clone()]]),
            Step::Answer { .. } | Step::Nothing { .. } => None,
        }
    };
    let found = episode.turns.iter().filter_map(|turn| found(&turn.step));
    let course = &trajectory.course;
    let steps = course.rounds.iter().zip(found).map(|(round, found)| RoundJson { call: round.call.as_deref(), found }).collect();
    Answer {
        answer: course.answer.as_deref(),
        ending: course.ending,
        rounds: course.round_count(),
        searches: course.searches(),
        tokens: trajectory.tokens(),
        steps,
        model,
        layer,
    }
}

fn tell(episode: &Episode) {
    let found = |found: &Found| {
        let hits: Vec<String> =
            found.hits.iter().map(|hit| format!("{} ({:.2})", hit.text, hit.relevance)).chain(found.note.clone()).collect();
        hits.join("; ")
    };
    let mut round = 0;
    for turn in &episode.turns {
        if let Some(reason) = turn.reason.as_deref().filter(|reason| !reason.is_empty()) {
            output::say(&format!("         {reason}"));
        }
        match &turn.step {
            Step::Images { on, shots } => {
                round += 1;
                output::say(&format!("round {round}  image_search of {} on {on}, at once", count(shots.len(), "area", "areas")));
                for shot in shots {
                    let place =
                        shot.area.map_or("whole".into(), |area| format!("[{:.2} {:.2} {:.2} {:.2}]", area.x1, area.y1, area.x2, area.y2));
                    output::say(&format!("         {}  {place}  {}", shot.number + 1, found(&shot.found)));
                }
            }
            Step::Texts { asked } => {
                round += 1;
                output::say(&format!("round {round}  text_search of {}, at once", count(asked.len(), "query", "queries")));
                for one in asked {
                    output::say(&format!("         {:?}  {}", one.query, found(&one.found)));
                }
            }
            Step::Refused { wanted, told } => {
                round += 1;
                output::say(&format!("round {round}  {wanted}\n         {told}"));
            }
            Step::Answer { text } => output::say(&format!("answer   {text}")),
            Step::Nothing { text } => output::say(&format!("neither a call nor an answer: {text}")),
        }
    }
    if episode.answer.is_none() {
        output::say(&format!("no answer: the episode ended with {}", episode.ending.label()));
    }
}

fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
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

    #[test]
    fn json_tells_each_round_with_its_findings() {
        use crate::transcript::tests::{PARALLEL, chat, mosaic, play};
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let trajectory = play(&chat, "Which one has currency sol?", &PARALLEL);
        let episode = Episode::read(&chat, &trajectory, &[mosaic()]);
        let json = serde_json::to_value(answer(&trajectory, &episode, "m".into(), 0)).expect("plain");
        assert_eq!((json["answer"].as_str(), json["rounds"].as_u64(), json["searches"].as_u64()), (Some("Peru"), Some(2), Some(4)));
        assert_eq!(json["steps"][0]["found"][0][0], "Mexico");
        assert_eq!(json["steps"][1]["call"]["tool"], "text_search");
    }
}
