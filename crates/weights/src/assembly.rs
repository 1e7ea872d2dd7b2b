//! A payload on its way in. In: a header and chunks of a peer that nobody trusts. Out: the snapshot once everything fits, or
//! the first thing that does not. Nothing is set aside for bytes that have not come, and no value is seen before the digest
//! is right.

use std::collections::BTreeMap;

use bytes::Bytes;
use hypereyes_domain::PolicyVersion;
use hypereyes_policy::checkpoint::{Snapshot, TensorPlace};

use crate::delta::{self, Chunk};
use crate::{CHUNK_BYTES, Digest, MAX_DIMENSIONS, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, MAX_TENSORS, WeightsError};

/// Names and dimensions of a policy's tensors: what a receiver knows of the weights to come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes(BTreeMap<String, Vec<usize>>);

impl Shapes {
    /// Those of a policy.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self(snapshot.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect())
    }

    /// Where `tensors` differ; `None` when they do not.
    fn differ(&self, tensors: &[TensorPlace]) -> Option<String> {
        for tensor in tensors {
            match self.0.get(&tensor.name) {
                None => return Some(format!("tensor {} is not part of the policy here", tensor.name)),
                Some(shape) if *shape != tensor.shape => {
                    return Some(format!("tensor {} has shape {:?}, here it has {shape:?}", tensor.name, tensor.shape));
                }
                Some(_) => {}
            }
        }
        let missing = || self.0.keys().find(|name| tensors.iter().all(|tensor| tensor.name != **name));
        // Names are unique by now, so that equal numbers mean equal sets.
        if tensors.len() < self.0.len() { missing().map(|name| format!("tensor {name} is missing")) } else { None }
    }
}

/// Weights that arrived whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// The weights, every value a number; also the base of the next fetch.
    pub snapshot: Snapshot,
    /// Bytes of them that went over the wire.
    pub wire_bytes: u64,
}

/// A payload of which some has come.
#[derive(Debug)]
pub(crate) struct Assembly {
    version: PolicyVersion,
    tensors: Vec<TensorPlace>,
    total: u64,
    digest: Digest,
    /// What chunks may be differences to.
    base: Option<Bytes>,
    payload: Vec<u8>,
    wire_bytes: u64,
}

impl Assembly {
    /// Checks a header; with `known`, the tensors must be exactly those.
    pub(crate) fn new(
        version: PolicyVersion,
        tensors: Vec<TensorPlace>,
        total: u64,
        digest: Digest,
        known: Option<&Shapes>,
        base: Option<Bytes>,
    ) -> Result<Self, WeightsError> {
        let refuse = |label: &'static str, reason: String| Err(WeightsError::Broken { version, label, reason });
        if tensors.len() > MAX_TENSORS {
            return refuse("header", format!("{} tensors, at most {MAX_TENSORS} are taken", tensors.len()));
        }
        let mut end = 0u64;
        let mut names = std::collections::HashSet::with_capacity(tensors.len());
        for tensor in &tensors {
            if tensor.name.is_empty() || tensor.name.len() > MAX_NAME_BYTES || !names.insert(tensor.name.as_str()) {
                return refuse("header", "a tensor's name is empty, too long or there twice".into());
            }
            let values = tensor.shape.iter().try_fold(1u64, |product, side| product.checked_mul(*side as u64));
            let bytes =
                values.filter(|_| tensor.shape.len() <= MAX_DIMENSIONS).and_then(|values| values.checked_mul(tensor.dtype.bytes() as u64));
            if bytes != Some(tensor.bytes) {
                return refuse("header", format!("tensor {} of shape {:?} has {} bytes", tensor.name, tensor.shape, tensor.bytes));
            }
            if tensor.offset != end {
                return refuse("header", format!("tensor {} begins at {}, the one before ends at {end}", tensor.name, tensor.offset));
            }
            end = end.saturating_add(tensor.bytes);
        }
        if end != total || total > MAX_PAYLOAD_BYTES {
            return refuse("header", format!("tensors of {end} bytes in a payload of {total}, at most {MAX_PAYLOAD_BYTES} are taken"));
        }
        if let Some(reason) = known.and_then(|known| known.differ(&tensors)) {
            return refuse("shape", reason);
        }
        Ok(Self { version, tensors, total, digest, base, payload: Vec::new(), wire_bytes: 0 })
    }

    /// Payload bytes that have come.
    pub(crate) fn received(&self) -> u64 {
        self.payload.len() as u64
    }

    /// BLAKE3 of the payload to come.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Takes the next chunk.
    pub(crate) fn add(&mut self, chunk: &Chunk) -> Result<(), WeightsError> {
        let (expected, offset, length) = (self.received(), chunk.offset, chunk.length);
        let refuse = |reason| WeightsError::Broken { version: self.version, label: "chunk", reason };
        if offset != expected || length == 0 || length > CHUNK_BYTES || expected + length as u64 > self.total {
            let reason = format!("a chunk of {length} bytes at {offset}; expected at most {CHUNK_BYTES} at {expected} of {}", self.total);
            return Err(refuse(reason));
        }
        let base = self.base.as_ref().and_then(|base| base.get(offset as usize..offset as usize + length));
        let bytes = delta::decode(chunk, base).map_err(refuse)?;
        self.payload.extend_from_slice(&bytes);
        self.wire_bytes += chunk.data.len() as u64;
        Ok(())
    }

