//! Numbers that are made of names. In: a seed and texts. Out: a number that depends on all of them and on nothing else, so that tasks
//! that are made at the same time, or in another order, or beside others, draw the same.

/// Seeds have so many bits: servers read them as numbers of JSON, some in floating point.
const SEED_BITS: u64 = (1 << 53) - 1;

/// The seed of one try of a task.
pub fn of_try(seed: u64, task: &str, budget: u32, sample: u32) -> u64 {
    let numbers = [seed, u64::from(budget), u64::from(sample)];
    mixed(task.bytes().chain([0]).chain(numbers.into_iter().flat_map(u64::to_le_bytes))) & SEED_BITS
}

/// FNV-1a over bytes, then a finaliser that spreads it over all bits.
pub fn mixed(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_try_of_every_task_has_a_seed_of_its_own() {
        let tries = ["a", "b", "a1"].into_iter().flat_map(|task| (1..9).flat_map(move |budget| (0..4).map(move |at| (task, budget, at))));
        let seeds: BTreeSet<u64> = tries.map(|(task, budget, at)| of_try(7, task, budget, at)).collect();
        assert_eq!(seeds.len(), 96);
        assert!(seeds.iter().all(|seed| *seed <= SEED_BITS));
        assert_ne!(of_try(7, "a", 1, 0), of_try(8, "a", 1, 0));
    }
}
