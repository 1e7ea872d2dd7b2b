//! The reward service over real connections: serving, judges, kills, mutual TLS.

#[path = "../../../crates/chassis/tests/authority/mod.rs"]
mod authority;
mod crash;
mod judge;
mod secure;
mod serving;
