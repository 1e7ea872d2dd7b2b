//! Rows of the benchmarks that WebWatcher (arXiv 2508.05748) publishes as JSON lines. In: its folder, and the name of one. Out: rows with
//! the places of their pictures. It knows no benchmark.
//!
//! The lines lie in `infer/vl_search_r1/eval_data`, or by themselves in the folder; pictures in `infer/scripts_eval/images/NAME`, in `images`,
//! or in the folder as well. A row names its picture by a path below the folder, or by an address. Nothing is fetched: of an address only the last part counts, as the authors' `download_image.py` writes it
//! (`zhili.zl%2Fqwenvl_rft%2Fimage%2Fa.jpeg`) or without what is written as a folder there (`a.jpeg`).

use std::path::{Component, Path, PathBuf};

use hypereyes_domain::TaskKind;
use serde::Deserialize;

use super::Opening;
use super::gather::{Encoded, Gather, Row};
use super::published::{More, Texts, answers};
use crate::DataError;

/// A row as it is published; further columns are kept.
#[derive(Deserialize)]
pub(super) struct Published {
    prompt: String,
    file_path: String,
    answers: Texts,
    #[serde(flatten)]
    pub more: More,
}

/// Hands on every line of `NAME.jsonl`; `name` takes from a row what it is called within the benchmark, and of which kind it is.
pub(super) fn read(
    opening: &Opening<'_>,
    file: &str,
    gather: &mut Gather,
    name: impl Fn(u64, &mut Published) -> Result<(String, TaskKind), String>,
) -> Result<(), DataError> {
    let lines = format!("{file}.jsonl");
    let path = opening.first_of(&[format!("infer/vl_search_r1/eval_data/{lines}"), lines.clone()])?;
    let folders = [format!("infer/scripts_eval/images/{file}"), "images".to_owned(), ".".to_owned()];
    let make = |number, mut row: Published| {
        let picture = picture(opening.folder, &folders, &row.file_path)?;
        let (name, kind) = name(number, &mut row)?;
        let mut metadata = row.more.0;
        metadata.insert("file_path".to_owned(), row.file_path.into());
        let right = answers("answers", row.answers.0, [])?;
        let id = format!("{}/{name}", opening.loader.name);
        Ok(Row::new(id, kind, row.prompt, right, metadata, vec![Encoded::File(picture)]))
    };
    gather.table(&path, &lines, opening.loader.columns, make).map(drop)
}

/// Where the folder has a picture. A row names nothing outside of it.
fn picture(folder: &Path, folders: &[String], named: &str) -> Result<PathBuf, String> {
    let Some((_, address)) = named.split_once("://") else {
        let path = Path::new(named);
        let below = path.components().all(|part| matches!(part, Component::Normal(_))) && !named.is_empty();
        return if below { Ok(folder.join(path)) } else { Err(format!("file_path is {named:?}: it is no path below the folder")) };
    };
    let last = address.split(['?', '#']).next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let short = ["%2F", "%2f"].iter().fold(last, |short, slash| short.rsplit(slash).next().unwrap_or(short));
    let is_name = |name: &&str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
    let mut places =
        folders.iter().flat_map(|below| [last, short].into_iter().filter(is_name).map(move |name| folder.join(below).join(name)));
    places.find(|path| path.is_file()).ok_or_else(|| {
        format!("file_path is {named:?}: there is no {short:?} in {}; fetch it there, nothing is fetched here", folders.join(" or "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_found_by_path_or_by_the_end_of_an_address_and_never_outside_of_the_folder() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = scratch.path().join("data");
        let folders = ["infer/scripts_eval/images/x".to_owned(), "images".to_owned()];
        for (below, name) in [("infer/scripts_eval/images/x", "u%2Fb%2Fa.jpeg"), ("images", "a.jpeg"), ("images", "c.jpeg")] {
            std::fs::create_dir_all(folder.join(below)).expect("made");
            std::fs::write(folder.join(below).join(name), "").expect("written");
        }
        std::fs::write(scratch.path().join("out.jpeg"), "").expect("written");
        let found = |named: &str| picture(&folder, &folders, named);
        let at = |path: &str| Ok(folder.join(path));
        assert_eq!(found("http://o.example/u%2Fb%2Fa.jpeg"), at("infer/scripts_eval/images/x/u%2Fb%2Fa.jpeg"));
        assert_eq!(found("http://o.example/u%2Fb%2fc.jpeg?x=/../out.jpeg#/a.jpeg"), at("images/c.jpeg"));
        assert_eq!(found("https://o.example/v/a.jpeg"), at("images/a.jpeg"));
        assert_eq!(found("images/a.jpeg"), at("images/a.jpeg"));
        for named in ["", "/etc/passwd", "../out.jpeg", "images/../../out.jpeg", "./a.jpeg"] {
            assert!(found(named).is_err_and(|why| why.starts_with("file_path is ") && why.contains("no path below the folder")), "{named}");
        }
        for named in ["http://o.example/", "http://o.example", "http://o.example/..", "http://o.example/..%2F..", "http://o.example/d.jpeg"]
        {
            assert!(found(named).is_err_and(|why| why.contains("in infer/scripts_eval/images/x or images")), "{named}");
        }
    }
}
