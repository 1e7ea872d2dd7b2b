//! The embedded policy's shape: a Qwen3-VL small enough to be trained on a laptop.
//!
//! In: a few widths and depths. Out: a [`ModelConfig`].

use hypereyes_policy::config::{ModelConfig, SmallShape};
use serde::{Deserialize, Serialize};

/// Widths and depths above this are not tiny.
const MOST: usize = 1 << 14;

/// The size of the embedded policy; vocabulary and special tokens come from its tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TinyConfig {
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

impl Default for TinyConfig {
    fn default() -> Self {
        Self { width: 128, layers: 4, heads: 4, inner: 384, vision_width: 96, vision_depth: 3 }
    }
}

impl TinyConfig {
    /// Refuses what is no model, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings.
    pub fn check(&self) -> Result<(), String> {
        let Self { width, layers, heads, inner, vision_width, vision_depth } = *self;
        let sizes = [("width", width), ("layers", layers), ("heads", heads), ("inner", inner), ("vision_width", vision_width)];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(format!("{key} is 0: give at least 1"));
        }
        if let Some((key, size)) = sizes.iter().chain([&("vision_depth", vision_depth)]).find(|(_, size)| *size > MOST) {
            return Err(format!("{key} is {size}: give at most {MOST}; this is the tiny policy"));
        }
        if vision_depth == 0 {
            return Err("vision_depth is 0: its first block is shown to the decoder; give at least 1".to_owned());
        }
        if width % heads != 0 || (width / heads) % 2 != 0 {
            return Err(format!("width is {width}: give an even number for each of the {heads} heads"));
        }
        if vision_width % 16 != 0 {
            return Err(format!("vision_width is {vision_width}: give a multiple of 16"));
        }
        Ok(())
    }

    /// The full configuration.
    pub fn model(&self, vocab_size: usize, image_token_id: u32, vision_start_token_id: u32, vision_end_token_id: u32) -> ModelConfig {
        let Self { width, layers, heads, inner, vision_width, vision_depth } = *self;
        let shape = SmallShape { width, layers, heads, inner, vision_width, vision_depth };
        shape.model(vocab_size, image_token_id, vision_start_token_id, vision_end_token_id)
    }
}
