//! `config.json` of Qwen3-VL.
//!
//! In: JSON in either published style (`rope_scaling` + `rope_theta` + `num_experts`, or `rope_parameters` + `num_local_experts`).
//! A key that is not there has the value that transformers 5 gives it. Out: [`ModelConfig`], or which key is wrong or asks for what
//! this model does not have; and the way back, in the style that transformers 5 writes.

use serde_json::{Value, json};

use crate::checkpoint::StoredDtype;
use crate::config::{ExpertsConfig, ModelConfig, Section, TextConfig, VisionConfig};
use crate::models::Family;

/// `model_type` of dense models.
pub const DENSE: &str = "qwen3_vl";
/// `model_type` of those with experts.
pub const EXPERTS: &str = "qwen3_vl_moe";

/// Reads the published JSON; the error says which key is wrong.
pub fn read(json: &Value) -> Result<ModelConfig, String> {
    let (text, vision) = (Section::of(json, "text_config")?, Section::of(json, "vision_config")?);
    text.only("hidden_act", "silu")?;
    vision.only("hidden_act", "gelu_pytorch_tanh")?;
    text.only("attention_bias", false)?;
    let tied = json.get("tie_word_embeddings").or_else(|| text.get("tie_word_embeddings"));
    let top = Section::top(json)?;
    let special = |key: &str, default: usize| top.whole_or(key, default).map(|id| id as u32);
    let config = ModelConfig {
        family: Family::Qwen3Vl,
        text: text_config(&text, top.get("model_type").and_then(Value::as_str) == Some(EXPERTS))?,
        vision: VisionConfig {
            depth: vision.whole("depth")?,
            hidden_size: vision.whole("hidden_size")?,
            intermediate_size: vision.whole("intermediate_size")?,
            num_heads: vision.whole("num_heads")?,
            in_channels: vision.whole_or("in_channels", 3)?,
            patch_size: vision.whole_or("patch_size", 16)?,
            temporal_patch_size: vision.whole_or("temporal_patch_size", 2)?,
            spatial_merge_size: vision.whole_or("spatial_merge_size", 2)?,
            num_position_embeddings: vision.whole_or("num_position_embeddings", 2304)?,
            out_hidden_size: vision.whole("out_hidden_size")?,
            deepstack_visual_indexes: vision.list("deepstack_visual_indexes")?.unwrap_or_else(|| vec![8, 16, 24]),
            rope_theta: vision.rope_theta(1e4)?,
        },
        tie_word_embeddings: tied.and_then(Value::as_bool).unwrap_or(false),
        image_token_id: special("image_token_id", 151_655)?,
        vision_start_token_id: special("vision_start_token_id", 151_652)?,
        vision_end_token_id: special("vision_end_token_id", 151_653)?,
    };
    config.check()?;
    check(&config.vision)?;
    Ok(config)
}

/// What only this family's tower asks for.
fn check(vision: &VisionConfig) -> Result<(), String> {
    if !vision.hidden_size.is_multiple_of(4 * vision.num_heads) {
        return Err(format!("vision width {} over {} heads is not a multiple of 4", vision.hidden_size, vision.num_heads));
    }
    let side = (vision.num_position_embeddings as f64).sqrt() as usize;
    if side * side != vision.num_position_embeddings {
        return Err(format!("num_position_embeddings {} is not a square", vision.num_position_embeddings));
    }
    if let Some(tap) = vision.deepstack_visual_indexes.iter().find(|tap| **tap >= vision.depth) {
        return Err(format!("deepstack tap {tap} is beyond the tower's {} blocks", vision.depth));
    }
    Ok(())
}

/// The JSON that transformers 5 reads, for weights stored as `stored`.
pub fn write(config: &ModelConfig, stored: StoredDtype) -> Value {
    let (text, vision) = (&config.text, &config.vision);
    let (kind, architecture) = match text.experts {
        None => (DENSE, "Qwen3VLForConditionalGeneration"),
        Some(_) => (EXPERTS, "Qwen3VLMoeForConditionalGeneration"),
    };
    let mut decoder = json!({
        "model_type": format!("{kind}_text"),
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
        "tie_word_embeddings": config.tie_word_embeddings,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": text.rope_theta,
            "mrope_interleaved": true, "mrope_section": text.mrope_section,
        },
    });
    if let Some(experts) = &text.experts {
        let more = json!({
            "num_local_experts": experts.count,
            "num_experts_per_tok": experts.per_token,
            "moe_intermediate_size": experts.intermediate_size,
            "decoder_sparse_step": experts.every,
            "mlp_only_layers": experts.dense_layers,
            "norm_topk_prob": true,
        });
        let entries = more.as_object().cloned().unwrap_or_default();
        decoder.as_object_mut().expect("an object").extend(entries);
    }
    json!({
        "architectures": [architecture],
        "dtype": stored.label(),
        "model_type": kind,
        "image_token_id": config.image_token_id,
        "vision_start_token_id": config.vision_start_token_id,
        "vision_end_token_id": config.vision_end_token_id,
        "tie_word_embeddings": config.tie_word_embeddings,
        "text_config": decoder,
        "vision_config": {
            "model_type": format!("{kind}_vision"),
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
            "rope_parameters": { "rope_type": "axial", "rope_theta": vision.rope_theta },
        },
    })
}

