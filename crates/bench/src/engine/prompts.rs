//! Prompts that no engine has seen before: tokens that no model treats specially, and pictures among them.
//!
//! In: a model, how many tokens and pictures. Out: one prompt after another, all of one length. Its pictures are found in the store while
//! it is held.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use hypereyes_chassis::BadInput;
use hypereyes_domain::Chunk;
use hypereyes_pictures::{Limits, Patches, Picture, Processor, RgbImage, Store};
use hypereyes_policy::config::ModelConfig;

use super::Load;
use crate::{text, tokens};

/// Sides of the squares of one colour in a picture, in pixels: as PNG a picture then has about as many bytes as a photograph as JPEG.
const SQUARE: u32 = 4;

/// Where prompts come from.
#[derive(Debug)]
pub struct Prompts {
    pub processor: Processor,
    pub store: Arc<Store>,
    model: ModelConfig,
    load: Load,
    seed: u64,
    drawn: u64,
}

/// A prompt, with the pictures that it names.
#[derive(Clone, Debug)]
pub struct Prompt {
    pub chunk: Chunk,
    pub pictures: Vec<Arc<Picture>>,
}

impl Prompts {
    /// For a model; `folder` says how it cuts pictures.
    ///
    /// # Errors
    /// [`BadInput`] where the folder does not say it.
    pub fn new(model: &ModelConfig, folder: Option<&Path>, load: &Load, seed: u64) -> Result<Self> {
        let processor = match folder {
            Some(folder) => Processor::load(folder).map_err(|error| BadInput::new(error.to_string()))?,
            None => Processor::default(),
        };
        // Pictures are lent to it: they take no space there.
        let store = Arc::new(Store::new(1, Limits::default()));
        Ok(Self { processor, store, model: model.clone(), load: load.clone(), seed, drawn: 0 })
    }

    /// Placeholders of a picture.
    fn placeholders(&self) -> usize {
        let side = self.load.picture_side;
        self.processor.tokens(self.processor.grid((side, side)))
    }

    /// Tokens of every prompt, those of its pictures among them.
    pub fn length(&self) -> usize {
        self.load.prompt + self.load.pictures * (self.placeholders() + 2)
    }

    /// Another one: what an engine remembers of those before is of no use.
    pub fn draw(&mut self) -> Result<Prompt> {
        let (number, half) = (self.drawn, (self.model.text.vocab_size as u64 / 2).max(1));
        self.drawn += 1;
        let mut said = tokens(self.load.prompt, &self.model, self.seed.wrapping_add(number));
        // Their beginnings come round after as many as half of the vocabulary.
        said[1] = text((number / half % half) as u32, &self.model);
        let mut pictures = vec![];
        for at in 0..self.load.pictures as u64 {
            let picture = Picture::from_image(squares(self.load.picture_side, mixed(self.seed ^ mixed(number << 16 | at))))?;
            pictures.push(self.store.lend(picture));
        }
        let [start, pad, end] = [self.model.vision_start_token_id, self.model.image_token_id, self.model.vision_end_token_id];
        let shown = |_: &Arc<Picture>| std::iter::once(start).chain(std::iter::repeat_n(pad, self.placeholders())).chain([end]);
        let rest = said.split_off(1);
        let tokens = said.into_iter().chain(pictures.iter().flat_map(shown)).chain(rest).collect();
        Ok(Prompt { chunk: Chunk { tokens, pictures: pictures.iter().map(|picture| picture.id.clone()).collect() }, pictures })
    }

    /// The pictures of a prompt as the model's tower reads them.
    pub fn patches(&self, prompt: &Prompt) -> Vec<Arc<Patches>> {
        prompt.pictures.iter().map(|picture| Arc::new(self.processor.patches(&picture.image))).collect()
    }
}

/// A picture of squares of random colours.
fn squares(side: u32, seed: u64) -> RgbImage {
    let colour = |x: u32, y: u32| mixed(seed ^ mixed(u64::from(x / SQUARE) << 32 | u64::from(y / SQUARE))).to_le_bytes();
    RgbImage::from_fn(side, side, |x, y| {
        let [red, green, blue, ..] = colour(x, y);
        [red, green, blue].into()
    })
}

/// SplitMix64's finaliser: numbers next to each other give numbers that have nothing in common.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Size;

    #[test]
    fn no_two_prompts_begin_alike_and_pictures_are_there_while_they_are_held() {
        let model = Size::Tiny.model();
        let load = Load { prompt: 5, pictures: 2, picture_side: 64, ..Load::default() };
        let mut prompts = Prompts::new(&model, None, &load, 3).expect("sound");
        assert_eq!(prompts.length(), 5 + 2 * (4 + 2));
        let (one, other) = (prompts.draw().expect("drawn"), prompts.draw().expect("drawn"));
        assert_eq!([one.chunk.tokens.len(), other.chunk.tokens.len()], [prompts.length(); 2]);
        assert!(one.chunk.tokens[0] != other.chunk.tokens[0] && one.chunk.pictures != other.chunk.pictures);
        assert!(prompts.store.missing(&one.chunk.pictures).is_empty());
        assert_eq!(prompts.patches(&one).len(), 2);
        let named = one.chunk.pictures.clone();
        drop(one);
        assert_eq!(prompts.store.missing(&named), named);
        let load = Load { prompt: 5, pictures: 0, ..load };
        let mut prompts = Prompts::new(&model, None, &load, 3).expect("sound");
        let begin = |prompt: Prompt| (prompt.chunk.tokens[0], prompt.chunk.tokens[1]);
        let beginnings: BTreeSet<_> = (0..2000).map(|_| begin(prompts.draw().expect("drawn"))).collect();
        assert_eq!(beginnings.len(), 2000);
    }
}
