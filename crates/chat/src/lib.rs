//! Text to tokens and back: the only crate, with `search`'s tool parser, in which a policy's words are text.
//!
//! In: a model folder in Hugging Face layout (`tokenizer.json`, a chat template, picture settings).
//! Out: token ids of dialogues, prompts and observations with picture placeholders of the right length, and the text of sampled
//! tokens. [`bytelevel`] writes such a folder of bytes and words; [`agreement::check`] says whether the files of a folder
//! mean the same tokens.
//!
//! It knows nothing of tools, tasks, tensors or engines, and it never re-tokenises what a policy sampled.

pub mod agreement;
pub mod bytelevel;
pub mod bytes;
pub mod chat;
pub mod dialogue;
pub mod error;
pub mod files;
mod jinja;
mod marks;
mod places;
mod python;
pub mod renderer;
pub mod special;
pub mod template;
pub mod vocabulary;

pub use chat::{Chat, ChatConfig};
pub use dialogue::Dialogue;
pub use error::ChatError;
pub use renderer::Renderer;
pub use vocabulary::Vocabulary;
