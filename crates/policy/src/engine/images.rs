//! Pictures of sequences, between their arrival and the last of their placeholders. In: patches. Out: visual tokens, which a step
//! puts in place of placeholders. Pictures wait here until a step encodes them, with those of other sequences in one pass of the
//! tower.

use std::collections::VecDeque;
use std::sync::Arc;

use hypereyes_pictures::Patches;

use crate::config::ModelConfig;
use crate::models::VisualTokens;
use crate::ops::Kernels;

/// What a picture has become so far.
enum Look<B: Kernels> {
    Cut(Arc<Patches>),
    Encoded(VisualTokens<B>),
}

/// One picture of a sequence.
pub(super) struct Image<B: Kernels> {
    look: Look<B>,
    /// Visual tokens per (column, row).
    grid: (usize, usize),
    /// Visual tokens that were fed.
    fed: usize,
}

/// Pictures of one sequence whose placeholders are still to be fed, in order.
pub(super) struct Images<B: Kernels> {
    waiting: VecDeque<Image<B>>,
    /// Whether there ever was one: from then on a placeholder is never text.
    ever: bool,
}

impl<B: Kernels> Default for Images<B> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), ever: false }
    }
}

impl<B: Kernels> Images<B> {
    /// Appends the pictures that `tokens` have placeholders for.
    ///
    /// # Errors
    /// A sentence: a picture that the tower cannot read, or other placeholders than the pictures have tokens. Nothing is appended then.
    pub(super) fn attach(&mut self, config: &ModelConfig, tokens: &[u32], pictures: &[Arc<Patches>]) -> Result<(), String> {
        if pictures.is_empty() {
            return Ok(());
        }
        pictures.iter().try_for_each(|picture| config.check_picture(picture))?;
        let merge = config.vision.spatial_merge_size;
        let image = |picture: &Arc<Patches>| {
            let grid = (picture.grid.0 / merge, picture.grid.1 / merge);
            Image { look: Look::Cut(picture.clone()), grid, fed: 0 }
        };
        let images: Vec<Image<B>> = pictures.iter().map(image).collect();
        let expected: usize = images.iter().map(Image::tokens).sum();
        let found = tokens.iter().filter(|token| **token == config.image_token_id).count();
        if expected != found {
            return Err(format!("{} pictures have {expected} tokens, and {found} placeholders are there", pictures.len()));
        }
        self.waiting.extend(images);
        self.ever = true;
        Ok(())
    }

    /// Whether every picture can be fed.
    pub(super) fn are_encoded(&self) -> bool {
        self.waiting.iter().all(|image| matches!(image.look, Look::Encoded(_)))
    }

    /// Whether no picture was ever shown.
    pub(super) fn never(&self) -> bool {
        !self.ever
    }

    /// Pictures that wait for the tower, with their places among the waiting ones.
    pub(super) fn cut(&self) -> impl Iterator<Item = (usize, &Arc<Patches>)> {
        self.waiting.iter().enumerate().filter_map(|(at, image)| match &image.look {
            Look::Cut(patches) => Some((at, patches)),
            Look::Encoded(_) => None,
        })
    }

    /// The tower has read the picture at a place.
    pub(super) fn encoded(&mut self, at: usize, tokens: VisualTokens<B>) {
        self.waiting[at].look = Look::Encoded(tokens);
    }

    /// Feeds the next placeholder: the row of `visuals` that stands in for it, and its picture's grid. `None` where there is no
    /// picture. `under_way` is where the first picture lies in `visuals`, once one of its tokens was fed in this pass.
    pub(super) fn feed(&mut self, visuals: &mut Visuals<B>, under_way: &mut Option<usize>) -> Option<(usize, (usize, usize))> {
        let image = self.waiting.front_mut()?;
        let Look::Encoded(tokens) = &image.look else { return None };
        let row = *under_way.get_or_insert_with(|| visuals.add(tokens)) + image.fed;
        let grid = image.grid;
        image.fed += 1;
        if image.fed == image.tokens() {
            self.waiting.pop_front();
            *under_way = None;
        }
        Some((row, grid))
    }
}

impl<B: Kernels> Image<B> {
    fn tokens(&self) -> usize {
        self.grid.0 * self.grid.1
    }
}

/// Visual tokens of all pictures that a pass shows.
pub(super) struct Visuals<B: Kernels> {
    parts: Vec<VisualTokens<B>>,
    rows: usize,
}

impl<B: Kernels> Default for Visuals<B> {
    fn default() -> Self {
        Self { parts: vec![], rows: 0 }
    }
}

impl<B: Kernels> Visuals<B> {
    /// Appends a picture; the row of its first token.
    fn add(&mut self, tokens: &VisualTokens<B>) -> usize {
        self.parts.push(tokens.clone());
        self.rows += tokens.rows();
        self.rows - tokens.rows()
    }

    /// All of them end to end; `None` where there are none.
    pub(super) fn join(self) -> Option<VisualTokens<B>> {
        VisualTokens::join(self.parts)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::backend::Cpu;
    use crate::config::SmallShape;

    const PICTURE: u32 = 61;

    fn tokens(rows: usize) -> VisualTokens<Cpu> {
        VisualTokens { embeddings: Tensor::zeros([rows, 4], &Default::default()), deepstack: vec![] }
    }

    #[test]
    fn pictures_are_fed_in_order_each_joined_once_and_wait_until_they_are_encoded() {
        let config = SmallShape { width: 32, layers: 1, heads: 2, inner: 64, vision_width: 32, vision_depth: 1 }.model(64, PICTURE, 62, 63);
        let patches = |rows: usize| Arc::new(Patches { grid: (rows, 4), values: vec![0.0; rows * 4 * config.patch_values()] });
        let mut images = Images::<Cpu>::default();
        assert!(images.are_encoded() && images.never());
        let wrong = images.attach(&config, &[PICTURE; 5], &[patches(4), patches(2)]).unwrap_err();
        assert!(wrong == "2 pictures have 6 tokens, and 5 placeholders are there" && images.never(), "{wrong}");
        images.attach(&config, &[1, PICTURE, PICTURE, PICTURE, PICTURE, 2, PICTURE, PICTURE], &[patches(4), patches(2)]).unwrap();
        assert_eq!(images.cut().map(|(at, patches)| (at, patches.grid.0)).collect::<Vec<_>>(), [(0, 4), (1, 2)]);
        images.encoded(1, tokens(2));
        assert!(!images.are_encoded());
        images.encoded(0, tokens(4));
        // A pass that ends in the middle of a picture, and the one after it.
        let fed = |images: &mut Images<Cpu>, count: usize| {
            let (mut visuals, mut under_way) = (Visuals::default(), None);
            let rows: Vec<_> = (0..count).map(|_| images.feed(&mut visuals, &mut under_way)).collect();
            (rows, visuals.join().map(|joined| joined.rows()))
        };
        let big = |row| Some((row, (2, 2)));
        assert_eq!(fed(&mut images, 3), (vec![big(0), big(1), big(2)], Some(4)));
        assert_eq!(fed(&mut images, 4), (vec![big(3), Some((4, (1, 2))), Some((5, (1, 2))), None], Some(6)));
        assert!(images.are_encoded() && !images.never());
    }
}
