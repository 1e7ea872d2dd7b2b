//! The stand-in is held against the engine of this process, and against what real servers were seen to do.

mod command;
mod dialects;
mod lifecycle;
mod lying;
mod support;
