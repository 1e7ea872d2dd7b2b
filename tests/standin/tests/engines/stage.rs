//! The shipped policy on its world: groups with tools and pictures, and forward passes of our own against which their log-probs are held.

use std::fmt;
use std::sync::Arc;

use hypereyes_domain::{PictureId, Sampling, Task, TaskKind, Trajectory};
use hypereyes_engines::Engine;
use hypereyes_miniature::shipped::Shipped;
use hypereyes_pictures::{Picture, RgbImage};
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{Frozen, ScoreOptions, freeze};
use hypereyes_policy::score::Sample;
use hypereyes_rollout::{RolloutConfig, Setup, run_group};
use hypereyes_search::SearchConfig;
use hypereyes_world::World;

use crate::fleet::Turn;
use crate::support::{CONTEXT, Policy};

/// The shipped policy with its world, and a task with a picture.
pub struct Stage {
    pub policy: Policy,
    setup: Setup,
    task: Task,
    pictures: Vec<Arc<Picture>>,
}

impl Stage {
    pub fn new() -> Self {
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
    pub async fn group(&self, engine: &Engine, seeds: &[u64]) -> (Vec<Trajectory>, Vec<Arc<Picture>>) {
        let rollouts = run_group(&self.setup, engine, &self.task, &self.pictures, seeds, Sampling::of(1.0, 1.0)).await.expect("starts");
        (rollouts.trajectories, self.pictures.iter().cloned().chain(rollouts.crops).collect())
    }
}

/// Absolute differences between log-probs.
#[derive(Debug, Default)]
pub struct Gaps(Vec<f32>);

impl Gaps {
    pub fn between(ones: &[f32], others: &[f32]) -> Self {
        assert_eq!(ones.len(), others.len());
        Self(ones.iter().zip(others).map(|(one, other)| (one - other).abs()).collect())
    }

    pub fn add(&mut self, more: Gaps) {
        self.0.extend(more.0);
    }

    /// Those of the tokens for which it is so, and the others.
    pub fn part(self, so: impl Fn(usize) -> bool) -> (Gaps, Gaps) {
        let (ours, others): (Vec<_>, Vec<_>) = self.0.into_iter().enumerate().partition(|(at, _)| so(*at));
        let bare = |gaps: Vec<(usize, f32)>| Gaps(gaps.into_iter().map(|(_, gap)| gap).collect());
        (bare(ours), bare(others))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().map(|gap| f64::from(*gap)).sum::<f64>() / self.0.len().max(1) as f64
    }

    pub fn most(&self) -> f32 {
        self.0.iter().copied().fold(0.0, f32::max)
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mean {:.1e}, largest {:.1e}, {} tokens", self.mean(), self.most(), self.len())
    }
}

/// Forward passes of some weights of a policy.
pub struct Forward<'a> {
    policy: &'a Policy,
    model: Box<dyn Frozen>,
}

impl<'a> Forward<'a> {
    pub fn of(policy: &'a Policy, weights: &HostWeights) -> Self {
        Self { policy, model: freeze(&policy.model, weights, Device::Cpu, 1).expect("fits") }
    }

    /// Between what was said of some tokens and this.
    fn gaps(&self, tokens: Vec<u32>, pictures: &[Picture], asked: Vec<usize>, said: &[f32]) -> Gaps {
        let sample = Sample { tokens, pictures: self.policy.patches(pictures), asked, trunk: 0 };
        let own = self.model.score(&[sample], ScoreOptions::PLAIN).expect("sound").remove(0).logprobs;
        Gaps::between(&own, said)
    }

    /// Of the sampled tokens of a trajectory that showed some of these pictures.
    pub fn of_trajectory(&self, trajectory: &Trajectory, shown: &[Arc<Picture>]) -> Gaps {
        let named = |id: &PictureId| {
            let picture = shown.iter().find(|picture| picture.id == *id).expect("shown").as_ref().clone();
            // Crops are put away with their group.
            self.policy.store.insert(picture.clone()).expect("fits");
            picture
        };
        let pictures: Vec<Picture> = trajectory.pictures.iter().map(named).collect();
        let sampled: Vec<usize> = (0..trajectory.response.len()).filter(|at| trajectory.mask[*at]).collect();
        let said: Vec<f32> = sampled.iter().map(|at| trajectory.logprobs[*at]).collect();
        let asked = sampled.iter().map(|at| trajectory.prompt.len() + at).collect();
        self.gaps([&trajectory.prompt[..], &trajectory.response].concat(), &pictures, asked, &said)
    }

    /// Of a turn after all that it goes on from, in which these pictures are.
    pub fn of_turn(&self, turn: &Turn, pictures: &[Picture]) -> Gaps {
        let whole = [&turn.prompt[..], &turn.sampled.tokens].concat();
        let asked = (turn.prompt.len()..whole.len()).collect();
        self.gaps(whole, pictures, asked, &turn.sampled.logprobs)
    }
}
