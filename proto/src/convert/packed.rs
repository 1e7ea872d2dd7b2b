//! Compact lists: masks eight to a byte, versions as runs.
//!
//! In: lists with one entry per response token. Out: their packed forms, and back; the packed form is checked against the
//! number of tokens before it is unpacked, because a few bytes could otherwise ask for terabytes.

use bytes::Bytes;
use hypereyes_domain::PolicyVersion;

use super::Invalid;
use crate::v1;

/// Eight flags to a byte, lowest bit first.
pub(crate) fn pack(flags: &[bool]) -> v1::PackedBools {
    let byte = |eight: &[bool]| eight.iter().enumerate().fold(0u8, |byte, (bit, &flag)| byte | (u8::from(flag) << bit));
    v1::PackedBools { count: flags.len() as u64, bits: Bytes::from(flags.chunks(8).map(byte).collect::<Vec<u8>>()) }
}

/// `want` flags; anything else in number, size or padding is rejected, so that every list has one packed form.
pub(crate) fn unpack(what: &str, packed: v1::PackedBools, want: usize) -> Result<Vec<bool>, Invalid> {
    if packed.count != want as u64 {
        return Err(Invalid::new(what, format!("has {} entries for {want} response tokens", packed.count)));
    }
    if packed.bits.len() != want.div_ceil(8) {
        return Err(Invalid::new(what, format!("has {} bytes for {want} flags", packed.bits.len())));
    }
    let spare = packed.bits.len() * 8 - want;
    if spare > 0 && packed.bits.last().is_some_and(|last| last.leading_zeros() < spare as u32) {
        return Err(Invalid::new(what, "has spare bits that are not 0"));
    }
    Ok((0..want).map(|at| packed.bits[at / 8] >> (at % 8) & 1 == 1).collect())
}

/// Neighbours of one version become one run.
pub(crate) fn runs(versions: &[PolicyVersion]) -> Vec<v1::VersionRun> {
    let run = |run: &[PolicyVersion]| v1::VersionRun { version: run[0].0, length: run.len() as u32 };
    // A run longer than a length can say is split; no real response has one.
    versions.chunk_by(|a, b| a == b).flat_map(|same| same.chunks(u32::MAX as usize)).map(run).collect()
}

/// `want` versions.
pub(crate) fn unroll(what: &str, runs: &[v1::VersionRun], want: usize) -> Result<Vec<PolicyVersion>, Invalid> {
    if let Some(at) = runs.iter().position(|run| run.length == 0) {
        return Err(Invalid::new(format!("{what}[{at}]"), "is empty"));
    }
    let total = runs.iter().fold(0u64, |total, run| total.saturating_add(run.length.into()));
    if total != want as u64 {
        return Err(Invalid::new(what, format!("has {total} entries for {want} response tokens")));
    }
    let repeat = |run: &v1::VersionRun| std::iter::repeat_n(PolicyVersion(run.version), run.length as usize);
    Ok(runs.iter().flat_map(repeat).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_of_every_length_survive_packing() {
        for length in 0..40usize {
            let flags: Vec<bool> = (0..length).map(|at| at % 3 == 0 || at == length - 1).collect();
            let packed = pack(&flags);
            assert_eq!(packed.bits.len(), length.div_ceil(8));
            assert_eq!(unpack("mask", packed, length), Ok(flags));
        }
    }

    #[test]
    fn versions_survive_as_runs() {
        let versions: Vec<PolicyVersion> = [3, 3, 3, 4, 4, 3].map(PolicyVersion).to_vec();
        let packed = runs(&versions);
        assert_eq!(packed.iter().map(|run| (run.version, run.length)).collect::<Vec<_>>(), [(3, 3), (4, 2), (3, 1)]);
        assert_eq!(unroll("versions", &packed, 6), Ok(versions));
        assert_eq!(unroll("versions", &[], 0), Ok(vec![]));
    }

    #[test]
    fn small_messages_cannot_ask_for_much_memory() {
        let bomb = vec![v1::VersionRun { version: 1, length: u32::MAX }; 1000];
        assert!(unroll("versions", &bomb, 10).is_err());
        assert!(unroll("versions", &[v1::VersionRun { version: 1, length: 0 }], 0).is_err());
        assert!(unpack("mask", v1::PackedBools { count: u64::MAX, bits: Bytes::new() }, 10).is_err());
        assert!(unpack("mask", v1::PackedBools { count: 10, bits: Bytes::new() }, 10).is_err());
    }

    #[test]
    fn spare_bits_must_be_zero() {
        assert!(unpack("mask", v1::PackedBools { count: 3, bits: Bytes::from_static(&[0b1111]) }, 3).is_err());
        assert_eq!(unpack("mask", v1::PackedBools { count: 3, bits: Bytes::from_static(&[0b101]) }, 3), Ok(vec![true, false, true]));
    }
}
