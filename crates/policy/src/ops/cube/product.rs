//! Matrix products: Burn's kernels, chosen by shape.
//!
//! In: two matrices of any strides. Out: their product. Without autotuning, which costs minutes of compiling and makes runs
//! differ, Burn takes one kernel for everything; on an H100 in bf16 that one is 1.4 to 1.7 times slower than these for weights
//! times rows, and 3.7 times for gradients to weights (figures in `docs/gpu.md`). What a device or a precision lacks falls back to
//! Burn's choice.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::matmul::{MatmulStrategy, init_matmul_output, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::components::tile::TileMatmulKind::Mma;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::matmul::routines::BlueprintStrategy::Inferred;
use cubek::matmul::routines::double_buffering::DoubleBufferingArgs;
use cubek::matmul::routines::simple::SimpleArgs;
use cubek::std::InputBinding;

/// Rows up to which one stage of a tile is all there is to load.
const FEW_ROWS: usize = 64;

/// Which kernel multiplies \[m, k\] with \[k, n\]; none of these for narrow results and, with few rows, for a `k` that ends within
/// a stage: the fixture with experts (`n` = 8, `k` = 48) came out wrong with them on an H100.
fn choice(m: usize, k: usize, n: usize) -> Option<Strategy> {
    match m {
        _ if n < 32 => None,
        0..=FEW_ROWS if k % 32 == 0 => Some(Strategy::SimpleCyclicMma(Inferred(SimpleArgs { multi_rows: false, tile_matmul: Mma }))),
        0..=FEW_ROWS => None,
        _ => Some(Strategy::DoubleCyclicMma(Inferred(DoubleBufferingArgs { specialized: false, tile_matmul: Mma }))),
    }
}

/// `lhs` \[m, k\] times `rhs` \[k, n\], in the precision of `lhs`.
pub(super) fn product<R: CubeRuntime>(lhs: CubeTensor<R>, rhs: CubeTensor<R>) -> CubeTensor<R> {
    let out = init_matmul_output(&lhs, &rhs, lhs.dtype);
    let ([m, k], n) = ([lhs.meta.shape()[0], lhs.meta.shape()[1]], rhs.meta.shape()[1]);
    let burn_dtype = lhs.dtype;
    let dtype = burn_dtype.into();
    let mut elements = MatmulElems::from_globals(&MatmulGlobalElems { lhs: dtype, rhs: dtype, out: dtype });
    let binding = |x: &CubeTensor<R>| InputBinding::new(x.clone().binding(), dtype);
    let launched = choice(m, k, n)
        .map(|strategy| launch_ref(&strategy, &lhs.client, binding(&lhs), binding(&rhs), out.clone().binding(), &mut elements));
    match launched {
        Some(Ok(())) => out,
        // Burn's own choice, also where the device or the precision lacks what the kernel needs.
        _ => matmul(lhs, rhs, Some(out), MatmulStrategy::default(), burn_dtype).expect("Burn has a kernel for every product"),
    }
}
