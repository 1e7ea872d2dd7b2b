//! From files to an index. In: files of documents, a folder of pictures, a tower. Out: a folder that [`crate::Corpus`] opens, and what was
//! not taken. The same inputs give the same digest and the same answers.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::document::Document;
use crate::folder::{self, Draft, Seen};
use crate::pictures::{self, Files};
use crate::refused::{List, Refused};
use crate::rows;
use crate::texts::Builder;
use crate::{Error, Sight};

/// The folder of texts within an index.
pub(crate) const TEXTS: &str = "texts";
/// Rows between two words of progress.
const EVERY: u64 = 1000;
/// What a digest begins with: how words are made and scored. Raised when the same files would be answered for otherwise.
const ANSWERS: &str = "hypereyes corpus 2: words 1, bm25 1.2 0.75, cosine of whitened 0.01";

/// What an index is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Files of documents, in order.
    pub documents: Vec<PathBuf>,
    /// A folder of pictures.
    pub pictures: Option<PathBuf>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Documents are read.
    Documents {
        /// Documents so far.
        taken: u64,
        /// Refused so far.
        refused: u64,
        /// Part of the files that was read, about: 0..=1.
        share: f64,
    },
    /// Parts of the index of texts are joined.
    Joining,
    /// Pictures are seen.
    Pictures {
        /// Files so far.
        done: usize,
        /// All of them.
        of: usize,
        /// Refused so far, documents included.
        refused: u64,
    },
    /// Everything is written to disk and hashed.
    Sealing,
}

/// An index that was built.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// Documents in it.
    pub documents: u64,
    /// Pictures in it.
    pub pictures: u64,
    /// Its name by what answers follow from.
    pub digest: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// What was not taken.
    #[serde(skip)]
    pub refused: Refused,
}

/// Builds an index at `out`, which is there as a whole when this returns, and otherwise not at all. `sight` sees the pictures.
///
/// # Errors
/// [`Error::Input`] where nothing can be built from what is given, or nothing of it was taken; [`Error::Io`].
///
/// # Panics
/// There are pictures, and no `sight`.
pub fn build(inputs: &Inputs, out: &Path, sight: Option<&Sight>, tell: &mut dyn FnMut(Progress)) -> Result<Built, Error> {
    if inputs.documents.is_empty() && inputs.pictures.is_none() {
        return Err(Error::Input("an index is made of --documents, --pictures or both".into()));
    }
    let draft = Draft::begin(out)?;
    let mut refused = List::create(draft.path())?;
    let mut digest = Digest::new();
    let documents = if inputs.documents.is_empty() { 0 } else { texts(inputs, draft.path(), &mut refused, &mut digest, tell)? };
    let seen = match &inputs.pictures {
        None => None,
        Some(folder) => {
            let sight = sight.expect("pictures come with what sees them");
            digest.put(&[b"tower", sight.digest().as_bytes()]);
            let files = Files::find(folder, &mut refused)?;
            let mut taken = |hash: &[u8], about: &str| digest.put(&[b"picture", hash, about.as_bytes()]);
            let mut told = |done: usize, refused: u64| tell(Progress::Pictures { done, of: files.len(), refused });
            let count = pictures::build(draft.path(), &files, sight, &mut refused, &mut taken, &mut told)?;
            Some(Seen { count, width: sight.width(), tower: sight.digest().to_owned() })
        }
    };
    let refused = refused.finish()?;
    let pictures = seen.as_ref().map_or(0, |seen| seen.count);
    if documents + pictures == 0 {
        let why = refused.first.first().map_or_else(|| "there is none".to_owned(), |line| format!("{}: {}", line.file, line.message));
        return Err(Error::Input(format!("no document and no picture could be taken ({} refused): {why}", refused.total())));
    }
    tell(Progress::Sealing);
    let digest = digest.name();
    let counts = refused.counts.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
    let manifest = draft.finish(|files| folder::manifest(digest, documents, seen, counts, files))?;
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    Ok(Built { documents, pictures, digest: manifest.digest, bytes, refused })
}

fn texts(inputs: &Inputs, draft: &Path, refused: &mut List, digest: &mut Digest, tell: &mut dyn FnMut(Progress)) -> Result<u64, Error> {
    let weights = weights(&inputs.documents)?;
    let mut builder = Builder::create(&draft.join(TEXTS))?;
    let mut before = 0.0;
    for (path, weight) in inputs.documents.iter().zip(weights) {
        let named = |why: String| Error::Input(format!("{}: {why}", path.display()));
        let mut rows = rows::open(path).map_err(named)?;
        let mut seen: u64 = 0;
        while let Some(row) = rows.next_row().map_err(named)? {
            match row.document {
                Ok(document) => {
                    let Document { id, title, text, url } = &document;
                    digest.put(&[b"document", id.as_bytes(), title.as_bytes(), text.as_bytes(), url.as_bytes()]);
                    builder.add(document)?;
                }
                Err(refusal) => refused.add(path, row.number, refusal)?,
            }
            seen += 1;
            if seen.is_multiple_of(EVERY) {
                let share = before + weight * rows.share();
                tell(Progress::Documents { taken: builder.count(), refused: refused.total(), share });
            }
        }
        before += weight;
        tell(Progress::Documents { taken: builder.count(), refused: refused.total(), share: before.min(1.0) });
    }
    builder.finish(|| tell(Progress::Joining))
}

/// Which part of all bytes each file has.
fn weights(paths: &[PathBuf]) -> Result<Vec<f64>, Error> {
    let size = |path: &PathBuf| {
        std::fs::metadata(path).map(|about| about.len().max(1) as f64).map_err(|error| Error::Input(format!("{}: {error}", path.display())))
    };
    let sizes: Vec<f64> = paths.iter().map(size).collect::<Result<_, _>>()?;
    let all: f64 = sizes.iter().sum();
    Ok(sizes.iter().map(|size| size / all).collect())
}

/// Everything that answers follow from, in order.
struct Digest(blake3::Hasher);

impl Digest {
    fn new() -> Self {
        let mut digest = Self(blake3::Hasher::new());
        digest.put(&[ANSWERS.as_bytes()]);
        digest
    }

    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.0.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }

    fn name(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}
