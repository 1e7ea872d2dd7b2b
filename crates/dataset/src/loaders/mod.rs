//! Benchmarks by name. A benchmark is one file of this folder with a `Loader`, and a line in `ALL`.
//!
//! In: a name, and a folder with the files that the benchmark's authors publish. Out: tasks, where their pictures are, and every row
//! that is no task, with its reason. Nothing is fetched, and no picture is held. It knows no policy and no judge.

mod browsecomp_vl;
mod fvqa;
pub mod gather;
mod hle_vl;
mod imeb;
mod infoseek;
mod livevqa;
mod mmsearch;
mod mmsearch_plus;
mod published;
mod simplevqa;
mod verl;
mod webwatcher;

use std::path::{Path, PathBuf};

use hypereyes_domain::Task;
use hypereyes_pictures::Limits;
use hypereyes_scoring::Metric;
use serde::Serialize;

use crate::encoded::Places;
use crate::error::file;
use crate::{DataError, PictureFiles};
use gather::Gather;

/// Every benchmark there is, by name.
const ALL: &[Loader] = &[
    browsecomp_vl::LOADER,
    fvqa::LOADER,
    hle_vl::LOADER,
    imeb::LOADER,
    infoseek::LOADER,
    livevqa::LOADER,
    mmsearch::LOADER,
    mmsearch_plus::LOADER,
    simplevqa::LOADER,
];

/// What a file is that git has kept elsewhere, and that nobody fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// Reads one benchmark.
struct Loader {
    /// What it is called.
    name: &'static str,
    /// Parts of it that can be read alone, as `name@subset`.
    subsets: &'static [&'static str],
    /// Those of them that the name alone stands for.
    whole: &'static [&'static str],
    /// The columns without which a file is not this benchmark.
    columns: &'static [&'static str],
    /// What its authors measure an answer by.
    metric: Metric,
    /// The folder that it is read from, and who has it: how a sentence ends.
    folder: &'static str,
    /// Hands on every row of the folder. An error ends the reading: a file that cannot be read at all.
    read: fn(&Opening<'_>, &mut Gather) -> Result<(), DataError>,
}

/// What a loader reads.
struct Opening<'a> {
    loader: &'static Loader,
    folder: &'a Path,
    /// The one subset that is wanted; the whole where there is none.
    subset: Option<&'static str>,
}

