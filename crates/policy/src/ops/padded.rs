//! Attention as few operations over many segments at once, for backends where starting an operation costs more than doing it.
//!
//! In and out: as [`Kernels`](super::Kernels) says; this is also the definition that fused versions are tested against.
//! Segments of like lengths lie side by side, padded to the longest of them; what stands in the padding is computed and
//! dropped. Scores are held for one such group at a time, so that memory is bounded whatever a batch holds.

use std::ops::Range;

use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor, TensorData};

use super::{Branches, Kernels, Segments, probabilities, probabilities_backward, unwrap, wrap};

/// Scores held at one time, unless one segment alone has more: 256 MiB in f32.
const SCORES: usize = 64 << 20;
/// Scores of padding that cost less than another round of operations.
const FREE_SCORES: usize = 1 << 20;

/// [`Kernels::segment_attention`](super::Kernels::segment_attention).
pub fn segment_attention<B: Kernels>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>, segments: &Segments) -> FloatTensor<B> {
    attention::<B>([q, k, v], &Seen { segments, trunks: &[] })
}

/// [`Kernels::branch_attention`](super::Kernels::branch_attention).
pub fn branch_attention<B: Kernels>(q: FloatTensor<B>, k: FloatTensor<B>, v: FloatTensor<B>, branches: &Branches) -> FloatTensor<B> {
    attention::<B>([q, k, v], &Seen { segments: &branches.segments, trunks: &branches.trunks })
}

fn attention<B: Kernels>([q, k, v]: [FloatTensor<B>; 3], seen: &Seen<'_>) -> FloatTensor<B> {
    let (q, k, v) = (wrap::<B, 2>(q), wrap::<B, 2>(k), wrap::<B, 2>(v));
    let groups = seen.groups();
    let one = |group: &Group| {
        let laid = Laid::of(seen, group, &q);
        laid.merge_queries(laid.probabilities(laid.queries(&q), laid.keys(&k)).matmul(laid.keys(&v)))
    };
    unwrap(in_order(groups.iter().map(one).collect(), &seen.order(&groups)))
}

/// [`Kernels::segment_attention_backward`](super::Kernels::segment_attention_backward).
pub fn segment_attention_backward<B: Kernels>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    segments: &Segments,
    grad: FloatTensor<B>,
) -> [FloatTensor<B>; 3] {
    let (q, k, v, grad) = (wrap::<B, 2>(q), wrap::<B, 2>(k), wrap::<B, 2>(v), wrap::<B, 2>(grad));
    let seen = Seen { segments, trunks: &[] };
    let groups = seen.groups();
    let (mut dqs, mut dks, mut dvs) = (vec![], vec![], vec![]);
    for group in &groups {
        let laid = Laid::of(&seen, group, &q);
        let (q, k, v, dout) = (laid.queries(&q), laid.keys(&k), laid.keys(&v), laid.queries_without_padding(&grad));
        let p = laid.probabilities(q.clone(), k.clone());
        dvs.push(laid.merge_keys(p.clone().transpose().matmul(dout.clone())));
        let ds = probabilities_backward(p, laid.scale(), dout.matmul(v.transpose()));
        dks.push(laid.merge_keys(ds.clone().transpose().matmul(q)));
        dqs.push(laid.merge_queries(ds.matmul(k)));
    }
    let order = seen.order(&groups);
    [dqs, dks, dvs].map(|parts| unwrap(in_order(parts, &order)))
}

/// Groups' padded rows, one after the other, as the rows that they belong to.
fn in_order<B: Kernels>(mut parts: Vec<Tensor<B, 2>>, order: &Option<Vec<i64>>) -> Tensor<B, 2> {
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
                if padded <= SCORES && padded <= 2 * (needed + scores) + FREE_SCORES {
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

/// A group on its device. Query heads that share a key head are rows of one matrix: `s` members, `kv` key heads, `share`
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
    fn of(seen: &Seen<'_>, group: &Group, q: &Tensor<B, 2>) -> Self {
        let Segments { heads, kv_heads, causal, .. } = *seen.segments;
        let (s, l, p, device) = (group.members.len(), group.rows, group.positions, q.device());
        let own: Vec<Vec<usize>> = group.members.iter().map(|at| seen.own(*at).collect()).collect();
        let positions: Vec<Vec<usize>> = group.members.iter().map(|at| seen.trunk(*at).chain(seen.own(*at)).collect()).collect();
        let mut last = Vec::with_capacity(s * l);
        for (own, positions) in own.iter().zip(&positions) {
            let before = positions.len() - own.len();
            last.extend((0..l).map(|row| (before + if causal { row.min(own.len() - 1) } else { own.len() - 1 }) as i64));
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
