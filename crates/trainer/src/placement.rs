//! Where a model is passed through, and in pieces of which size.

use hypereyes_policy::device::Device;

/// Where and how a model is passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Where.
    pub device: Device,
    /// Tokens of the micro-batches that run at once (at least one sample each).
    pub micro_tokens: usize,
}