impl Opening<'_> {
    /// The subsets that are wanted, in their order.
    fn subsets(&self) -> impl Iterator<Item = &'static str> {
        let whole = |subset: &&'static str| self.subset.map_or(self.loader.whole.contains(subset), |wanted| wanted == *subset);
        self.loader.subsets.iter().copied().filter(whole)
    }

    /// Where pictures of a row lie: below the folder.
    fn places(&self) -> Places<'_> {
        Places { folder: self.folder, anywhere: false }
    }

    /// A file of the folder.
    fn file(&self, name: &str) -> Result<PathBuf, DataError> {
        let path = self.folder.join(name);
        if !path.is_file() {
            return Err(self.lacks(name));
        }
        let mut begins = [0; LFS_POINTER.len()];
        let read = std::fs::File::open(&path).and_then(|mut open| std::io::Read::read(&mut open, &mut begins));
        if read.map_err(|error| file(&path, &error))? == begins.len() && begins == LFS_POINTER {
            return Err(DataError::File { path, reason: "is what git has in place of the file: fetch that with `git lfs pull`".into() });
        }
        Ok(path)
    }

    /// The first of several names that the folder has a file of.
    fn first_of(&self, names: &[String]) -> Result<PathBuf, DataError> {
        self.file(names.iter().find(|name| self.folder.join(name).is_file()).unwrap_or(&names[0]))
    }

    /// The names of the folder's files that are wanted, in their order.
    fn names(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, DataError> {
        let fault = |error: std::io::Error| file(self.folder, &error);
        let mut names = vec![];
        for entry in std::fs::read_dir(self.folder).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name();
            names.extend(name.to_str().filter(|name| wanted(name)).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// That the folder has no such file, and which folder has.
    fn lacks(&self, name: &str) -> DataError {
        let path = self.folder.join(name);
        let Loader { name, folder, .. } = self.loader;
        DataError::File { path, reason: format!("there is no such file; {name} is read from {folder}") }
    }
}

/// A benchmark, or one subset of it.
pub struct Benchmark {
    loader: &'static Loader,
    subset: Option<&'static str>,
}

impl Benchmark {
    /// Every benchmark, each as a whole.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().map(|loader| Self { loader, subset: None })
    }

    /// The benchmark of a name: `browsecomp-vl`, or `browsecomp-vl@level1`.
    ///
    /// # Errors
    /// A sentence with the names that there are.
    pub fn named(text: &str) -> Result<Self, String> {
        let (name, subset) = text.split_once('@').map_or((text, None), |(name, subset)| (name, Some(subset)));
        let Some(loader) = ALL.iter().find(|loader| loader.name == name) else {
            return Err(format!("there is no benchmark {name:?}; there are {}", Self::names()));
        };
        let Some(wanted) = subset else { return Ok(Self { loader, subset: None }) };
        let Some(known) = loader.subsets.iter().find(|known| **known == wanted) else {
            let has =
                if loader.subsets.is_empty() { "no subsets".to_owned() } else { format!("the subsets {}", loader.subsets.join(", ")) };
            return Err(format!("{name} has no subset {wanted:?}; it has {has}"));
        };
        Ok(Self { loader, subset: Some(known) })
    }

    /// The names of all benchmarks and their subsets, as they are given to [`Benchmark::named`].
    pub fn names() -> String {
        let all = ALL.iter().flat_map(|loader| {
            let subsets = loader.subsets.iter().map(|subset| format!("{}@{subset}", loader.name));
            std::iter::once(loader.name.to_owned()).chain(subsets)
        });
        all.collect::<Vec<_>>().join(", ")
    }

    /// Its name, without the subset.
    pub fn name(&self) -> &'static str {
        self.loader.name
    }

    /// The columns without which a file is not this benchmark.
    pub fn columns(&self) -> &'static [&'static str] {
        self.loader.columns
    }

    /// What its authors measure an answer by.
    pub fn metric(&self) -> Metric {
        self.loader.metric
    }

    /// Reads it from the folder in which its files lie. Each picture is looked at once; those beyond `limits` are refused.
    ///
    /// # Errors
    /// When a file is missing, cannot be read at all, or lacks a column.
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
        let error = named("bing").expect_err("no name of a benchmark");
        assert!(error.starts_with(r#"there is no benchmark "bing"; there are browsecomp-vl, browsecomp-vl@level1, "#), "{error}");
        assert!(ALL.iter().all(|loader| error.contains(&format!(", {}", loader.name)) || loader.name == ALL[0].name), "{error}");
        let error = named("browsecomp-vl@").expect_err("no name of a subset");
        assert_eq!(error, r#"browsecomp-vl has no subset ""; it has the subsets level1, level2"#);
        assert_eq!(named("simplevqa@1").expect_err("no subset"), r#"simplevqa has no subset "1"; it has no subsets"#);
    }

    #[test]
    fn names_are_in_order_and_can_be_told_from_subsets() {
        for loader in ALL {
            assert!(!loader.name.contains('@') && !loader.name.is_empty() && !loader.columns.is_empty(), "{}", loader.name);
            assert!(loader.whole.iter().all(|subset| loader.subsets.contains(subset)), "{}", loader.name);
            assert_eq!(loader.whole.is_empty(), loader.subsets.is_empty(), "{}", loader.name);
        }
        assert!(ALL.is_sorted_by(|one, other| one.name < other.name));
    }

    #[test]
    fn what_git_kept_elsewhere_is_said_to_be_that() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(
            folder.path().join("end2end.parquet"),
            "version https://git-lfs.github.com/spec/v1\noid sha256:8d\nsize 277391783\n",
        )
        .expect("written");
        let read = Benchmark::named("mmsearch").expect("there is one").read(folder.path(), &Limits::default());
        let error = read.map(|_| ()).expect_err("no table").to_string();
        assert!(error.contains("end2end.parquet") && error.contains("git lfs pull"), "{error}");
    }
}
