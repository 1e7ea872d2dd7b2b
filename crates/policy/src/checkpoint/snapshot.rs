//! One policy version as bytes. In: host weights. Out: a payload (all tensors by name, little-endian, end to end), the
//! place of each tensor in it, and the digest of the whole; and the weights again. Cheap to clone.

use std::borrow::Borrow;

use bytes::Bytes;
use hypereyes_domain::PolicyVersion;
use rayon::prelude::*;

use super::{HostTensor, HostWeights, StoredDtype};
use crate::Error;

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

/// A policy version, ready to be served, computed with or written to a folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Its number.
    pub version: PolicyVersion,
    /// All values.
    pub payload: Bytes,
    /// The tensors, by offset, without gaps.
    pub tensors: Vec<TensorPlace>,
    /// BLAKE3 of `payload`.
    pub digest: blake3::Hash,
}

impl Snapshot {
    /// Copies weights into a payload of f32. The same weights have the same digest, whatever their version.
    pub fn new(weights: &HostWeights, version: PolicyVersion) -> Self {
        Self::stored(weights, version, StoredDtype::F32)
    }

    /// Copies weights into a payload; bf16 rounds to nearest even.
    pub fn stored(weights: &HostWeights, version: PolicyVersion, dtype: StoredDtype) -> Self {
        let values = weights.values().map(|tensor| tensor.values.len()).sum();
        Self::laid(weights.iter().map(|(name, tensor)| (name.clone(), tensor)), values, version, dtype)
    }

    /// Turns weights into a payload of the shortest type that holds each of their values bit for bit: bf16 where they were read from
    /// bf16. A tensor is let go when it is written, so that there are never two copies of all of them.
    pub fn exact(weights: HostWeights, version: PolicyVersion) -> Self {
        let values = weights.values().map(|tensor| tensor.values.len()).sum();
        let is_short = weights.values().all(|tensor| tensor.values.par_iter().all(|value| value.to_bits() & 0xffff == 0));
        let dtype = if is_short && values > 0 { StoredDtype::Bf16 } else { StoredDtype::F32 };
        Self::laid(weights.into_iter(), values, version, dtype)
    }

    /// Tensors end to end; together they have so many values.
    fn laid<T: Borrow<HostTensor>>(
        weights: impl Iterator<Item = (String, T)>,
        values: usize,
        version: PolicyVersion,
        dtype: StoredDtype,
    ) -> Self {
        let (mut payload, mut tensors) = (Vec::with_capacity(values * dtype.bytes()), vec![]);
        for (name, tensor) in weights {
            let tensor: &HostTensor = tensor.borrow();
            let offset = payload.len() as u64;
            write(&mut payload, &tensor.values, dtype);
            let bytes = payload.len() as u64 - offset;
            tensors.push(TensorPlace { name, shape: tensor.shape.clone(), dtype, offset, bytes });
        }
        Self::of(version, payload.into(), tensors)
    }

    /// A payload that is there already. What `tensors` say of it is looked at when they are read.
    pub fn of(version: PolicyVersion, payload: Bytes, tensors: Vec<TensorPlace>) -> Self {
        let digest = blake3::hash(&payload);
        Self { version, payload, tensors, digest }
    }

    /// How its values are written. A policy is published in one type; an empty one counts as f32.
    pub fn dtype(&self) -> StoredDtype {
        self.tensors.first().map_or(StoredDtype::F32, |place| place.dtype)
    }

    /// The same values written in another type, bit for bit as [`Snapshot::stored`] would have written them.
    ///
    /// # Errors
    /// As [`Snapshot::bytes`].
    pub fn written_as(self, dtype: StoredDtype) -> Result<Self, Error> {
        if self.tensors.iter().all(|place| place.dtype == dtype) {
            return Ok(self);
        }
        let mut payload =
            Vec::with_capacity(self.tensors.iter().map(|place| place.bytes as usize / place.dtype.bytes() * dtype.bytes()).sum());
        let mut tensors = Vec::with_capacity(self.tensors.len());
        for place in &self.tensors {
            let offset = payload.len() as u64;
            write(&mut payload, &values(self.bytes(place)?, place.dtype), dtype);
            let bytes = payload.len() as u64 - offset;
            tensors.push(TensorPlace { dtype, offset, bytes, ..place.clone() });
        }
        Ok(Self::of(self.version, payload.into(), tensors))
    }

    /// The bytes of one of its tensors.
    ///
    /// # Errors
    /// [`Error::Input`] when the place is not within the payload, or is not as long as the tensor's shape.
    pub fn bytes(&self, place: &TensorPlace) -> Result<&[u8], Error> {
        let values = place.shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
        let length = values.and_then(|values| values.checked_mul(place.dtype.bytes())).filter(|length| *length as u64 == place.bytes);
        let range = length.zip(usize::try_from(place.offset).ok()).and_then(|(length, start)| Some(start..start.checked_add(length)?));
        range.and_then(|range| self.payload.get(range)).ok_or_else(|| {
            let TensorPlace { name, shape, offset, bytes, .. } = place;
            let total = self.payload.len();
            Error::Input(format!("tensor {name} of shape {shape:?} is not {bytes} bytes at {offset} of a payload of {total}"))
        })
    }

