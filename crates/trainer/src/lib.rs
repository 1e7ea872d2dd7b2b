//! Training a policy: demonstrations or taught groups in, new weights out.
//!
//! In: samples and what their tokens are worth. Out: weights, moments, what was measured; with [`sft`] a cold start, with [`step`]
//! one step of reinforcement learning, on one rank or on several.
//!
//! It knows no actor, no lease, no ledger and no wire: the learner service, the CLI and the benchmarks call it.

pub mod config;
pub mod error;
pub mod layout;
pub mod lora;
mod measured;
pub mod metrics;
pub mod moments;
pub mod optim;
pub mod placement;
mod prepared;
pub mod runner;
pub mod sealed;
pub mod sft;
pub mod step;
pub mod taught;
pub mod trainer;
pub mod update;

pub use config::{LoraConfig, OptimConfig, ParameterGroup};
pub use error::TrainError;
pub use moments::Moments;
pub use placement::Placement;
pub use prepared::{Pictures, check};
pub use step::StepOptions;
pub use trainer::Trainer;
