//! HLE-VL: the questions of Humanity's Last Exam (arXiv 2501.14249) that have a picture, in the 330 of them that WebWatcher publishes.
//!
//! In: WebWatcher's folder with `hle.jsonl` and the pictures, unpacked from `infer/scripts_eval/images/hle_imgs.tar`. Out: a task per row:
//! its subject is the kind (`task` without `hle/`); the authors' reasoning stays beside the task. It knows no judge; the authors ask a
//! model.
//!
//! The columns are those of the published file, which was seen; the archive was not.

use hypereyes_domain::TaskKind;
use hypereyes_scoring::Metric;

use super::gather::Gather;
use super::{Loader, Opening, webwatcher};
use crate::DataError;

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: "hle-vl",
    subsets: &[],
    whole: &[],
    columns: &["prompt", "file_path", "answers", "task"],
    metric: Metric::Accuracy,
    folder: "the folder WebAgent/WebWatcher of github.com/Alibaba-NLP/DeepResearch, with infer/scripts_eval/images/hle_imgs.tar unpacked",
    read,
};

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    webwatcher::read(opening, "hle", gather, |number, row| {
        let subject = row.more.name("task")?;
        Ok((number.to_string(), TaskKind::new(subject.strip_prefix("hle/").unwrap_or(&subject))))
    })
}
