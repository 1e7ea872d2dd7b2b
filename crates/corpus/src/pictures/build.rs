//! Files of pictures, decoded and seen, some at a time. In: files, a tower. Out: rows of vectors and what is said of them. A file that is
//! no picture is refused by itself.

use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

use hypereyes_outside::files;
use hypereyes_pictures::{Limits, Patches, decode};
use rayon::prelude::*;

use super::{ABOUT, Files, VECTORS, WHITENING};
use crate::refused::{List, Refusal};
use crate::vectors::{Vectors, Writer};
use crate::whiten::Whitening;
use crate::{Error, Sight};

/// Pictures that each thread decodes before they are looked at, at most: large photographs take 100 MB each.
const DECODED: usize = 4;
/// Values of patches that wait for the tower: 32 MB.
const MOST_VALUES: usize = 8 << 20;
/// Pictures that wait for it.
const MOST_WAITING: usize = 1024;
/// Vectors that are changed before they are written.
const TOGETHER: usize = 4096;

/// Writes the pictures' part of an index into `folder`. `tell` is told how many files were looked at; `taken` of the bytes of each.
pub(crate) fn build(
    folder: &Path,
    files: &Files,
    sight: &Sight,
    refused: &mut List,
    taken: &mut dyn FnMut(&[u8], &str),
    tell: &mut dyn FnMut(usize, u64),
) -> Result<u64, Error> {
    let (vectors, about) = (folder.join(VECTORS), folder.join(ABOUT));
    let in_vectors = |error| Error::io(&vectors, error);
    let in_about = |error| Error::io(&about, error);
    let mut rows = Writer::create(&vectors, sight.width()).map_err(in_vectors)?;
    let mut lines = BufWriter::new(std::fs::File::create(&about).map_err(in_about)?);
    let (mut waiting, mut values): (Vec<Patches>, usize) = (vec![], 0);
    let mut see = |waiting: &mut Vec<Patches>| -> Result<(), Error> {
        let seen = sight.vectors(waiting)?;
        waiting.clear();
        seen.iter().try_for_each(|row| rows.add(row)).map_err(in_vectors)
    };
    let step = (DECODED * rayon::current_num_threads()).min(sight.at_once());
    for start in (0..files.len()).step_by(step) {
        let end = (start + step).min(files.len());
        let looked: Vec<Result<(blake3::Hash, Patches), Refusal>> =
            (start..end).into_par_iter().map(|at| look(&files.path(at), sight)).collect();
        for (at, looked) in (start..end).zip(looked) {
            match looked {
                Ok((hash, patches)) => {
                    let line = serde_json::to_string(&files.about(at)).expect("plain values");
                    writeln!(lines, "{line}").map_err(in_about)?;
                    taken(hash.as_bytes(), &line);
                    values += patches.values.len();
                    waiting.push(patches);
                }
                Err(refusal) => refused.add(&files.path(at), None, refusal)?,
            }
        }
        if values >= MOST_VALUES || waiting.len() >= MOST_WAITING {
            see(&mut waiting)?;
            values = 0;
        }
        tell(end, refused.total());
    }
    see(&mut waiting)?;
    lines.flush().map_err(in_about)?;
    let count = rows.finish().map_err(in_vectors)?;
    whiten(folder, sight.width(), count)?;
    Ok(count)
}

/// Puts vectors as they are compared in the place of the tower's.
fn whiten(folder: &Path, width: usize, count: u64) -> Result<(), Error> {
    let (path, draft) = (folder.join(VECTORS), folder.join(format!("{VECTORS}.draft")));
    let changed = || -> std::io::Result<()> {
        let vectors = Vectors::read(&path, width, count as usize)?;
        let Some(whitening) = Whitening::of(&vectors) else { return Ok(()) };
        whitening.write(&folder.join(WHITENING))?;
        let mut rows = Writer::create(&draft, width)?;
        for start in (0..vectors.len()).step_by(TOGETHER) {
            let end = (start + TOGETHER).min(vectors.len());
            let changed: Vec<Vec<f32>> = (start..end).into_par_iter().map(|at| whitening.apply(vectors.row(at))).collect();
            changed.iter().try_for_each(|row| rows.add(row))?;
        }
        rows.finish()?;
        std::fs::rename(&draft, &path)
    };
    changed().map_err(|error| Error::io(&path, error))
}

/// A file's name by its content, and its patches.
fn look(path: &Path, sight: &Sight) -> Result<(blake3::Hash, Patches), Refusal> {
    let limits = Limits::default();
    let unread = |error: std::io::Error| match error.kind() {
        ErrorKind::FileTooLarge => Refusal::new("bytes", format!("the picture {error}")),
        _ => Refusal::new("unreadable", error.to_string()),
    };
    let bytes = files::read(path, limits.max_bytes as u64).map_err(unread)?;
    let picture = decode(&bytes, &limits).map_err(|error| Refusal::new(error.label(), error.to_string()))?;
    Ok((blake3::hash(&bytes), sight.patches(&picture)))
}
