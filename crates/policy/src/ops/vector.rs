//! Sums, maxima and exponentials of slices, written so that the compiler makes vector code of them wherever they are
//! inlined into a function for a vector instruction set.

/// Independent partial results per pass: one AVX-512 register of floats.
pub const LANES: usize = 16;

/// `sum a[i] * b[i]`.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Largest value.
#[inline(always)]
pub fn highest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    lanes.iter().copied().fold(rest, f32::max)
}

/// Sum.
#[inline(always)]
pub fn total(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// `sum exp((value - top) * scale)`.
#[inline(always)]
pub fn sum_exp(values: &[f32], scale: f32, top: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|value| exp((value - top) * scale)).sum();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += exp((chunk[lane] - top) * scale);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// e^x by range reduction to `|r| <= ln(2)/2` and a polynomial of degree 6; relative error below 3e-7 over the floats
/// whose result is normal, and free of calls so that loops over it vectorise.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number.
    let x = x.clamp(-87.0, 88.0);
    let whole = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let poly = 1.388_888_9e-3f32;
    let poly = poly * r + 8.333_334e-3;
    let poly = poly * r + 4.166_666_6e-2;
    let poly = poly * r + 1.666_666_7e-1;
    let poly = poly * r + 0.5;
    let poly = poly * r + 1.0;
    let poly = poly * r + 1.0;
    poly * f32::from_bits(((whole as i32 + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_holds_its_error_bound_over_the_normal_range() {
        let worst = (-8700..=8800).map(|at| {
            let x = at as f32 / 100.0;
            (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs()
        });
        assert!(worst.fold(0.0, f64::max) < 3e-7);
    }

    #[test]
    fn passes_count_every_element_once() {
        for length in [0, 1, 15, 16, 17, 50] {
            let values: Vec<f32> = (0..length).map(|at| (at * 7 % 11) as f32).collect();
            assert_eq!(total(&values), values.iter().sum::<f32>());
            assert_eq!(dot(&values, &values), values.iter().map(|value| value * value).sum::<f32>());
            assert_eq!(highest(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let want: f32 = values.iter().map(|value| ((value - 10.0) * 0.5).exp()).sum();
            assert!((sum_exp(&values, 0.5, 10.0) - want).abs() < 1e-5);
        }
    }
}
