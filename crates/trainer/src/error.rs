//! What can stop training.

use hypereyes_collective::CollectiveError;

/// What can stop training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The model, a sample or the settings.
    #[error(transparent)]
    Model(#[from] hypereyes_policy::Error),
    /// Another rank.
    #[error(transparent)]
    Ranks(#[from] CollectiveError),
    /// It was told to stop in the middle of a batch; weights and moments are those before it.
    #[error("the step was broken off")]
    BrokenOff,
}
