//! What a device does with the two operations that a policy is made of, and how far its kernels are from their definitions.
//!
//! In: sizes. Out: seconds of the first run, which compiles kernels, and of each run after it; differences. It judges nothing.

mod kernels;
mod matrix;

use std::time::Instant;

use burn::tensor::{Distribution, Tensor};

pub use self::kernels::kernels;
pub use self::matrix::{Extent, Matrix, Row, Tolerances, matrix};
use crate::Error;
use crate::device::{Device, OnDevice};
use crate::faults;
use crate::ops::{self, Kernels, Segments};

/// Seconds of one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// The first run.
    pub first: f64,
    /// Later runs.
    pub later: Vec<f64>,
    /// Floating-point operations of a run, an addition and a multiplication being two.
    pub flop: f64,
}

/// `[side, side] x [side, side]`, as a projection.
///
/// # Errors
/// [`Error::Input`] when there is no such device.
pub fn product(device: Device, side: usize, repeats: usize) -> Result<Timed, Error> {
    device.run(Product { side, repeats })
}

/// Causal attention of sequences of the same length, without gradients.
///
/// # Errors
/// [`Error::Input`] when there is no such device.
pub fn attention(device: Device, shape: Shape, repeats: usize) -> Result<Timed, Error> {
    device.run(Attention { shape, repeats })
}

/// Sizes of attention.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each.
    pub length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub width: usize,
}

struct Product {
    side: usize,
    repeats: usize,
}

impl OnDevice for Product {
    type Output = Timed;

    fn run<B: Kernels>(self, device: B::Device) -> Timed {
        let side = self.side;
        let [x, weight] = [0, 1].map(|_| Tensor::<B, 2>::random([side, side], Distribution::Normal(0.0, 1.0), &device));
        timed(self.repeats, 2.0 * (side as f64).powi(3), || ops::project(x.clone(), weight.clone()).slice([0..1, 0..1]))
    }
}

struct Attention {
    shape: Shape,
    repeats: usize,
}

impl OnDevice for Attention {
    type Output = Timed;

    fn run<B: Kernels>(self, device: B::Device) -> Timed {
        let Shape { sequences, length, heads, kv_heads, width } = self.shape;
        let segments = Segments::of_lengths(&vec![length; sequences], true, heads, kv_heads);
        let [q, k, v] = [heads, kv_heads, kv_heads]
            .map(|heads| Tensor::<B, 2>::random([sequences * length, heads * width], Distribution::Normal(0.0, 1.0), &device));
        // Half of the scores are hidden from view and not counted.
        let flop = 2.0 * (sequences * heads * length * length * width) as f64;
        timed(self.repeats, flop, || ops::attention(q.clone(), k.clone(), v.clone(), &segments).slice([0..1, 0..1]))
    }
}

/// A run ends when a value of its result is on the host.
fn timed<B: Kernels>(repeats: usize, flop: f64, work: impl Fn() -> Tensor<B, 2>) -> Timed {
    let once = || {
        let began = Instant::now();
        assert_eq!(faults::floats_or_panic(work()).len(), 1);
        began.elapsed().as_secs_f64()
    };
    Timed { first: once(), later: (0..repeats.max(1)).map(|_| once()).collect(), flop }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_is_timed() {
        let timed = product(Device::Cpu, 8, 2).unwrap();
        assert_eq!((timed.later.len(), timed.flop), (2, 1024.0));
        let shape = Shape { sequences: 2, length: 4, heads: 2, kv_heads: 1, width: 4 };
        assert!(attention(Device::Cpu, shape, 3).unwrap().later.iter().all(|seconds| *seconds > 0.0));
    }
}
