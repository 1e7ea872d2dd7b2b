//! A tokenizer of bytes and whole words, written as the text side of a model folder in Hugging Face layout.
//!
//! In: words that are to be one token each. Out: five JSON files that any Hugging Face reader loads. 256 byte tokens make every
//! text encodable; the control tokens of the Qwen layout come next, then the words in their order.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{ChatError, bytes, files, special};

const TEMPLATE: &str = "{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}{%- if message.content is string %}{{ message.content }}\
{%- else %}{%- for part in message.content %}{%- if part.type == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{%- else %}{{ part.text }}\
{%- endif %}{%- endfor %}{%- endif %}{{ '<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}";

/// What a model's `config.json` must say to fit the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// One more than the largest id.
    pub vocab_size: usize,
    /// Id of the token that ends a turn.
    pub end: u32,
    /// Id of the padding token.
    pub pad: u32,
    /// `image_token_id`.
    pub image: u32,
    /// `video_token_id`.
    pub video: u32,
    /// `vision_start_token_id`.
    pub vision_start: u32,
    /// `vision_end_token_id`.
    pub vision_end: u32,
}

/// A word that is to be one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Never matched inside a longer word: `Niger` is not found in `Nigerien`.
    pub single_word: bool,
}

/// One added token.
struct Added {
    text: String,
    single_word: bool,
    /// A control token, which text from outside cannot produce.
    control: bool,
}

/// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and
/// `preprocessor_config.json` into `folder`, which is made if needed. The same words give the same files; a word that was there
/// before, or is one byte long, is left out.
///
/// # Errors
/// [`ChatError::File`] when they cannot be written.
pub fn write(folder: &Path, words: impl IntoIterator<Item = Word>) -> Result<Summary, ChatError> {
    std::fs::create_dir_all(folder).map_err(|error| ChatError::File { path: folder.to_owned(), reason: error.to_string() })?;
    let control = special::ALL.iter().map(|name| Added { text: (*name).into(), single_word: false, control: true });
    let words = words.into_iter().map(|Word { text, single_word }| Added { text, single_word, control: false });
    let mut seen = HashSet::new();
    let added: Vec<Added> = control.chain(words).filter(|token| token.text.len() > 1 && seen.insert(token.text.clone())).collect();
    let id = |name: &str| {
        let at = added.iter().position(|token| token.text == name).expect("every control token is added first");
        u32::try_from(256 + at).expect("a tiny vocabulary")
    };
    let summary = Summary {
        vocab_size: 256 + added.len(),
        end: id(special::IM_END),
        pad: id(special::END_OF_TEXT),
        image: id(special::IMAGE_PAD),
        video: id(special::VIDEO_PAD),
        vision_start: id(special::VISION_START),
        vision_end: id(special::VISION_END),
    };
    let save = |name: &str, value: &Value| {
        let text = serde_json::to_string_pretty(value).expect("a JSON value has a text");
        files::replace(&folder.join(name), text.as_bytes())
    };
    save("tokenizer.json", &tokenizer(&added))?;
    save("tokenizer_config.json", &tokenizer_config(&added))?;
    save("special_tokens_map.json", &json!({"eos_token": special::IM_END, "pad_token": special::END_OF_TEXT}))?;
    save(
        "generation_config.json",
        &json!({"do_sample": true, "temperature": 0.8, "top_p": 0.95, "eos_token_id": [summary.end, summary.pad], "pad_token_id": summary.pad}),
    )?;
    save("preprocessor_config.json", &preprocessor_config())?;
    Ok(summary)
}

fn tokenizer(added: &[Added]) -> Value {
    let vocabulary: Map<String, Value> = (0..=u8::MAX).map(|byte| (bytes::to_char(byte).to_string(), json!(byte))).collect();
    let tokens: Vec<Value> = added
        .iter()
        .enumerate()
        .map(|(at, token)| {
            json!({
                "id": 256 + at, "content": token.text, "single_word": token.single_word,
                "lstrip": false, "rstrip": false, "normalized": false, "special": token.control,
            })
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": tokens,
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": [],
        },
    })
}

fn tokenizer_config(added: &[Added]) -> Value {
    let control: Vec<&str> = added.iter().filter(|token| token.control).map(|token| token.text.as_str()).collect();
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": TEMPLATE,
        "eos_token": special::IM_END,
        "pad_token": special::END_OF_TEXT,
        "additional_special_tokens": control,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 4096,
    })
}

/// Patches of 16 pixels, merged 2 x 2, at most 1200 tokens a picture (docs/spec.md#pictures).
fn preprocessor_config() -> Value {
    json!({
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 4 * 32 * 32, "longest_edge": 1200 * 32 * 32},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1.0 / 255.0,
        "do_resize": true,
        "do_rescale": true,
        "do_normalize": true,
        "do_convert_rgb": true,
        "resample": 3,
    })
}
