//! The settings by which pictures become patches, and the size that a picture is given. How checkpoints record them is in
//! `settings.rs`. Knows no pixel.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::settings::{self, Recorded};

/// How pictures become patches. Read from and written as the Hugging Face `preprocessor_config.json`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(try_from = "Recorded", into = "Recorded")]
pub struct Processor {
    /// Pixels per side of a patch. Default 16.
    pub patch: usize,
    /// Patches per side that become one token. Default 2.
    pub merge: usize,
    /// Frames per patch; a picture is repeated to fill them. Default 2.
    pub temporal: usize,
    /// Fewest pixels of a resized picture. Default 4096, four tokens (docs/spec.md#pictures).
    pub min_pixels: usize,
    /// Most pixels of a resized picture. Default 1200 tokens (docs/spec.md#pictures).
    pub max_pixels: usize,
    /// Subtracted from each channel (0..1). Default 0.5.
    pub mean: [f32; 3],
    /// Each channel is divided by it afterwards. Default 0.5.
    pub std: [f32; 3],
}

impl Default for Processor {
    fn default() -> Self {
        Self { patch: 16, merge: 2, temporal: 2, min_pixels: 4096, max_pixels: 1200 * 1024, mean: [0.5; 3], std: [0.5; 3] }
    }
}

/// Why settings could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// There is no file with them.
    #[error("{}: neither processor_config.json with an image_processor nor preprocessor_config.json is there; a checkpoint with a vision \
             tower has one of them", .folder.display())]
    Missing {
        /// The model folder.
        folder: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not JSON, or with values that make no sense.
    #[error("{}: {reason}", .path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

/// Settings, the file that they are from, and what it does not say.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The settings.
    pub processor: Processor,
    /// `processor_config.json` or `preprocessor_config.json` of the folder.
    pub path: PathBuf,
    /// What was assumed, one sentence for all of it; `None` where the file says everything.
    pub assumed: Option<String>,
}

impl Processor {
    /// Reads the settings of a model folder: `image_processor` of `processor_config.json`, else `preprocessor_config.json`, as
    /// transformers does. What had to be assumed is logged.
    ///
    /// # Errors
    /// [`ProcessorError`], which names the file.
    pub fn load(dir: &Path) -> Result<Self, ProcessorError> {
        let loaded = Self::load_from(dir)?;
        if let Some(assumed) = &loaded.assumed {
            tracing::warn!("{}: {assumed}", loaded.path.display());
        }
        Ok(loaded.processor)
    }

    /// As [`Processor::load`], and says where the settings stand and what was assumed instead of logging it.
    ///
    /// # Errors
    /// As [`Processor::load`].
    pub fn load_from(dir: &Path) -> Result<Loaded, ProcessorError> {
        settings::load(dir)
    }

    /// Sides are multiples of this.
    pub fn factor(&self) -> usize {
        self.patch * self.merge
    }

    /// Numbers per patch: channels x temporal x patch x patch.
    pub fn patch_values(&self) -> usize {
        3 * self.temporal * self.patch * self.patch
    }

    /// The size `(height, width)` that a picture of `height` x `width` is given: the nearest multiples of the factor,
    /// scaled so that the area lies within the pixel limits.
    pub fn smart_resize(&self, height: usize, width: usize) -> (usize, usize) {
        let factor = self.factor() as f64;
        let (h, w) = (height.max(1) as f64, width.max(1) as f64);
        let mut high = (h / factor).round_ties_even() * factor;
        let mut wide = (w / factor).round_ties_even() * factor;
        if high * wide > self.max_pixels as f64 {
            let shrink = (h * w / self.max_pixels as f64).sqrt();
            high = (h / shrink / factor).floor() * factor;
            wide = (w / shrink / factor).floor() * factor;
        } else if high * wide < self.min_pixels as f64 {
            let grow = (self.min_pixels as f64 / (h * w)).sqrt();
            high = (h * grow / factor).ceil() * factor;
            wide = (w * grow / factor).ceil() * factor;
        }
        // The reference refuses extreme shapes; here the shorter side keeps one token and the longer one the limit.
        let longest = (self.max_pixels as f64 / factor / factor).floor().max(1.0) * factor;
        (high.clamp(factor, longest) as usize, wide.clamp(factor, longest) as usize)
    }

    /// [`Processor::smart_resize`] of a size (width, height).
    pub fn seen_as(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let (high, wide) = self.smart_resize(height as usize, width as usize);
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        (side(wide), side(high))
    }

    /// Patches per (column, row) of a picture of a size (width, height): what [`Processor::patches`] will cut, known without a pixel.
    pub fn grid(&self, (width, height): (u32, u32)) -> (usize, usize) {
        let (high, wide) = self.smart_resize(height as usize, width as usize);
        (high / self.patch, wide / self.patch)
    }

    /// Tokens of a picture with `grid` patches per (column, row).
    pub fn tokens(&self, grid: (usize, usize)) -> usize {
        grid.0 * grid.1 / (self.merge * self.merge)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn both_spellings_of_the_limits_load() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("preprocessor_config.json");
        let other = r#""do_resize":true,"image_processor_type":"Qwen2VLImageProcessorFast","patch_size":16"#;
        for limits in [r#""size":{"shortest_edge":65536,"longest_edge":16777216}"#, r#""min_pixels":65536,"max_pixels":16777216"#] {
            fs::write(&path, format!("{{{other},{limits}}}")).expect("writes");
            let processor = Processor::load(dir.path()).expect("loads");
            assert_eq!((processor.min_pixels, processor.max_pixels), (65536, 16_777_216));
            let again = serde_json::to_string(&processor).expect("serialises");
            assert_eq!(serde_json::from_str::<Processor>(&again).expect("loads again"), processor);
        }
        fs::write(&path, r#"{"patch_size":0}"#).expect("writes");
        let error = Processor::load(dir.path()).expect_err("no patch of 0 pixels").to_string();
        assert!(error.contains("preprocessor_config.json") && error.contains("patch_size is 0"), "{error}");
    }

    #[test]
    fn sides_are_multiples_and_the_area_is_within_limits() {
        let processor = Processor::default();
        assert_eq!(processor.smart_resize(128, 192), (128, 192));
        assert_eq!(processor.smart_resize(80, 16), (160, 32));
        for (height, width) in [(1, 1), (1, 16384), (3, 977), (700, 33), (4000, 3000), (16384, 16384), (48, 80)] {
            let (h, w) = processor.smart_resize(height, width);
            assert_eq!((h % 32, w % 32), (0, 0));
            assert!(h * w <= processor.max_pixels && h * w >= processor.min_pixels, "{height}x{width} -> {h}x{w}");
        }
    }
}
