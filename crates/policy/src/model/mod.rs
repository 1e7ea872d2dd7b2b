//! Qwen3-VL, dense or with experts: one definition for actor, teacher and learner.
//!
//! In: token rows of any number of sequences end to end, and the pictures they mention. Out: hidden states, or log-probs
//! of given tokens. Not known here: text, sampling, rewards. Follows transformers' `qwen3_vl` and
//! `qwen3_vl_moe` modelling (5.x).
//!
//! Shapes: `n` token rows, `d` text width, `e` head width, `m` visual tokens.

mod layers;
mod moe;
mod positions;
mod text;
mod vision;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use hypereyes_pictures::Patches;

pub use self::layers::{Init, Linear};
pub use self::positions::{Positions, rotary_tables};
use self::text::Text;
pub use self::text::{Attend, Rotary};
use self::vision::Vision;
pub use self::vision::VisualTokens;
use crate::config::ModelConfig;
use crate::ops::{self, Kernels, guards};

/// Decoder and tower under their published names.
#[derive(Module, Debug)]
struct Inner<B: Backend> {
    visual: Vision<B>,
    language_model: Text<B>,
}

/// The model.
#[derive(Module, Debug)]
pub struct Qwen3Vl<B: Backend> {
    model: Inner<B>,
    lm_head: Option<Linear<B>>,
}

/// What the decoder needs to know of its rows, on the host.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// M-RoPE positions, (time, height, width) per row.
    pub positions: Vec<[u32; 3]>,
    /// Row of the visual tokens that stands in for the row's embedding; `None` for text.
    pub visual: Vec<Option<usize>>,
}

impl Rows {
    /// Whether every token has an embedding among `vocab`, and every row that shows a picture one among `visual` visual tokens.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self, vocab: usize, visual: usize) -> Result<(), String> {
        let Self { tokens, positions, visual: shown } = self;
        if positions.len() != tokens.len() || shown.len() != tokens.len() {
            return Err(format!("{} tokens have {} positions, and {} are said to show or not", tokens.len(), positions.len(), shown.len()));
        }
        guards::tokens(tokens, vocab)?;
        guards::below("visual token", shown.iter().copied().flatten(), visual)
    }
}

impl<B: Kernels> Qwen3Vl<B> {
    /// Fresh weights with standard deviation 0.02, seeded.
    pub fn init(config: &ModelConfig, seed: u64, device: &B::Device) -> Self {
        B::seed(device, seed);
        let init = Init { device, std: 0.02 };
        let (d, vocab) = (config.text.hidden_size, config.text.vocab_size);
        Self {
            model: Inner { visual: Vision::init(&init, &config.vision), language_model: Text::init(&init, &config.text) },
            lm_head: (!config.tie_word_embeddings).then(|| Linear::init(&init, d, vocab, false)),
        }
    }

    /// Encodes pictures; `None` when there are none.
    pub fn encode_images(&self, pictures: &[&Patches], device: &B::Device) -> Option<VisualTokens<B>> {
        if pictures.is_empty() {
            return None;
        }
        let grids: Vec<_> = pictures.iter().map(|picture| picture.grid).collect();
        let n: usize = grids.iter().map(|(rows, columns)| rows * columns).sum();
        let mut values = Vec::with_capacity(pictures.iter().map(|picture| picture.values.len()).sum());
        for picture in pictures {
            values.extend_from_slice(&picture.values);
        }
        let width = values.len() / n;
        let patches = Tensor::from_data(TensorData::new(values, [n, width]), device);
        Some(self.model.visual.forward(patches, &grids))
    }

    /// Final hidden states \[n, d\] of the rows.
    pub fn hidden(
        &self,
        rows: &Rows,
        rotary: &Rotary<B>,
        visual: Option<&VisualTokens<B>>,
        attend: &mut impl Attend<B>,
        device: &B::Device,
    ) -> Tensor<B, 2> {
        self.hidden_seen(rows, rotary, visual, attend, device, &mut |_| {})
    }

    /// As [`Qwen3Vl::hidden`]; `see` is shown what goes into every layer.
    pub fn hidden_seen(
        &self,
        rows: &Rows,
        rotary: &Rotary<B>,
        visual: Option<&VisualTokens<B>>,
        attend: &mut impl Attend<B>,
        device: &B::Device,
        see: &mut dyn FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2> {
        let n = rows.tokens.len();
        let vocab = self.model.language_model.embed_tokens.weight.dims()[0];
        guards::must(rows.check(vocab, visual.map_or(0, |visual| visual.embeddings.dims()[0])));
        let ids = Tensor::<B, 1, Int>::from_data(TensorData::new(rows.tokens.iter().map(|id| *id as i64).collect::<Vec<_>>(), [n]), device);
        let mut x = self.model.language_model.embed_tokens.weight.val().select(0, ids);
        let mut deepstack = vec![];
        if let Some(visual) = visual.filter(|_| rows.visual.iter().any(Option::is_some)) {
            // One gather from [text rows; visual rows] puts the pictures in; taps gather from [zero row; visual rows].
            let choose = |of_text: &dyn Fn(usize) -> usize, offset: usize| {
                let index: Vec<i64> =
                    rows.visual.iter().enumerate().map(|(row, at)| at.map_or(of_text(row), |at| at + offset) as i64).collect();
                Tensor::<B, 1, Int>::from_data(TensorData::new(index, [n]), device)
            };
            let into_rows = choose(&|row| row, n);
            x = Tensor::cat(vec![x, visual.embeddings.clone()], 0).select(0, into_rows);
            let or_zero = choose(&|_| 0, 1);
            for tap in &visual.deepstack {
                let zero = Tensor::zeros([1, tap.dims()[1]], device);
                deepstack.push(Tensor::cat(vec![zero, tap.clone()], 0).select(0, or_zero.clone()));
            }
        }
        self.model.language_model.forward(x, rotary, deepstack, attend, see)
    }

    /// The head \[vocab, d\]; the embedding table if they are tied.
    pub fn head(&self) -> Tensor<B, 2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.model.language_model.embed_tokens.weight.val(),
        }
    }

    /// Logits \[n, vocab\] of hidden states.
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        ops::project(hidden, self.head())
    }
}
