//! The settings by which pictures become patches, as checkpoints record them in `preprocessor_config.json`, and the size
//! that a picture is given. Knows no pixel.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A larger file is no such settings.
const MAX_BYTES: u64 = 1 << 20;

/// How pictures become patches. Read from and written as the Hugging Face `preprocessor_config.json`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(try_from = "HfConfig", into = "HfConfig")]
pub struct Processor {
    /// Pixels per side of a patch. Default 16.
    pub patch: usize,
    /// Patches per side that become one token. Default 2.
    pub merge: usize,
    /// Frames per patch; a picture is repeated to fill them. Default 2.
    pub temporal: usize,
    /// Fewest pixels of a resized picture. Default 4096, four tokens (spec 1.6).
    pub min_pixels: usize,
    /// Most pixels of a resized picture. Default 1200 tokens (spec 1.6).
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
    /// The file cannot be read.
    #[error("{}: {source}; a checkpoint with a vision tower has this file", .path.display())]
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

impl Processor {
    /// Reads `dir/preprocessor_config.json`.
    pub fn load(dir: &Path) -> Result<Self, ProcessorError> {
        let path = dir.join("preprocessor_config.json");
        let text = hypereyes_outside::files::read_to_string(&path, MAX_BYTES)
            .map_err(|source| ProcessorError::Read { path: path.clone(), source })?;
        serde_json::from_str(&text).map_err(|error| ProcessorError::Parse { path, reason: error.to_string() })
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

    /// Tokens of a picture with `grid` patches per (column, row).
    pub fn tokens(&self, grid: (usize, usize)) -> usize {
        grid.0 * grid.1 / (self.merge * self.merge)
    }
}

/// `preprocessor_config.json`; keys that do not matter here are ignored, because checkpoints carry many.
#[derive(Serialize, Deserialize, Clone)]
struct HfConfig {
    #[serde(default = "sixteen")]
    patch_size: usize,
    #[serde(default = "two")]
    merge_size: usize,
    #[serde(default = "two")]
    temporal_patch_size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_pixels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_pixels: Option<usize>,
    size: Option<HfSize>,
    #[serde(default = "half")]
    image_mean: [f32; 3],
    #[serde(default = "half")]
    image_std: [f32; 3],
}

/// Named after edges for historical reasons; both are numbers of pixels.
#[derive(Serialize, Deserialize, Clone)]
struct HfSize {
    shortest_edge: Option<usize>,
    longest_edge: Option<usize>,
}

fn sixteen() -> usize {
    16
}

fn two() -> usize {
    2
}

fn half() -> [f32; 3] {
    [0.5; 3]
}

impl TryFrom<HfConfig> for Processor {
    type Error = String;

    fn try_from(config: HfConfig) -> Result<Self, String> {
        let size = config.size.unwrap_or(HfSize { shortest_edge: None, longest_edge: None });
        let fallback = Processor::default();
        let processor = Processor {
            patch: config.patch_size,
            merge: config.merge_size,
            temporal: config.temporal_patch_size,
            min_pixels: config.min_pixels.or(size.shortest_edge).unwrap_or(fallback.min_pixels),
            max_pixels: config.max_pixels.or(size.longest_edge).unwrap_or(fallback.max_pixels),
            mean: config.image_mean,
            std: config.image_std,
        };
        for (what, value, most) in
            [("patch_size", processor.patch, 64), ("merge_size", processor.merge, 8), ("temporal_patch_size", processor.temporal, 8)]
        {
            if !(1..=most).contains(&value) {
                return Err(format!("{what} is {value}; it must lie in 1..={most}"));
            }
        }
        let one_token = processor.factor() * processor.factor();
        if processor.min_pixels > processor.max_pixels || processor.max_pixels < one_token || processor.max_pixels > 1 << 26 {
            return Err(format!(
                "pixels {}..={} are no usable range: at least one token ({one_token}), at most {}",
                processor.min_pixels,
                processor.max_pixels,
                1 << 26
            ));
        }
        if processor.std.iter().any(|value| !value.is_finite() || *value <= 0.0) || processor.mean.iter().any(|value| !value.is_finite()) {
            return Err(format!("image_mean {:?} and image_std {:?} must be finite, the latter positive", processor.mean, processor.std));
        }
        Ok(processor)
    }
}

impl From<Processor> for HfConfig {
    fn from(processor: Processor) -> Self {
        Self {
            patch_size: processor.patch,
            merge_size: processor.merge,
            temporal_patch_size: processor.temporal,
            min_pixels: None,
            max_pixels: None,
            size: Some(HfSize { shortest_edge: Some(processor.min_pixels), longest_edge: Some(processor.max_pixels) }),
            image_mean: processor.mean,
            image_std: processor.std,
        }
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