    /// Checks the whole and gives it out.
    pub(crate) fn finish(self) -> Result<Fetched, WeightsError> {
        let version = self.version;
        let refuse = |label: &'static str, reason: String| Err(WeightsError::Broken { version, label, reason });
        if self.received() != self.total {
            return refuse("short", format!("the stream ended after {} of {} bytes", self.received(), self.total));
        }
        let digest = blake3::hash(&self.payload);
        if digest != self.digest {
            return refuse("digest", format!("the payload's digest is {digest}, {} was announced", self.digest));
        }
        let Self { tensors, payload, wire_bytes, .. } = self;
        let snapshot = Snapshot { version, payload: payload.into(), tensors, digest };
        match snapshot.check_finite() {
            Ok(()) => Ok(Fetched { snapshot, wire_bytes }),
            Err(error) => refuse("value", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_policy::checkpoint::{HostTensor, HostWeights, StoredDtype};

    use super::*;

    fn weights() -> HostWeights {
        let tensor = |shape: &[usize], from: f32| {
            let count: usize = shape.iter().product();
            HostTensor { shape: shape.to_vec(), values: (0..count).map(|at| from + at as f32).collect() }
        };
        HostWeights::from([("a".to_owned(), tensor(&[2, 3], 0.5)), ("b".to_owned(), tensor(&[4], -1.0))])
    }

    fn raw(offset: usize, bytes: &[u8]) -> Chunk {
        delta::encode(offset as u64, Bytes::copy_from_slice(bytes), None)
    }

    fn begin(snapshot: &Snapshot, change: impl Fn(&mut Vec<TensorPlace>), known: Option<&Shapes>) -> Result<Assembly, WeightsError> {
        let mut tensors = snapshot.tensors.clone();
        change(&mut tensors);
        Assembly::new(snapshot.version, tensors, snapshot.payload.len() as u64, snapshot.digest, known, None)
    }

    #[test]
    fn a_payload_comes_back_bit_by_bit_however_it_is_cut() {
        let snapshot = Snapshot::new(&weights(), PolicyVersion(3));
        for size in 1..=snapshot.payload.len() {
            let mut assembly = begin(&snapshot, |_| {}, Some(&Shapes::of(&snapshot))).expect("sound");
            for (at, chunk) in snapshot.payload.chunks(size).enumerate() {
                assembly.add(&raw(at * size, chunk)).expect("sound");
            }
            assert_eq!(assembly.finish().expect("sound").snapshot, snapshot);
        }
    }

    #[test]
    fn headers_that_do_not_add_up_are_refused() {
        let snapshot = Snapshot::new(&weights(), PolicyVersion(3));
        let cases: [fn(&mut Vec<TensorPlace>); 7] = [
            |tensors| tensors[1].offset += 4,
            |tensors| tensors[0].shape = vec![usize::MAX, usize::MAX],
            |tensors| tensors[0].shape = vec![1; 60],
            |tensors| tensors[0].bytes = 4,
            |tensors| tensors[1].name = "a".into(),
            |tensors| tensors[1].name.clear(),
            |tensors| drop(tensors.pop()),
        ];
        for change in cases {
            assert_eq!(begin(&snapshot, change, None).expect_err("refused").label(), "header");
        }
        let huge = TensorPlace { name: "a".into(), shape: vec![1 << 40], dtype: StoredDtype::F32, offset: 0, bytes: 4 << 40 };
        let error = Assembly::new(PolicyVersion(1), vec![huge], 4 << 40, snapshot.digest, None, None).expect_err("refused");
        assert_eq!(error.label(), "header");
    }

    #[test]
    fn another_policys_weights_are_refused() {
        let snapshot = Snapshot::new(&weights(), PolicyVersion(3));
        let mut other = weights();
        other.insert("c".into(), HostTensor { shape: vec![1], values: vec![0.0] });
        assert_eq!(
            begin(&snapshot, |_| {}, Some(&Shapes::of(&Snapshot::new(&other, PolicyVersion(3))))).expect_err("c is missing").label(),
            "shape"
        );
        other.remove("c");
        other.remove("b");
        assert_eq!(
            begin(&snapshot, |_| {}, Some(&Shapes::of(&Snapshot::new(&other, PolicyVersion(3))))).expect_err("b is too much").label(),
            "shape"
        );
        other.insert("b".into(), HostTensor { shape: vec![2, 2], values: vec![0.0; 4] });
        assert_eq!(
            begin(&snapshot, |_| {}, Some(&Shapes::of(&Snapshot::new(&other, PolicyVersion(3))))).expect_err("b has another shape").label(),
            "shape"
        );
    }

    #[test]
    fn values_that_are_no_numbers_are_refused() {
        let mut bad = weights();
        bad.get_mut("b").expect("is there").values[2] = f32::NAN;
        let snapshot = Snapshot::new(&bad, PolicyVersion(3));
        let mut assembly = begin(&snapshot, |_| {}, None).expect("the header is sound");
        assembly.add(&raw(0, &snapshot.payload)).expect("sound");
        assert_eq!(assembly.finish().expect_err("NaN").label(), "value");
    }
}
