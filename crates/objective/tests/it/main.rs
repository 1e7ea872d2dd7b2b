//! The objective against golden vectors, finite differences and hostile input.

mod golden;
mod gradient;
mod total;
