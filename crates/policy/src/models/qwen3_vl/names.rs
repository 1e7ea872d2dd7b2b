//! The parameters of Qwen3-VL: their names, the other names that checkpoints have for them, and how many values they have.
//!
//! Parameters go by the names that transformers 5 gives them in `Qwen3VLForConditionalGeneration`. Other names are taken as
//! transformers takes them (`model.` too much or too little), and those of older layouts that can mean one thing only.

use std::collections::BTreeSet;

use crate::config::ModelConfig;
use crate::models::{ExpertPart, Numbered};

/// The table of embeddings.
pub const EMBEDDINGS: &str = "model.language_model.embed_tokens.weight";
/// The head; in a tied model another name of the table.
pub const HEAD: &str = "lm_head.weight";
/// What the names of the vision tower's parameters begin with.
pub const TOWER: &str = "model.visual.";
const LAYERS: &str = "model.language_model.layers.";

/// The experts of a layer.
pub fn experts(layer: usize) -> String {
    format!("{LAYERS}{layer}.mlp.experts")
}

/// The names of all parameters.
pub fn parameters(config: &ModelConfig) -> BTreeSet<String> {
    let (text, vision) = (&config.text, &config.vision);
    let mut ours = BTreeSet::new();
    let mut add = |stem: &str, parts: &[&str]| ours.extend(parts.iter().map(|part| format!("{stem}{part}")));
    const BOTH: [&str; 2] = ["weight", "bias"];
    add("model.language_model.", &["embed_tokens.weight", "norm.weight"]);
    for layer in 0..text.num_hidden_layers {
        let stem = format!("{LAYERS}{layer}.");
        add(&stem, &["input_layernorm.weight", "post_attention_layernorm.weight"]);
        add(&format!("{stem}self_attn."), &["q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"]);
        add(&format!("{stem}self_attn."), &["q_norm.weight", "k_norm.weight"]);
        let mlp = format!("{stem}mlp.");
        match text.experts_of(layer) {
            Some(_) => add(&mlp, &["gate.weight", "experts.gate_up_proj", "experts.down_proj"]),
            None => add(&mlp, &["gate_proj.weight", "up_proj.weight", "down_proj.weight"]),
        }
    }
    if !config.tie_word_embeddings {
        add(HEAD, &[""]);
    }
    add("model.visual.patch_embed.proj.", &BOTH);
    add("model.visual.pos_embed.", &["weight"]);
    for block in 0..vision.depth {
        for part in ["norm1", "norm2", "attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2"] {
            add(&format!("model.visual.blocks.{block}.{part}."), &BOTH);
        }
    }
    let taps = vision.deepstack_visual_indexes.len();
    let mergers = (0..taps).map(|tap| format!("deepstack_merger_list.{tap}")).chain(["merger".to_owned()]);
    for merger in mergers {
        for part in ["norm", "linear_fc1", "linear_fc2"] {
            add(&format!("model.visual.{merger}.{part}."), &BOTH);
        }
    }
    ours
}

/// Layers, blocks and taps.
pub fn numbered(config: &ModelConfig) -> Vec<Numbered> {
    let (text, vision) = (&config.text, &config.vision);
    let taps = vision.deepstack_visual_indexes.len();
    vec![
        Numbered { stem: LAYERS, count: text.num_hidden_layers, key: "num_hidden_layers" },
        Numbered { stem: "model.visual.blocks.", count: vision.depth, key: "depth" },
        Numbered { stem: "model.visual.deepstack_merger_list.", count: taps, key: "deepstack_visual_indexes" },
    ]
}

/// How many values the parameters have.
pub fn size(config: &ModelConfig) -> u128 {
    let (text, vision) = (&config.text, &config.vision);
    let wide = |value: usize| value as u128;
    let (d, e, vocab) = (wide(text.hidden_size), wide(text.head_dim), wide(text.vocab_size));
    let attention = d * e * (2 * wide(text.num_attention_heads) + 2 * wide(text.num_key_value_heads)) + 2 * e;
    let layer = |at: usize| {
        let mixing = match text.experts_of(at) {
            Some(experts) => wide(experts.count) * (d + 3 * d * wide(experts.intermediate_size)),
            None => 3 * d * wide(text.intermediate_size),
        };
        attention + mixing + 2 * d
    };
    let head = if config.tie_word_embeddings { 0 } else { vocab * d };
    let decoder = vocab * d + (0..text.num_hidden_layers).map(layer).sum::<u128>() + d + head;
    let (v, inner, merged) = (wide(vision.hidden_size), wide(vision.intermediate_size), wide(vision.spatial_merge_size).pow(2));
    let block = 4 * v + (v * 3 * v + 3 * v) + (v * v + v) + (v * inner + inner) + (inner * v + v);
    let merger = |normed: u128| 2 * normed + (v * merged) * (v * merged) + v * merged + v * merged * d + d;
    let taps = wide(vision.deepstack_visual_indexes.len()) * merger(v * merged);
    let patches = wide(config.patch_values()) * v + v + wide(vision.num_position_embeddings) * v;
    decoder + patches + wide(vision.depth) * block + merger(v) + taps
}

