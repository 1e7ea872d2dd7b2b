//! The wire: who may call what, and conversions over a real connection.

#[path = "../../../crates/chassis/tests/authority/mod.rs"]
mod authority;
mod one_trace;
mod roles;
mod teacher_over_tcp;
