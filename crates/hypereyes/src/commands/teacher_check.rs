//! `hypereyes teacher check`: whether a teacher is worth promoting. Held-out tasks are played with a policy in this process; each
//! teacher is then asked about the very tokens.
//!
//! A teacher helps where it is near: distillation pulls failed rollouts towards it, so one that speaks another style (far on rollouts
//! that are *right*) pulls towards that style instead of towards right answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_dataset::DataSet;
use hypereyes_domain::{Accuracy, Answer, PolicyVersion, Question, Sampling, ScoreSequence, TeacherId, Trajectory};
use hypereyes_miniature::shipped::Shipped;
use hypereyes_proto::TeacherPeer;
use hypereyes_rollout::run_group;
use hypereyes_scoring::accuracy_of;
use hypereyes_synth::Split;
use serde::Serialize;

use super::synth;
use crate::config::Config;
use crate::progress::Bar;
use crate::{output, parts};

/// Longest wait for a teacher's word on one task.
const PATIENCE: Duration = Duration::from_secs(120);

/// Arguments of `teacher check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Which model; the active one is shown beside it.
    pub id: String,
    /// The policy that plays. Default: `policy` of the settings, else the shipped one.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Tasks to play.
    #[arg(long, default_value_t = 32)]
    pub tasks: usize,
    /// Fail when the reverse KL per token on right rollouts is above this.
    #[arg(long, default_value_t = 0.5)]
    pub max_kl: f64,
}

/// How far one teacher is from the policy.
#[derive(Debug, Default, Serialize)]
struct Distance {
    teacher: String,
    rollouts: usize,
    tokens: usize,
    /// Mean of `log p_policy - log p_teacher` per sampled token.
    reverse_kl: f64,
    /// The same on right rollouts.
    reverse_kl_right: Option<f64>,
    /// The same on wrong ones.
    reverse_kl_wrong: Option<f64>,
    /// Share of sampled tokens that the teacher finds likeliest.
    agreement: f64,
}

/// One rollout with its pictures' bytes known to the teacher.
struct Rollout {
    trajectory: Trajectory,
    right: bool,
}

/// Plays, asks, prints; an error when the teacher is too far.
pub async fn run(config: &Config, args: &CheckArgs, peer: &TeacherPeer, json: bool) -> Result<()> {
    if args.tasks == 0 {
        return Err(BadInput::new("--tasks is 0").into());
    }
    let roster = peer.roster(PATIENCE).await.map_err(|error| anyhow!("{error}"))?;
    let candidate = TeacherId::new(args.id.clone());
    if !roster.models.iter().any(|model| model.id == candidate && model.card.is_some()) {
        return Err(BadInput::new(format!("no model {candidate} is loaded: `hypereyes teacher load` it, or list the models")).into());
    }
    let active = roster.active().map(|active| active.id).filter(|active| *active != candidate);
    let (rollouts, pictures) = play(config, args).await?;
    peer.put(pictures, PATIENCE).await.map_err(|error| anyhow!("{error}"))?;
    let mut distances = Vec::new();
    for id in [Some(candidate), active].into_iter().flatten() {
        distances.push(measure(peer, &id, &rollouts).await?);
    }
    let far = distances[0].reverse_kl_right.unwrap_or(distances[0].reverse_kl);
    if json {
        output::json(&distances);
    } else {
        table(&distances);
    }
    anyhow::ensure!(
        far <= args.max_kl,
        "{} is {far:.3} nats per token from the policy on right rollouts; {} is the limit (--max-kl): it is not aligned",
        args.id,
        args.max_kl
    );
    Ok(())
}

