//! MMSearch: questions that only a search answers, with and without a picture (arXiv 2409.12959).
//!
//! In: the folder as it is published, `end2end.parquet`. Out: a task per row: its area is the kind, the canonical answer stands before the
//! alternatives. It knows no judge; the authors measure the overlap of words with the best answer.
//!
//! `mmsearch@171` are the questions with a picture, which papers on agents report (WebWatcher's `mmsearch.jsonl` has 171 rows, and names
//! their pictures by addresses); `mmsearch@300`, and the name alone, are all. What an image search found once, a picture of its own, is
//! left out: it is what the policy is to find. `rerank` and `summarization` are other exercises, and are not read.
//!
//! Columns and types are those that the card of the published data declares; the file was not seen.

use hypereyes_domain::TaskKind;
use hypereyes_scoring::Metric;
use serde::Deserialize;

use super::gather::{Gather, Row};
use super::published::{More, Name, Texts, answers, nullable};
use super::{Loader, Opening};
use crate::DataError;
use crate::encoded::{PictureCell, Places};

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: NAME,
    subsets: &[WITH_PICTURE, "300"],
    whole: &["300"],
    columns: &["sample_id", "query", "query_image", "area", "subfield", "timestamp", "gt_requery", "gt_answer", "alternative_gt_answers"],
    metric: Metric::TokenF1,
    folder: "the data set CaraJ/MMSearch of huggingface.co",
    read,
};

const NAME: &str = "mmsearch";
/// The questions with a picture.
const WITH_PICTURE: &str = "171";
const FILE: &str = "end2end.parquet";

/// A row as it is published; further columns are kept.
#[derive(Deserialize)]
struct Published {
    sample_id: Name,
    query: String,
    #[serde(deserialize_with = "nullable")]
    query_image: Option<PictureCell>,
    area: String,
    gt_answer: String,
    alternative_gt_answers: Texts,
    /// What an image search found, as a picture.
    #[serde(default, rename = "image_search_result", deserialize_with = "super::published::passed_over")]
    _found: (),
    #[serde(flatten)]
    more: More,
}

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    for subset in opening.subsets() {
        let path = opening.file(FILE)?;
        gather.table(&path, FILE, LOADER.columns, |_, row: Published| {
            let picture = row.query_image.as_ref().is_some_and(|cell| !cell.is_empty());
            if subset == WITH_PICTURE && !picture { Ok(None) } else { of(opening.places(), row).map(Some) }
        })?;
    }
    Ok(())
}

fn of(places: Places<'_>, row: Published) -> Result<Row, String> {
    let picture = row.query_image.filter(|cell| !cell.is_empty());
    let pictures = picture.map(|cell| cell.resolve(places).map_err(|why| format!("query_image {why}"))).transpose()?;
    let right = answers("gt_answer", vec![row.gt_answer], row.alternative_gt_answers.0)?;
    let (id, kind) = (format!("{NAME}/{}", row.sample_id.0), TaskKind::new(row.area));
    Ok(Row::new(id, kind, row.query, right, row.more.0, pictures.into_iter().collect()))
}
