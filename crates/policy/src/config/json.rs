//! `config.json` in Hugging Face layout, of whichever family.
//!
//! In: JSON. Out: [`ModelConfig`], or which key is wrong or asks for what the model does not have; and the way back, in the style
//! that transformers 5 writes. What the keys of a family mean is known to the family.

use std::path::Path;

use serde_json::Value;

use super::ModelConfig;
use crate::Error;
use crate::checkpoint::StoredDtype;
use crate::models;

/// No published config is larger than a few kilobytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl ModelConfig {
    /// Reads `config.json` of a model folder.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        Self::from_json(&Self::load_json(dir)?).map_err(|why| Error::Input(format!("{}: {why}", dir.join("config.json").display())))
    }

    /// Reads `config.json` of a model folder with all that is in it.
    ///
    /// # Errors
    /// [`Error::Input`] when it is not there, too large, or no JSON.
    pub fn load_json(dir: &Path) -> Result<Value, Error> {
        let path = dir.join("config.json");
        let missing = |error| Error::Input(format!("no model at {}: cannot read config.json ({error})", dir.display()));
        let text = hypereyes_outside::files::read_to_string(&path, MAX_FILE_BYTES).map_err(missing)?;
        serde_json::from_str(&text).map_err(|error| Error::Input(format!("{} is not JSON: {error}", path.display())))
    }

    /// Reads the published JSON; the error says which key is wrong.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let family = models::published_as(value.get("model_type").and_then(Value::as_str).unwrap_or(""))?;
        if let Some(quantised) = value.get("quantization_config").filter(|entry| !entry.is_null()) {
            return Err(format!("quantization_config is {}; only weights in F32, BF16 and F16 are read", quantised["quant_method"]));
        }
        (family.read)(value)
    }

    /// The JSON that transformers 5 reads, for weights stored as `stored`.
    pub fn to_json(&self, stored: StoredDtype) -> Value {
        (self.family.published().write)(self, stored)
    }
}