/// Rollouts of the policy at temperature 1, with the pictures that they saw.
async fn play(config: &Config, args: &CheckArgs) -> Result<(Vec<Rollout>, hypereyes_proto::teacher::Pictures)> {
    let scratch = tempfile::tempdir()?;
    let configured = args.model.clone().or_else(|| Some(config.policy.clone()).filter(|path| !path.as_os_str().is_empty()));
    let model = match configured {
        Some(model) => model,
        None => {
            parts::unpack(Shipped::Policy, scratch.path())?;
            scratch.path().to_owned()
        }
    };
    let world = parts::world(config)?;
    let (setup, engine) = parts::engine(config, &world, &model, PolicyVersion(0)).await?;
    let mut wanted = config.clone();
    wanted.synth.held_out = args.tasks;
    let DataSet { tasks, pictures, .. } = synth::make(&wanted, Split::HeldOut).await?;
    // The distance to a teacher is told apart by right and wrong only: a rule is enough, and asks nobody.
    let judge = config.reward_service.judge.rule().unwrap_or_default();
    let bar = Bar::new("play", "tasks");
    let (mut rollouts, mut seen) = (Vec::new(), BTreeMap::new());
    for (number, task) in tasks.iter().enumerate() {
        let shown: Vec<_> = task.pictures.iter().filter_map(|id| pictures.get(id)).cloned().map(Arc::new).collect();
        let played = run_group(&setup, &engine, task, &shown, &[config.seed + number as u64], Sampling::of(1.0, 1.0)).await;
        let played = played.map_err(|error| anyhow!("{error}"))?;
        for picture in shown.iter().chain(&played.crops) {
            seen.insert(picture.id.clone(), picture.bytes.clone());
        }
        for trajectory in played.trajectories.into_iter().filter(|trajectory| trajectory.sampled_tokens() > 0) {
            let right = accuracy_of(&judge, task, &trajectory.summary) == Accuracy::Correct;
            rollouts.push(Rollout { trajectory, right });
        }
        bar.at(number + 1, tasks.len(), "");
    }
    bar.done();
    Ok((rollouts, seen.into_iter().collect()))
}

async fn measure(peer: &TeacherPeer, id: &TeacherId, rollouts: &[Rollout]) -> Result<Distance> {
    let mut distance = Distance { teacher: id.to_string(), rollouts: rollouts.len(), ..Distance::default() };
    let (mut gaps, mut agreed) = ([(0.0, 0usize); 2], 0usize);
    for (number, Rollout { trajectory, right }) in rollouts.iter().enumerate() {
        let sequence = ScoreSequence::from(trajectory);
        let question =
            Question { teacher: Some(id.clone()), top: 1, ..Question::new(format!("check@{number}").as_str().into(), vec![sequence]) };
        let (_, answers) = peer.ask(&question, PATIENCE).await.map_err(|error| anyhow!("{id}: {error}"))?;
        let Answer { logprobs, top } = answers.into_iter().next().unwrap_or_default();
        let sampled = (0..trajectory.mask.len()).filter(|at| trajectory.mask[*at]);
        for ((at, teacher), (likeliest, _)) in sampled.zip(logprobs).zip(top) {
            let (gap, count) = &mut gaps[usize::from(*right)];
            *gap += f64::from(trajectory.logprobs[at]) - f64::from(teacher);
            *count += 1;
            agreed += usize::from(likeliest == trajectory.response[at]);
        }
    }
    let mean = |(gap, count): (f64, usize)| (count > 0).then(|| gap / count as f64);
    let [wrong, right] = gaps;
    distance.tokens = wrong.1 + right.1;
    (distance.reverse_kl_wrong, distance.reverse_kl_right) = (mean(wrong), mean(right));
    distance.reverse_kl = mean((wrong.0 + right.0, distance.tokens)).unwrap_or(0.0);
    distance.agreement = agreed as f64 / distance.tokens.max(1) as f64;
    Ok(distance)
}

fn table(distances: &[Distance]) {
    output::say("teacher           rollouts   tokens   KL right   KL wrong   agreement");
    let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
    for Distance { teacher, rollouts, tokens, reverse_kl_right, reverse_kl_wrong, agreement, .. } in distances {
        let (right, wrong) = (number(*reverse_kl_right), number(*reverse_kl_wrong));
        output::say(&format!("{teacher:<16}  {rollouts:>8}   {tokens:>6}   {right:>8}   {wrong:>8}   {:>7.1} %", agreement * 100.0));
    }
    output::say("KL: nats per sampled token between policy and teacher; agreement: sampled tokens that the teacher finds likeliest");
}
