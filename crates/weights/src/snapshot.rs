//! One policy version as bytes. In: host weights. Out: a payload (all tensors by name, little-endian, end to end), the
//! place of each tensor in it, and the digest of the whole. Cheap to clone.

use bytes::Bytes;
use hypereyes_domain::PolicyVersion;
use hypereyes_policy::checkpoint::{HostWeights, StoredDtype};

use crate::Digest;

/// Bytes of one value.
pub(crate) fn value_bytes(dtype: StoredDtype) -> usize {
    match dtype {
        StoredDtype::F32 => size_of::<f32>(),
        StoredDtype::Bf16 => size_of::<half::bf16>(),
    }
}

/// Where a tensor lies in a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// Published name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// How its values are written.
    pub dtype: StoredDtype,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
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
    /// Copies weights into a payload of f32. The same weights have the same digest, whatever their version.
    pub fn new(weights: &HostWeights, version: PolicyVersion) -> Self {
        Self::stored(weights, version, StoredDtype::F32)
    }

    /// Copies weights into a payload; bf16 rounds to nearest even.
    pub fn stored(weights: &HostWeights, version: PolicyVersion, dtype: StoredDtype) -> Self {
        let mut payload = Vec::with_capacity(weights.values().map(|tensor| tensor.values.len() * value_bytes(dtype)).sum());
        let mut tensors = Vec::with_capacity(weights.len());
        for (name, tensor) in weights {
            let offset = payload.len() as u64;
            match dtype {
                StoredDtype::F32 => tensor.values.iter().for_each(|value| payload.extend_from_slice(&value.to_le_bytes())),
                StoredDtype::Bf16 => {
                    tensor.values.iter().for_each(|value| payload.extend_from_slice(&half::bf16::from_f32(*value).to_le_bytes()));
                }
            }
            let bytes = payload.len() as u64 - offset;
            tensors.push(TensorPlace { name: name.clone(), shape: tensor.shape.clone(), dtype, offset, bytes });
        }
        let digest = blake3::hash(&payload);
        Self { version, payload: payload.into(), tensors, digest }
    }
}
