//! Pictures as an index: what is said of each, and its vector. Built in `build.rs`, searched here.
//!
//! In: an index's folder. Out: the pictures most like a vector. Not known here: how a picture becomes a vector.

mod build;
mod files;

use std::path::Path;

pub(crate) use build::build;
pub(crate) use files::Files;
use hypereyes_environment::Hit;
use hypereyes_outside::jsonl::Lines;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::shown::{MOST_HIT, cut};
use crate::vectors::Vectors;
use crate::whiten::Whitening;

/// The file with the vectors, as many as there are pictures.
pub(crate) const VECTORS: &str = "pictures.f32";
/// The file that says what each picture is, a JSON object on each line.
pub(crate) const ABOUT: &str = "pictures.jsonl";
/// How vectors are changed before they are compared; not there where they are compared as they are.
pub(crate) const WHITENING: &str = "pictures.whitening";
/// Bytes of a line of a list that somebody wrote, at most.
pub(crate) const MOST_LINE: usize = 64 << 10;
/// Bytes of a line of ours, at most: beside what a list says it has the file's name, and its title where the list has none.
const MOST_OWN_LINE: usize = 4 * MOST_LINE;

/// What is said of a picture.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct About {
    /// Its file, below the folder of pictures.
    pub file: String,
    /// What it shows; where nothing is said, the file's name without its ending.
    pub title: String,
    /// What there is to say of it.
    pub text: String,
    /// Where it is from.
    pub url: String,
}

/// Pictures that can be searched.
pub(crate) struct Pictures {
    about: Vec<About>,
    vectors: Vectors,
    whitening: Option<Whitening>,
}

impl Pictures {
    /// Opens an index of `count` pictures of a width.
    pub fn open(folder: &Path, count: u64, width: usize) -> Result<Self, Error> {
        let bad = |why: String| Error::damaged(folder, why);
        let count = usize::try_from(count).map_err(|_| bad(format!("{count} pictures")))?;
        let vectors = Vectors::read(&folder.join(VECTORS), width, count).map_err(|error| bad(format!("{VECTORS}: {error}")))?;
        let path = folder.join(WHITENING);
        let whitening = path.exists().then(|| Whitening::read(&path, width)).transpose();
        let whitening = whitening.map_err(|error| bad(format!("{WHITENING}: {error}")))?;
        let lines = Lines::open(&folder.join(ABOUT), MOST_OWN_LINE).map_err(|error| bad(format!("{ABOUT}: {error}")))?;
        let mut about = Vec::with_capacity(count);
        for row in lines.values::<About>() {
            let row = row.map_err(|error| bad(format!("{ABOUT}: {error}")))?;
            about.push(row.value.map_err(|why| bad(format!("{ABOUT} line {}: {why}", row.number)))?);
        }
        if about.len() != count {
            return Err(bad(format!("{ABOUT} has {} lines, not {count}", about.len())));
        }
        Ok(Self { about, vectors, whitening })
    }

    /// The vectors, in the order of the pictures.
    pub fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    /// A tower's vectors as they are compared.
    pub fn compared(&self, vectors: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
        match &self.whitening {
            Some(whitening) => vectors.iter().map(|vector| whitening.apply(vector)).collect(),
            None => vectors,
        }
    }

    /// For each vector, as it is compared, the `limit` pictures most like it; a score is the cosine of the angle between them, at least 0.
    pub fn search(&self, vectors: &[Vec<f32>], limit: usize) -> Vec<Vec<Hit>> {
        let hit = |(at, product): (usize, f32)| {
            let About { title, text, url, .. } = &self.about[at];
            let (title, content) = (title.clone(), cut(text, MOST_HIT, "hit").to_owned());
            let url = (!url.is_empty()).then(|| url.clone());
            Hit { title, content, url, score: Some(f64::from(product).clamp(0.0, 1.0)), ..Hit::default() }
        };
        self.vectors.nearest(vectors, limit).into_iter().map(|found| found.into_iter().map(hit).collect()).collect()
    }
}
