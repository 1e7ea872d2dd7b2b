//! Pictures as vectors, by which like ones are found: the mean of what a vision tower makes of a picture, of length 1.
//!
//! In: patches. Out: one vector each. What is said of a picture does not depend on those that are asked about with it. Not known here:
//! an index, files of pictures.

use std::ops::Range;

use crate::Error;
use crate::checkpoint::{self, HostWeights};
use crate::config::ModelConfig;
use crate::device::{Device, OnDevice};
use crate::faults;
use crate::lanes::Lanes;
use crate::models::Tower;
use crate::ops::Kernels;
use crate::score;
use hypereyes_pictures::Patches;

/// Most patches of one pass of the tower: some hundred megabytes of what lies between its layers.
const PASS_PATCHES: usize = 16 << 10;

/// A vision tower that is only asked, on whichever device.
pub trait Embed: Send {
    /// Numbers in a vector.
    fn width(&self) -> usize;

    /// The vector of each picture, in their order: \[width\], of length 1.
    ///
    /// # Errors
    /// [`Error::Input`] where a picture does not fit the tower; [`Error::Device`].
    fn embed(&self, pictures: &[Patches]) -> Result<Vec<Vec<f32>>, Error>;
}

/// Puts a tower on a device; `weights` are named as [`checkpoint::read_tower`] names them. On the CPU it takes as many lanes as there
/// are threads.
///
/// # Errors
/// [`Error`] when the weights do not fit the shape or there is no such device.
pub fn embedder(config: &ModelConfig, weights: &HostWeights, device: Device) -> Result<Box<dyn Embed>, Error> {
    let lanes = Lanes::of_this_pool(if device.has_lanes() { usize::MAX } else { 1 })?;
    device.run(Place { config: config.clone(), weights, lanes })?
}

/// What vectors follow from, in one name: BLAKE3 of the tower's shape and weights.
pub fn digest(config: &ModelConfig, weights: &HostWeights) -> String {
    let vision = &config.vision;
    let mut hasher = blake3::Hasher::new();
    let shape = format!("{:?} {} {} {}", config.family, vision.num_heads, vision.spatial_merge_size, vision.rope_theta);
    hasher.update(shape.as_bytes());
    for (name, tensor) in weights {
        hasher.update(format!("\n{name} {:?}\n", tensor.shape).as_bytes());
        for values in tensor.values.chunks(4096) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
    }
    hasher.finalize().to_hex().to_string()
}

struct Place<'a> {
    config: ModelConfig,
    weights: &'a HostWeights,
    lanes: Lanes,
}

impl OnDevice for Place<'_> {
    type Output = Result<Box<dyn Embed>, Error>;

    fn run<B: Kernels>(self, device: B::Device) -> Self::Output {
        let Self { config, weights, lanes } = self;
        let tower = checkpoint::from_host(Tower::<B>::init(&config, &device), weights)?;
        Ok(Box::new(Placed { config, lanes, tower, device }))
    }
}

struct Placed<B: Kernels> {
    config: ModelConfig,
    lanes: Lanes,
    tower: Tower<B>,
    device: B::Device,
}

impl<B: Kernels> Embed for Placed<B> {
    fn width(&self) -> usize {
        self.config.vision.out_hidden_size
    }

    fn embed(&self, pictures: &[Patches]) -> Result<Vec<Vec<f32>>, Error> {
        pictures.iter().try_for_each(|picture| self.config.check_picture(picture)).map_err(Error::Input)?;
        let lengths: Vec<usize> = pictures.iter().map(|picture| picture.grid.0 * picture.grid.1).collect();
        let mut vectors = Vec::with_capacity(pictures.len());
        let runs = score::even_runs(&lengths, PASS_PATCHES, self.lanes.count());
        for wave in runs.chunks(self.lanes.count()) {
            let pass = |_, run: Range<usize>| self.pass(&pictures[run]);
            for part in self.lanes.map(wave.to_vec(), pass) {
                vectors.extend(part?);
            }
        }
        Ok(vectors)
    }
}

