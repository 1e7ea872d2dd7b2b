//! The reward service over real connections: serving, kills, mutual TLS.

#[path = "../../../crates/chassis/tests/authority/mod.rs"]
mod authority;
mod crash;
mod formats;
mod secure;
mod serving;
