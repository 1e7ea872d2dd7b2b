//! Whole sequences laid end to end for one pass of the model, without padding.
//!
//! In: token ids and pictures of several sequences. Out: [`Batch`]: rows, positions, segment lengths, and each distinct
//! picture once. Siblings of a group share their pictures by `Arc`, so a picture is encoded once for all of them; where
//! nothing is trained they also share the rows of their prompt, as a trunk with branches.

use std::collections::HashMap;
use std::sync::Arc;

use hypereyes_pictures::Patches;

use crate::Error;
use crate::config::ModelConfig;
use crate::models::{Positions, Rows};

/// Sequences ready for [`crate::models::Vlm::hidden`].
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Rows of all segments.
    pub rows: Rows,
    /// Tokens per segment: a whole sequence, a trunk, or a branch.
    pub lengths: Vec<usize>,
    /// Per segment, the trunk that it goes on after.
    pub trunks: Vec<Option<usize>>,
    /// Distinct pictures; visual rows of the model's output follow this order.
    pub pictures: Vec<Arc<Patches>>,
    /// Visual row of each picture, by its address: `pictures` keeps it alive.
    starts: HashMap<usize, usize>,
    visual_rows: usize,
}

/// What siblings share, laid out once.
#[derive(Clone, Debug)]
pub struct Trunk {
    segment: usize,
    positions: Positions,
    /// Pictures in it: a branch's own come after them.
    pub pictures: usize,
}

impl Batch {
    /// Appends a sequence; its picture placeholders must match its pictures.
    ///
    /// # Errors
    /// [`Error::Input`] when they do not, or a token is outside the vocabulary. So with the others.
    pub fn push(&mut self, config: &ModelConfig, tokens: &[u32], pictures: &[Arc<Patches>]) -> Result<(), Error> {
        let used = self.extend(config, None, &mut Positions::default(), tokens, pictures)?;
        all_used(used, pictures)
    }

    /// Appends the beginning of sequences to come, which takes the first of `pictures`.
    pub fn push_trunk(&mut self, config: &ModelConfig, tokens: &[u32], pictures: &[Arc<Patches>]) -> Result<Trunk, Error> {
        let mut positions = Positions::default();
        let pictures = self.extend(config, None, &mut positions, tokens, pictures)?;
        Ok(Trunk { segment: self.lengths.len() - 1, positions, pictures })
    }

    /// Appends what a sequence has after its trunk; `pictures` are its own.
    pub fn push_branch(&mut self, config: &ModelConfig, trunk: &Trunk, tokens: &[u32], pictures: &[Arc<Patches>]) -> Result<(), Error> {
        let used = self.extend(config, Some(trunk.segment), &mut trunk.positions.clone(), tokens, pictures)?;
        all_used(used, pictures)
    }

    /// Appends a segment and returns how many pictures it took.
    fn extend(
        &mut self,
        config: &ModelConfig,
        trunk: Option<usize>,
        positions: &mut Positions,
        tokens: &[u32],
        pictures: &[Arc<Patches>],
    ) -> Result<usize, Error> {
        let merge = config.vision.spatial_merge_size;
        let mut used = 0;
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
                let picture = pictures.get(used).ok_or_else(|| Error::Input(format!("placeholder at {at} has no picture")))?;
                used += 1;
                let grid = (picture.grid.0 / merge, picture.grid.1 / merge);
                current = Some((self.start_of(picture, config)?, grid, 0));
            }
            let (start, grid, passed) = current.expect("just set");
            self.rows.positions.push(positions.visual(grid));
            self.rows.visual.push(Some(start + passed));
            current = (passed + 1 < grid.0 * grid.1).then_some((start, grid, passed + 1));
        }
        if current.is_some() {
            return Err(too_many());
        }
        self.rows.tokens.extend_from_slice(tokens);
        self.lengths.push(tokens.len());
        self.trunks.push(trunk);
        Ok(used)
    }

    fn start_of(&mut self, picture: &Arc<Patches>, config: &ModelConfig) -> Result<usize, Error> {
        config.check_picture(picture).map_err(Error::Input)?;
        let patches = picture.grid.0 * picture.grid.1;
        let merged = patches / (config.vision.spatial_merge_size * config.vision.spatial_merge_size);
        Ok(*self.starts.entry(Arc::as_ptr(picture) as usize).or_insert_with(|| {
            self.pictures.push(picture.clone());
            self.visual_rows += merged;
            self.visual_rows - merged
        }))
    }
}

fn all_used(used: usize, pictures: &[Arc<Patches>]) -> Result<(), Error> {
    if used == pictures.len() { Ok(()) } else { Err(too_many()) }
}

fn too_many() -> Error {
    Error::Input("more picture tokens are expected than the sequence has placeholders".into())
}
