//! Attention as few operations over many segments at once, for backends where starting an operation costs more than doing it.
//!
//! In and out: as [`Kernels`] says; this is also the definition that fused versions are tested against.
//! Segments of like lengths lie side by side, padded to the longest of them; what stands in the padding is computed and
//! dropped. Scores are held for one such group at a time, and for some rows of a segment that has too many for itself, so that
//! memory is bounded whatever a batch holds.

use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData};

use super::{Branches, Kernels, Segments, probabilities, probabilities_backward, unwrap, wrap};

/// Scores held at one time, unless a single row has more: 256 MiB in f32.
const SCORES: usize = 64 << 20;
/// Scores of padding that cost less than another round of operations.
const FREE_SCORES: usize = 1 << 20;

/// [`Kernels::segment_attention`].
pub fn segment_attention<B: Kernels>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>, segments: &Segments) -> FloatTensor<B> {
    attention::<B>([q, k, v], &Seen { segments, trunks: &[], most: SCORES })
}

/// [`Kernels::branch_attention`].
pub fn branch_attention<B: Kernels>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>, branches: &Branches) -> FloatTensor<B> {
    attention::<B>([q, k, v], &Seen { segments: &branches.segments, trunks: &branches.trunks, most: SCORES })
}

fn attention<B: Kernels>([q, k, v]: [FloatTensor<B>; 3], seen: &Seen<'_>) -> FloatTensor<B> {
    let (q, k, v) = (wrap::<B, 2>(q), wrap::<B, 2>(k), wrap::<B, 2>(v));
    let groups = seen.groups();
    let one = |(group, part): (&Group, Range<usize>)| {
        let laid = Laid::of(seen, group, part, &q);
        laid.merge_queries(laid.probabilities(laid.queries(&q), laid.keys(&k)).matmul(laid.keys(&v)))
    };
    let parts = groups.iter().flat_map(|group| seen.parts(group).map(move |part| (group, part)));
    unwrap(in_order(parts.map(one).collect(), &seen.order(&groups), &q))
}

/// [`Kernels::segment_attention_backward`].
pub fn segment_attention_backward<B: Kernels>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    segments: &Segments,
    grad: FloatTensor<B>,
) -> [FloatTensor<B>; 3] {
    backward::<B>([q, k, v, grad], &Seen { segments, trunks: &[], most: SCORES })
}

/// Of segments that nobody has for a trunk.
fn backward<B: Kernels>(of: [FloatTensor<B>; 4], seen: &Seen<'_>) -> [FloatTensor<B>; 3] {
    let [all_q, all_k, all_v, all_grad] = of.map(wrap::<B, 2>);
    let groups = seen.groups();
    let (mut dqs, mut dks, mut dvs) = (vec![], vec![], vec![]);
    for group in &groups {
        let mut of_keys: Option<[Tensor<B, 2>; 2]> = None;
        // The last part first: it sees all positions, and the others add to what it leaves.
        let mut of_queries: Vec<Tensor<B, 2>> = vec![];
        for part in seen.parts(group).rev() {
            let laid = Laid::of(seen, group, part, &all_q);
            let (q, k, v, dout) = (laid.queries(&all_q), laid.keys(&all_k), laid.keys(&all_v), laid.queries_without_padding(&all_grad));
            let p = laid.probabilities(q.clone(), k.clone());
            let dv = laid.merge_keys(p.clone().transpose().matmul(dout.clone()));
            let ds = probabilities_backward(p, laid.scale(), dout.matmul(v.transpose()));
            let dk = laid.merge_keys(ds.clone().transpose().matmul(q));
            of_queries.push(laid.merge_queries(ds.matmul(k)));
            of_keys = Some(match of_keys {
                Some([dks, dvs]) => [add_to_first(dks, dk), add_to_first(dvs, dv)],
                None => [dk, dv],
            });
        }
        dqs.extend(of_queries.into_iter().rev());
        if let Some([dk, dv]) = of_keys {
            dks.push(dk);
            dvs.push(dv);
        }
    }
    let order = seen.order(&groups);
    [unwrap(in_order(dqs, &order, &all_q)), unwrap(in_order(dks, &order, &all_k)), unwrap(in_order(dvs, &order, &all_v))]
}

