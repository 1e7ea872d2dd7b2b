//! What verdicts depend on beside question, prediction and answers. An evaluation keeps it with its results: two of them are comparable
//! only where it is the same. It holds no address and no key.

use serde::{Deserialize, Serialize};

use crate::prompts::PromptKind;

/// A judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgeAbout {
    /// Its name in settings: a rule's, or `model`.
    pub judge: String,
    /// The model, where one is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelAbout>,
}

/// A model that judges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelAbout {
    /// Its name.
    pub model: String,
    /// What it is asked.
    pub prompt: PromptKind,
    /// A hash of the text that it is asked and of how replies are read, in hexadecimal.
    pub prompt_hash: String,
    /// Sampling temperature.
    pub temperature: f64,
    /// Tokens of a reply.
    pub max_tokens: u32,
    /// Times that it is asked.
    pub votes: u32,
}
