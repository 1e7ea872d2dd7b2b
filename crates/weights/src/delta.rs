//! Chunks of a payload as they travel: as they are, or as their difference to a payload that the receiver holds.
//!
//! In: a chunk and, on both sides, the same bytes of a base. Out: the shortest way to write it, and back, bit for bit. A
//! difference is XOR, its bytes sorted by their place in a value (bits that seldom change lie together), then zstd.

use bytes::Bytes;

/// How a chunk is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Raw,
    /// Nothing is written: it is the base's.
    Same,
    /// zstd of the sorted bytes of the difference to the base.
    Difference,
}

/// A chunk on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// First byte in the payload.
    pub offset: u64,
    /// Bytes of the payload.
    pub length: usize,
    /// How they are written.
    pub encoding: Encoding,
    /// What is written.
    pub data: Bytes,
}

/// zstd level: differences are mostly zeros, which every level finds.
const LEVEL: i32 = 1;

/// Writes a chunk. `base` is what the receiver has in its place, of the same length.
pub fn encode(offset: u64, chunk: Bytes, base: Option<&[u8]>) -> Chunk {
    let length = chunk.len();
    let written = |encoding, data| Chunk { offset, length, encoding, data };
    let Some(base) = base.filter(|base| base.len() == length) else { return written(Encoding::Raw, chunk) };
    if base == &chunk[..] {
        return written(Encoding::Same, Bytes::new());
    }
    match zstd::bulk::compress(&sorted_difference(&chunk, base), LEVEL) {
        Ok(short) if short.len() < length => written(Encoding::Difference, short.into()),
        _ => written(Encoding::Raw, chunk),
    }
}

/// The payload's bytes again.
///
/// # Errors
/// What does not fit.
pub fn decode(chunk: &Chunk, base: Option<&[u8]>) -> Result<Bytes, String> {
    if chunk.encoding == Encoding::Raw {
        return if chunk.data.len() == chunk.length {
            Ok(chunk.data.clone())
        } else {
            Err(format!("{} bytes for {}", chunk.data.len(), chunk.length))
        };
    }
    let base = base.filter(|base| base.len() == chunk.length).ok_or("it is a difference to something that is not here")?;
    if chunk.encoding == Encoding::Same {
        return if chunk.data.is_empty() { Ok(Bytes::copy_from_slice(base)) } else { Err("it is the same and yet has bytes".into()) };
    }
    let sorted = zstd::bulk::decompress(&chunk.data, chunk.length).map_err(|error| format!("it cannot be unpacked: {error}"))?;
    if sorted.len() != chunk.length {
        return Err(format!("it unpacks to {} bytes, {} were announced", sorted.len(), chunk.length));
    }
    Ok(apply(&sorted, base).into())
}

/// Places of a byte that are kept apart: the lanes of an f32, or of two bf16.
const LANES: usize = 4;

/// Length of each lane of so many bytes: the first lanes hold one more where values are cut short.
fn lanes(length: usize) -> [usize; LANES] {
    std::array::from_fn(|lane| (length + LANES - 1 - lane) / LANES)
}

/// The bytes that differ, as XOR: all first bytes of values, then all second ones, and so on.
fn sorted_difference(chunk: &[u8], base: &[u8]) -> Vec<u8> {
    let mut sorted = vec![0; chunk.len()];
    let mut rest = &mut sorted[..];
    for (lane, length) in lanes(chunk.len()).into_iter().enumerate() {
        let (own, others) = rest.split_at_mut(length);
        rest = others;
        // Whole values by the machine's word: compilers make this loop wide.
        let words = chunk.chunks_exact(LANES).zip(base.chunks_exact(LANES));
        own.iter_mut().zip(words).for_each(|(to, (new, old))| *to = new[lane] ^ old[lane]);
        if length > chunk.len() / LANES {
            own[length - 1] = chunk[LANES * (length - 1) + lane] ^ base[LANES * (length - 1) + lane];
        }
    }
    sorted
}

/// The bytes that differ from `base` as [`sorted_difference`] says.
fn apply(sorted: &[u8], base: &[u8]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    let mut rest = sorted;
    for (lane, length) in lanes(sorted.len()).into_iter().enumerate() {
        let (own, others) = rest.split_at(length);
        rest = others;
        bytes.chunks_exact_mut(LANES).zip(own).for_each(|(value, differs)| value[lane] ^= differs);
        if length > sorted.len() / LANES {
            bytes[LANES * (length - 1) + lane] ^= own[length - 1];
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_bit_for_bit_and_small_changes_are_small() {
        let base: Vec<u8> = (0..40_003u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut few = base.clone();
        few.iter_mut().step_by(397).for_each(|byte| *byte ^= 1);
        let noise = (0..2000u32).flat_map(|at| *blake3::hash(&at.to_le_bytes()).as_bytes());
        let other: Vec<u8> = noise.take(base.len()).collect();
        for (new, encoding, most) in [(&base, Encoding::Same, 0), (&few, Encoding::Difference, 1500), (&other, Encoding::Raw, 40_003)] {
            let chunk = encode(8, Bytes::copy_from_slice(new), Some(&base));
            assert_eq!(chunk.encoding, encoding);
            assert!(chunk.data.len() <= most, "{encoding:?}: {} bytes", chunk.data.len());
            assert_eq!(decode(&chunk, Some(&base)).unwrap(), new[..]);
        }
        for length in 0..9 {
            let chunk = encode(0, Bytes::copy_from_slice(&few[..length]), Some(&base[..length]));
            assert_eq!(decode(&chunk, Some(&base[..length])).unwrap(), few[..length]);
        }
        assert_eq!(encode(0, Bytes::from_static(b"abc"), None).encoding, Encoding::Raw);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let base = vec![7u8; 1000];
        let mut new = base.clone();
        new[3] = 1;
        let sound = encode(0, new.into(), Some(&base));
        assert!(decode(&sound, None).is_err());
        assert!(decode(&sound, Some(&base[..999])).is_err());
        assert!(decode(&Chunk { length: 10, ..sound.clone() }, Some(&base[..10])).is_err(), "it unpacks to more than was announced");
        assert!(decode(&Chunk { data: Bytes::from_static(b"no zstd"), ..sound.clone() }, Some(&base)).is_err());
        assert!(decode(&Chunk { encoding: Encoding::Same, ..sound.clone() }, Some(&base)).is_err());
        assert!(decode(&Chunk { encoding: Encoding::Raw, ..sound }, Some(&base)).is_err());
    }
}
