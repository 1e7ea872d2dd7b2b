//! Engines outside and the engine of this process are one engine: the same seeds give the same tokens over tool rounds with pictures, and
//! log-probs are those of a forward pass of our own.

use std::sync::Arc;

use hypereyes_domain::{PictureId, Sampling, Task, TaskKind, Trajectory};
use hypereyes_engines::Engine;
use hypereyes_miniature::shipped::Shipped;
use hypereyes_pictures::{Picture, RgbImage};
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{ScoreOptions, freeze};
use hypereyes_policy::score::Sample;
use hypereyes_rollout::{RolloutConfig, Setup, run_group};
use hypereyes_search::SearchConfig;
use hypereyes_standin::{Dialect, Options, Standin};
use hypereyes_world::World;

use crate::fleet::{Play, alone, config, local, open, push};
use crate::support::{CONTEXT, Policy};

/// The largest gap between what a server says of a sampled token and what we say of it.
const GAP: f32 = 1e-5;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seeds_give_the_same_tokens_as_in_process() {
    let (_alone, _) = alone().await;
    let policy = Policy::new();
    let play = Play::new(&policy);
    let here = local(&policy);
    let weights = policy.scaled(1.1);
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let standin = Standin::start(Options::new(policy.start(), dialect)).await.expect("starts");
        let there = open(&policy, &config(dialect, &[standin.url()], &policy.folder.path().join(format!("policies-{dialect:?}"))));
        there.ready().await.expect("it takes part");
        for seed in [0, 1, 2, 3, u64::MAX / 2, u64::MAX] {
            let (one, other) = (play.roll_out(&here, seed, 4, 8).await, play.roll_out(&there, seed, 4, 8).await);
            assert!(one.error.is_none() && one.turns.len() == 4, "{:?}", one.error);
            assert!(other.error.is_none(), "{:?}", other.error);
            assert_eq!(one.turns, other.turns, "{dialect:?}, seed {seed}");
        }
        // And with other weights.
        let here = local(&policy);
        push(&here, &weights, 1).await.expect("taken");
        push(&there, &weights, 1).await.expect("taken");
        assert_eq!(play.roll_out(&here, 9, 4, 8).await.turns, play.roll_out(&there, 9, 4, 8).await.turns, "{dialect:?}");
    }
}

/// The largest gap between what was said of the sampled tokens of trajectories and a forward pass.
fn gap(policy: &Policy, trajectories: &[Trajectory], pictures: impl Fn(&Trajectory) -> Vec<Picture>) -> f32 {
    let model = freeze(&policy.model, &policy.weights, Device::Cpu, 1).expect("fits");
    let mut gap = 0.0f32;
    for trajectory in trajectories {
        let sampled: Vec<usize> = (0..trajectory.response.len()).filter(|at| trajectory.mask[*at]).collect();
        let tokens = [&trajectory.prompt[..], &trajectory.response[..]].concat();
        let asked = sampled.iter().map(|at| trajectory.prompt.len() + at).collect();
        let sample = Sample { tokens, pictures: policy.patches(&pictures(trajectory)), asked, trunk: 0 };
        let said = model.score(&[sample], ScoreOptions::PLAIN).expect("sound").remove(0).logprobs;
        for (at, own) in sampled.iter().zip(said) {
            gap = gap.max((trajectory.logprobs[*at] - own).abs());
        }
    }
    gap
}

/// The shipped policy with its world, and groups of it.
struct Stage {
    policy: Policy,
    setup: Setup,
    task: Task,
    pictures: Vec<Arc<Picture>>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Shipped::Policy.unpack(&folder.path().join("start")).expect("it is shipped");
        let policy = Policy::of(folder);
        let world = Arc::new(World::embedded().expect("it is compiled in"));
        let search = hypereyes_search::open(&SearchConfig::default(), || Ok(world.clone())).expect("opens");
        let config = RolloutConfig { max_turn_tokens: 160, max_context_tokens: CONTEXT, ..RolloutConfig::default() };
        let setup = Setup {
            chat: Arc::new(hypereyes_chat::Chat::load(&policy.start()).expect("sound")),
            search,
            pictures: policy.store.clone(),
            config,
        };
        let picture = Picture::from_image(RgbImage::from_fn(192, 128, |x, y| [x as u8, y as u8, 90].into())).expect("encodes");
        let task = Task {
            id: "which".into(),
            kind: TaskKind::VISUAL_SELECT,
            question: "Which one has currency sol?".into(),
            answers: vec!["Peru".into()],
            pictures: vec![picture.id.clone()],
            layer: None,
            metadata: Default::default(),
            shown: vec![],
            reference: None,
        };
        Self { policy, setup, task, pictures: vec![Arc::new(picture)] }
    }

    /// One rollout per seed, and the pictures that they showed.
    async fn group(&self, engine: &Engine, seeds: &[u64]) -> (Vec<Trajectory>, Vec<Arc<Picture>>) {
        let rollouts = run_group(&self.setup, engine, &self.task, &self.pictures, seeds, Sampling::of(1.0, 1.0)).await.expect("starts");
        (rollouts.trajectories, self.pictures.iter().cloned().chain(rollouts.crops).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_groups_with_tools_and_pictures_are_the_same_and_their_log_probs_are_ours() {
    let (_alone, _) = alone().await;
    let stage = Stage::new();
    let seeds: Vec<u64> = (0..6).collect();
    let (here, pictures) = stage.group(&local(&stage.policy), &seeds).await;
    assert!(here.iter().any(|one| one.pictures.len() > 1 && one.summary.round_count() > 0), "some call a tool that shows a picture");
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let standin = Standin::start(Options::new(stage.policy.start(), dialect)).await.expect("starts");
        let folder = stage.policy.folder.path().join(format!("policies-{dialect:?}"));
        let there = open(&stage.policy, &config(dialect, &[standin.url()], &folder));
        there.ready().await.expect("it takes part");
        // A learning rate of 0: versions come and go, and nothing changes but their number.
        for version in 0..3 {
            if version > 0 {
                push(&there, &stage.policy.weights, version).await.expect("taken");
            }
            let (group, _) = stage.group(&there, &seeds).await;
            for (one, other) in here.iter().zip(&group) {
                assert_eq!((&one.response, &one.mask, &one.pictures), (&other.response, &other.mask, &other.pictures), "{dialect:?}");
                let sampled = (0..other.mask.len()).filter(|at| other.mask[*at]);
                assert!(sampled.into_iter().all(|at| other.versions[at].0 == version));
            }
            let of = |trajectory: &Trajectory| {
                let named = |id: &PictureId| pictures.iter().find(|picture| picture.id == *id).expect("shown").as_ref().clone();
                trajectory.pictures.iter().map(named).collect::<Vec<_>>()
            };
            for picture in &pictures {
                stage.policy.store.insert(picture.as_ref().clone()).expect("fits");
            }
            let gap = gap(&stage.policy, &group, of);
            println!("{dialect:?}, version {version}: largest gap {gap:e}");
            assert!(gap < GAP, "{dialect:?}: {gap}");
        }
    }
}