fn text_config(text: &Section<'_>, sparse: bool) -> Result<TextConfig, String> {
    let rope = text.rope();
    // `type` is its older name.
    rope.only(if rope.get("rope_type").is_some() { "rope_type" } else { "type" }, "default")?;
    rope.only("mrope_interleaved", true)?;
    let heads = text.whole("num_attention_heads")?;
    let hidden_size = text.whole("hidden_size")?;
    let sections = rope.list("mrope_section")?.unwrap_or_else(|| vec![24, 20, 20]);
    let mrope_section = sections.try_into().map_err(|list: Vec<usize>| format!("mrope_section has {} entries, not 3", list.len()))?;
    // `norm_topk_prob` is not looked at, as the reference does not: the experts' shares always sum to 1.
    let experts = if sparse {
        let count = if text.get("num_local_experts").is_some() { "num_local_experts" } else { "num_experts" };
        Some(ExpertsConfig {
            count: text.whole(count)?,
            per_token: text.whole("num_experts_per_tok")?,
            intermediate_size: text.whole("moe_intermediate_size")?,
            every: text.whole_or("decoder_sparse_step", 1)?,
            dense_layers: text.list("mlp_only_layers")?.unwrap_or_default(),
        })
    } else {
        None
    };
    Ok(TextConfig {
        vocab_size: text.whole("vocab_size")?,
        hidden_size,
        intermediate_size: if sparse { text.whole_or("intermediate_size", 5632)? } else { text.whole("intermediate_size")? },
        num_hidden_layers: text.whole("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: text.whole_or("num_key_value_heads", heads)?,
        head_dim: text.whole_or("head_dim", if sparse { hidden_size / heads.max(1) } else { 128 })?,
        rms_norm_eps: text.number_or("rms_norm_eps", 1e-6)?,
        rope_theta: text.rope_theta(5e5)?,
        mrope_section,
        experts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SOME;

    fn tiny(experts: Option<ExpertsConfig>) -> ModelConfig {
        let mut config = SOME.model(300, 290, 291, 292);
        config.text.experts = experts;
        config
    }

    #[test]
    fn what_is_written_is_read_back() {
        let experts = ExpertsConfig { count: 8, per_token: 2, intermediate_size: 48, every: 2, dense_layers: vec![3] };
        for config in [tiny(None), tiny(Some(experts))] {
            let json = config.to_json(StoredDtype::Bf16);
            assert_eq!((ModelConfig::from_json(&json).expect("ours"), &json["dtype"]), (config, &Value::from("bfloat16")));
        }
    }

    #[test]
    fn a_key_that_is_not_there_has_the_value_of_transformers() {
        let bare = json!({
            "model_type": "qwen3_vl",
            "text_config": {
                "vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            },
            "vision_config": {"depth": 27, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 64},
        });
        let ModelConfig { family, text, vision, tie_word_embeddings, image_token_id, vision_start_token_id, vision_end_token_id } =
            ModelConfig::from_json(&bare).expect("enough");
        assert_eq!(family, Family::Qwen3Vl);
        assert_eq!((text.head_dim, text.rms_norm_eps, text.rope_theta), (128, 1e-6, 5e5));
        assert_eq!((text.mrope_section, tie_word_embeddings), ([24, 20, 20], false));
        assert_eq!((vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size, vision.in_channels), (16, 2, 2, 3));
        assert_eq!((vision.num_position_embeddings, vision.deepstack_visual_indexes, vision.rope_theta), (2304, vec![8, 16, 24], 1e4));
        assert_eq!((image_token_id, vision_start_token_id, vision_end_token_id), (151_655, 151_652, 151_653));
    }

    #[test]
    fn what_would_compute_something_else_is_refused_by_name() {
        for (pointer, value, says) in [
            ("/model_type", json!("llama"), "model_type"),
            ("/text_config/hidden_act", json!("gelu"), "hidden_act of text_config is \"gelu\""),
            ("/text_config/rope_parameters/rope_type", json!("yarn"), "rope_type"),
            ("/text_config/rope_parameters", json!({"type": "linear", "factor": 2}), "type of the rope section is \"linear\""),
            ("/text_config/rope_parameters/mrope_section", json!([1, 2]), "mrope_section has 2"),
            ("/text_config/rope_parameters/mrope_section", json!("x"), "mrope_section"),
            ("/text_config/hidden_size", json!(1u64 << 40), "hidden_size of text_config = "),
            ("/text_config/num_hidden_layers", json!(100_000), "num_hidden_layers"),
            ("/text_config/head_dim", json!(15), "head_dim 15 is odd"),
            ("/text_config/rms_norm_eps", json!(-1.0), "rms_norm_eps"),
            ("/vision_config", json!(3), "vision_config is missing"),
            ("/image_token_id", json!("<image>"), "image_token_id"),
        ] {
            let mut json = tiny(None).to_json(StoredDtype::F32);
            *json.pointer_mut(pointer).expect("a key that is written") = value;
            let error = ModelConfig::from_json(&json).expect_err(pointer);
            assert!(error.contains(says), "{pointer}: {error}");
        }
    }
}
