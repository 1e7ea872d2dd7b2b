//! Families of vision-language models, behind one trait.
//!
//! A family is a folder here that implements [`Vlm`]; [`Model`] names the one that is used. Engine, scoring, training and checkpoints
//! speak to a model through these two, so that what is true of one family only is in its folder: parameters under their published
//! names, the tower, the decoder, positions, and what a sequence keeps between tokens. What families share lies beside them: rows,
//! attention over whatever a pass attends over, visual tokens, small layers. Not known here: text, sampling, rewards.

mod attend;
pub mod layers;
pub mod qwen3_vl;
mod rows;
mod state;
mod visual;

use burn::module::Module;
use burn::tensor::Tensor;
use hypereyes_pictures::Patches;

pub use self::attend::{Attend, Rotary};
pub use self::qwen3_vl::Positions;
pub use self::rows::Rows;
pub use self::state::KeysValues;
pub use self::visual::VisualTokens;
use crate::backend::Cpu;
use crate::config::{ModelConfig, TextConfig};
use crate::ops::{self, Kernels};

/// The model of this build: the family that checkpoints are read as.
pub type Model<B> = qwen3_vl::Qwen3Vl<B>;

/// What a sequence of [`Model`] keeps between tokens, wherever it computes.
pub fn state(config: &TextConfig) -> KeysValues {
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
    fn state(config: &TextConfig) -> KeysValues;

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
