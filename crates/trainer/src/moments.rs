//! The optimiser's state as it travels: between ranks and into checkpoints.

use hypereyes_policy::checkpoint::HostWeights;

/// Moments of all trainable parameters, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Steps taken.
    pub steps: u64,
    /// First moments.
    pub first: HostWeights,
    /// Second moments.
    pub second: HostWeights,
}
