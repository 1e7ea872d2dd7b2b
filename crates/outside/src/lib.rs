//! What comes from outside, before anything of it is believed: files and names.
//!
//! In: paths and texts that somebody else chose. Out: contents of bounded size, or what is wrong; texts that can stand in a
//! log. Knows nothing of what they mean.

pub mod files;
pub mod text;
