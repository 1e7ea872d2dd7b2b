//! The decoder: grouped-query attention with QK-norm, interleaved M-RoPE and gated MLPs or experts, on flat rows.
//!
//! In: \[n, d\] rows of any number of sequences, with their rotary tables. Out: \[n, d\] final hidden states. Which rows
//! see which is the business of [`Attend`]: training attends within segments, the engine over its cache.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::moe::Moe;
use crate::config::TextConfig;
use crate::models::layers::{Embedding, Init, Linear, RmsNorm};
use crate::models::{Attend, Rotary};
use crate::ops::{self, Kernels};

/// Attention block.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    o_proj: Linear<B>,
    q_norm: RmsNorm<B>,
    k_norm: RmsNorm<B>,
}

impl<B: Kernels> Attention<B> {
    fn init(init: &Init<'_, B>, out: &Init<'_, B>, config: &TextConfig) -> Self {
        let (d, e) = (config.hidden_size, config.head_dim);
        let (q, kv) = (config.num_attention_heads * e, config.num_key_value_heads * e);
        Self {
            q_proj: Linear::init(init, d, q, false),
            k_proj: Linear::init(init, d, kv, false),
            v_proj: Linear::init(init, d, kv, false),
            o_proj: Linear::init(out, q, d, false),
            q_norm: RmsNorm::init(init, e, config.rms_norm_eps),
            k_norm: RmsNorm::init(init, e, config.rms_norm_eps),
        }
    }

    fn forward(&self, x: Tensor<B, 2>, rotary: &Rotary<B>, layer: usize, attend: &mut impl Attend<B>) -> Tensor<B, 2> {
        let turned = |norm: &RmsNorm<B>, x| norm.turned(x, rotary.cos.clone(), rotary.sin.clone());
        let q = turned(&self.q_norm, self.q_proj.forward(x.clone()));
        let k = turned(&self.k_norm, self.k_proj.forward(x.clone()));
        let v = self.v_proj.forward(x);
        self.o_proj.forward(attend.attend(layer, q, k, v))
    }
}

/// Gated MLP.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    gate_proj: Linear<B>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
}

impl<B: Kernels> Mlp<B> {
    fn init(init: &Init<'_, B>, out: &Init<'_, B>, width: usize, inner: usize) -> Self {
        Self {
            gate_proj: Linear::init(init, width, inner, false),
            up_proj: Linear::init(init, width, inner, false),
            down_proj: Linear::init(out, inner, width, false),
        }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.down_proj.forward(ops::swiglu(self.gate_proj.forward(x.clone()), self.up_proj.forward(x)))
    }
}

/// One decoder layer.
#[derive(Module, Debug)]
pub struct Layer<B: Backend> {
    input_layernorm: RmsNorm<B>,
    self_attn: Attention<B>,
    post_attention_layernorm: RmsNorm<B>,
    mlp: FeedForward<B>,
}

/// What follows attention in a layer.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // One per layer, and parameters are held elsewhere.
enum FeedForward<B: Backend> {
    Dense(Mlp<B>),
    Experts(Moe<B>),
}

impl<B: Kernels> FeedForward<B> {
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Experts(moe) => moe.forward(x),
        }
    }
}

/// The decoder without its head.
#[derive(Module, Debug)]
pub struct Text<B: Backend> {
    /// Token embeddings \[vocab, d\].
    pub embed_tokens: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: RmsNorm<B>,
}

impl<B: Kernels> Text<B> {
    /// Fresh weights; projections back into the residual stream are scaled down by the depth.
    pub fn init(init: &Init<'_, B>, config: &TextConfig) -> Self {
        let d = config.hidden_size;
        let out = Init { device: init.device, std: init.std / (2.0 * config.num_hidden_layers as f64).sqrt() };
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer {
                input_layernorm: RmsNorm::init(init, d, config.rms_norm_eps),
                self_attn: Attention::init(init, &out, config),
                post_attention_layernorm: RmsNorm::init(init, d, config.rms_norm_eps),
                mlp: match config.experts_of(layer) {
                    Some(experts) => FeedForward::Experts(Moe::init(init, &out, d, experts)),
                    None => FeedForward::Dense(Mlp::init(init, &out, d, config.intermediate_size)),
                },
            })
            .collect();
        Self {
            embed_tokens: Embedding { weight: init.weight([config.vocab_size, d]) },
            layers,
            norm: RmsNorm::init(init, d, config.rms_norm_eps),
        }
    }

    /// Runs the layers on embedded rows. `deepstack[i]`, if there, is added after layer `i`; `observe` is shown what goes
    /// into every layer.
    pub fn forward(
        &self,
        mut x: Tensor<B, 2>,
        rotary: &Rotary<B>,
        deepstack: Vec<Tensor<B, 2>>,
        attend: &mut impl Attend<B>,
        observe: &mut dyn FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2> {
        let mut deepstack = deepstack.into_iter();
        // What goes into a layer is normed as it is summed.
        let norm_before = |index: usize| self.layers.get(index).map_or(&self.norm, |layer| &layer.input_layernorm);
        let mut normed = norm_before(0).forward(x.clone());
        for (index, layer) in self.layers.iter().enumerate() {
            observe(&x);
            let attended = layer.self_attn.forward(normed, rotary, index, attend);
            let (sum, normed_sum) = layer.post_attention_layernorm.after_sum(x, attended);
            let mixed = layer.mlp.forward(normed_sum);
            (x, normed) = match deepstack.next() {
                Some(visual) => norm_before(index + 1).after_sum(sum + mixed, visual),
                None => norm_before(index + 1).after_sum(sum, mixed),
            };
        }
        normed
    }
}