    /// Refuses values that are no numbers.
    ///
    /// # Errors
    /// [`Error::Input`] that names the tensor and the value.
    pub fn check_finite(&self) -> Result<(), Error> {
        let check = |place: &TensorPlace| {
            let bytes = self.bytes(place)?;
            // All of it without a branch, which compilers make wide; where it is comes after.
            let all = match place.dtype {
                StoredDtype::F32 => bytes.chunks_exact(4).fold(true, |all, b| all & f32_of(b).is_finite()),
                StoredDtype::Bf16 => bytes.chunks_exact(2).fold(true, |all, b| all & bf16_of(b).is_finite()),
            };
            match values(if all { &[] } else { bytes }, place.dtype).iter().enumerate().find(|(_, value)| !value.is_finite()) {
                Some((at, value)) => Err(Error::Input(format!("tensor {} holds {value} at index {at}", place.name))),
                None => Ok(()),
            }
        };
        self.tensors.par_iter().find_map_first(|place| check(place).err()).map_or(Ok(()), Err)
    }

    /// The weights in f32: a second copy, twice as large as a payload of bf16.
    ///
    /// # Errors
    /// As [`Snapshot::check_finite`].
    pub fn weights(&self) -> Result<HostWeights, Error> {
        self.check_finite()?;
        let tensor = |place: &TensorPlace| {
            let values = values(self.bytes(place)?, place.dtype);
            Ok((place.name.clone(), HostTensor { shape: place.shape.clone(), values }))
        };
        self.tensors.iter().map(tensor).collect()
    }
}

/// Appends values as they are stored.
fn write(payload: &mut Vec<u8>, values: &[f32], dtype: StoredDtype) {
    match dtype {
        StoredDtype::F32 => values.iter().for_each(|value| payload.extend_from_slice(&value.to_le_bytes())),
        StoredDtype::Bf16 => values.iter().for_each(|value| payload.extend_from_slice(&half::bf16::from_f32(*value).to_le_bytes())),
    }
}

/// Stored values in f32.
fn values(bytes: &[u8], dtype: StoredDtype) -> Vec<f32> {
    match dtype {
        StoredDtype::F32 => bytes.chunks_exact(4).map(f32_of).collect(),
        StoredDtype::Bf16 => bytes.chunks_exact(2).map(|b| bf16_of(b).to_f32()).collect(),
    }
}

/// The value that begins with these bytes, of which there are four or more.
fn f32_of(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The value that begins with these bytes, of which there are two or more.
fn bf16_of(bytes: &[u8]) -> half::bf16 {
    half::bf16::from_le_bytes([bytes[0], bytes[1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> HostWeights {
        let tensor = |shape: &[usize], values: &[f32]| HostTensor { shape: shape.to_vec(), values: values.to_vec() };
        HostWeights::from([("a".to_owned(), tensor(&[2, 2], &[0.5, -1.0, 2.0, 3.0])), ("b".to_owned(), tensor(&[], &[0.25]))])
    }

    #[test]
    fn weights_come_back_and_what_is_no_number_is_refused() {
        for dtype in [StoredDtype::F32, StoredDtype::Bf16] {
            assert_eq!(Snapshot::stored(&weights(), PolicyVersion(3), dtype).weights().unwrap(), weights());
            let mut bad = weights();
            bad.get_mut("a").unwrap().values[2] = f32::NEG_INFINITY;
            let error = Snapshot::stored(&bad, PolicyVersion(3), dtype).weights().unwrap_err().to_string();
            assert_eq!(error, "tensor a holds -inf at index 2");
        }
    }

    #[test]
    fn written_in_another_type_it_is_what_a_learner_of_that_type_publishes() {
        let mut weights = weights();
        weights.get_mut("a").unwrap().values = vec![0.1, -1e-9, 3.7e30, 1.003_906_3];
        let exact = Snapshot::new(&weights, PolicyVersion(3));
        let short = Snapshot::stored(&weights, PolicyVersion(3), StoredDtype::Bf16);
        assert_eq!(exact.clone().written_as(StoredDtype::Bf16).unwrap(), short);
        assert_eq!(exact.clone().written_as(StoredDtype::F32).unwrap(), exact);
        let rounded = short.clone().written_as(StoredDtype::F32).unwrap();
        assert_eq!((rounded.dtype(), rounded.weights().unwrap()), (StoredDtype::F32, short.weights().unwrap()));
    }

    #[test]
    fn the_shortest_type_is_taken_that_changes_no_bit() {
        let weights = weights();
        assert_eq!(Snapshot::exact(weights.clone(), PolicyVersion(3)), Snapshot::stored(&weights, PolicyVersion(3), StoredDtype::Bf16));
        for value in [0.1, 1.003_906_3, f32::from_bits(1)] {
            let mut long = weights.clone();
            long.get_mut("b").unwrap().values[0] = value;
            assert_eq!(Snapshot::exact(long.clone(), PolicyVersion(3)), Snapshot::new(&long, PolicyVersion(3)), "{value}");
        }
        assert_eq!(Snapshot::exact(HostWeights::new(), PolicyVersion(3)), Snapshot::new(&HostWeights::new(), PolicyVersion(3)));
    }

    #[test]
    fn a_place_outside_of_the_payload_is_an_error() {
        let sound = Snapshot::new(&weights(), PolicyVersion(3));
        let cases: [fn(&mut TensorPlace); 4] = [
            |place| place.offset = 8,
            |place| place.offset = u64::MAX,
            |place| place.bytes = 12,
            |place| place.shape = vec![usize::MAX, 2],
        ];
        for change in cases {
            let mut broken = sound.clone();
            change(&mut broken.tensors[0]);
            assert!(broken.weights().unwrap_err().to_string().starts_with("tensor a of shape"));
        }
    }
}
