//! Attention of single rows over a cache, read where it lies.
//!
//! In: one query row, and which positions of which slot it sees. Out: its attention. A cube (block) takes one query head of one
//! row; its planes (warps) share the positions out, each with a running softmax (Milakov & Gimelshein 2018), and put what they
//! have together at the end. Computed in f32.

use burn_cubecl::cubecl::prelude::*;

/// Planes of a cube.
pub const PLANES: u32 = 8;

/// `q` \[rows, heads * e\], `keys` and `values` \[slots, capacity, heads / share * e\], `places` (slot, last position) per row.
/// `lanes` is the width of a plane.
#[cube(launch)]
pub fn attend<F: Float, I: Int>(
    q: &Array<F>,
    keys: &Array<F>,
    values: &Array<F>,
    places: &Array<I>,
    out: &mut Array<F>,
    rows: usize,
    heads: usize,
    share: usize,
    capacity: usize,
    scale: f32,
    #[comptime] e: usize,
    #[comptime] lanes: usize,
    #[define(F, I)] _dtypes: [StorageType; 2],
) {
    let (row, head) = (CUBE_POS / heads, CUBE_POS % heads);
    if row >= rows {
        terminate!();
    }
    let parts = comptime!(e.div_ceil(lanes));
    let planes = comptime!(PLANES as usize);
    let (lane, plane) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let last = usize::cast_from(places[row * 2 + 1]);
    let width = heads / share * e;
    let base = usize::cast_from(places[row * 2]) * capacity * width + head / share * e;
    let mut query = Array::<f32>::new(parts);
    let mut sums = Array::<f32>::new(parts);
    #[unroll]
    for part in 0..parts {
        query[part] = 0.0f32;
        sums[part] = 0.0f32;
        if part * lanes + lane < e {
            query[part] = f32::cast_from(q[row * heads * e + head * e + part * lanes + lane]) * scale;
        }
    }
    // Below every score, and a number: the difference of two infinities is none.
    let mut top = f32::new(-1.0e30);
    let mut total = 0.0f32;
    let mut at = plane;
    while at <= last {
        let from = base + at * width + lane;
        let mut dot = 0.0f32;
        #[unroll]
        for part in 0..parts {
            if part * lanes + lane < e {
                dot += query[part] * f32::cast_from(keys[from + part * lanes]);
            }
        }
        let score = plane_sum(dot);
        let higher = max(top, score);
        let (keep, weight) = ((top - higher).exp(), (score - higher).exp());
        total = total * keep + weight;
        #[unroll]
        for part in 0..parts {
            if part * lanes + lane < e {
                sums[part] = sums[part] * keep + weight * f32::cast_from(values[from + part * lanes]);
            }
        }
        top = higher;
        at += planes;
    }
    let mut tops = SharedMemory::<f32>::new(planes);
    let mut totals = SharedMemory::<f32>::new(planes);
    let mut shared = SharedMemory::<f32>::new(comptime!(PLANES as usize * e));
    if lane == 0 {
        tops[plane] = top;
        totals[plane] = total;
    }
    #[unroll]
    for part in 0..parts {
        if part * lanes + lane < e {
            shared[plane * e + part * lanes + lane] = sums[part];
        }
    }
    sync_cube();
    if plane == 0 {
        let mut highest = tops[0];
        #[unroll]
        for other in 1..planes {
            highest = max(highest, tops[other]);
        }
        let mut whole = 0.0f32;
        #[unroll]
        for other in 0..planes {
            whole += totals[other] * (tops[other] - highest).exp();
        }
        #[unroll]
        for part in 0..parts {
            if part * lanes + lane < e {
                let mut sum = 0.0f32;
                #[unroll]
                for other in 0..planes {
                    sum += shared[other * e + part * lanes + lane] * (tops[other] - highest).exp();
                }
                out[row * heads * e + head * e + part * lanes + lane] = F::cast_from(sum / whole);
            }
        }
    }
}
