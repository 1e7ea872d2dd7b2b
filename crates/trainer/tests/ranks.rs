//! Ranks as processes: the same batch gives the same weights however many share it, every time; and a rank that stops is
//! named by all others within the deadline.
//!
//! This file starts itself again for each rank: `rank` is not a test of its own but what a rank does.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hypereyes_collective::{Collective, Hub, RankInfo, Tcp};
use hypereyes_domain::{
    Accuracy, BonusBranch, DistilledGroup, Ending, GroupId, PolicyVersion, RolloutGroup, RolloutSummary, Route, Score, ScoredGroup, TaskId,
    TeacherLogprobs, TeacherVersion, Trajectory,
};
use hypereyes_objective::Options;
use hypereyes_policy::checkpoint::{self, HostWeights, StoredDtype};
use hypereyes_policy::config::SmallShape;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::ScoreOptions;
use hypereyes_policy::init;
use hypereyes_policy::score::Sample;
use hypereyes_run::Step;
use hypereyes_trainer::{LoraConfig, OptimConfig, ParameterGroup, Pictures, Placement, StepOptions, Trainer, step};

const STEPS: u64 = 20;
const VOCAB: u32 = 60;
/// The default of the tiny policy. Differences grow with it: Adam divides by gradients, and where those are next to nothing
/// the order of a sum decides.
const LR: f64 = 3e-4;

/// A group of rollouts of different lengths, some of them failed and taught.
fn group(number: u32) -> DistilledGroup {
    let token = |at: u32, salt: u32| (at * 7 + salt * 13 + number * 29) % VOCAB;
    let (mut rollouts, mut scores, mut teacher) = (vec![], vec![], vec![]);
    for sibling in 0..4u32 {
        let length = 6 + (number * 5 + sibling * 11) % 23;
        let response: Vec<u32> = (0..length).map(|at| token(at, sibling + 1)).collect();
        let mask: Vec<bool> = (0..length).map(|at| at % 5 != 3).collect();
        let of_mask = |value: f32| -> Vec<f32> { mask.iter().map(|sampled| if *sampled { value } else { 0.0 }).collect() };
        rollouts.push(Trajectory {
            prompt: (0..9).map(|at| token(at, 0)).collect(),
            versions: vec![PolicyVersion(0); response.len()],
            logprobs: of_mask(-4.0),
            response,
            mask: mask.clone(),
            pictures: vec![],
            summary: RolloutSummary { rounds: vec![], ending: Ending::NoAction, answer: None },
            spoken: None,
        });
        let failed = (number + sibling).is_multiple_of(3);
        let (accuracy, reward) = if failed { (Accuracy::Wrong, 0.0) } else { (Accuracy::Correct, 1.0 + 0.05 * f64::from(sibling)) };
        let route = if failed { Route::Distill } else { Route::Reinforce };
        scores.push(Score { accuracy, bonus: 0.0, branch: BonusBranch::None, reward, route });
        teacher.push(failed.then(|| TeacherLogprobs { teacher: TeacherVersion::new("t", 1), logprobs: of_mask(-2.5), top: vec![] }));
    }
    let group =
        RolloutGroup { id: GroupId::new(format!("g{number}")), task: TaskId::new(format!("t{number}")), actor: "a".into(), rollouts };
    DistilledGroup::new(ScoredGroup::new(group, scores, None, 0).unwrap(), teacher).unwrap()
}

fn trainer(ranks: Box<dyn Collective>, sharded: bool) -> Trainer {
    with(ranks, sharded, OptimConfig::default(), None)
}

fn with(ranks: Box<dyn Collective>, sharded: bool, optim: OptimConfig, from: Option<HostWeights>) -> Trainer {
    let model =
        SmallShape { width: 32, layers: 2, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 }.model(VOCAB as usize + 4, 61, 62, 63);
    let weights = from.unwrap_or_else(|| init::fresh(&model, &Default::default(), 5));
    let placement = Placement { device: Device::Cpu, micro_tokens: 128 };
    Trainer::among(ranks, sharded, model, weights, optim, placement).unwrap()
}

fn options(updates_per_batch: usize) -> StepOptions {
    StepOptions { objective: Options { opd_coef: 0.2, ..Options::default() }, updates_per_batch, ..StepOptions::default() }
}

