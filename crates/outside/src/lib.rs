//! What comes from outside, before anything of it is believed: files and names; and how files of ours are replaced.
//!
//! In: paths and texts that somebody else chose. Out: contents of bounded size, or what is wrong; lines of JSON; texts that can stand
//! in a log; files that are whole. Knows nothing of what they mean.

pub mod atomic;
pub mod files;
pub mod jsonl;
pub mod text;
