//! What kernels may be given: which product's kernel is right for a shape, counts that their indices hold, tokens, rows and
//! segments that are there.
//!
//! In: sizes and indices, on the host. Out: a choice, or one sentence that says what is wrong. A kernel on a GPU that is given what
//! does not exist reads memory that belongs to something else and says nothing, so everything is looked at before a launch, on
//! every device alike.

use std::fmt::Display;
use std::ops::Range;

use super::{Branches, Segments};

/// Most values that a tensor may have for a kernel: kernels count in 32 bits, go in strides, and whole blocks are launched beyond
/// the last value.
pub const COUNTABLE: usize = i32::MAX as usize;

/// Whether `values` can be counted by a kernel.
///
/// # Errors
/// A sentence that names `what`.
pub fn countable(what: impl Display, values: usize) -> Result<(), String> {
    if values <= COUNTABLE {
        return Ok(());
    }
    Err(format!("{what} has {values} values, more than the {COUNTABLE} that a GPU's kernel counts: give it less at a time"))
}

/// Ends the pass with what a check found.
///
/// # Panics
/// With the sentence. What comes from outside has been refused long before; this is for what we get wrong ourselves.
#[track_caller]
pub fn must(checked: Result<(), String>) {
    if let Err(reason) = checked {
        panic!("{reason}");
    }
}

/// Kernels of a matrix product on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Tensor cores, one stage of the inner dimension at a time.
    OneStage,
    /// Tensor cores, a stage loaded while another is multiplied.
    TwoStages,
    /// Burn's own choice: also one stage at a time.
    OfBurn,
}

/// Rows up to which one stage of a tile is all there is to load.
const FEW_ROWS: usize = 64;
/// Columns below which only Burn's own choice has been seen to be right: a router of 8 outputs came out wrong on an H100.
const FEW_COLUMNS: usize = 32;
/// Inner elements of a stage, where a plane has as many lanes: what cubek-matmul 0.2.0 infers for every tile of Mma.
const STAGE: usize = 32;

/// Which kernel multiplies \[m, k\] with \[k, n\] on a GPU whose planes (warps) have `plane` lanes.
///
/// The kernel of two stages rounds the stages of `k` up to an even number but checks bounds only where `k` ends *within* a stage
/// (cubek-matmul 0.2.0, `check_k_bounds`; fixed in 0.3): with an odd number of whole stages it adds one more of whatever lies
/// behind the matrices.
pub fn product(m: usize, k: usize, n: usize, plane: usize) -> Product {
    let (ends_within, odd) = (!k.is_multiple_of(STAGE), !(k / STAGE).is_multiple_of(2));
    match m {
        _ if n < FEW_COLUMNS || plane != STAGE || k == 0 => Product::OfBurn,
        0..=FEW_ROWS if ends_within => Product::OfBurn,
        0..=FEW_ROWS => Product::OneStage,
        _ if odd && !ends_within => Product::OfBurn,
        _ => Product::TwoStages,
    }
}

/// Whether every token is one of `vocab`.
///
/// # Errors
/// A sentence that names the first that is not.
pub fn tokens(tokens: &[u32], vocab: usize) -> Result<(), String> {
    match tokens.iter().position(|token| *token as usize >= vocab) {
        Some(at) => Err(format!("token {} at {at} is outside the vocabulary of {vocab}", tokens[at])),
        None => Ok(()),
    }
}

/// Whether every one of `indices` is below `end`.
///
/// # Errors
/// A sentence that names `what` they are of, and the first that is not.
pub fn below(what: &str, indices: impl IntoIterator<Item = usize>, end: usize) -> Result<(), String> {
    match indices.into_iter().enumerate().find(|(_, index)| *index >= end) {
        Some((at, index)) => Err(format!("{what} {index}, number {at} of a list, does not exist: there are {end}")),
        None => Ok(()),
    }
}

/// Whether `counts` says of all of `rows` which of `experts` they go to.
///
/// # Errors
/// A sentence.
pub fn experts(counts: &[usize], rows: usize, experts: usize) -> Result<(), String> {
    let sum: usize = counts.iter().sum();
    if counts.len() != experts || sum != rows {
        return Err(format!("{} counts of rows, {sum} together, are not of {rows} rows and {experts} experts", counts.len()));
    }
    Ok(())
}

impl Segments {
    /// Whether they are of `rows` rows, queries of `width` and keys of `kv_width`.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self, rows: usize, width: usize, kv_width: usize) -> Result<(), String> {
        let Self { ranges, heads, kv_heads, .. } = self;
        if *heads == 0 || *kv_heads == 0 || heads % kv_heads != 0 {
            return Err(format!("{heads} query heads cannot share {kv_heads} key heads"));
        }
        if !width.is_multiple_of(*heads) || width / heads * kv_heads != kv_width || width == 0 {
            return Err(format!("rows of {width} and {kv_width} values are not of {heads} and {kv_heads} heads"));
        }
        let mut next = 0;
        for (at, Range { start, end }) in ranges.iter().enumerate() {
            if *start != next || end < start {
                return Err(format!("segment {at} is {start}..{end}, but the next row is {next}"));
            }
            next = *end;
        }
        if next != rows {
            return Err(format!("segments of {next} rows are not of {rows}"));
        }
        Ok(())
    }
}

