//! The index of words, built in parts of bounded size that are joined at the end.
//!
//! In: documents, in order. Out: a folder with one segment. Memory is that of two parts for each maker, whatever the corpus has; parts
//! are cut by what they hold alone, so that the same documents make the same index on any machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tantivy::directory::MmapDirectory;
use tantivy::indexer::{SingleSegmentIndexWriter, merge_indices};
use tantivy::{Index, TantivyDocument, TantivyError};

use super::{KINDS, TOKENIZER, named, schema};
use crate::Error;
use crate::document::Document;
use hypereyes_search::words;

/// Bytes of texts in a part. Its index takes some two to three times as much while it is made.
const PART_BYTES: usize = 16 << 20;
/// Documents in a part: short ones cost more than their bytes.
const PART_DOCUMENTS: usize = 1 << 17;
/// What tantivy is told that it may take; it sizes its tables by it.
const ARENA_BYTES: usize = 32 << 20;
/// Threads that make parts, at most: one thread reads for all of them, and each takes some 35 MB.
const MOST_MAKERS: usize = 8;
/// Documents of an index, at most: numbers of them have 32 bits.
const MOST_DOCUMENTS: u64 = 1 << 31;

/// A part to be made: its number and its documents.
type Part = (usize, Vec<Document>);

/// Takes documents.
pub(crate) struct Builder {
    /// Where parts lie until they are joined; beside `target`.
    parts: PathBuf,
    target: PathBuf,
    open: Vec<Document>,
    open_bytes: usize,
    count: u64,
    made: usize,
    hand: Option<SyncSender<Part>>,
    makers: Vec<JoinHandle<Result<(), Error>>>,
}

impl Builder {
    /// An index in `target`, a folder that is not there yet.
    pub fn create(target: &Path) -> Result<Self, Error> {
        let parts = target.with_extension("parts");
        for folder in [target, &parts] {
            std::fs::create_dir(folder).map_err(|error| Error::io(folder, error))?;
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_MAKERS);
        // One part waits while others are made.
        let (hand, take) = sync_channel(1);
        let take = Arc::new(Mutex::new(take));
        let maker = |at: usize| {
            let (take, parts) = (take.clone(), parts.clone());
            let named = std::thread::Builder::new().name(format!("texts {at}"));
            named.spawn(move || make_parts(&take, &parts)).map_err(|error| Error::io(Path::new("a thread"), error))
        };
        let makers = (0..threads).map(maker).collect::<Result<_, _>>()?;
        let hand = Some(hand);
        Ok(Self { parts, target: target.to_owned(), open: vec![], open_bytes: 0, count: 0, made: 0, hand, makers })
    }

    /// Takes one.
    pub fn add(&mut self, document: Document) -> Result<(), Error> {
        self.count += 1;
        if self.count > MOST_DOCUMENTS {
            return Err(Error::Input(format!("more than {MOST_DOCUMENTS} documents: make several indexes of them")));
        }
        self.open_bytes += document.title.len() + document.text.len();
        self.open.push(document);
        if self.open_bytes >= PART_BYTES || self.open.len() >= PART_DOCUMENTS {
            self.hand_over()?;
        }
        Ok(())
    }

    /// How many were taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Joins the parts. `joining` is called when all are made.
    pub fn finish(mut self, joining: impl FnOnce()) -> Result<u64, Error> {
        if !self.open.is_empty() || self.made == 0 {
            self.hand_over()?;
        }
        self.stop()?;
        joining();
        let opened = |at: usize| Index::open_in_dir(self.parts.join(at.to_string()));
        let indexes: Vec<Index> = (0..self.made).map(opened).collect::<tantivy::Result<_>>().map_err(failed)?;
        let target = MmapDirectory::open(&self.target).map_err(|error| Error::Failed(error.to_string()))?;
        drop(merge_indices(&indexes, target).map_err(failed)?);
        drop(indexes);
        std::fs::remove_dir_all(&self.parts).map_err(|error| Error::io(&self.parts, error))?;
        Ok(self.count)
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        let part = (self.made, std::mem::take(&mut self.open));
        self.made += 1;
        self.open_bytes = 0;
        let handed = self.hand.as_ref().is_some_and(|hand| hand.send(part).is_ok());
        // Nobody takes it any more: one of them says why.
        if handed { Ok(()) } else { self.stop().and(Err(Error::Failed("nobody makes parts of the index any more".into()))) }
    }

    /// Waits for those that make parts.
    fn stop(&mut self) -> Result<(), Error> {
        self.hand = None;
        let ended =
            self.makers.drain(..).map(|maker| maker.join().unwrap_or_else(|_| Err(Error::Failed("a part of the index panicked".into()))));
        ended.collect::<Vec<_>>().into_iter().collect()
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        // They write below a folder that is about to be removed.
        let _ = self.stop();
    }
}

/// Consumes parts until there are no more, or one fails.
fn make_parts(take: &Mutex<Receiver<Part>>, parts: &Path) -> Result<(), Error> {
    loop {
        let next = take.lock().recv();
        let Ok((number, documents)) = next else { return Ok(()) };
        make_part(&parts.join(number.to_string()), documents).map_err(failed)?;
    }
}

fn make_part(folder: &Path, documents: Vec<Document>) -> tantivy::Result<()> {
    std::fs::create_dir(folder)?;
    let (schema, fields) = schema();
    let index = Index::create_in_dir(folder, schema)?;
    index.tokenizers().register(TOKENIZER, words::analyzer());
    let mut writer = SingleSegmentIndexWriter::<TantivyDocument>::new(index, ARENA_BYTES)?;
    for Document { id, title, text, url } in documents {
        let mut document = TantivyDocument::default();
        document.add_text(fields.body, words::plain_words(&format!("{title}\n{text}")));
        for (kind, name) in KINDS.into_iter().zip([&url, &title, &id]) {
            if !name.trim().is_empty() {
                document.add_text(fields.address, named(kind, name));
            }
        }
        document.add_text(fields.title, title);
        document.add_text(fields.text, text);
        document.add_text(fields.url, url);
        writer.add_document(document)?;
    }
    writer.finalize()?;
    Ok(())
}

fn failed(error: TantivyError) -> Error {
    Error::Failed(format!("the index of texts cannot be made: {error}"))
}