/// Trains on the same five groups again and again, and says in a file which step it is at.
fn train(mut trainer: Trainer, delay: Duration, at: &str) -> Result<HostWeights, String> {
    let groups: Vec<DistilledGroup> = (0..5).map(group).collect();
    let options = options(std::env::var("UPDATES").map_or(1, |updates| updates.parse().unwrap()));
    for number in 0..STEPS {
        std::fs::write(at, number.to_string()).unwrap();
        std::thread::sleep(delay);
        let version = PolicyVersion(number);
        step::train(&mut trainer, &groups, &Pictures::new(), &options, LR, version).map_err(|error| error.to_string())?;
    }
    Ok(trainer.weights().clone())
}

/// What one rank does, when this file is started as one.
#[test]
fn rank() {
    let Ok(rank) = std::env::var("RANK") else { return };
    let var = |name: &str| std::env::var(name).unwrap();
    let number = |name: &str| var(name).parse::<u64>().unwrap();
    // One thread each: the count of lanes is part of what a sum depends on.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    let place = RankInfo { rank: rank.parse().unwrap(), world: number("WORLD") as usize, generation: 3 };
    let timeout = Duration::from_millis(number("TIMEOUT"));
    let hub: SocketAddr = var("HUB").parse().unwrap();
    let star =
        if place.rank == 0 { Hub::bind(hub).unwrap().meet(place, Duration::from_secs(60), timeout) } else { reach(place, hub, timeout) };
    let out = var("OUT");
    let delay = Duration::from_millis(number("DELAY"));
    let trained = train(trainer(Box::new(star.unwrap()), var("SHARDED") == "1"), delay, &format!("{out}.step"));
    match trained {
        Ok(weights) => std::fs::write(out, checkpoint::serialise(&weights, StoredDtype::F32).unwrap()).unwrap(),
        Err(error) => std::fs::write(format!("{out}.error"), error).unwrap(),
    }
}

