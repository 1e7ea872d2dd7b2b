//! Small shapes from a few numbers: for tests, and for whoever makes fresh policies.
//!
//! In: widths and depths. Out: a [`ModelConfig`].

use super::{ModelConfig, TextConfig, VisionConfig};
use crate::models::Family;

/// Widths and depths of a small dense model of Qwen3-VL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallShape {
    /// Width of the decoder.
    pub width: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Attention heads, query and key alike.
    pub heads: usize,
    /// Width of the decoder's MLPs.
    pub inner: usize,
    /// Width of the vision tower.
    pub vision_width: usize,
    /// Blocks of the vision tower.
    pub vision_depth: usize,
}

impl SmallShape {
    /// The full configuration. The rotary base is small because contexts are: with the published one, few of the
    /// frequencies of a narrow head would tell neighbouring tokens apart.
    pub fn model(&self, vocab_size: usize, image_token_id: u32, vision_start_token_id: u32, vision_end_token_id: u32) -> ModelConfig {
        let head_dim = self.width / self.heads;
        let third = head_dim / 2 / 3;
        ModelConfig {
            family: Family::Qwen3Vl,
            text: TextConfig {
                vocab_size,
                hidden_size: self.width,
                intermediate_size: self.inner,
                num_hidden_layers: self.layers,
                num_attention_heads: self.heads,
                num_key_value_heads: self.heads,
                head_dim,
                rms_norm_eps: 1e-6,
                rope_theta: 100.0,
                mrope_section: [head_dim / 2 - 2 * third, third, third],
                experts: None,
            },
            vision: VisionConfig {
                depth: self.vision_depth,
                hidden_size: self.vision_width,
                intermediate_size: 2 * self.vision_width,
                num_heads: 4,
                in_channels: 3,
                patch_size: 16,
                temporal_patch_size: 2,
                spatial_merge_size: 2,
                num_position_embeddings: 144,
                out_hidden_size: self.width,
                deepstack_visual_indexes: vec![0],
                rope_theta: 1e4,
            },
            tie_word_embeddings: true,
            image_token_id,
            vision_start_token_id,
            vision_end_token_id,
        }
    }
}

/// A shape for tests that do not care which.
#[cfg(test)]
pub(crate) const SOME: SmallShape = SmallShape { width: 128, layers: 4, heads: 4, inner: 384, vision_width: 96, vision_depth: 3 };
