//! Ranks of one training job, and what they do together.
//!
//! In: this rank's part. Out: everybody's. Every rank calls the same operations in the same order; each call has a deadline,
//! carries the number of the step it belongs to, and on failure says which rank did not arrive. After an error the group is
//! done for: its ranks meet again under another generation.
//!
//! Two implementations of [`Collective`]: [`Tcp`] for any machine, a star around rank 0 that adds up in the order of ranks,
//! so that a sum is the same bits every time; and `Nccl`, for GPUs, whose bulk goes over NCCL and whose control goes over
//! the star. Not known here: models, optimisers, gRPC.

mod frame;
pub mod metrics;
#[cfg(feature = "cuda")]
mod nccl;
mod tcp;
mod transport;

use std::ops::Range;
use std::time::Duration;

pub use self::frame::Op;
#[cfg(feature = "cuda")]
pub use self::nccl::{Nccl, UniqueId};
pub use self::tcp::{Hub, Tcp};
pub use self::transport::Transport;

/// Which rank this is, of how many, in which generation of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankInfo {
    /// From 0.
    pub rank: usize,
    /// Ranks of the group, at least 1.
    pub world: usize,
    /// Drawn anew by rank 0 each time that the group meets; ranks of other generations are refused.
    pub generation: u64,
}

impl RankInfo {
    /// The only rank.
    pub const ALONE: Self = Self { rank: 0, world: 1, generation: 0 };

    /// The part of `total` values that this rank keeps. Parts are equal but for the last ones, which may be short or empty.
    pub fn shard(self, total: usize) -> Range<usize> {
        let each = shard_len(total, self.world);
        (self.rank * each).min(total)..((self.rank + 1) * each).min(total)
    }
}

/// Values of the longest part when `total` values are cut into `world` parts.
pub fn shard_len(total: usize, world: usize) -> usize {
    total.div_ceil(world.max(1))
}

/// A group cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectiveError {
    /// A rank is late.
    #[error("rank {rank} did not arrive at {op} of step {step} within {} ms", waited.as_millis())]
    Missing {
        /// Who.
        rank: usize,
        /// At what.
        op: Op,
        /// In which step.
        step: u64,
        /// The deadline.
        waited: Duration,
    },
    /// A rank's connection is gone.
    #[error("rank {rank} was lost at {op} of step {step}: {reason}")]
    Lost {
        /// Who.
        rank: usize,
        /// At what.
        op: Op,
        /// In which step.
        step: u64,
        /// What the connection says.
        reason: String,
    },
    /// A rank does something else.
    #[error("rank {rank} is out of step at {op} of step {step}: {reason}")]
    OutOfStep {
        /// Who.
        rank: usize,
        /// At what.
        op: Op,
        /// In which step.
        step: u64,
        /// What it does instead.
        reason: String,
    },
    /// Rank 0 says that the group is done for.
    #[error("{0}")]
    Told(String),
    /// The group could not be formed.
    #[error("ranks cannot meet: {0}")]
    Meeting(String),
    /// NCCL or the GPU failed.
    #[error("{op} of step {step}: {reason}")]
    Device {
        /// At what.
        op: Op,
        /// In which step.
        step: u64,
        /// What it says.
        reason: String,
    },
}

/// What ranks do together. `step` must be the same on every rank of a call.
pub trait Collective: Send {
    /// Who this is.
    fn place(&self) -> RankInfo;

    /// Gives rank 0's bytes to everybody. `bytes` is read on rank 0 and ignored elsewhere.
    ///
    /// # Errors
    /// [`CollectiveError`]; so for all calls.
    fn broadcast(&mut self, step: u64, bytes: Vec<u8>) -> Result<Vec<u8>, CollectiveError>;

    /// Gives everybody's bytes to rank 0, in the order of ranks; empty elsewhere.
    fn gather(&mut self, step: u64, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Sums of `values` over all ranks; every rank keeps its [`RankInfo::shard`] of them. All have the same length.
    fn reduce_scatter(&mut self, step: u64, values: Vec<f32>) -> Result<Vec<f32>, CollectiveError>;

    /// Everybody's shards of `total` values, put together.
    fn all_gather(&mut self, step: u64, shard: Vec<f32>, total: usize) -> Result<Vec<f32>, CollectiveError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_everything_once() {
        for (total, world) in [(10, 3), (2, 4), (0, 2), (8, 4), (7, 1)] {
            let shards: Vec<_> = (0..world).map(|rank| RankInfo { rank, world, generation: 0 }.shard(total)).collect();
            assert_eq!(shards.iter().cloned().flatten().collect::<Vec<_>>(), (0..total).collect::<Vec<_>>());
            assert!(shards.iter().all(|shard| shard.len() <= shard_len(total, world)));
        }
    }
}
