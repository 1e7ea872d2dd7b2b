//! One policy version as bytes. In: host weights. Out: a payload (all tensors by name, little-endian f32, end to end), the
//! place of each tensor in it, and the digest of the whole. Cheap to clone.

use bytes::Bytes;
use hypereyes_domain::PolicyVersion;
use hypereyes_policy::checkpoint::HostWeights;

use crate::Digest;

/// Bytes of one value.
pub(crate) const VALUE_BYTES: usize = size_of::<f32>();

/// Where a tensor lies in a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// Published name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// First byte.
    pub offset: u64,
    /// Number of bytes: 4 per value.
    pub bytes: u64,
}

/// A policy version, ready to be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its number.
    pub version: PolicyVersion,
    /// All values.
    pub payload: Bytes,
    /// The tensors, by offset, without gaps.
    pub tensors: Vec<TensorPlace>,
    /// BLAKE3 of `payload`.
    pub digest: Digest,
}

impl Snapshot {
    /// Copies weights into a payload. The same weights have the same digest, whatever their version.
    pub fn new(weights: &HostWeights, version: PolicyVersion) -> Self {
        let mut payload = Vec::with_capacity(weights.values().map(|tensor| tensor.values.len() * VALUE_BYTES).sum());
        let mut tensors = Vec::with_capacity(weights.len());
        for (name, tensor) in weights {
            let offset = payload.len() as u64;
            for value in &tensor.values {
                payload.extend_from_slice(&value.to_le_bytes());
            }
            let bytes = payload.len() as u64 - offset;
            tensors.push(TensorPlace { name: name.clone(), shape: tensor.shape.clone(), offset, bytes });
        }
        let digest = blake3::hash(&payload);
        Self { version, payload: payload.into(), tensors, digest }
    }
}
