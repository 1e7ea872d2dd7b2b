//! SimpleVQA: short questions of fact about a picture (arXiv 2502.13059), in the 300 of them that WebWatcher publishes and papers on agents
//! report. The full set has 2,025, in English and Chinese.
//!
//! In: WebWatcher's folder with `simplevqa.jsonl` and the pictures. Out: a task per row. It knows no judge; the authors ask a model whether
//! an answer is right, wrong or not attempted.
//!
//! The columns are those of the published file, which was seen; its pictures, behind addresses of a private store, were not. `task`,
//! `source` and `tags` say HLE in every row and are no kinds.

use hypereyes_domain::TaskKind;
use hypereyes_scoring::Metric;

use super::gather::Gather;
use super::{Loader, Opening, webwatcher};
use crate::DataError;

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: "simplevqa",
    subsets: &[],
    whole: &[],
    columns: &["prompt", "file_path", "answers", "question_id"],
    metric: Metric::Accuracy,
    folder: "the folder WebAgent/WebWatcher of github.com/Alibaba-NLP/DeepResearch, with its pictures in infer/scripts_eval/images/simplevqa",
    read,
};

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    webwatcher::read(opening, "simplevqa", gather, |_, row| Ok((row.more.name("question_id")?, TaskKind::new(LOADER.name))))
}