/// `...layers.3.mlp.experts.17.up_proj.weight` of a layer that has experts.
pub fn expert(ours: &BTreeSet<String>, name: &str) -> Option<ExpertPart> {
    let (layer, rest) = name.strip_prefix(LAYERS)?.split_once(".mlp.experts.")?;
    let (expert, projection) = rest.strip_suffix(".weight")?.split_once('.')?;
    let projection = ["gate_proj", "up_proj", "down_proj"].into_iter().find(|known| *known == projection)?;
    let (layer, expert): (usize, usize) = (layer.parse().ok()?, expert.parse().ok()?);
    ours.contains(&format!("{}.down_proj", experts(layer))).then_some((layer, projection, expert))
}

/// The names that a name may stand for, best first: as it is, then with `model.` taken away or put before (as transformers does),
/// then of older layouts: `language_model.model.` for `model.language_model.`, and the decoder's parts without any prefix.
pub fn spellings(name: &str) -> Vec<String> {
    let bare = name.strip_prefix("model.").unwrap_or(name);
    let bare = match bare.strip_prefix("language_model.") {
        Some(rest) => match rest.strip_prefix("model.") {
            Some(inner) => format!("language_model.{inner}"),
            None if rest.starts_with("lm_head.") => rest.to_owned(),
            None => bare.to_owned(),
        },
        None => bare.to_owned(),
    };
    let older = ["embed_tokens.", "layers.", "norm."].iter().any(|part| bare.starts_with(part));
    let older = older.then(|| format!("model.language_model.{bare}"));
    [name.to_owned(), format!("model.{bare}"), bare].into_iter().chain(older).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cpu;
    use crate::checkpoint::names::{Meaning, Names};
    use crate::checkpoint::to_host;
    use crate::config::{ExpertsConfig, SOME};
    use crate::models::{Model, Vlm};

    fn configs() -> Vec<ModelConfig> {
        let mut all = vec![];
        for tied in [true, false] {
            for experts in [false, true] {
                for taps in [vec![], vec![0, 1]] {
                    let mut config = SOME.model(300, 290, 291, 292);
                    config.tie_word_embeddings = tied;
                    config.vision.depth = 3;
                    config.vision.deepstack_visual_indexes = taps;
                    let some = ExpertsConfig { count: 3, per_token: 2, intermediate_size: 8, every: 2, dense_layers: vec![] };
                    config.text.experts = experts.then_some(some);
                    all.push(config);
                }
            }
        }
        all
    }

    #[test]
    fn the_names_are_those_of_the_model_that_is_built() {
        for config in configs() {
            let built = to_host(&Model::<Cpu>::init(&config, 0, &Default::default()));
            assert_eq!(Names::of(&config).all().collect::<Vec<_>>(), built.keys().collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_parameter_is_found_under_the_names_of_other_layouts() {
        for config in configs() {
            let names = Names::of(&config);
            for name in names.all() {
                let mut others = vec![name.clone(), format!("model.{name}")];
                if let Some(bare) = name.strip_prefix("model.") {
                    others.push(bare.to_owned());
                }
                if let Some(part) = name.strip_prefix("model.language_model.") {
                    others.extend([format!("language_model.model.{part}"), format!("model.{part}"), part.to_owned()]);
                }
                if name == HEAD {
                    others.push("language_model.lm_head.weight".into());
                }
                for other in others {
                    assert_eq!(names.meaning(&other), Meaning::Ours(name.clone()), "{other}");
                }
            }
            assert_eq!(names.meaning("model.lm_head.weight"), Meaning::Ours(HEAD.into()));
        }
    }

    #[test]
    fn what_is_beside_the_model_is_told_from_what_contradicts_it() {
        let config = &configs()[0];
        let names = Names::of(config);
        for name in [
            "model.language_model.rotary_emb.inv_freq",
            "model.language_model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.visual.rotary_pos_emb.inv_freq",
            "v_head.summary.weight",
            "score.weight",
            "position_ids",
            "extra",
            "",
            ".",
        ] {
            assert_eq!(names.meaning(name), Meaning::Beside, "{name}");
        }
        let layers = config.text.num_hidden_layers;
        for (name, part) in [
            (format!("model.language_model.layers.{layers}.input_layernorm.weight"), "num_hidden_layers"),
            (format!("language_model.model.layers.{layers}.mlp.up_proj.weight"), "num_hidden_layers"),
            ("visual.blocks.3.norm1.bias".into(), "depth"),
            ("model.visual.deepstack_merger_list.0.norm.bias".into(), "deepstack_visual_indexes"),
            ("model.language_model.layers.0.self_attn.q_proj.bias".into(), "bias"),
            ("model.language_model.layers.0.self_attn.q_proj.lora_A.weight".into(), "merge"),
            ("model.language_model.layers.0.self_attn.q_proj.weight_scale_inv".into(), "quantised"),
            ("model.language_model.layers.0.mlp.up_proj.qweight".into(), "quantised"),
        ] {
            match names.meaning(&name) {
                Meaning::Contradicts(why) => assert!(why.contains(part), "{name}: {why}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
