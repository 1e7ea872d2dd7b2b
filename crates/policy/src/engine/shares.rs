//! Sharing out a step's sequences to lanes. In: rows of each sequence. Out: how many neighbours each lane takes.

/// How many neighbouring sequences each lane gets, so that rows are as even as whole sequences allow; no share is empty.
pub fn shares(rows: &[usize], lanes: usize) -> Vec<usize> {
    let total: usize = rows.iter().sum();
    let mut shares = vec![0; lanes.max(1)];
    let mut before = 0;
    for count in rows {
        // The lane in whose stretch of all rows the sequence's middle lies.
        shares[((2 * before + count) * lanes.max(1) / (2 * total.max(1))).min(lanes.max(1) - 1)] += 1;
        before += count;
    }
    shares.retain(|share| *share > 0);
    shares
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn shares_are_even_whole_and_never_empty() {
        assert_eq!(shares(&[1; 32], 2), [16, 16]);
        assert_eq!(shares(&[1; 5], 2), [2, 3]);
        assert_eq!(shares(&[300], 4), [1]);
        assert_eq!(shares(&[1, 1, 1, 300], 2), [3, 1]);
        assert_eq!(shares(&[1, 1, 1], 8), [1, 1, 1]);
        assert_eq!(shares(&[7, 7], 0), [2]);
        assert!(shares(&[], 2).is_empty());
    }
}
