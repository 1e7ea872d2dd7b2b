//! Chat completions, by the OpenAI protocol that every server speaks.
//!
//! In: an address, the name of the variable that holds the key, messages as JSON. Out: [`Completion`]s, or a [`Miss`] that says why there
//! is none and whether asking again can help. Replies are bounded, every wait has a deadline, and the key is in no log and no error.
//!
//! It knows no task, no tool and no verdict: messages and tools are its callers' JSON, and what a reply means is theirs to say.

mod client;
mod completion;
mod miss;
mod request;

pub use client::{Client, Endpoint, Patience};
pub use completion::{Completion, Finish, ToolCall, Usage};
pub use miss::{Complaint, Miss};
pub use request::Request;
