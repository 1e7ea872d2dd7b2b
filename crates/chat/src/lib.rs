//! Text to tokens and back: the only crate, with `search`'s tool parser, in which a policy's words are text.
//!
//! In: a model folder in Hugging Face layout (`tokenizer.json`, a chat template, `preprocessor_config.json`).
//! Out: token ids of prompts and observations with picture placeholders of the right length, and the text of sampled
//! tokens. [`tiny`] writes such a folder for the small embedded policy.
//!
//! It knows nothing of tools, tasks, tensors or engines, and it never re-tokenises what a policy sampled.

pub mod bytes;
pub mod chat;
pub mod error;
pub mod files;
pub mod special;
pub mod template;
pub mod tiny;
pub mod vocabulary;

pub use chat::{Chat, ChatConfig};
pub use error::ChatError;
pub use tiny::{TinySummary, TinyWords};
