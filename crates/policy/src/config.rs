//! The shape of a Qwen3-VL model, as `config.json` in Hugging Face layout says it.
//!
//! In: JSON in either published style (`rope_scaling` + `rope_theta`, or `rope_parameters`). Out: [`ModelConfig`], checked.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;

/// Text decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// Vision tower.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Blocks whose output is also added to the first text layers.
    pub deepstack_visual_indexes: Vec<usize>,
}

/// The whole model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
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
    /// Reads `config.json` of a model folder.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::Input(format!("no model at {}: cannot read config.json ({error})", dir.display())))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| Error::Input(format!("{} is not JSON: {error}", path.display())))?;
        Self::from_json(&value).map_err(|why| Error::Input(format!("{}: {why}", path.display())))
    }

    /// Reads the published JSON; the error says which key is wrong.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let kind = value.get("model_type").and_then(Value::as_str).unwrap_or("");
        if kind != "qwen3_vl" {
            return Err(format!("model_type is \"{kind}\"; this build runs qwen3_vl (dense)"));
        }
        let text = section(value, "text_config")?;
        let vision = section(value, "vision_config")?;
        let rope = text.get("rope_parameters").or_else(|| text.get("rope_scaling")).unwrap_or(&Value::Null);
        let rope_theta = rope.get("rope_theta").or_else(|| text.get("rope_theta")).and_then(Value::as_f64).unwrap_or(5e6);
        let heads = whole(text, "num_attention_heads")?;
        let hidden = whole(text, "hidden_size")?;
        let head_dim = text.get("head_dim").and_then(Value::as_u64).map_or(hidden / heads.max(1), |dim| dim as usize);
        let sections: Vec<usize> = rope
            .get("mrope_section")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_u64).map(|n| n as usize).collect())
            .unwrap_or_else(|| vec![24, 20, 20]);
        let mrope_section: [usize; 3] =
            sections.try_into().map_err(|list: Vec<usize>| format!("mrope_section has {} entries, not 3", list.len()))?;
        let config = Self {
            text: TextConfig {
                vocab_size: whole(text, "vocab_size")?,
                hidden_size: hidden,
                intermediate_size: whole(text, "intermediate_size")?,
                num_hidden_layers: whole(text, "num_hidden_layers")?,
                num_attention_heads: heads,
                num_key_value_heads: text.get("num_key_value_heads").and_then(Value::as_u64).map_or(heads, |n| n as usize),
                head_dim,
                rms_norm_eps: text.get("rms_norm_eps").and_then(Value::as_f64).unwrap_or(1e-6),
                rope_theta,
                mrope_section,
            },
            vision: VisionConfig {
                depth: whole(vision, "depth")?,
                hidden_size: whole(vision, "hidden_size")?,
                intermediate_size: whole(vision, "intermediate_size")?,
                num_heads: whole(vision, "num_heads")?,
                in_channels: vision.get("in_channels").and_then(Value::as_u64).unwrap_or(3) as usize,
                patch_size: whole(vision, "patch_size")?,
                temporal_patch_size: whole(vision, "temporal_patch_size")?,
                spatial_merge_size: whole(vision, "spatial_merge_size")?,
                num_position_embeddings: whole(vision, "num_position_embeddings")?,
                out_hidden_size: whole(vision, "out_hidden_size")?,
                deepstack_visual_indexes: vision
                    .get("deepstack_visual_indexes")
                    .and_then(Value::as_array)
                    .map(|list| list.iter().filter_map(Value::as_u64).map(|n| n as usize).collect())
                    .unwrap_or_default(),
            },
            tie_word_embeddings: value
                .get("tie_word_embeddings")
                .or_else(|| text.get("tie_word_embeddings"))
                .and_then(Value::as_bool)
                .unwrap_or(false),
            image_token_id: whole(value, "image_token_id")? as u32,
            vision_start_token_id: whole(value, "vision_start_token_id")? as u32,
            vision_end_token_id: whole(value, "vision_end_token_id")? as u32,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let (text, vision) = (&self.text, &self.vision);
        let positive = [
            ("vocab_size", text.vocab_size),
            ("num_hidden_layers", text.num_hidden_layers),
            ("num_attention_heads", text.num_attention_heads),
            ("num_key_value_heads", text.num_key_value_heads),
            ("head_dim", text.head_dim),
            ("vision num_heads", vision.num_heads),
            ("spatial_merge_size", vision.spatial_merge_size),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(format!("{name} is 0"));
        }
        if text.num_attention_heads % text.num_key_value_heads != 0 {
            return Err(format!(
                "num_attention_heads {} is not a multiple of num_key_value_heads {}",
                text.num_attention_heads, text.num_key_value_heads
            ));
        }
        if text.mrope_section.iter().sum::<usize>() * 2 != text.head_dim {
            return Err(format!("mrope_section {:?} does not sum to half of head_dim {}", text.mrope_section, text.head_dim));
        }
        if vision.hidden_size % vision.num_heads != 0 || (vision.hidden_size / vision.num_heads) % 4 != 0 {
            return Err(format!("vision width {} over {} heads is not a multiple of 4", vision.hidden_size, vision.num_heads));
        }
        if vision.out_hidden_size != text.hidden_size {
            return Err(format!("vision out_hidden_size {} is not the text width {}", vision.out_hidden_size, text.hidden_size));
        }
        let side = (vision.num_position_embeddings as f64).sqrt() as usize;
        if side * side != vision.num_position_embeddings {
            return Err(format!("num_position_embeddings {} is not a square", vision.num_position_embeddings));
        }
        if let Some(tap) = vision.deepstack_visual_indexes.iter().find(|tap| **tap >= vision.depth) {
            return Err(format!("deepstack tap {tap} is beyond the tower's {} blocks", vision.depth));
        }
        if vision.deepstack_visual_indexes.len() > text.num_hidden_layers {
            return Err("more deepstack taps than text layers".into());
        }
        Ok(())
    }

    /// The JSON that transformers 5 reads.
    pub fn to_json(&self) -> Value {
        let (text, vision) = (&self.text, &self.vision);
        json!({
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "dtype": "float32",
            "model_type": "qwen3_vl",
            "image_token_id": self.image_token_id,
            "vision_start_token_id": self.vision_start_token_id,
            "vision_end_token_id": self.vision_end_token_id,
            "tie_word_embeddings": self.tie_word_embeddings,
            "text_config": {
                "model_type": "qwen3_vl_text",
                "vocab_size": text.vocab_size,
                "hidden_size": text.hidden_size,
                "intermediate_size": text.intermediate_size,
                "num_hidden_layers": text.num_hidden_layers,
                "num_attention_heads": text.num_attention_heads,
                "num_key_value_heads": text.num_key_value_heads,
                "head_dim": text.head_dim,
                "hidden_act": "silu",
                "attention_bias": false,
                "rms_norm_eps": text.rms_norm_eps,
                "tie_word_embeddings": self.tie_word_embeddings,
                "rope_parameters": {
                    "rope_type": "default", "rope_theta": text.rope_theta,
                    "mrope_interleaved": true, "mrope_section": text.mrope_section,
                },
            },
            "vision_config": {
                "model_type": "qwen3_vl_vision",
                "depth": vision.depth,
                "hidden_size": vision.hidden_size,
                "intermediate_size": vision.intermediate_size,
                "num_heads": vision.num_heads,
                "hidden_act": "gelu_pytorch_tanh",
                "in_channels": vision.in_channels,
                "patch_size": vision.patch_size,
                "temporal_patch_size": vision.temporal_patch_size,
                "spatial_merge_size": vision.spatial_merge_size,
                "num_position_embeddings": vision.num_position_embeddings,
                "out_hidden_size": vision.out_hidden_size,
                "deepstack_visual_indexes": vision.deepstack_visual_indexes,
            },
        })
    }

    /// Values in one flattened patch.
    pub fn patch_values(&self) -> usize {
        self.vision.in_channels * self.vision.temporal_patch_size * self.vision.patch_size * self.vision.patch_size
    }
}

fn section<'a>(value: &'a Value, key: &str) -> Result<&'a Value, String> {
    value.get(key).filter(|section| section.is_object()).ok_or_else(|| format!("{key} is missing"))
}

fn whole(value: &Value, key: &str) -> Result<usize, String> {
    let number = value.get(key).and_then(Value::as_u64).ok_or_else(|| format!("{key} is missing or not a whole number"))?;
    // No published model comes near this; it keeps a hostile config from asking for absurd allocations.
    if number > 1 << 24 { Err(format!("{key} = {number} is out of range")) } else { Ok(number as usize) }
}

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
    /// The full configuration. The rotary base is small because contexts are: with the published one, few of the sixteen
    /// frequencies of a head would tell neighbouring tokens apart.
    pub fn model(&self, vocab_size: usize, image_token_id: u32, vision_start_token_id: u32, vision_end_token_id: u32) -> ModelConfig {
        let head_dim = self.width / self.heads;
        let third = head_dim / 2 / 3;
        ModelConfig {
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
            },
            tie_word_embeddings: true,
            image_token_id,
            vision_start_token_id,
            vision_end_token_id,
        }
    }
}
