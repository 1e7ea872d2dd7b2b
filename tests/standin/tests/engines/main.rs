//! Engines outside, held against a server that lies: no lie is trained on, nothing is lost and nothing is doubled, and honest answers are
//! what the engine of this process gives. A program of its own: it installs the process's metrics recorder.

mod alike;
mod fleet;
mod kills;
mod lies;
mod many;
mod real;
mod stage;
#[path = "../servers/support.rs"]
mod support;
