//! The `engine` settings: which kind of engine, and its sizes. In: what a file says. Out: values with defaults, or which key cannot
//! be used. Opens nothing.

use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_policy::engine as local;
use serde::{Deserialize, Serialize};

use crate::kinds;

/// Settings of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Who samples: `local`, in this process. Default `local`.
    pub kind: String,
    /// Sequences held at once, prompts that are being read included; further groups wait.
    pub max_sequences: usize,
    /// Tokens of one sequence, prompt included.
    pub max_context: usize,
    /// Most bytes of keys and values; fewer sequences are held if they would need more. Default 4 GiB.
    pub cache_bytes: u64,
    /// Where the model computes: `cpu`, `cuda` or `cuda-bf16`. Default `cpu`.
    pub device: Device,
    /// Rows in one pass: bounds the memory of a pass and how long decoding waits for a long prompt.
    pub max_rows: usize,
    /// Bytes of pictures cut into patches that are kept for the next who shows them. Default 256 MiB; 0 keeps none.
    pub patches_bytes: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let local::EngineConfig { max_sequences, max_context, cache_bytes, device, max_rows, .. } = local::EngineConfig::default();
        Self { kind: kinds::LOCAL.into(), max_sequences, max_context, cache_bytes, device, max_rows, patches_bytes: 256 << 20 }
    }
}

impl EngineConfig {
    /// What the engine of this process is made with; it ends a turn at no token.
    pub fn sizes(&self) -> local::EngineConfig {
        let Self { max_sequences, max_context, cache_bytes, device, max_rows, .. } = *self;
        local::EngineConfig { max_sequences, max_context, cache_bytes, device, max_rows, ..local::EngineConfig::default() }
    }

    /// Refuses a kind that there is not, and sizes with which nothing could ever be computed, naming the key.
    ///
    /// # Errors
    /// A sentence for whoever wrote the settings; it begins with the key.
    pub fn check(&self) -> Result<(), String> {
        kinds::check(&self.kind)?;
        self.sizes().check()
    }

    /// What keeps a group of `siblings` out of such an engine, and what would let it in; `group` is the key that asks for it.
    /// Without a model only the number of sequences can be told.
    ///
    /// # Errors
    /// A sentence that follows `group` and names the other key, whose table is `table`.
    pub fn holds_group(&self, table: &str, siblings: usize, model: Option<&ModelConfig>) -> Result<(), String> {
        self.sizes().holds_group(table, siblings, model)
    }

    /// Sequences that such an engine holds of a model: as many as `max_sequences` allows and `cache_bytes` has room for.
    pub fn slots(&self, model: &ModelConfig) -> usize {
        self.sizes().slots(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_there_is_not_is_refused_with_those_that_there_are() {
        assert_eq!(EngineConfig::default().check(), Ok(()));
        let error = EngineConfig { kind: "vlm".into(), ..EngineConfig::default() }.check().expect_err("no such kind");
        assert!(error.starts_with("kind is \"vlm\"") && error.contains("local"), "{error}");
        let error = EngineConfig { max_rows: 0, ..EngineConfig::default() }.check().expect_err("no rows");
        assert!(error.starts_with("max_rows is 0"), "{error}");
    }

    #[test]
    fn settings_survive_json_and_unknown_keys_are_refused() {
        let text = serde_json::to_string(&EngineConfig::default()).expect("plain data");
        assert_eq!(serde_json::from_str::<EngineConfig>(&text).expect("reads back"), EngineConfig::default());
        assert!(serde_json::from_str::<EngineConfig>(r#"{"max_row":1}"#).is_err());
    }
}
