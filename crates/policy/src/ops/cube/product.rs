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

use crate::ops::guards::{self, Product};

/// What [`guards::product`] chose, as Burn calls it; nothing where the choice is left to Burn, which takes a kernel of one stage.
fn strategy(chosen: Product) -> Option<Strategy> {
    match chosen {
        Product::OneStage => Some(Strategy::SimpleCyclicMma(Inferred(SimpleArgs { multi_rows: false, tile_matmul: Mma }))),
        Product::TwoStages => Some(Strategy::DoubleCyclicMma(Inferred(DoubleBufferingArgs { specialized: false, tile_matmul: Mma }))),
        Product::OfBurn => None,
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
    if m * n == 0 {
        return out;
    }
    let plane = lhs.client.properties().hardware.plane_size_max as usize;
    for (operand, values) in [("left", m * k), ("right", k * n), ("resulting", m * n)] {
        guards::must(guards::countable(format_args!("the {operand} matrix of a product of {m}x{k} with {k}x{n}"), values));
    }
    let launched = strategy(guards::product(m, k, n, plane))
        .map(|strategy| launch_ref(&strategy, &lhs.client, binding(&lhs), binding(&rhs), out.clone().binding(), &mut elements));
    match launched {
        Some(Ok(())) => out,
        // Burn's own choice, also where the device or the precision lacks what the kernel needs.
        refused => {
            if let Some(Err(error)) = refused {
                static ONCE: std::sync::Once = std::sync::Once::new();
                ONCE.call_once(|| tracing::warn!(m, k, n, ?error, "this device has not the kernel of fast products: Burn's own is used"));
            }
            matmul(lhs, rhs, Some(out), MatmulStrategy::default(), burn_dtype).expect("Burn has a kernel for every product")
        }
    }
}
