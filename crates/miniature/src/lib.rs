//! The miniature: what only the embedded policy of the demonstration needs.
//!
//! In: a world, demonstrations. Out: a tokenizer of the world's words, a fresh policy of two million parameters with a structured
//! start, the curriculum with which it learns on a laptop what larger models bring along, and the two policies that are compiled
//! in. Nothing of it is a default for another model.

pub mod curriculum;
pub mod drill;
pub mod init;
pub mod shape;
pub mod shipped;
pub mod tokenizer;

pub use curriculum::{Curriculum, CurriculumConfig, LR, Lesson};
pub use init::InitConfig;
pub use shape::TinyConfig;
