//! Benchmarks by name. A benchmark is one file of this folder with a `Loader`, and a line in `ALL`.
//!
//! In: a name, and a folder with the files that the benchmark's authors publish. Out: tasks, where their pictures are, and every row
//! that is no task, with its reason. Nothing is fetched, and no picture is held. It knows no policy and no judge.

mod browsecomp_vl;
pub mod gather;

use std::path::{Path, PathBuf};

use hypereyes_domain::Task;
use hypereyes_pictures::Limits;
use serde::Serialize;

use crate::{DataError, PictureFiles};
use gather::Gather;

/// Every benchmark there is.
const ALL: &[Loader] = &[browsecomp_vl::LOADER];

/// Reads one benchmark.
struct Loader {
    /// What it is called.
    name: &'static str,
    /// Parts of it that can be read alone, as `name@subset`.
    subsets: &'static [&'static str],
    /// The folder that it is read from, and who has it: how a sentence ends.
    folder: &'static str,
    /// Hands on every row of the folder. An error ends the reading: a file that cannot be read at all.
    read: fn(&Opening<'_>, &mut Gather) -> Result<(), DataError>,
}

/// What a loader reads.
struct Opening<'a> {
    loader: &'static Loader,
    folder: &'a Path,
    /// The one subset that is wanted; all where there is none.
    subset: Option<&'static str>,
}

impl Opening<'_> {
    /// The subsets that are wanted, in their order.
    fn subsets(&self) -> impl Iterator<Item = &'static str> {
        self.loader.subsets.iter().copied().filter(move |subset| self.subset.is_none_or(|wanted| wanted == *subset))
    }

    /// A file of the folder.
    fn file(&self, name: &str) -> Result<PathBuf, DataError> {
        let path = self.folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        let Loader { name, folder, .. } = self.loader;
        Err(DataError::File { path, reason: format!("there is no such file; {name} is read from {folder}") })
    }
}

/// A benchmark, or one subset of it.
pub struct Benchmark {
    loader: &'static Loader,
    subset: Option<&'static str>,
}

impl Benchmark {
    /// The benchmark of a name: `browsecomp-vl`, or `browsecomp-vl@level1`.
    ///
    /// # Errors
    /// A sentence with the names that there are.
    pub fn named(text: &str) -> Result<Self, String> {
        let (name, subset) = text.split_once('@').map_or((text, None), |(name, subset)| (name, Some(subset)));
        let Some(loader) = ALL.iter().find(|loader| loader.name == name) else {
            let names: Vec<&str> = ALL.iter().map(|loader| loader.name).collect();
            let are = if names.len() == 1 { "is" } else { "are" };
            return Err(format!("there is no benchmark {name:?}; there {are} {}", names.join(", ")));
        };
        let Some(wanted) = subset else { return Ok(Self { loader, subset: None }) };
        let Some(known) = loader.subsets.iter().find(|known| **known == wanted) else {
            let has =
                if loader.subsets.is_empty() { "no subsets".to_owned() } else { format!("the subsets {}", loader.subsets.join(", ")) };
            return Err(format!("{name} has no subset {wanted:?}; it has {has}"));
        };
        Ok(Self { loader, subset: Some(known) })
    }

    /// Reads it from the folder in which its files lie. Each picture is looked at once; those beyond `limits` are refused.
    ///
    /// # Errors
    /// When a file is missing or cannot be read at all.
    pub fn read(&self, folder: &Path, limits: &Limits) -> Result<Rows, DataError> {
        let mut gather = Gather::new(limits);
        (self.loader.read)(&Opening { loader: self.loader, folder, subset: self.subset }, &mut gather)?;
        Ok(gather.rows())
    }
}

/// What a benchmark's rows came to.
#[derive(Debug)]
pub struct Rows {
    /// Rows that are tasks, in their order.
    pub tasks: Vec<Task>,
    /// The pictures that they name.
    pub pictures: PictureFiles,
    /// All other rows, in their order.
    pub refused: Vec<Refused>,
}

/// A row that is no task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its file, within the folder.
    pub file: String,
    /// Its number in the file, from 0.
    pub row: u64,
    /// Why.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_those_that_are_none_with_the_choices() {
        let named = |text: &str| Benchmark::named(text).map(|found| (found.loader.name, found.subset));
        assert_eq!(named("browsecomp-vl"), Ok(("browsecomp-vl", None)));
        assert_eq!(named("browsecomp-vl@level2"), Ok(("browsecomp-vl", Some("level2"))));
        assert_eq!(named("bing"), Err(r#"there is no benchmark "bing"; there is browsecomp-vl"#.to_owned()));
        let error = named("browsecomp-vl@").expect_err("no name of a subset");
        assert_eq!(error, r#"browsecomp-vl has no subset ""; it has the subsets level1, level2"#);
    }

    #[test]
    fn names_differ_and_can_be_told_from_subsets() {
        for (at, loader) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|before| before.name != loader.name), "{} twice", loader.name);
            assert!(!loader.name.contains('@') && !loader.name.is_empty());
        }
    }
}
