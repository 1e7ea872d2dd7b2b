//! Serving over real connections, plaintext and mutual TLS.

#[path = "../authority/mod.rs"]
mod authority;
mod serving;
mod tls;
