//! The miniature: what only the embedded policy of the demonstration needs.
//!
//! In: a world, demonstrations. Out: a curriculum with which a policy of two million parameters learns on a laptop what larger
//! models bring along. Nothing of it is a default for another model.

pub mod curriculum;
pub mod drill;

pub use curriculum::{Curriculum, CurriculumConfig, LR, Lesson};
