//! BrowseComp-VL: questions about a picture that take several pages of the web to answer (WebWatcher, arXiv 2508.05748).
//!
//! In: the folder as it is published, `bc_vl_level1.jsonl` and `bc_vl_level2.jsonl` with the pictures that they name unpacked from
//! `images/level1.tar` and `images/level2.tar`. Out: a task per row: its domain is the kind, its level is in the metadata. It knows no
//! judge; the authors ask a model.
//!
//! The columns are those of the two published files (199 and 200 rows in November 2026). The archives were not seen: the pictures are
//! looked for where the rows say.

use std::path::{Component, Path, PathBuf};

use hypereyes_domain::TaskKind;
use hypereyes_scoring::Metric;
use serde::Deserialize;

use super::gather::{Encoded, Gather, Row};
use super::published::{More, Texts, answers};
use super::{Loader, Opening};
use crate::DataError;

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: NAME,
    subsets: LEVELS,
    whole: LEVELS,
    columns: &["question", "image_path", "answers", "domain"],
    metric: Metric::Accuracy,
    folder: "the folder WebAgent/WebWatcher/browsecomp-vl of github.com/Alibaba-NLP/DeepResearch, with its two archives unpacked in images",
    read,
};

/// Of the benchmark, and of the folder that rows begin their pictures' paths with.
const NAME: &str = "browsecomp-vl";
const LEVELS: &[&str] = &["level1", "level2"];

/// A row as it is published; further columns are kept.
#[derive(Deserialize)]
struct Published {
    question: String,
    /// Such as `browsecomp-vl/images/level1/level1_1.jpg`.
    image_path: String,
    answers: Texts,
    domain: String,
    #[serde(flatten)]
    more: More,
}

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    for level in opening.subsets() {
        let name = format!("bc_vl_{level}.jsonl");
        gather.table(&opening.file(&name)?, &name, LOADER.columns, |number, row| of(opening.folder, level, number, row))?;
    }
    Ok(())
}

fn of(folder: &Path, level: &str, number: u64, row: Published) -> Result<Row, String> {
    let picture = picture(folder, &row.image_path)?;
    let mut metadata = row.more.0;
    metadata.insert("level".to_owned(), level.into());
    metadata.insert("image_path".to_owned(), row.image_path.into());
    let right = answers("answers", row.answers.0, [])?;
    let (id, kind) = (format!("{NAME}/{level}/{number}"), TaskKind::new(row.domain));
    Ok(Row::new(id, kind, row.question, right, metadata, vec![Encoded::File(picture)]))
}

/// Where the folder, whatever it is called here, has a picture. A row names nothing outside of it.
fn picture(folder: &Path, path: &str) -> Result<PathBuf, String> {
    let within =
        Path::new(path).strip_prefix(NAME).ok().filter(|within| within.components().all(|part| matches!(part, Component::Normal(_))));
    within.map(|within| folder.join(within)).ok_or_else(|| format!("image_path is {path:?}: it is no path below {NAME}/"))
}

#[cfg(test)]
mod tests {
    use hypereyes_pictures::Limits;

    use super::*;
    use crate::loaders::{Benchmark, Rows};

    fn published() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/browsecomp-vl")
    }

    fn read(name: &str, folder: &Path) -> Result<Rows, DataError> {
        Benchmark::named(name).expect("there is one").read(folder, &Limits::default())
    }

    #[test]
    fn rows_in_the_published_form_are_tasks() {
        let Rows { tasks, pictures, refused } = read("browsecomp-vl", &published()).expect("reads");
        assert_eq!(refused, []);
        let ids: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
        assert_eq!(ids, ["browsecomp-vl/level1/0", "browsecomp-vl/level1/1", "browsecomp-vl/level2/0"]);
        let first = &tasks[0];
        assert_eq!((first.kind.as_str(), first.answer(), first.layer), ("Art", "blue", None));
        assert_eq!(first.metadata["level"], "level1");
        assert_eq!(first.metadata["image_path"], "browsecomp-vl/images/level1/level1_1.jpg");
        assert_eq!(tasks[1].answers, ["Paris", "the city of Paris"]);
        for task in &tasks {
            assert_eq!(pictures.load(&task.pictures[0]).expect("its picture").id, task.pictures[0]);
        }
        let level = read("browsecomp-vl@level2", &published()).expect("reads").tasks;
        assert_eq!(level, tasks[2..]);
    }

    #[test]
    fn rows_that_cannot_be_used_are_named_and_the_others_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let images = folder.path().join("images/level1");
        std::fs::create_dir_all(&images).expect("made");
        std::fs::copy(published().join("images/level1/level1_1.jpg"), images.join("level1_1.jpg")).expect("copied");
        std::fs::write(images.join("text.jpg"), "no picture").expect("written");
        let row =
            |path: &str, more: &str| format!(r#"{{"question": "q?", "image_path": "{path}", "answers": ["a"], "domain": "TV"{more}}}"#);
        let good = "browsecomp-vl/images/level1/level1_1.jpg";
        let rows = [
            (row(good, r#", "year": 2024"#), ""),
            (row("https://example.org/1.jpg", ""), "no path below"),
            (row("browsecomp-vl/../../etc/passwd", ""), "no path below"),
            (row("browsecomp-vl/images/level1/none.jpg", ""), "none.jpg"),
            (row("browsecomp-vl/images/level1/text.jpg", ""), "neither PNG nor JPEG"),
            (row(good, "").replace(r#"["a"]"#, "[]"), "no answer"),
            (row(good, "").replace("answers", "answer"), "missing field `answers`"),
            (row(good, "").replace("TV", ""), "kind is empty"),
            (row(good, ""), ""),
        ];
        let text: String = rows.iter().map(|(row, _)| row.clone() + "\n").collect();
        std::fs::write(folder.path().join("bc_vl_level1.jsonl"), text).expect("written");
        let Rows { tasks, refused, .. } = read("browsecomp-vl@level1", folder.path()).expect("reads");
        assert_eq!((tasks.len(), &tasks[0].metadata["year"], tasks[1].id.as_str()), (2, &2024.into(), "browsecomp-vl/level1/8"));
        assert_eq!(refused.len(), 7, "{refused:?}");
        for refused in refused {
            let reason = rows[usize::try_from(refused.row).expect("small")].1;
            assert!(!reason.is_empty() && refused.reason.contains(reason), "{refused:?}: {reason}");
        }
        let error = read("browsecomp-vl", folder.path()).map(|_| ()).expect_err("half of it").to_string();
        assert!(error.contains("bc_vl_level2.jsonl") && error.contains("Alibaba-NLP/DeepResearch"), "{error}");
    }
}
