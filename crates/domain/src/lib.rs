//! The vocabulary of hypereyes: what every service speaks of, and nothing else.
//!
//! In: nothing. Out: plain types for tasks, calls, trajectories, groups in their stages, scores and references, and the
//! one port ([`Generate`]) through which text generation is reached.
//!
//! This crate knows no async runtime, no tensors, no wire format and no file. A type lives here if two services must agree
//! on its meaning; its documentation is that agreement.

pub mod action;
pub mod failure;
pub mod found;
pub mod group;
pub mod ids;
pub mod lease;
pub mod ports;
pub mod question;
pub mod reference;
pub mod sampling;
pub mod score;
pub mod task;
pub mod teacher;
mod text;
pub mod trajectory;

pub use action::{Area, Call, IMAGE_SEARCH, TEXT_SEARCH};
pub use failure::Failure;
pub use found::{Findings, Found, FoundHit};
pub use group::{DistilledGroup, InvalidGroup, RolloutGroup, ScoredGroup};
pub use ids::{ActorId, EntityId, GroupId, PictureId, PolicyVersion, TaskId, TeacherId};
pub use lease::{Lease, Leased, Receipt, WaitReason};
pub use ports::{Chunk, Generate, GenerateError, Sampled, Sampling, Sequence, SetWeights, SetWeightsError, Stop, turn_seed};
pub use question::{Answer, Question, ScoreSequence};
pub use reference::Reference;
pub use sampling::SamplingConfig;
pub use score::{Accuracy, BonusBranch, Route, Score};
pub use task::{Metadata, Shown, Task, TaskKind};
pub use teacher::{ModelCard, ModelInfo, ModelState, Promotion, Roster, TeacherLogprobs, TeacherVersion};
pub use trajectory::{Ending, InvalidSummary, InvalidTrajectory, RolloutSummary, Round, Spent, Spoken, Trajectory};
