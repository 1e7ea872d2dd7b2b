//! Scores against golden vectors, of rewards and of benchmarks, and the table of spellings.

mod golden;
mod spellings;
mod squad;
