//! Separable resampling of 8-bit pictures with antialiasing: columns first, then rows, rounded to bytes in between, the
//! way the reference image processors do it (that is why it is here: other roundings differ in the last bit).
//! In: a picture and a size; out: a picture. Knows nothing of why.

use image::RgbImage;

/// The kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
    /// Windowed sinc with three lobes.
    Lanczos,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, at: f64) -> f64 {
        let x = at.abs();
        match self {
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * std::f64::consts::PI;
    angle.sin() / angle
}

/// Fixed-point weights are 16-bit numbers, as in the reference's vectorised resampler: coarser than need be, but bit for
/// bit the same.
const WEIGHT_LIMIT: f64 = 32768.0;
/// Most bits behind the point: bytes and the overshoot of negative lobes fit into 32 bits beside them.
const MAX_PRECISION: u32 = 22;

/// How one axis is resampled.
struct Axis {
    /// Bits behind the point of the weights.
    precision: u32,
    /// One per output pixel.
    taps: Vec<Taps>,
}

/// Source pixels of one output pixel.
struct Taps {
    start: usize,
    weights: Vec<i32>,
}

/// Resamples to `width` x `height` (each at least 1). The same size gives the picture back unchanged.
pub fn resize(picture: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let (width, height) = (width.max(1), height.max(1));
    let (old_width, old_height) = picture.dimensions();
    if old_width == 0 || old_height == 0 {
        return RgbImage::new(width, height);
    }
    let wide = if width == old_width { picture.clone() } else { columns(picture, width, filter) };
    if height == old_height { wide } else { rows(&wide, height, filter) }
}

fn columns(picture: &RgbImage, width: u32, filter: Filter) -> RgbImage {
    let Axis { precision, taps } = axis(picture.width(), width, filter);
    let mut out = RgbImage::new(width, picture.height());
    let (old_row, new_row) = (picture.width() as usize * 3, width as usize * 3);
    for (from, to) in picture.as_raw().chunks_exact(old_row).zip(out.chunks_exact_mut(new_row)) {
        for (tap, pixel) in taps.iter().zip(to.chunks_exact_mut(3)) {
            let mut sums = [1_i32 << (precision - 1); 3];
            for (weight, source) in tap.weights.iter().zip(from[tap.start * 3..].chunks_exact(3)) {
                for (sum, value) in sums.iter_mut().zip(source) {
                    *sum += weight * i32::from(*value);
                }
            }
            for (value, sum) in pixel.iter_mut().zip(sums) {
                *value = to_byte(sum, precision);
            }
        }
    }
    out
}

fn rows(picture: &RgbImage, height: u32, filter: Filter) -> RgbImage {
    let Axis { precision, taps } = axis(picture.height(), height, filter);
    let row = picture.width() as usize * 3;
    let mut out = RgbImage::new(picture.width(), height);
    let mut sums = vec![0_i32; row];
    for (tap, to) in taps.iter().zip(out.chunks_exact_mut(row)) {
        sums.fill(1 << (precision - 1));
        for (weight, from) in tap.weights.iter().zip(picture.as_raw()[tap.start * row..].chunks_exact(row)) {
            for (sum, value) in sums.iter_mut().zip(from) {
                *sum += weight * i32::from(*value);
            }
        }
        for (value, sum) in to.iter_mut().zip(&sums) {
            *value = to_byte(*sum, precision);
        }
    }
    out
}

fn to_byte(sum: i32, precision: u32) -> u8 {
    (sum >> precision).clamp(0, 255) as u8
}

fn axis(old: u32, new: u32, filter: Filter) -> Axis {
    let scale = f64::from(old) / f64::from(new);
    // Shrinking widens the kernel: that is the antialiasing.
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let exact: Vec<(usize, Vec<f64>)> = (0..new)
        .map(|index| {
            let centre = (f64::from(index) + 0.5) * scale;
            let start = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(old as usize);
            let raw: Vec<f64> = (start..end).map(|at| filter.weight((at as f64 - centre + 0.5) / stretch)).collect();
            let total: f64 = raw.iter().sum();
            (start, raw.iter().map(|weight| weight / total).collect())
        })
        .collect();
    // As many bits as the largest weight leaves room for.
    let largest = exact.iter().flat_map(|(_, weights)| weights).fold(0.0, |largest: f64, weight| largest.max(*weight));
    let fits = |bits: &u32| (0.5 + largest * f64::from(1_u32 << bits)).floor() < WEIGHT_LIMIT;
    let precision = (1..=MAX_PRECISION).take_while(fits).last().unwrap_or(1);
    let one = f64::from(1_u32 << precision);
    let taps = exact
        .into_iter()
        .map(|(start, weights)| Taps { start, weights: weights.iter().map(|weight| (weight * one).round() as i32).collect() })
        .collect();
    Axis { precision, taps }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn one_colour_stays_that_colour_at_any_size() {
        let picture = RgbImage::from_pixel(13, 7, Rgb([200, 3, 77]));
        for (width, height) in [(1, 1), (5, 29), (40, 2), (13, 7)] {
            for filter in [Filter::Bicubic, Filter::Lanczos] {
                let out = resize(&picture, width, height, filter);
                assert_eq!(out.dimensions(), (width, height));
                assert!(out.pixels().all(|pixel| *pixel == Rgb([200, 3, 77])));
            }
        }
    }

    #[test]
    fn halving_averages_and_keeps_edges_in_place() {
        let picture = RgbImage::from_fn(16, 4, |x, _| if x < 8 { Rgb([0; 3]) } else { Rgb([240; 3]) });
        let half = resize(&picture, 8, 2, Filter::Bicubic);
        assert_eq!(half.get_pixel(0, 0).0, [0; 3]);
        assert_eq!(half.get_pixel(7, 1).0, [240; 3]);
        assert!(half.get_pixel(3, 0).0[0] < 60 && half.get_pixel(4, 0).0[0] > 180);
    }
}
