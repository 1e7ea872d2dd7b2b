//! The learner: groups in, policy versions out.
pub mod optim;
pub mod sft;
pub mod trainer;
