//! A corpus as something that can be searched. In: an index, queries. Out: hits: documents by their words, pictures by what they show,
//! pages by address, title or id. It has one layer, the corpus as it is.

use std::path::Path;
use std::sync::Arc;

use hypereyes_environment::{Fault, Outcome, Query, Search, SearchFuture};
use hypereyes_pictures::{Patches, RgbImage};
use rayon::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::build::TEXTS;
use crate::folder;
use crate::pictures::Pictures;
use crate::texts::Texts;
use crate::vectors::Vectors;
use crate::{Error, Sight};

/// Hits that a search gives at most; episodes show fewer.
const HITS: usize = 10;
/// Searches that look at pictures at the same time: one that has the tower, and one that cuts its pictures into patches meanwhile.
const LOOKING: usize = 2;

/// An index that is open. Cheap to clone.
#[derive(Clone)]
pub struct Corpus {
    inner: Arc<Inner>,
}

struct Inner {
    texts: Option<Texts>,
    pictures: Option<Seen>,
    documents: u64,
    digest: String,
    /// Who may look at pictures; the others wait for it, without a thread and without patches.
    looking: Arc<Semaphore>,
}

/// Pictures, and what sees others.
struct Seen {
    pictures: Pictures,
    sight: Sight,
}

impl Seen {
    /// As many at once as may be patches.
    fn see(&self, pictures: &[&RgbImage]) -> Result<Vec<Vec<f32>>, Error> {
        let mut vectors = Vec::with_capacity(pictures.len());
        for some in pictures.chunks(self.sight.at_once()) {
            let patches: Vec<Patches> = some.par_iter().map(|picture| self.sight.patches(picture)).collect();
            vectors.extend(self.sight.vectors(&patches)?);
        }
        Ok(self.pictures.compared(vectors))
    }
}

impl Corpus {
    /// Opens an index, after every byte of it was looked at. `sight` is asked for what sees pictures where it holds some: it must be what
    /// saw them when the index was built.
    ///
    /// # Errors
    /// [`Error::Damaged`]; [`Error::Input`] where there is no index, or pictures would be seen otherwise.
    pub fn open(folder: &Path, sight: impl FnOnce() -> Result<Sight, Error>) -> Result<Self, Error> {
        let manifest = folder::check(folder)?;
        let texts = match manifest.documents {
            0 => None,
            count => Some(Texts::open(&folder.join(TEXTS), count)?),
        };
        let pictures = match manifest.pictures.filter(|seen| seen.count > 0) {
            None => None,
            Some(seen) => {
                let sight = sight()?;
                if sight.digest() != seen.tower {
                    return Err(Error::Input(format!(
                        "{}: its pictures were seen by another vision tower than the policy's that is given; name that policy's folder, \
                         or build the index again",
                        folder.display()
                    )));
                }
                Some(Seen { pictures: Pictures::open(folder, seen.count, seen.width)?, sight })
            }
        };
        let looking = Arc::new(Semaphore::new(LOOKING));
        Ok(Self { inner: Arc::new(Inner { texts, pictures, documents: manifest.documents, digest: manifest.digest, looking }) })
    }

    /// How many documents it has.
    pub fn documents(&self) -> u64 {
        self.inner.documents
    }

    /// The pictures' vectors, in their order; none where there are no pictures.
    pub fn vectors(&self) -> Option<&Vectors> {
        self.inner.pictures.as_ref().map(|own| own.pictures.vectors())
    }

    /// How many pictures it has.
    pub fn pictures(&self) -> usize {
        self.vectors().map_or(0, Vectors::len)
    }

    /// The vectors by which pictures are compared with those of the corpus; none where it has no pictures.
    ///
    /// # Errors
    /// [`Error`] of the tower.
    pub fn see(&self, pictures: &[&RgbImage]) -> Result<Option<Vec<Vec<f32>>>, Error> {
        self.inner.pictures.as_ref().map(|own| own.see(pictures)).transpose()
    }

    /// Its name by everything that answers follow from.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }
}

impl Search for Corpus {
    fn search<'a>(&'a self, layer: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        Box::pin(async move {
            if layer != 0 {
                let why = format!("layer {layer} is asked for, and a corpus has no layers: ask for 0");
                return queries.iter().map(|query| Err(query.failed(Fault::Refused, &why))).collect();
            }
            let (inner, asked) = (self.inner.clone(), queries.to_vec());
            let looks = queries.iter().any(|query| matches!(query, Query::Picture(_)));
            // It is never closed.
            let turn = if looks { inner.looking.clone().acquire_owned().await.ok() } else { None };
            // Milliseconds, and of pictures many: no work for the runtime's threads.
            let outcomes = tokio::task::spawn_blocking(move || inner.search(&asked, turn)).await;
            outcomes.unwrap_or_else(|died| queries.iter().map(|query| Err(query.failed(Fault::Unavailable, &died))).collect())
        })
    }
}

impl Inner {
    /// `turn` is held as long as pictures are looked at.
    fn search(&self, queries: &[Query], turn: Option<OwnedSemaphorePermit>) -> Vec<Outcome> {
        let mut pictures = self.see(queries).into_iter();
        drop(turn);
        let texts: Vec<Option<Outcome>> = match queries {
            // Alone it is not sent to other threads.
            [query] => vec![self.text(query)],
            _ => queries.par_iter().map(|query| self.text(query)).collect(),
        };
        texts.into_iter().map(|outcome| outcome.or_else(|| pictures.next()).expect("a picture for each that is no text")).collect()
    }

    /// Of a text or a page.
    fn text(&self, query: &Query) -> Option<Outcome> {
        let (Query::Text(text) | Query::Page(text)) = query else { return None };
        let Some(texts) = &self.texts else { return Some(Err(query.failed(Fault::Refused, "the index has no documents"))) };
        let found = match query {
            Query::Text(_) => texts.search(text, HITS),
            _ => texts.page(text).map(|page| page.into_iter().collect()),
        };
        Some(found.map_err(|error| query.failed(Fault::Unavailable, error)))
    }

    /// Of all pictures.
    fn see(&self, queries: &[Query]) -> Vec<Outcome> {
        let asked: Vec<&Query> = queries.iter().filter(|query| matches!(query, Query::Picture(_))).collect();
        if asked.is_empty() {
            return vec![];
        }
        let all = |fault: Fault, why: &str| -> Vec<Outcome> { asked.iter().map(|query| Err(query.failed(fault, why))).collect() };
        let Some(own) = &self.pictures else { return all(Fault::Refused, "the index has no pictures") };
        let shown = asked.iter().filter_map(|query| match query {
            Query::Picture(picture) => Some(&**picture),
            _ => None,
        });
        let shown: Vec<&RgbImage> = shown.collect();
        match own.see(&shown) {
            Ok(vectors) => own.pictures.search(&vectors, HITS).into_iter().map(Ok).collect(),
            Err(error) => all(Fault::Unavailable, &error.to_string()),
        }
    }
}
