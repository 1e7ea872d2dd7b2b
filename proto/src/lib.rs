//! The wire of hypereyes: protobuf messages, their gRPC services, and the way between messages and domain types.
//!
//! In: domain types to send, bytes from peers that nobody trusts. Out: messages, and domain types that were checked
//! against [`limits`] and against their own rules, or an [`Invalid`] that says which field was wrong.
//!
//! This crate does not know what a service does with a message, and opens no port. Protobuf types are reached through
//! [`v1`] only; a service converts them in its `service.rs` and speaks domain types from there on.

pub mod call;
pub mod client;
pub mod convert;
pub mod failure;
pub mod limits;
pub mod orders;
pub mod ports;
pub mod roles;
pub mod server;
pub mod submit;
pub mod teacher;
pub mod wire;

pub use call::CallError;
pub use client::{BadAddress, ClientConfig, Clients};
pub use convert::Invalid;
pub use roles::Role;
pub use submit::{Parcel, Submitter};
pub use teacher::TeacherPeer;
pub use v1::FILE_DESCRIPTOR_SET;
pub use wire::{PeerChannel, WIRE_VERSION};

/// Generated messages, clients and servers of the protobuf package `hypereyes.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all)]

    tonic::include_proto!("hypereyes.v1");

    /// The encoded file descriptor set of this package, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hypereyes_v1.bin"));
}
