//! What a model's token ids mean. In: `tokenizer.json` of a model folder. Out: a digest of every token and its id, so that two
//! models can be told to speak one language however their files are written. Knows no text.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// The largest `tokenizer.json` that is read; the published Qwen ones have 11 MB.
const MAX_BYTES: u64 = 128 << 20;

/// The meaning of token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// BLAKE3 over all (id, token) and the placeholder of a picture.
    digest: blake3::Hash,
}

impl Vocabulary {
    /// Reads the tokenizer of a model folder whose placeholder is `image_token`.
    ///
    /// # Errors
    /// A text that names the file and what is wrong with it.
    pub fn load(folder: &Path, image_token: u32) -> Result<Self, String> {
        let path = folder.join("tokenizer.json");
        let fault = |reason: String| format!("{}: {reason}; a model folder has its tokenizer beside the weights", path.display());
        let text = hypereyes_outside::files::read_to_string(&path, MAX_BYTES).map_err(|error| fault(error.to_string()))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        let tokens = tokens(&value).ok_or_else(|| fault("model.vocab or added_tokens is not as expected".into()))?;
        let mut hasher = blake3::Hasher::new();
        for (id, token) in tokens {
            hasher.update(&id.to_le_bytes());
            hasher.update(&(token.len() as u64).to_le_bytes());
            hasher.update(token.as_bytes());
        }
        hasher.update(b"image");
        hasher.update(&image_token.to_le_bytes());
        Ok(Self { digest: hasher.finalize() })
    }

    /// Its digest, hex.
    pub fn digest(&self) -> String {
        self.digest.to_hex().to_string()
    }
}

fn tokens(value: &Value) -> Option<BTreeMap<u64, &str>> {
    let mut tokens = BTreeMap::new();
    for (token, id) in value["model"]["vocab"].as_object()? {
        tokens.insert(id.as_u64()?, token.as_str());
    }
    for added in value["added_tokens"].as_array()? {
        tokens.insert(added["id"].as_u64()?, added["content"].as_str()?);
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, image: u32) -> Result<Vocabulary, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("tokenizer.json"), text).expect("writes");
        Vocabulary::load(folder.path(), image)
    }

    #[test]
    fn the_meaning_counts_not_the_file() {
        let one = load(r#"{"model":{"vocab":{"a":0,"b":1}},"added_tokens":[{"id":2,"content":"<x>"}]}"#, 2).expect("sound");
        let same = load(r#"{"added_tokens":[{"content":"<x>","id":2,"special":true}],"model":{"type":"BPE","vocab":{"b":1,"a":0}}}"#, 2);
        assert_eq!(one, same.expect("sound"));
        let swapped = load(r#"{"model":{"vocab":{"a":1,"b":0}},"added_tokens":[{"id":2,"content":"<x>"}]}"#, 2).expect("sound");
        assert_ne!(one, swapped);
        let other_image = load(r#"{"model":{"vocab":{"a":0,"b":1}},"added_tokens":[{"id":2,"content":"<x>"}]}"#, 1).expect("sound");
        assert_ne!(one, other_image);
    }

    #[test]
    fn files_that_are_no_tokenizers_are_named() {
        for text in ["", "{}", r#"{"model":{"vocab":{"a":"b"}},"added_tokens":[]}"#, r#"{"model":{"vocab":{}},"added_tokens":[{}]}"#] {
            assert!(load(text, 0).expect_err(text).contains("tokenizer.json"));
        }
    }
}
