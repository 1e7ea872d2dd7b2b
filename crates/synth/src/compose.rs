//! Mosaics: several pictures on one canvas, every edge of every box on the 0.05 grid.
//!
//! In: pictures, a level, a random source. Out: the canvas and one box per picture, in order. It knows no entity.
//!
//! Box edges lie on the grid because a policy names them with two digits, and because a small one can then name each edge
//! with one token.

use hypereyes_domain::Area;
use hypereyes_pictures::{Filter, RgbImage, resize};
use image::imageops;
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Grid steps per side of a canvas.
pub const GRID: u8 = 20;
/// Fewest pictures of a mosaic.
pub const MIN_PICTURES: usize = 2;
/// Most pictures of a mosaic.
pub const MAX_PICTURES: usize = 6;

/// How hard it is to see where the pictures are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Tiles fill the canvas, as in the paper; a small policy learns to find them in minutes.
    #[default]
    Stitched,
    /// Tiles lie apart on noise.
    Scattered,
}

/// A canvas and where its pictures are.
#[derive(Clone, Debug)]
pub struct Mosaic {
    /// The canvas.
    pub image: RgbImage,
    /// One box per picture, edges on the grid.
    pub areas: Vec<Area>,
}

/// A box in grid steps: left, top, right, bottom.
pub type Tile = [u8; 4];

/// Tilings for each number of pictures, in reading order. No side is below 0.3, where a tile would be seen by one or two
/// visual tokens only.
const LAYOUTS: [&[Tile]; 13] = [
    // Two: side by side, stacked.
    &[[0, 0, 10, 20], [10, 0, 20, 20]],
    &[[0, 0, 20, 10], [0, 10, 20, 20]],
    // Three: columns, rows, one over two, two over one.
    &[[0, 0, 7, 20], [7, 0, 13, 20], [13, 0, 20, 20]],
    &[[0, 0, 20, 7], [0, 7, 20, 13], [0, 13, 20, 20]],
    &[[0, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]],
    &[[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 20, 20]],
    // Four: a square, one over three, a column beside three rows.
    &[[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]],
    &[[0, 0, 20, 10], [0, 10, 7, 20], [7, 10, 13, 20], [13, 10, 20, 20]],
    &[[0, 0, 12, 20], [12, 0, 20, 7], [12, 7, 20, 13], [12, 13, 20, 20]],
    // Five: two over three, three over two.
    &[[0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 7, 20], [7, 10, 13, 20], [13, 10, 20, 20]],
    &[[0, 0, 7, 10], [7, 0, 13, 10], [13, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]],
    // Six: three by two, two by three.
    &[[0, 0, 7, 10], [7, 0, 13, 10], [13, 0, 20, 10], [0, 10, 7, 20], [7, 10, 13, 20], [13, 10, 20, 20]],
    &[[0, 0, 10, 7], [10, 0, 20, 7], [0, 7, 10, 13], [10, 7, 20, 13], [0, 13, 10, 20], [10, 13, 20, 20]],
];

/// The layout templates for `count` pictures; empty for a count outside 2..=6.
pub fn layouts(count: usize) -> impl Iterator<Item = &'static [Tile]> {
    LAYOUTS.into_iter().filter(move |layout| layout.len() == count)
}

/// Puts pictures on a canvas of `size` (width, height in pixels). `None` when there is no layout for so many.
pub fn compose(pictures: &[RgbImage], level: Level, size: (u32, u32), random: &mut impl Rng) -> Option<Mosaic> {
    let (tiles, mut canvas) = match level {
        Level::Stitched => {
            let fitting: Vec<&[Tile]> = layouts(pictures.len()).collect();
            let chosen = fitting.get(random.random_range(0..fitting.len().max(1)))?;
            (chosen.to_vec(), RgbImage::new(size.0, size.1))
        }
        Level::Scattered => (scatter(pictures.len(), random)?, noise(size, random)),
    };
    for (picture, tile) in pictures.iter().zip(&tiles) {
        let [left, top, right, bottom] = pixels(*tile, size);
        // A scattered picture keeps a rim of ground inside its box, so its own edges are off the grid.
        let rim =
            |extent: u32, random: &mut dyn rand::RngCore| if level == Level::Scattered { random.random_range(0..=extent / 12) } else { 0 };
        let (left, right) = (left + rim(right - left, random), right - rim(right - left, random));
        let (top, bottom) = (top + rim(bottom - top, random), bottom - rim(bottom - top, random));
        let stretched = resize(picture, right - left, bottom - top, Filter::Bicubic);
        imageops::replace(&mut canvas, &stretched, i64::from(left), i64::from(top));
    }
    Some(Mosaic { image: canvas, areas: tiles.into_iter().map(area).collect() })
}

