//! LiveVQA: questions about pictures of recent news, with options to choose from (arXiv 2504.05288), in the 300 of them that WebWatcher
//! publishes and papers on agents report.
//!
//! In: WebWatcher's folder with `livevqa.jsonl` and the pictures. Out: a task per row; the options A to E stand in the question. It knows
//! no judge; the right option is asked for, and papers ask a model.
//!
//! The columns are those of the published file, which was seen; its pictures, behind addresses of a private store, were not. `task`,
//! `source` and `tags` say HLE in every row and are no kinds. In 53 of the 300 rows the answers belong to another question, and no option is
//! right; they are kept as they are published, so whoever always chooses what the picture shows has 247 right.

use hypereyes_domain::TaskKind;
use hypereyes_scoring::Metric;

use super::gather::Gather;
use super::{Loader, Opening, webwatcher};
use crate::DataError;

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: "livevqa",
    subsets: &[],
    whole: &[],
    columns: &["prompt", "file_path", "answers", "question_id"],
    metric: Metric::Option,
    folder: "the folder WebAgent/WebWatcher of github.com/Alibaba-NLP/DeepResearch, with its pictures in infer/scripts_eval/images/livevqa",
    read,
};

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    webwatcher::read(opening, "livevqa", gather, |_, row| Ok((row.more.name("question_id")?, TaskKind::new(LOADER.name))))
}