/// Rank 0 may be a moment behind.
fn reach(place: RankInfo, hub: SocketAddr, timeout: Duration) -> Result<Tcp, hypereyes_collective::CollectiveError> {
    for _ in 0..200 {
        if let Ok(star) = Tcp::join(place, hub, timeout) {
            return Ok(star);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Tcp::join(place, hub, timeout)
}

struct Job {
    ranks: Vec<Child>,
}

impl Drop for Job {
    fn drop(&mut self) {
        for rank in &mut self.ranks {
            let _ = rank.kill(); // It may have ended.
            let _ = rank.wait();
        }
    }
}

fn start(folder: &Path, world: usize, sharded: bool, timeout: u64, delay: u64) -> Job {
    start_with(folder, world, sharded, timeout, delay, 1)
}

fn start_with(folder: &Path, world: usize, sharded: bool, timeout: u64, delay: u64, updates: usize) -> Job {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let spawn = |rank: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rank"])
            .envs([("RANK", rank.to_string()), ("WORLD", world.to_string()), ("HUB", port.to_string())])
            .envs([("TIMEOUT", timeout.to_string()), ("DELAY", delay.to_string()), ("SHARDED", u8::from(sharded).to_string())])
            .env("UPDATES", updates.to_string())
            .env("OUT", folder.join(format!("rank{rank}")))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    Job { ranks: (0..world).map(spawn).collect() }
}

fn weights_of(world: usize, sharded: bool) -> Vec<u8> {
    weights_after(world, sharded, 1)
}

fn weights_after(world: usize, sharded: bool, updates: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let mut job = start_with(folder.path(), world, sharded, 60_000, 0, updates);
    for rank in &mut job.ranks {
        assert!(rank.wait().unwrap().success());
    }
    let read = |rank: usize| std::fs::read(folder.path().join(format!("rank{rank}"))).unwrap();
    for rank in 1..world {
        assert_eq!(read(rank), read(0), "rank {rank} of {world} has other weights than rank 0");
    }
    read(0)
}

fn worst(a: &[u8], b: &[u8]) -> f32 {
    let (a, b) = (checkpoint::parse(a).unwrap(), checkpoint::parse(b).unwrap());
    assert_eq!(a.len(), b.len());
    let pairs = a.values().zip(b.values()).flat_map(|(a, b)| a.values.iter().zip(&b.values));
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn one_two_and_four_ranks_train_the_same_weights_sharded_or_not_and_the_same_bits_again() {
    let alone = weights_of(1, true);
    let fresh = {
        let trainer = trainer(Box::new(Tcp::alone()), true);
        checkpoint::serialise(trainer.weights(), StoredDtype::F32).unwrap()
    };
    assert!(worst(&alone, &fresh) > 1e-3, "twenty steps move the weights");
    for world in [2, 4] {
        let shared = weights_of(world, true);
        let far = worst(&shared, &alone);
        println!("{world} ranks: largest difference to one rank {far:.1e}");
        assert!(far < 1e-6, "{world} ranks: {far}");
        assert_eq!(weights_of(world, true), shared, "{world} ranks, again");
        assert_eq!(weights_of(world, false), shared, "{world} ranks, each with all of the optimiser's state");
    }
    assert_eq!(weights_of(1, false), alone);
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_rank_that_stops_or_dies_is_named_by_all_others_in_time() {
    const TIMEOUT: u64 = 4000;
    for (name, lost) in [("STOP", 2), ("KILL", 1), ("KILL", 0)] {
        let folder = tempfile::tempdir().unwrap();
        let mut job = start(folder.path(), 3, true, TIMEOUT, 300);
        let step = |rank: usize| std::fs::read_to_string(folder.path().join(format!("rank{rank}.step"))).ok()?.parse::<u64>().ok();
        let meeting = Instant::now();
        while !(0..3).all(|rank| step(rank) >= Some(2)) {
            assert!(meeting.elapsed() < Duration::from_secs(60), "the ranks do not get to work");
            std::thread::sleep(Duration::from_millis(20));
        }
        // In the middle of some step.
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        signal(&job.ranks[lost], name);
        for (rank, child) in job.ranks.iter_mut().enumerate().filter(|(rank, _)| *rank != lost) {
            assert!(child.wait().unwrap().success());
            let said = std::fs::read_to_string(folder.path().join(format!("rank{rank}.error"))).expect("it ended with an error");
            assert!(said.contains(&format!("rank {lost} ")), "{name} {lost}: rank {rank} says {said}");
        }
        let waited = began.elapsed();
        println!("{name} of rank {lost}: the others ended after {waited:?}");
        assert!(waited < Duration::from_millis(TIMEOUT + 10_000), "{name} {lost}: the others waited {waited:?}");
    }
}

fn steps(trainer: &mut Trainer, count: u64) {
    let groups: Vec<DistilledGroup> = (0..5).map(group).collect();
    let options = options(1);
    for number in 0..count {
        step::train(trainer, &groups, &Pictures::new(), &options, 3e-3, PolicyVersion(number)).unwrap();
    }
}

#[test]
fn adapters_train_their_matrices_alone_and_a_resumed_trainer_goes_on_with_the_same_bits() {
    let optim = OptimConfig { lora: LoraConfig { rank: 2, ..LoraConfig::default() }, ..OptimConfig::default() };
    let alone = || Box::new(Tcp::alone());
    let mut through = with(alone(), true, optim.clone(), None);
    let before = through.weights().clone();
    steps(&mut through, 4);
    for (name, tensor) in through.weights() {
        let moved = tensor != &before[name];
        let target = name.contains("language_model") && name.contains("_proj");
        assert_eq!(moved, target, "{name}");
    }
    // Saved after two steps, as a checkpoint does, and gone on with.
    let mut first = with(alone(), true, optim.clone(), None);
    steps(&mut first, 2);
    let (state, moments) = (first.state(), first.moments().unwrap());
    assert!(moments.first.keys().all(|name| name.contains("lora_")), "moments are of adapters only");
    let mut second = with(alone(), true, optim.clone(), Some(state.clone()));
    assert_eq!(second.weights(), first.weights());
    second.resume(&moments);
    steps(&mut first, 2);
    steps(&mut second, 2);
    assert_eq!(second.weights(), first.weights());
    assert_eq!(second.weights(), through.weights());
}

#[test]
fn frozen_parameters_stay_as_they_are() {
    let groups = vec![ParameterGroup { prefix: "model.language_model.layers.0.".into(), rate: 0.0, weight_decay: None }];
    let mut trainer = with(Box::new(Tcp::alone()), true, OptimConfig { groups, ..OptimConfig::default() }, None);
    let before = trainer.weights().clone();
    steps(&mut trainer, 2);
    for (name, tensor) in trainer.weights().iter().filter(|(name, _)| name.contains("language_model.layers")) {
        assert_eq!(tensor == &before[name], name.contains("layers.0."), "{name}");
    }
}

#[test]
fn several_updates_of_a_batch_are_the_same_on_one_and_two_ranks() {
    let alone = weights_after(1, true, 3);
    assert!(worst(&alone, &weights_of(1, true)) > 1e-4, "three updates are another training than one");
    let shared = weights_after(2, true, 3);
    let far = worst(&shared, &alone);
    println!("2 ranks, 3 updates a batch: largest difference to one rank {far:.1e}");
    assert!(far < 1e-5, "{far}");
    assert_eq!(weights_after(2, true, 3), shared, "again");
    assert_eq!(weights_after(2, false, 3), shared, "each with all of the optimiser's state");
}

/// Steps on eight groups whose sampler is the policy itself, and what they measured.
fn on_policy(options: &StepOptions, optim: OptimConfig, lr: f64, count: u64) -> (HostWeights, Vec<Step>) {
    let mut trainer = with(Box::new(Tcp::alone()), true, optim, None);
    let mut groups: Vec<DistilledGroup> = (0..8).map(group).collect();
    for rollout in groups.iter_mut().flat_map(|group| &mut group.scored.group.rollouts) {
        let start = rollout.prompt.len();
        let at: Vec<usize> = (0..rollout.mask.len()).filter(|at| rollout.mask[*at]).collect();
        let tokens = rollout.prompt.iter().chain(&rollout.response).copied().collect();
        let sample = Sample { tokens, asked: at.iter().map(|at| start + at).collect(), ..Sample::default() };
        let said = trainer.runner().score(&[sample], ScoreOptions::PLAIN).unwrap().remove(0).logprobs;
        at.iter().zip(said).for_each(|(at, logprob)| rollout.logprobs[*at] = logprob);
    }
    let step = |number| step::train(&mut trainer, &groups, &Pictures::new(), options, lr, PolicyVersion(number)).unwrap();
    let measured = (0..count).map(step).collect();
    (trainer.weights().clone(), measured)
}

#[test]
fn with_several_updates_the_ratio_moves_and_clipping_decides_what_is_learned() {
    const LR: f64 = 1e-2;
    let (_, once) = on_policy(&options(1), OptimConfig::default(), LR, 2);
    assert!(
        once.iter().all(|step| [step.clip_fraction, step.dual_clip_fraction, step.ppo_kl] == [Some(0.0); 3] && step.updates == Some(1))
    );
    let (clipped, measured) = on_policy(&options(4), OptimConfig::default(), LR, 2);
    println!("clipped, by step: {:?}", measured.iter().map(|step| step.clip_fraction).collect::<Vec<_>>());
    assert!(
        measured.iter().all(|step| step.clip_fraction > Some(0.0) && step.ppo_kl != Some(0.0) && step.updates == Some(4)),
        "{measured:?}"
    );
    let ablate = |change: &dyn Fn(&mut Options)| {
        let mut options = options(4);
        change(&mut options.objective);
        on_policy(&options, OptimConfig::default(), LR, 2)
    };
    // Bounds that nothing reaches, the upper one alone, and a bound for bad tokens that grew.
    let (wide, free) = ablate(&|options| (options.clip_low, options.clip_high) = (1.0, 1e6));
    assert!(free.iter().all(|step| step.clip_fraction == Some(0.0)) && wide != clipped);
    let (higher, _) = ablate(&|options| options.clip_high = 0.2);
    assert_ne!(higher, clipped, "the upper bound counts by itself");
    let (dual, held) = ablate(&|options| options.dual_clip = Some(1.01));
    assert!(held.iter().any(|step| step.dual_clip_fraction > Some(0.0)) && dual != clipped);
    // With one update the bounds change nothing.
    let mut options = options(1);
    let (one, _) = on_policy(&options, OptimConfig::default(), LR, 2);
    (options.objective.clip_low, options.objective.clip_high) = (0.0, 0.0);
    assert_eq!(on_policy(&options, OptimConfig::default(), LR, 2).0, one);
}

#[test]
fn at_a_rate_of_0_several_updates_find_the_policy_that_sampled() {
    let lora = OptimConfig { lora: LoraConfig { rank: 2, ..LoraConfig::default() }, ..OptimConfig::default() };
    for optim in [OptimConfig::default(), lora] {
        let before = with(Box::new(Tcp::alone()), true, optim.clone(), None).weights().clone();
        let (after, measured) = on_policy(&options(4), optim, 0.0, 2);
        for step in &measured {
            assert!(
                step.train_rollout_logprob_abs_diff.unwrap() < 1e-5 && step.ppo_kl.unwrap().abs() < 1e-5 && step.clip_fraction == Some(0.0),
                "{step:?}"
            );
        }
        assert_eq!(after, before);
    }
}

#[test]
fn a_batch_of_fewer_groups_than_updates_makes_an_update_per_group() {
    let mut trainer = with(Box::new(Tcp::alone()), true, OptimConfig::default(), None);
    let groups: Vec<DistilledGroup> = (0..3).map(group).collect();
    let measured = step::train(&mut trainer, &groups, &Pictures::new(), &options(4), LR, PolicyVersion(0)).unwrap();
    assert_eq!((measured.updates, trainer.moments().unwrap().steps), (Some(3), 3));
}