/// `sum`, `more` added to its first rows.
fn add_to_first<B: Kernels>(sum: Tensor<B, 2>, more: Tensor<B, 2>) -> Tensor<B, 2> {
    let (all, rows) = (sum.dims()[0], more.dims()[0]);
    if rows == all {
        return sum + more;
    }
    let first = sum.clone().narrow(0, 0, rows) + more;
    Tensor::cat(vec![first, sum.narrow(0, rows, all - rows)], 0)
}

/// Groups' padded rows, one after the other, as the rows that they belong to; as wide as `like`.
fn in_order<B: Kernels>(mut parts: Vec<Tensor<B, 2>>, order: &Option<Vec<i64>>, like: &Tensor<B, 2>) -> Tensor<B, 2> {
    if parts.is_empty() {
        return like.clone();
    }
    let whole = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 0) };
    let Some(order) = order else { return whole };
    let index = Tensor::from_data(TensorData::new(order.clone(), [order.len()]), &whole.device());
    whole.select(0, index)
}

/// Segments, and for each the trunk that its rows see before their own.
struct Seen<'a> {
    segments: &'a Segments,
    /// Empty where nobody has one.
    trunks: &'a [Option<usize>],
    /// Scores held at one time.
    most: usize,
}

/// Segments that attend together.
struct Group {
    members: Vec<usize>,
    /// Rows of the longest.
    rows: usize,
    /// Positions that a row sees, of the one that sees most.
    positions: usize,
}

impl Seen<'_> {
    fn own(&self, segment: usize) -> Range<usize> {
        self.segments.ranges[segment].clone()
    }

    fn trunk(&self, segment: usize) -> Range<usize> {
        self.trunks.get(segment).copied().flatten().map_or(0..0, |trunk| self.own(trunk))
    }

    /// Longest first, and of equals in order, so that a batch of equal lengths stays as it is.
    fn groups(&self) -> Vec<Group> {
        let size = |at: usize| (self.own(at).len(), self.trunk(at).len() + self.own(at).len());
        let mut segments: Vec<usize> = (0..self.segments.ranges.len()).filter(|at| !self.own(*at).is_empty()).collect();
        segments.sort_by_key(|at| std::cmp::Reverse(size(*at)));
        let (mut groups, mut needed): (Vec<Group>, usize) = (vec![], 0);
        for segment in segments {
            let (rows, positions) = size(segment);
            let scores = rows * positions * self.segments.heads;
            if let Some(group) = groups.last_mut() {
                let (longest, widest) = (group.rows.max(rows), group.positions.max(positions));
                let padded = longest * widest * self.segments.heads * (group.members.len() + 1);
                if padded <= self.most && padded <= 2 * (needed + scores) + FREE_SCORES {
                    (group.rows, group.positions) = (longest, widest);
                    group.members.push(segment);
                    needed += scores;
                    continue;
                }
            }
            groups.push(Group { members: vec![segment], rows, positions });
            needed = scores;
        }
        groups
    }

    /// The rows of a group that attend together, of each of its segments: all, unless one segment alone has too many scores.
    fn parts(&self, group: &Group) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
        let of_row = group.members.len() * group.positions * self.segments.heads;
        let (rows, most) = (group.rows, if group.members.len() == 1 { (self.most / of_row.max(1)).max(1) } else { group.rows.max(1) });
        (0..rows.div_ceil(most)).map(move |part| part * most..rows.min((part + 1) * most))
    }

    /// Where each row is among the padded rows of the groups; nothing where it is in its own place.
    fn order(&self, groups: &[Group]) -> Option<Vec<i64>> {
        let mut order = vec![0; self.segments.rows()];
        let mut start = 0;
        for group in groups {
            for segment in &group.members {
                order[self.own(*segment)].iter_mut().zip(start..).for_each(|(place, at)| *place = at);
                start += group.rows as i64;
            }
        }
        (!order.iter().copied().eq(0..start)).then_some(order)
    }
}

/// Where padded rows come from.
enum Source<B: Kernels> {
    /// Neighbours without padding, from this row on.
    Run(usize),
    /// One by one. Padding repeats a row; `kept` \[padded rows, 1\] is 0 there and 1 elsewhere.
    Picked { index: Tensor<B, 1, Int>, kept: Tensor<B, 2> },
}