impl<B: Kernels> Placed<B> {
    fn pass(&self, pictures: &[Patches]) -> Result<Vec<Vec<f32>>, Error> {
        let merge = self.config.vision.spatial_merge_size;
        let all: Vec<&Patches> = pictures.iter().collect();
        let rows = faults::floats(self.tower.encode(&all, &self.device).embeddings)?;
        let mut rows = rows.chunks_exact(self.width());
        let vector = |picture: &Patches| -> Result<Vec<f32>, Error> {
            let tokens = picture.grid.0 * picture.grid.1 / (merge * merge);
            let mut sums = vec![0.0_f64; self.width()];
            for row in rows.by_ref().take(tokens) {
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
            // A vector without a direction is like none and found by none: nobody would learn why.
            if !length.is_finite() || length <= 0.0 {
                return Err(Error::Input(format!(
                    "what the vision tower makes of a picture has the length {length}: its weights are damaged"
                )));
            }
            Ok(sums.iter().map(|sum| (sum / length) as f32).collect())
        };
        pictures.iter().map(vector).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hypereyes_pictures::{Processor, RgbImage};

    use super::*;
    use crate::backend::Cpu;
    use crate::models::{Model, Vlm};

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/qwen3vl-tiny")
    }

    fn patches(processor: &Processor, seed: u32, (width, height): (u32, u32)) -> Patches {
        let pixel = |x: u32, y: u32| [(x * 7 + seed * 13) as u8, (y * 5 + seed) as u8, (x * y + seed * 31) as u8].into();
        processor.patches(&RgbImage::from_fn(width, height, pixel))
    }

    #[test]
    fn a_vector_is_the_mean_of_the_whole_models_visual_tokens_and_no_others_business() {
        let (config, weights) = checkpoint::read_tower(&folder()).expect("a model");
        let tower = embedder(&config, &weights, Device::Cpu).expect("fits");
        let vision = &config.vision;
        let processor = Processor {
            patch: vision.patch_size,
            merge: vision.spatial_merge_size,
            temporal: vision.temporal_patch_size,
            ..Processor::default()
        };
        let sizes = [(64, 64), (96, 64), (64, 128), (128, 128), (96, 96)];
        let pictures: Vec<Patches> = (0..5).map(|seed| patches(&processor, seed, sizes[seed as usize])).collect();
        let together = tower.embed(&pictures).expect("embeds");
        let (_, model) = checkpoint::load::<Cpu>(&folder(), &Default::default()).expect("a model");
        for (picture, vector) in pictures.iter().zip(&together) {
            assert_eq!(tower.embed(std::slice::from_ref(picture)).expect("embeds"), std::slice::from_ref(vector), "alone it is the same");
            assert!((vector.iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-5);
            let tokens = model.encode_images(&[picture], &Default::default()).expect("one picture").embeddings;
            let mean: Vec<f32> = faults::floats(tokens.mean_dim(0)).expect("computes");
            let length = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
            let apart = mean.iter().zip(vector).map(|(mean, value)| (mean / length - value).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-5, "{apart}");
        }
        assert_ne!(together[0], together[4]);
        assert_eq!(tower.width(), together[0].len());
        assert!(tower.embed(&[]).expect("nothing").is_empty());
        let cut = Patches { grid: (3, 4), values: vec![] };
        assert!(tower.embed(&[cut]).is_err_and(|error| error.to_string().contains("3x4")));
        let mut damaged = weights;
        damaged.values_mut().for_each(|tensor| tensor.values.fill(f32::NAN));
        let blind = embedder(&config, &damaged, Device::Cpu).expect("fits");
        assert!(blind.embed(&pictures[..1]).is_err(), "no vector without a direction");
    }

    #[test]
    fn another_tower_has_another_name_and_another_decoder_has_not() {
        let (config, weights) = checkpoint::read_tower(&folder()).expect("a model");
        let name = digest(&config, &weights);
        let mut other = weights.clone();
        let first = other.keys().next().expect("has some").clone();
        other.entry(first).and_modify(|tensor| tensor.values[0] += 1.0);
        assert_ne!(digest(&config, &other), name);
        let mut wider = config.clone();
        wider.text.intermediate_size += 1;
        assert_eq!(digest(&wider, &weights), name);
        let whole = checkpoint::to_host(&Model::<Cpu>::init(&config, 0, &Default::default()));
        let theirs = whole.keys().filter(|name| name.starts_with(config.family.published().tower)).count();
        assert_eq!(weights.len(), theirs);
    }
}
