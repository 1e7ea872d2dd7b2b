//! Whole sequences laid end to end for one pass of the model, without padding.
//!
//! In: token ids and pictures of several sequences. Out: [`Batch`]: rows, positions, segment lengths, and each distinct
//! picture once. Siblings of a group share their pictures by `Arc`, so a picture is encoded once for all of them.

use std::collections::HashMap;
use std::sync::Arc;

use hypereyes_domain::Patches;

use crate::Error;
use crate::config::ModelConfig;
use crate::model::{Positions, Rows};

/// Sequences ready for [`crate::model::Qwen3Vl::hidden`].
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Rows of all sequences.
    pub rows: Rows,
    /// Tokens per sequence.
    pub lengths: Vec<usize>,
    /// Distinct pictures; visual rows of the model's output follow this order.
    pub pictures: Vec<Arc<Patches>>,
    /// Visual row of each picture, by its address: `pictures` keeps it alive.
    starts: HashMap<usize, usize>,
    visual_rows: usize,
}

impl Batch {
    /// Appends a sequence; its picture placeholders must match its pictures.
    pub fn push(&mut self, config: &ModelConfig, tokens: &[u32], pictures: &[Arc<Patches>]) -> Result<(), Error> {
        let merge = config.vision.spatial_merge_size;
        let mut positions = Positions::default();
        let mut queue = pictures.iter();
        let mut current: Option<(usize, (usize, usize), usize)> = None;
        for (at, token) in tokens.iter().enumerate() {
            if *token as usize >= config.text.vocab_size {
                return Err(Error::Input(format!("token {token} at {at} is outside the vocabulary of {}", config.text.vocab_size)));
            }
            if *token != config.image_token_id {
                self.rows.positions.push(positions.text());
                self.rows.visual.push(None);
                continue;
            }
            if current.is_none() {
                let picture = queue.next().ok_or_else(|| Error::Input(format!("placeholder at {at} has no picture")))?;
                let grid = (picture.grid.0 / merge, picture.grid.1 / merge);
                current = Some((self.start_of(picture, config)?, grid, 0));
            }
            let (start, grid, passed) = current.expect("just set");
            self.rows.positions.push(positions.visual(grid));
            self.rows.visual.push(Some(start + passed));
            current = (passed + 1 < grid.0 * grid.1).then_some((start, grid, passed + 1));
        }
        if current.is_some() || queue.next().is_some() {
            return Err(Error::Input("more picture tokens are expected than the sequence has placeholders".into()));
        }
        self.rows.tokens.extend_from_slice(tokens);
        self.lengths.push(tokens.len());
        Ok(())
    }

    fn start_of(&mut self, picture: &Arc<Patches>, config: &ModelConfig) -> Result<usize, Error> {
        let patches = picture.grid.0 * picture.grid.1;
        if picture.values.len() != patches * config.patch_values() {
            return Err(Error::Input(format!(
                "a picture of {}x{} patches has {} values, not {}",
                picture.grid.0,
                picture.grid.1,
                picture.values.len(),
                patches * config.patch_values()
            )));
        }
        let merged = patches / (config.vision.spatial_merge_size * config.vision.spatial_merge_size);
        Ok(*self.starts.entry(Arc::as_ptr(picture) as usize).or_insert_with(|| {
            self.pictures.push(picture.clone());
            self.visual_rows += merged;
            self.visual_rows - merged
        }))
    }
}
