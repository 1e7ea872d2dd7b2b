//! Families of vision-language models, behind one trait.
//!
//! A family is a folder here that implements [`Vlm`] and says in a table (`published.rs`) what its model folders look like. It is
//! named in this file and nowhere else: [`Family`] is which one a config describes, [`Model`] a model of any. Engine, scoring,
//! training and checkpoints speak to a model through these, so that what is true of one family only is in its folder: parameters
//! under their published names, `config.json`, the tower, the decoder, positions, and what a sequence keeps between tokens. What
//! families share lies beside them: rows, attention over whatever a pass attends over, visual tokens, small layers. Not known here:
//! text, sampling, rewards.

mod attend;
pub mod layers;
mod published;
pub mod qwen3_vl;
mod rows;
mod state;
mod visual;

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use hypereyes_pictures::Patches;

pub use self::attend::{Attend, Rotary};
pub(crate) use self::published::{ExpertPart, ExpertsApart, Numbered, Published};
pub use self::qwen3_vl::Positions;
pub use self::rows::Rows;
pub use self::state::KeysValues;
pub use self::visual::VisualTokens;
use crate::backend::Cpu;
use crate::config::ModelConfig;
use crate::ops::{self, Kernels};

/// How models of every family are published.
const PUBLISHED: &[&Published] = &[&qwen3_vl::PUBLISHED];

/// The family that a config describes. What only one family has numbers for, its variant holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Family {
    /// Qwen3-VL, dense or with experts.
    Qwen3Vl,
}

impl Family {
    /// How its models are published.
    pub(crate) fn published(&self) -> &'static Published {
        match self {
            Self::Qwen3Vl => &qwen3_vl::PUBLISHED,
        }
    }
}

/// The family whose folders say this `model_type`.
///
/// # Errors
/// A text that says which are known.
pub(crate) fn published_as(model_type: &str) -> Result<&'static Published, String> {
    PUBLISHED.iter().copied().find(|family| family.model_types.contains(&model_type)).ok_or_else(|| {
        let known: Vec<&str> = PUBLISHED.iter().flat_map(|family| family.model_types).copied().collect();
        let (last, others) = known.split_last().expect("there are families");
        format!("model_type is {model_type:?}; {} and {last} are known", others.join(", "))
    })
}

/// A model of any family.
#[derive(Module, Debug)]
pub enum Model<B: Backend> {
    /// Of [`Family::Qwen3Vl`].
    Qwen3Vl(qwen3_vl::Qwen3Vl<B>),
}

impl<B: Kernels> Vlm<B> for Model<B> {
    fn init(config: &ModelConfig, seed: u64, device: &B::Device) -> Self {
        match config.family {
            Family::Qwen3Vl => Self::Qwen3Vl(Vlm::init(config, seed, device)),
        }
    }

    fn encode_images(&self, pictures: &[&Patches], device: &B::Device) -> Option<VisualTokens<B>> {
        match self {
            Self::Qwen3Vl(model) => model.encode_images(pictures, device),
        }
    }

    fn hidden_observed(
        &self,
        config: &ModelConfig,
        rows: &Rows,
        visual: Option<&VisualTokens<B>>,
        attend: &mut impl Attend<B>,
        device: &B::Device,
        observe: &mut dyn FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2> {
        match self {
            Self::Qwen3Vl(model) => model.hidden_observed(config, rows, visual, attend, device, observe),
        }
    }

    fn head(&self) -> Tensor<B, 2> {
        match self {
            Self::Qwen3Vl(model) => model.head(),
        }
    }

    fn state(config: &ModelConfig) -> KeysValues {
        match config.family {
            Family::Qwen3Vl => qwen3_vl::Qwen3Vl::<B>::state(config),
        }
    }
}

/// The vision tower of a model of any family, without the rest. Its parameters go by their published names without what these all
/// begin with.
#[derive(Module, Debug)]
pub enum Tower<B: Backend> {
    /// Of [`Family::Qwen3Vl`].
    Qwen3Vl(qwen3_vl::Vision<B>),
}

impl<B: Kernels> Tower<B> {
    /// Fresh weights.
    pub fn init(config: &ModelConfig, device: &B::Device) -> Self {
        let init = layers::Init { device, std: 0.02 };
        match config.family {
            Family::Qwen3Vl => Self::Qwen3Vl(qwen3_vl::Vision::init(&init, &config.vision)),
        }
    }

    /// As [`Vlm::encode_images`] of the whole model; at least one picture.
    pub fn encode(&self, pictures: &[&Patches], device: &B::Device) -> VisualTokens<B> {
        match self {
            Self::Qwen3Vl(tower) => tower.encode(pictures, device),
        }
    }
}

/// What a sequence of a model keeps between tokens, wherever it computes.
pub fn state(config: &ModelConfig) -> KeysValues {
    <Model<Cpu> as Vlm<Cpu>>::state(config)
}

/// A family of models. Shapes: `n` token rows, `m` visual tokens, `d` width.
pub trait Vlm<B: Kernels>: Module<B> {
    /// Fresh weights with standard deviation 0.02, seeded.
    fn init(config: &ModelConfig, seed: u64, device: &B::Device) -> Self;

    /// Encodes pictures, end to end; `None` when there are none. What is said of one does not depend on the others.
    fn encode_images(&self, pictures: &[&Patches], device: &B::Device) -> Option<VisualTokens<B>>;

    /// Final hidden states \[n, d\] of the rows; `observe` is shown what goes into every layer.
    fn hidden_observed(
        &self,
        config: &ModelConfig,
        rows: &Rows,
        visual: Option<&VisualTokens<B>>,
        attend: &mut impl Attend<B>,
        device: &B::Device,
        observe: &mut dyn FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2>;

    /// The head \[vocab, d\]; the embedding table if they are tied.
    fn head(&self) -> Tensor<B, 2>;

    /// What a sequence keeps between tokens.
    fn state(config: &ModelConfig) -> KeysValues;

    /// Final hidden states \[n, d\] of the rows.
    fn hidden(
        &self,
        config: &ModelConfig,
        rows: &Rows,
        visual: Option<&VisualTokens<B>>,
        attend: &mut impl Attend<B>,
        device: &B::Device,
    ) -> Tensor<B, 2> {
        self.hidden_observed(config, rows, visual, attend, device, &mut |_| {})
    }

    /// Logits \[n, vocab\] of hidden states.
    fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::project(hidden, self.head())
    }
}
