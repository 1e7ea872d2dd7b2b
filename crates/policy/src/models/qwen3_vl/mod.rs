//! Qwen3-VL, dense or with experts: one definition for actor, teacher and learner.
//!
//! In: token rows of any number of sequences end to end, and the pictures they mention. Out: hidden states and the head. Not known
//! here: text, sampling, rewards. Follows transformers' `qwen3_vl` and
//! `qwen3_vl_moe` modelling (5.x).
//!
//! Shapes: `n` token rows, `d` text width, `e` head width, `m` visual tokens.

mod config;
mod moe;
mod names;
mod positions;
mod published;
mod text;
mod vision;

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use hypereyes_pictures::Patches;

pub use self::positions::Positions;
use self::positions::rotary_tables;
use self::text::Text;
pub(super) use self::vision::Vision;
use super::layers::{Init, Linear};
use super::{Attend, KeysValues, Published, Rows, VisualTokens, Vlm};
use crate::config::ModelConfig;
use crate::ops::{Kernels, guards};

/// What its folders say.
pub(super) const PUBLISHED: Published = Published {
    model_types: &[config::DENSE, config::EXPERTS],
    read: config::read,
    write: config::write,
    size: names::size,
    parameters: names::parameters,
    head: names::HEAD,
    embeddings: names::EMBEDDINGS,
    tower: names::TOWER,
    numbered: names::numbered,
    spellings: names::spellings,
    expert: names::expert,
    ours: published::ours,
    turned: published::turned,
};

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

impl<B: Kernels> Vlm<B> for Qwen3Vl<B> {
    fn init(config: &ModelConfig, seed: u64, device: &B::Device) -> Self {
        B::seed(device, seed);
        let init = Init { device, std: 0.02 };
        let (d, vocab) = (config.text.hidden_size, config.text.vocab_size);
        Self {
            model: Inner { visual: Vision::init(&init, &config.vision), language_model: Text::init(&init, &config.text) },
            lm_head: (!config.tie_word_embeddings).then(|| Linear::init(&init, d, vocab, false)),
        }
    }

    fn encode_images(&self, pictures: &[&Patches], device: &B::Device) -> Option<VisualTokens<B>> {
        (!pictures.is_empty()).then(|| self.model.visual.encode(pictures, device))
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
        let rotary = rotary_tables(&config.text, &rows.positions, device);
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
        self.model.language_model.forward(x, &rotary, deepstack, attend, observe)
    }

    fn head(&self) -> Tensor<B, 2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.model.language_model.embed_tokens.weight.val(),
        }
    }

    fn state(config: &ModelConfig) -> KeysValues {
        let text = &config.text;
        KeysValues {
            layers: text.num_hidden_layers,
            query_heads: text.num_attention_heads,
            heads: text.num_key_value_heads,
            width: text.head_dim,
        }
    }
}