impl<B: Kernels> Source<B> {
    /// Lists of rows one after the other, each filled up to `rows`.
    fn of(lists: &[Vec<usize>], rows: usize, like: &Tensor<B, 2>) -> Self {
        let whole = lists.concat();
        if whole.len() == lists.len() * rows && whole.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
            return Self::Run(whole[0]);
        }
        let padded = lists.len() * rows;
        let places = || lists.iter().flat_map(|list| (0..rows).map(move |at| (list, at)));
        let index: Vec<i64> = places().map(|(list, at)| list[at.min(list.len() - 1)] as i64).collect();
        let kept: Vec<f32> = places().map(|(list, at)| f32::from(u8::from(at < list.len()))).collect();
        let options = (&like.device(), like.dtype());
        Self::Picked {
            index: Tensor::from_data(TensorData::new(index, [padded]), &like.device()),
            kept: Tensor::from_data(TensorData::new(kept, [padded, 1]), options),
        }
    }

    fn take(&self, x: &Tensor<B, 2>, count: usize) -> Tensor<B, 2> {
        match self {
            Self::Run(start) => x.clone().narrow(0, *start, count),
            Self::Picked { index, .. } => x.clone().select(0, index.clone()),
        }
    }
}

/// A group's part on its device. Query heads that share a key head are rows of one matrix: `s` members, `kv` key heads, `share`
/// query heads to each, `l` padded rows, `p` padded positions, `e` the width of a head.
struct Laid<B: Kernels> {
    s: usize,
    kv: usize,
    share: usize,
    l: usize,
    p: usize,
    e: usize,
    rows: Source<B>,
    positions: Source<B>,
    /// The last position that each row sees, \[s, l\].
    last: Tensor<B, 2, Int>,
}

impl<B: Kernels> Laid<B> {
    fn of(seen: &Seen<'_>, group: &Group, part: Range<usize>, q: &Tensor<B, 2>) -> Self {
        let Segments { heads, kv_heads, causal, .. } = *seen.segments;
        let (s, l, device) = (group.members.len(), part.len(), q.device());
        // What the rows of a part do not see need not be there: a part is of one segment, or whole.
        let unseen = if causal { group.rows - part.end } else { 0 };
        let p = group.positions - unseen;
        let own: Vec<Vec<usize>> = group.members.iter().map(|at| seen.own(*at).skip(part.start).take(l).collect()).collect();
        let seen_by = |at: usize| seen.trunk(at).len() + seen.own(at).len() - unseen;
        let positions: Vec<Vec<usize>> =
            group.members.iter().map(|at| seen.trunk(*at).chain(seen.own(*at)).take(seen_by(*at)).collect()).collect();
        let mut last = Vec::with_capacity(s * l);
        for (at, positions) in group.members.iter().zip(&positions) {
            let before = seen.trunk(*at).len();
            let of_row = |row: usize| if causal { before + (part.start + row).min(seen.own(*at).len() - 1) } else { positions.len() - 1 };
            last.extend((0..l).map(|row| of_row(row) as i64));
        }
        Self {
            rows: Source::of(&own, l, q),
            positions: Source::of(&positions, p, q),
            last: Tensor::<B, 1, Int>::from_data(TensorData::new(last, [s * l]), &device).reshape([s, l]),
            share: heads / kv_heads,
            kv: kv_heads,
            e: q.dims()[1] / heads,
            s,
            l,
            p,
        }
    }

    fn scale(&self) -> f64 {
        (self.e as f64).powf(-0.5)
    }

    /// \[n, h * e\] to \[s, kv, share * l, e\].
    fn queries(&self, x: &Tensor<B, 2>) -> Tensor<B, 4> {
        self.split_queries(self.rows.take(x, self.s * self.l))
    }

    /// As [`Laid::queries`], 0 in the padding.
    fn queries_without_padding(&self, x: &Tensor<B, 2>) -> Tensor<B, 4> {
        let x = self.rows.take(x, self.s * self.l);
        self.split_queries(match &self.rows {
            Source::Run(_) => x,
            Source::Picked { kept, .. } => x * kept.clone(),
        })
    }

    fn split_queries(&self, x: Tensor<B, 2>) -> Tensor<B, 4> {
        let Self { s, kv, share, l, e, .. } = *self;
        x.reshape([s, l, kv, share, e]).permute([0, 2, 3, 1, 4]).reshape([s, kv, share * l, e])
    }

