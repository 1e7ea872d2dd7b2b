//! How a policy version travels from the learner to whoever samples from it.
//!
//! In: a [`Snapshot`](hypereyes_policy::checkpoint::Snapshot). Out: a [`Publisher`] that serves it in chunks, and on the other side
//! the same values, bit for bit, or an error and nothing. A receiver that says what it holds gets the difference to it; a
//! stream that breaks off is gone on with where it broke. What arrives is checked against its header, the header against
//! the policy that the receiver knows, and the whole against its digest, before anybody sees a value.
//!
//! [`Announcements`] and [`Held`] are how whoever samples follows a learner for as long as there is one.
//!
//! It knows no optimizer, and of an engine only that it takes weights. Protobuf types are in [`grpc`] only.

pub mod announcements;
pub mod assembly;
mod delta;
mod difference;
pub mod error;
pub mod grpc;
pub mod held;
pub mod metrics;
pub mod publisher;

pub use announcements::Announcements;
pub use assembly::{Fetched, Shapes};
pub use blake3::Hash as Digest;
pub use error::WeightsError;
pub use grpc::{Versions, fetch, newest, watch};
pub use held::{Held, HoldError};
pub use publisher::{Published, Publisher};

/// Payload bytes of one chunk.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Largest payload that is received from a peer about whose policy nothing is known: above any policy that one actor can hold.
pub const MAX_PAYLOAD_BYTES: u64 = 64 << 30;
/// Most tensors of a policy: far above any published model.
pub const MAX_TENSORS: usize = 1 << 16;
/// Longest tensor name in bytes.
pub const MAX_NAME_BYTES: usize = 512;
/// Most dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 8;
