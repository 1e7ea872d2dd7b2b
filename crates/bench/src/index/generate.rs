//! Documents and picture files, the same for a seed on every machine: documents of words whose frequencies fall as those of a language
//! (Zipf), pictures of some coloured shapes. In: a seed and a number. Out: the document or picture of that number; files of all; queries.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use hypereyes_environment::Hit;
use hypereyes_pictures::{Filter, RgbImage, encode_png, resize};
use rayon::prelude::*;
use serde_json::json;

/// Words of the vocabulary.
const WORDS: usize = 200_000;
/// How fast frequencies fall with a word's rank.
const FALL: f64 = 1.07;
/// Words of a document's text, from and to.
const LENGTH: (u64, u64) = (40, 160);
/// Where documents are said to be from.
const ADDRESS: &str = "https://corpus.invalid/";
/// Pictures of one folder.
const FOLDER: usize = 1000;

/// Numbers without any order that follow from a seed (splitmix64).
pub(super) struct Draws(u64);

impl Draws {
    pub fn new(seed: u64, kind: u64, at: u64) -> Self {
        let mut draws = Self(seed ^ kind.wrapping_mul(0xA076_1D64_78BD_642F) ^ at.wrapping_mul(0xE703_7ED1_A0B4_28DB));
        draws.draw();
        draws
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// Evenly in 0..1.
    pub fn share(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly in from..to.
    pub fn within(&mut self, (from, to): (u64, u64)) -> u64 {
        from + self.draw() % (to - from)
    }
}

/// Documents of a seed.
pub(super) struct Documents {
    seed: u64,
    pub count: u64,
    /// How much of all words the first so many are.
    shares: Vec<f64>,
}

/// A query, as words and as their ranks.
pub(super) struct Asked {
    pub words: String,
    pub ranks: Vec<u32>,
}

impl Documents {
    pub fn new(seed: u64, count: u64) -> Self {
        let mut sum = 0.0;
        let mut shares: Vec<f64> = (1..=WORDS)
            .map(|rank| {
                sum += (rank as f64).powf(-FALL);
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        Self { seed, count, shares }
    }

    /// Ranks of the words of a document: title, text.
    pub fn ranks(&self, at: u64) -> (Vec<u32>, Vec<u32>) {
        let mut draws = Draws::new(self.seed, 1, at);
        let title = (0..draws.within((2, 5))).map(|_| draws.within((100, WORDS as u64)) as u32).collect();
        let length = draws.within(LENGTH);
        (title, (0..length).map(|_| self.drawn(&mut draws)).collect())
    }

    fn drawn(&self, draws: &mut Draws) -> u32 {
        let share = draws.share();
        self.shares.partition_point(|below| *below < share).min(WORDS - 1) as u32
    }

    /// Two words of the title of some document, and two to four of its text.
    pub fn queries(&self, count: usize) -> Vec<Asked> {
        let query = |at: u64| {
            let mut draws = Draws::new(self.seed, 2, at);
            let (title, text) = self.ranks(draws.within((0, self.count)));
            let mut ranks: Vec<u32> = title.into_iter().take(2).collect();
            ranks.extend((0..draws.within((2, 5))).map(|_| text[draws.within((0, text.len() as u64)) as usize]));
            ranks.sort_unstable();
            ranks.dedup();
            Asked { words: sentence(&ranks), ranks }
        };
        (0..count as u64).map(query).collect()
    }
}

/// The word of a rank: frequent ones are short.
fn word(rank: u32) -> String {
    const FIRST: &[u8; 16] = b"bdfghjklmnprstvz";
    const THEN: &[u8; 5] = b"aeiou";
    let (mut rest, mut word) = (rank, String::new());
    loop {
        word.push(FIRST[(rest % 16) as usize] as char);
        word.push(THEN[(rest / 16 % 5) as usize] as char);
        rest /= 80;
        if rest == 0 {
            return word;
        }
        rest -= 1;
    }
}

fn sentence(ranks: &[u32]) -> String {
    ranks.iter().map(|rank| word(*rank)).collect::<Vec<_>>().join(" ")
}

/// The number of the document that a hit is.
pub(super) fn number(hit: &Hit) -> Option<u64> {
    hit.url.as_deref()?.strip_prefix(ADDRESS)?.parse().ok()
}

/// Writes all as JSON lines, unless they are there; the file's bytes.
pub(super) fn documents(of: &Documents, path: &Path) -> Result<u64> {
    if !path.exists() {
        let draft = path.with_extension("draft");
        let mut out = BufWriter::new(File::create(&draft).with_context(|| draft.display().to_string())?);
        let all: Vec<u64> = (0..of.count).collect();
        for some in all.chunks(10_000) {
            let line = |at: &u64| {
                let (title, text) = of.ranks(*at);
                let row =
                    json!({"id": at.to_string(), "title": sentence(&title), "text": sentence(&text), "url": format!("{ADDRESS}{at}")});
                row.to_string()
            };
            let lines: Vec<String> = some.par_iter().map(line).collect();
            lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&draft, path)?;
    }
    Ok(std::fs::metadata(path)?.len())
}

/// Pictures of a seed.
pub(super) struct Pictures {
    pub seed: u64,
    pub count: usize,
    pub side: u32,
}

impl Pictures {
    /// The picture of a number: a background that goes from one colour to another, and some shapes on it.
    pub fn picture(&self, at: usize) -> RgbImage {
        let mut draws = Draws::new(self.seed, 3, at as u64);
        let colour = |draws: &mut Draws| -> [f64; 3] { std::array::from_fn(|_| draws.share() * 255.0) };
        let (from, to, slant) = (colour(&mut draws), colour(&mut draws), draws.share());
        let shapes: Vec<Shape> = (0..draws.within((3, 9)))
            .map(|_| Shape {
                round: draws.draw().is_multiple_of(2),
                middle: [draws.share(), draws.share()],
                half: [0.06 + draws.share() * 0.28, 0.06 + draws.share() * 0.28],
                colour: colour(&mut draws),
            })
            .collect();
        let side = f64::from(self.side);
        RgbImage::from_fn(self.side, self.side, |x, y| {
            let (x, y) = ((f64::from(x) + 0.5) / side, (f64::from(y) + 0.5) / side);
            let part = x * slant + y * (1.0 - slant);
            let behind: [f64; 3] = std::array::from_fn(|channel| from[channel] * (1.0 - part) + to[channel] * part);
            let seen = shapes.iter().rev().find(|shape| shape.covers(x, y)).map_or(behind, |shape| shape.colour);
            seen.map(|value| value as u8).into()
        })
    }

    /// What its hit is called: the name of its file.
    pub fn title(&self, at: usize) -> String {
        format!("{at:08}")
    }

    /// Some pictures as another camera would show them: the margins cut off, a little darker, with noise; and which they are.
    pub fn queries(&self, count: usize) -> Vec<(usize, Arc<RgbImage>)> {
        let query = |at: u64| {
            let mut draws = Draws::new(self.seed, 4, at);
            let which = draws.within((0, self.count as u64)) as usize;
            let whole = self.picture(which);
            let margin = self.side / 20;
            let inner = self.side - 2 * margin;
            let inside = RgbImage::from_fn(inner, inner, |x, y| *whole.get_pixel(x + margin, y + margin));
            let mut seen = resize(&inside, self.side, self.side, Filter::Bicubic);
            for pixel in seen.pixels_mut() {
                pixel.0 = pixel.0.map(|value| (f64::from(value) * 0.92 + draws.share() * 12.0 - 6.0).clamp(0.0, 255.0) as u8);
            }
            (which, Arc::new(seen))
        };
        (0..count as u64).map(query).collect()
    }
}

struct Shape {
    round: bool,
    middle: [f64; 2],
    half: [f64; 2],
    colour: [f64; 3],
}

impl Shape {
    fn covers(&self, x: f64, y: f64) -> bool {
        let (across, down) = ((x - self.middle[0]) / self.half[0], (y - self.middle[1]) / self.half[1]);
        if self.round { across * across + down * down <= 1.0 } else { across.abs().max(down.abs()) <= 1.0 }
    }
}

/// Writes all as PNG files below a folder, unless they are there; bytes of the files.
pub(super) fn pictures(of: &Pictures, folder: &Path) -> Result<u64> {
    if !folder.exists() {
        let draft = folder.with_extension("draft");
        let _ = std::fs::remove_dir_all(&draft);
        for part in 0..of.count.div_ceil(FOLDER) {
            std::fs::create_dir_all(draft.join(format!("{part:05}"))).with_context(|| draft.display().to_string())?;
        }
        (0..of.count).into_par_iter().try_for_each(|at| -> Result<()> {
            let path = draft.join(format!("{:05}/{}.png", at / FOLDER, of.title(at)));
            Ok(std::fs::write(path, encode_png(&of.picture(at))?)?)
        })?;
        std::fs::rename(&draft, folder)?;
    }
    let mut bytes = 0;
    for part in std::fs::read_dir(folder)? {
        for file in std::fs::read_dir(part?.path())? {
            bytes += file?.metadata()?.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_has_a_word_of_its_own_and_the_same_seed_the_same_document() {
        let words: std::collections::HashSet<String> = (0..WORDS as u32).map(word).collect();
        assert_eq!(words.len(), WORDS);
        let (one, other) = (Documents::new(1, 10), Documents::new(1, 20));
        assert_eq!(one.ranks(7), other.ranks(7));
        assert_ne!(one.ranks(7), Documents::new(2, 10).ranks(7));
        let pictures = Pictures { seed: 1, count: 5, side: 64 };
        assert!(pictures.picture(3) == pictures.picture(3) && pictures.picture(3) != pictures.picture(4));
    }
}
