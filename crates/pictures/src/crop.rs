//! An area of a picture, as the environment cuts it (docs/spec.md#crops). In: ratios as the policy wrote them, anything at all;
//! out: the crop, or nothing when the area has no inside. Knows no registry.

use hypereyes_domain::Area;
use image::{RgbImage, imageops};

use crate::resize::{Filter, resize};

/// A crop whose longer side exceeds this is scaled down to it.
pub const MAX_SIDE: u32 = 1000;

/// Cuts `area`: edges truncate toward zero, are clamped to the picture, and must enclose at least one pixel. Crops
/// longer than [`MAX_SIDE`] are scaled down, both sides truncated (at least 1 pixel).
pub fn crop(picture: &RgbImage, area: &Area) -> Option<RgbImage> {
    let (x1, y1, x2, y2) = pixel_box(picture.dimensions(), area)?;
    let cut = imageops::crop_imm(picture, x1, y1, x2 - x1, y2 - y1).to_image();
    let longer = cut.width().max(cut.height());
    if longer <= MAX_SIDE {
        return Some(cut);
    }
    let ratio = f64::from(MAX_SIDE) / f64::from(longer);
    let scaled = |side: u32| ((f64::from(side) * ratio) as u32).max(1);
    Some(resize(&cut, scaled(cut.width()), scaled(cut.height()), Filter::Lanczos))
}

/// Pixel edges `(x1, y1, x2, y2)` of an area; `None` when nothing is inside.
fn pixel_box((width, height): (u32, u32), area: &Area) -> Option<(u32, u32, u32, u32)> {
    // A cast truncates toward zero and saturates; a NaN becomes 0 and so an empty box.
    let edge = |ratio: f64, side: u32| (ratio * f64::from(side)) as i64;
    let low = |ratio: f64, side: u32| edge(ratio, side).max(0);
    let high = |ratio: f64, side: u32| edge(ratio, side).min(i64::from(side));
    let (x1, y1) = (low(area.x1, width), low(area.y1, height));
    let (x2, y2) = (high(area.x2, width), high(area.y2, height));
    if x2 <= x1 || y2 <= y1 {
        return None;
    }
    let inside = |value: i64| u32::try_from(value).expect("0 <= low < high <= side");
    Some((inside(x1), inside(y1), inside(x2), inside(y2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn any_numbers_give_a_crop_or_nothing() {
        let picture = RgbImage::new(10, 10);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, 0.0, 0.5] {
            let _ = crop(&picture, &Area::from([value, 0.0, 1.0, value]));
            let _ = crop(&picture, &Area::from([0.0, value, value, 1.0]));
        }
        assert!(crop(&RgbImage::new(0, 0), &Area::WHOLE).is_none());
    }

    #[test]
    fn the_crop_shows_the_named_pixels() {
        let picture = RgbImage::from_fn(10, 10, |x, y| Rgb([x as u8, y as u8, 0]));
        let cut = crop(&picture, &Area::from([0.3, 0.5, 0.6, 1.0])).expect("has an inside");
        assert_eq!((cut.get_pixel(0, 0).0, cut.get_pixel(2, 4).0), ([3, 5, 0], [5, 9, 0]));
    }

    #[test]
    fn a_sliver_longer_than_the_limit_keeps_a_pixel() {
        let cut = crop(&RgbImage::new(3000, 1), &Area::WHOLE).expect("has an inside");
        assert_eq!(cut.dimensions(), (1000, 1));
    }
}
