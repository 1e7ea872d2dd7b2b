//! Pictures cut into the patches that a vision tower reads, number for number as the Qwen2-VL and Qwen3-VL image
//! processors do. In: a picture of any size; out: [`Patches`]. Knows no token and no tensor.

use image::RgbImage;

use crate::processor::Processor;
use crate::resize::{Filter, resize};

/// A picture cut into the patches that a vision tower reads, in the reference processor's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// Patches per column and row of the picture: (height, width), both multiples of the merge size.
    pub grid: (usize, usize),
    /// `grid.0 * grid.1` rows of `channels * temporal * patch * patch` normalised values.
    pub values: Vec<f32>,
}

impl Processor {
    /// Resizes (bicubic, only where the size does not fit) and cuts. Rows of `values` go block by block: merge x merge
    /// neighbouring patches of one token follow each other; within a patch: channel, frame, row, column. The one frame
    /// of a picture is repeated.
    pub fn patches(&self, picture: &RgbImage) -> Patches {
        let (height, width) = self.smart_resize(picture.height() as usize, picture.width() as usize);
        let (patch, merge) = (self.patch, self.merge);
        let as_side = |side: usize| u32::try_from(side).expect("sides are at most max_pixels / factor");
        let resized;
        let fitting = if (picture.height() as usize, picture.width() as usize) == (height, width) {
            picture
        } else {
            resized = resize(picture, as_side(width), as_side(height), Filter::Bicubic);
            &resized
        };
        let pixels = fitting.as_raw();
        let levels = self.levels();
        let grid = self.grid(picture.dimensions());
        let mut values = Vec::with_capacity(grid.0 * grid.1 * self.patch_values());
        for (block_row, block_column) in pairs(grid.0 / merge, grid.1 / merge) {
            for (row, column) in pairs(merge, merge) {
                let top = (block_row * merge + row) * patch;
                let left = (block_column * merge + column) * patch;
                for (channel, level) in levels.iter().enumerate() {
                    let start = values.len();
                    for y in top..top + patch {
                        let line = &pixels[(y * width + left) * 3..(y * width + left + patch) * 3];
                        values.extend(line.iter().skip(channel).step_by(3).map(|value| level[usize::from(*value)]));
                    }
                    let end = values.len();
                    for _ in 1..self.temporal {
                        values.extend_from_within(start..end);
                    }
                }
            }
        }
        Patches { grid, values }
    }

    /// Normalised value of each byte per channel. The reference folds the division by 255 into mean and std.
    fn levels(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| {
            let (mean, std) = (self.mean[channel] * 255.0, self.std[channel] * 255.0);
            std::array::from_fn(|byte| (byte as f32 - mean) / std)
        })
    }
}

fn pairs(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| (row, column)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn patches_of_one_token_follow_each_other() {
        // The red channel numbers the patches in reading order, 4 per row.
        let picture = RgbImage::from_fn(64, 64, |x, y| Rgb([(y / 16 * 4 + x / 16) as u8, 0, 255]));
        let processor = Processor::default();
        let patches = processor.patches(&picture);
        assert_eq!((patches.grid, processor.tokens(patches.grid)), ((4, 4), 4));
        assert_eq!(processor.grid((64, 64)), patches.grid, "known without a pixel");
        let numbers: Vec<i32> =
            patches.values.chunks(processor.patch_values()).map(|row| (row[0] * 127.5 + 127.5).round() as i32).collect();
        assert_eq!(numbers, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]);
        let row = &patches.values[..processor.patch_values()];
        assert!(row[512..1024].iter().all(|value| *value == -1.0) && row[1024..].iter().all(|value| *value == 1.0));
    }
}