/// The box of a tile.
pub fn area(tile: Tile) -> Area {
    let edge = |step: u8| f64::from(step) / f64::from(GRID);
    Area { x1: edge(tile[0]), y1: edge(tile[1]), x2: edge(tile[2]), y2: edge(tile[3]) }
}

/// Pixel edges as a crop of the box truncates them, so that a crop shows exactly the tile.
fn pixels(tile: Tile, (width, height): (u32, u32)) -> [u32; 4] {
    let area = area(tile);
    let at = |ratio: f64, side: u32| (ratio * f64::from(side)) as u32;
    [at(area.x1, width), at(area.y1, height), at(area.x2, width), at(area.y2, height)]
}

/// One jittered tile in each of `count` cells of a 3 x 2 grid: apart by construction, never by trial.
fn scatter(count: usize, random: &mut impl Rng) -> Option<Vec<Tile>> {
    let mut cells: Vec<Tile> = layouts(MAX_PICTURES).next()?.to_vec();
    if !(MIN_PICTURES..=cells.len()).contains(&count) {
        return None;
    }
    cells.shuffle(random);
    let mut span = |from: u8, to: u8| {
        let length = random.random_range(5..=(to - from).min(7));
        let start = random.random_range(from..=to - length);
        (start, start + length)
    };
    let place = |[left, top, right, bottom]: Tile| {
        let (x1, x2) = span(left, right);
        let (y1, y2) = span(top, bottom);
        [x1, y1, x2, y2]
    };
    Some(cells.into_iter().take(count).map(place).collect())
}

fn noise((width, height): (u32, u32), random: &mut impl Rng) -> RgbImage {
    let ground: [u8; 3] = std::array::from_fn(|_| random.random_range(60..=180));
    RgbImage::from_fn(width, height, |_, _| image::Rgb(ground.map(|level| level.saturating_add_signed(random.random_range(-40..=40)))))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn flags(count: usize) -> Vec<RgbImage> {
        (0..count).map(|at| RgbImage::from_pixel(64, 48, image::Rgb([40 * at as u8, 255 - 40 * at as u8, 7]))).collect()
    }

    #[test]
    fn layouts_tile_the_canvas_exactly() {
        for layout in LAYOUTS {
            let mut covered = HashSet::new();
            for [left, top, right, bottom] in layout.iter().copied() {
                assert!(right - left >= 6 && bottom - top >= 6, "{layout:?} has a thin tile");
                for cell in (left..right).flat_map(|x| (top..bottom).map(move |y| (x, y))) {
                    assert!(covered.insert(cell), "{layout:?} overlaps at {cell:?}");
                }
            }
            assert_eq!(covered.len(), 400);
        }
        for count in MIN_PICTURES..=MAX_PICTURES {
            assert!(layouts(count).count() >= 2, "{count} pictures");
        }
    }

    #[test]
    fn a_crop_of_a_stitched_box_shows_exactly_its_picture() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for count in MIN_PICTURES..=MAX_PICTURES {
            for _ in 0..8 {
                let pictures = flags(count);
                let mosaic = compose(&pictures, Level::Stitched, (192, 128), &mut random).expect("2 to 6 pictures");
                for (picture, area) in pictures.iter().zip(&mosaic.areas) {
                    let crop = hypereyes_pictures::crop(&mosaic.image, area).expect("a box with an inside");
                    assert!(crop.pixels().all(|pixel| pixel == picture.get_pixel(0, 0)), "{area:?}");
                }
            }
        }
    }

    #[test]
    fn scattered_boxes_lie_apart_on_the_grid() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for round in 0..50 {
            let count = MIN_PICTURES + round % 5;
            let mosaic = compose(&flags(count), Level::Scattered, (192, 128), &mut random).expect("2 to 6 pictures");
            for (at, area) in mosaic.areas.iter().enumerate() {
                assert!(mosaic.areas[..at].iter().all(|other| area.iou(other) == 0.0));
                for edge in <[f64; 4]>::from(*area) {
                    assert!((edge * 20.0 - (edge * 20.0).round()).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn one_seed_gives_one_mosaic_and_odd_counts_none() {
        let draw = || compose(&flags(5), Level::Scattered, (192, 128), &mut ChaCha8Rng::seed_from_u64(3)).expect("5 pictures").image;
        assert_eq!(draw(), draw());
        for count in [0, 1, 7] {
            assert!(compose(&flags(count), Level::Stitched, (192, 128), &mut ChaCha8Rng::seed_from_u64(3)).is_none());
            assert!(compose(&flags(count), Level::Scattered, (192, 128), &mut ChaCha8Rng::seed_from_u64(3)).is_none());
        }
    }
}