impl Branches {
    /// As [`Segments::check`], and whether every trunk lies before its branches and is nobody's branch.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self, rows: usize, width: usize, kv_width: usize) -> Result<(), String> {
        self.segments.check(rows, width, kv_width)?;
        if self.trunks.len() != self.segments.ranges.len() {
            return Err(format!("{} segments have {} trunks", self.segments.ranges.len(), self.trunks.len()));
        }
        for (at, trunk) in self.trunks.iter().enumerate() {
            if let Some(trunk) = trunk.filter(|trunk| *trunk >= at || self.trunks[*trunk].is_some()) {
                return Err(format!("segment {at} cannot go on after segment {trunk}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel of two stages does with the inner dimension: (elements that it adds up, whether it checks bounds).
    fn two_stages(k: usize) -> (usize, bool) {
        let stages = k.div_ceil(STAGE);
        ((stages + stages % 2) * STAGE, !k.is_multiple_of(STAGE))
    }

    #[test]
    fn no_product_is_given_to_a_kernel_that_would_read_beyond_it() {
        let mut two = 0;
        for (m, n, k) in
            (1..200).flat_map(|m| [1, 8, 31, 32, 48, 64, 333].map(move |n| (m, n))).flat_map(|(m, n)| (0..420).map(move |k| (m, n, k)))
        {
            let chosen = product(m, k, n, 32);
            if chosen == Product::TwoStages {
                let (read, checked) = two_stages(k);
                assert!(read == k || checked, "{m}x{k}x{n} reads {read} without looking");
                two += 1;
            }
            assert!(chosen != Product::OneStage || (k > 0 && k % 32 == 0), "{m}x{k}x{n}");
            assert!(n >= 32 || chosen == Product::OfBurn, "{m}x{k}x{n}");
            assert!(k % 64 != 32 || m <= 64 || chosen == Product::OfBurn, "{m}x{k}x{n}");
            // Stages are as long as planes are wide: what is known of 32 lanes says nothing of others.
            assert!([8, 16, 64].iter().all(|plane| product(m, k, n, *plane) == Product::OfBurn));
        }
        assert!(two > 100_000, "the fast kernel is not lost: {two}");
        for k in [4096, 9728, 12_288, 1152, 2560, 8192, 8191, 8193, 4304] {
            assert_eq!(product(8192, k, 4096, 32), Product::TwoStages, "{k}");
        }
    }

    #[test]
    fn segments_that_are_not_of_the_rows_are_refused() {
        let good = Segments { ranges: vec![0..3, 3..3, 3..8], causal: true, heads: 4, kv_heads: 2 };
        assert_eq!(good.check(8, 32, 16), Ok(()));
        let wrong = |change: &dyn Fn(&mut Segments)| {
            let mut segments = good.clone();
            change(&mut segments);
            segments.check(8, 32, 16).unwrap_err()
        };
        assert!(wrong(&|segments| segments.ranges[2] = 3..9).contains("of 9 rows are not of 8"));
        assert!(wrong(&|segments| segments.ranges[1] = 4..4).contains("segment 1"));
        assert!(wrong(&|segments| segments.ranges[2] = 2..8).contains("segment 2"));
        assert!(wrong(&|segments| segments.kv_heads = 3).contains("cannot share 3"));
        assert!(wrong(&|segments| segments.kv_heads = 0).contains("cannot share 0"));
        assert!(wrong(&|segments| segments.kv_heads = 4).contains("not of 4 and 4"));
        let branches = |trunks: Vec<Option<usize>>| Branches { segments: good.clone(), trunks }.check(8, 32, 16);
        assert_eq!(branches(vec![None, Some(0), Some(0)]), Ok(()));
        for trunks in [vec![None, None], vec![Some(0), None, None], vec![None, Some(2), None], vec![None, Some(0), Some(1)]] {
            assert!(branches(trunks.clone()).is_err(), "{trunks:?}");
        }
    }

    #[test]
    fn indices_and_counts_are_named_where_they_do_not_exist() {
        assert_eq!(tokens(&[0, 9], 10), Ok(()));
        assert!(tokens(&[0, 10], 10).unwrap_err().contains("token 10 at 1"));
        assert!(below("row", [3, 7], 7).unwrap_err().contains("row 7"));
        assert_eq!(below("row", [], 0), Ok(()));
        assert!(experts(&[1, 2], 4, 2).is_err() && experts(&[4], 4, 2).is_err() && experts(&[4, 0], 4, 2).is_ok());
        assert!(countable("a segment's scores", COUNTABLE).is_ok());
        assert!(countable("a segment's scores", COUNTABLE + 1).unwrap_err().contains("scores has 2147483648"));
    }
}
