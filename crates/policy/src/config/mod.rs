//! The shape of a vision-language model, dense or with experts.
//!
//! In: widths, depths and special tokens. Out: [`ModelConfig`], checked as far as all families are alike. How Hugging Face writes it
//! down is in [`json`], what a family has for itself in its folder of `models`.

mod json;
mod kept;
mod section;
mod small;

use hypereyes_pictures::Patches;

pub(crate) use section::Section;
#[cfg(test)]
pub(crate) use small::SOME;
pub use small::SmallShape;

use crate::models::Family;

/// Layers, heads, taps and experts beyond this are no model.
const MAX_COUNT: usize = 1 << 12;
/// Patches, merges and channels beyond this are no picture; products of them stay far from overflowing.
const MAX_SIDE: usize = 1 << 8;

/// Text decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Epsilon of the RMS norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Rotary frequencies given to time, height and width (interleaved M-RoPE); sums to `head_dim / 2`.
    pub mrope_section: [usize; 3],
    /// Experts in place of the gated MLP in some or all layers; `None` in a dense model.
    pub experts: Option<ExpertsConfig>,
}

impl TextConfig {
    /// The experts of a layer; `None` where the layer is dense.
    pub fn experts_of(&self, layer: usize) -> Option<&ExpertsConfig> {
        self.experts.as_ref().filter(|experts| !experts.dense_layers.contains(&layer) && (layer + 1).is_multiple_of(experts.every))
    }
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpertsConfig {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that each token goes to; their router probabilities are normalised to sum to 1.
    pub per_token: usize,
    /// Width of an expert's gated MLP.
    pub intermediate_size: usize,
    /// Every how many layers has experts: 1 is all.
    pub every: usize,
    /// Layers that are dense all the same.
    pub dense_layers: Vec<usize>,
}

/// Vision tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Heads.
    pub num_heads: usize,
    /// Colour channels.
    pub in_channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames in a patch; a picture is one frame repeated.
    pub temporal_patch_size: usize,
    /// Patches merged per side into one token.
    pub spatial_merge_size: usize,
    /// Entries of the learned position table; a square.
    pub num_position_embeddings: usize,
    /// Width of the merged tokens: the text width.
    pub out_hidden_size: usize,
    /// Blocks whose output is also added to the first text layers, as far as there are that many.
    pub deepstack_visual_indexes: Vec<usize>,
    /// Base of the rotary frequencies of rows and columns.
    pub rope_theta: f64,
}

/// The whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Whose parameters, names and modules it has.
    pub family: Family,
    /// Decoder.
    pub text: TextConfig,
    /// Vision tower.
    pub vision: VisionConfig,
    /// Whether the head is the embedding table.
    pub tie_word_embeddings: bool,
    /// Placeholder token of a picture.
    pub image_token_id: u32,
    /// Token before a picture.
    pub vision_start_token_id: u32,
    /// Token after a picture.
    pub vision_end_token_id: u32,
}

impl ModelConfig {
    /// Refuses what is no model of any family, naming the key.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (text, vision) = (&self.text, &self.vision);
        let positive = [
            ("vocab_size", text.vocab_size),
            ("hidden_size", text.hidden_size),
            ("num_hidden_layers", text.num_hidden_layers),
            ("num_attention_heads", text.num_attention_heads),
            ("num_key_value_heads", text.num_key_value_heads),
            ("head_dim", text.head_dim),
            ("vision hidden_size", vision.hidden_size),
            ("vision num_heads", vision.num_heads),
            ("spatial_merge_size", vision.spatial_merge_size),
        ];
        if text.num_hidden_layers.max(vision.depth).max(text.num_attention_heads) > MAX_COUNT {
            return Err(format!("num_hidden_layers, depth and heads beyond {MAX_COUNT} are no model"));
        }
        let sides = [
            ("patch_size", vision.patch_size),
            ("temporal_patch_size", vision.temporal_patch_size),
            ("spatial_merge_size", vision.spatial_merge_size),
            ("in_channels", vision.in_channels),
        ];
        if let Some((name, side)) = sides.iter().find(|(_, side)| !(1..=MAX_SIDE).contains(side)) {
            return Err(format!("{name} {side} is not within 1..={MAX_SIDE}"));
        }
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0"));
        }
        if text.num_attention_heads % text.num_key_value_heads != 0 {
            return Err(format!(
                "num_attention_heads {} is not a multiple of num_key_value_heads {}",
                text.num_attention_heads, text.num_key_value_heads
            ));
        }
        if text.head_dim % 2 != 0 {
            return Err(format!("head_dim {} is odd: rotation takes pairs", text.head_dim));
        }
        if let Some(experts) = &text.experts {
            if experts.every == 0 || experts.intermediate_size == 0 {
                return Err("decoder_sparse_step and moe_intermediate_size must be at least 1".into());
            }
            if !(1..=experts.count).contains(&experts.per_token) {
                return Err(format!("num_experts_per_tok {} is not within 1..={} experts", experts.per_token, experts.count));
            }
        }
        if vision.out_hidden_size != text.hidden_size {
            return Err(format!("vision out_hidden_size {} is not the text width {}", vision.out_hidden_size, text.hidden_size));
        }
        Ok(())
    }

    /// How many parameters the model has.
    pub fn parameters(&self) -> u128 {
        (self.family.published().size)(self)
    }

    /// Whether a picture has the patches that the model takes: whole tokens, and all values of each.
    ///
    /// # Errors
    /// A sentence.
    pub fn check_picture(&self, picture: &Patches) -> Result<(), String> {
        let ((rows, columns), merge) = (picture.grid, self.vision.spatial_merge_size);
        if rows == 0 || columns == 0 || rows % merge != 0 || columns % merge != 0 {
            return Err(format!("a picture of {rows}x{columns} patches is not of whole tokens of {merge}x{merge}"));
        }
        let wanted = rows.checked_mul(columns).and_then(|patches| patches.checked_mul(self.patch_values()));
        if wanted != Some(picture.values.len()) {
            let (found, each) = (picture.values.len(), self.patch_values());
            return Err(format!("a picture of {rows}x{columns} patches has {found} values, not {each} for each patch"));
        }
        Ok(())
    }

    /// Values in one flattened patch.
    pub fn patch_values(&self) -> usize {
        self.vision.in_channels * self.vision.temporal_patch_size * self.vision.patch_size * self.vision.patch_size
    }
}