    /// \[n, kv * e\] to \[s, kv, p, e\].
    fn keys(&self, x: &Tensor<B, 2>) -> Tensor<B, 4> {
        let Self { s, kv, p, e, .. } = *self;
        self.positions.take(x, s * p).reshape([s, p, kv, e]).swap_dims(1, 2)
    }

    /// The inverse of [`Laid::queries`], padding and all: \[s * l, h * e\].
    fn merge_queries(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let Self { s, kv, share, l, e, .. } = *self;
        x.reshape([s, kv, share, l, e]).permute([0, 3, 1, 2, 4]).reshape([s * l, kv * share * e])
    }

    /// The inverse of [`Laid::keys`], padding and all: \[s * p, kv * e\].
    fn merge_keys(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let Self { s, kv, p, e, .. } = *self;
        x.swap_dims(1, 2).reshape([s * p, kv * e])
    }

    /// \[s, kv, share * l, p\].
    fn probabilities(&self, q: Tensor<B, 4>, k: Tensor<B, 4>) -> Tensor<B, 4> {
        probabilities(q.matmul(k.transpose()), self.last.clone(), self.scale())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::backend::Cpu;

    fn values(x: FloatTensor<Cpu>) -> Vec<f32> {
        wrap::<Cpu, 2>(x).into_data().into_vec::<f32>().expect("floats")
    }

    #[track_caller]
    fn close(got: FloatTensor<Cpu>, want: FloatTensor<Cpu>, what: &str) {
        let (got, want) = (values(got), values(want));
        assert_eq!(got.len(), want.len(), "{what}");
        let far = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max);
        assert!(far < 2e-5, "{what}: {far}");
    }

    #[test]
    fn what_is_cut_into_parts_is_what_it_is_in_one_piece() {
        const E: usize = 6;
        for (heads, kv_heads, causal) in [(4, 2, true), (2, 1, false), (3, 3, true)] {
            let lengths = [17, 0, 4, 33, 1, 17];
            let segments = std::sync::Arc::unwrap_or_clone(Segments::of_lengths(&lengths, causal, heads, kv_heads));
            let random = |heads: usize| {
                let shape = [segments.rows(), heads * E];
                unwrap(Tensor::<Cpu, 2>::random(shape, Distribution::Normal(0.0, 1.0), &Default::default()))
            };
            let (q, k, v, grad) = (random(heads), random(kv_heads), random(kv_heads), random(heads));
            let trunks = [None, None, Some(0), Some(0), None, Some(4)];
            let seen = |most, trunks| Seen { segments: &segments, trunks, most };
            // One row at a time; a few, so that the last part is shorter; all of some segments and parts of others.
            for most in [1, 33 * heads * 5, 20 * 20 * heads] {
                let cut = seen(most, &trunks);
                assert!(cut.groups().iter().any(|group| cut.parts(group).count() > 1), "{most}");
                let what = format!("{heads}/{kv_heads} heads, at most {most}");
                let whole = attention::<Cpu>([q.clone(), k.clone(), v.clone()], &seen(SCORES, &trunks));
                close(attention::<Cpu>([q.clone(), k.clone(), v.clone()], &cut), whole, &what);
                let of = || [q.clone(), k.clone(), v.clone(), grad.clone()];
                for (got, want) in backward::<Cpu>(of(), &seen(most, &[])).into_iter().zip(backward::<Cpu>(of(), &seen(SCORES, &[]))) {
                    close(got, want, &what);
                }
            }
        }
    }

    #[test]
    fn no_part_holds_more_scores_than_are_counted() {
        // 12,000 tokens of 32 heads have more scores than 32 bits count.
        let segments = Segments::of_lengths(&[12_000, 300, 300], true, 32, 8);
        let seen = Seen { segments: &segments, trunks: &[], most: SCORES };
        for group in seen.groups() {
            let parts: Vec<_> = seen.parts(&group).collect();
            assert!(parts.iter().all(|part| group.members.len() * part.len() * group.positions * 32 <= SCORES));
            assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), group.rows);
            assert!(group.rows < 12_000 || parts.len() > 60);
        }
        let nothing = Segments::of_lengths(&[0, 0], true, 2, 1);
        let none = || unwrap(Tensor::<Cpu, 2>::zeros([0, 8], &Default::default()));
        let kv = || unwrap(Tensor::<Cpu, 2>::zeros([0, 4], &Default::default()));
        assert!(values(segment_attention::<Cpu>(none(), kv(), kv(), &nothing)).is_empty());
    }
}
