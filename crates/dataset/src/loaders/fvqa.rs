//! FVQA: questions about a picture, some of which need a search and some do not (MMSearch-R1, arXiv 2506.20670).
//!
//! In: the folder as it is published, `fvqa_test.parquet` (1,800 rows) and `fvqa_train.parquet` (4,856). Out: a task per row. It knows no
//! judge; the authors ask whether the answer is the true one or a candidate, word for word.
//!
//! The name alone is the test; `fvqa@train` is what MMSearch-R1 was trained on. Only there does a row say whether it needs a search
//! (`category`), and that is the kind; in the test it is the `data_source`. Papers that report 300 questions of the test do not say which.
//! What image searches found once is published beside it as pickles, which run whatever is in them when they are read: they are not.
//!
//! Columns and types are those of MMSearch-R1's five example rows, a real file, and of what the hub shows of this one (`data_id`,
//! `category`); the files were not seen.

use hypereyes_domain::TaskKind;
use hypereyes_scoring::Metric;
use serde::Deserialize;

use super::gather::{Gather, Row};
use super::published::{More, Name};
use super::verl::{Message, RewardModel, pictures, question, right};
use super::{Loader, Opening};
use crate::DataError;
use crate::encoded::{PictureCell, Places};

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: "fvqa",
    subsets: &["test", TRAIN],
    whole: &["test"],
    columns: &COLUMNS,
    metric: Metric::Em,
    folder: "the data set lmms-lab/FVQA of huggingface.co",
    read,
};

const TRAIN: &str = "train";
/// The columns of both files, and of MMSearch-R1's others.
pub(super) const COLUMNS: [&str; 4] = ["prompt", "images", "reward_model", "data_source"];

/// A row as it is published; further columns are kept.
#[derive(Deserialize)]
pub(super) struct Published {
    prompt: Vec<Message>,
    images: Vec<PictureCell>,
    reward_model: RewardModel,
    data_source: String,
    data_id: Option<Name>,
    category: Option<String>,
    #[serde(flatten)]
    more: More,
}

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    for subset in opening.subsets() {
        let name = format!("fvqa_{subset}.parquet");
        let columns: Vec<&str> = COLUMNS.into_iter().chain((subset == TRAIN).then_some("category")).collect();
        let row = |number: u64, row: Published| row.task(LOADER.name, &format!("{subset}/{number}"), opening.places());
        gather.table(&opening.file(&name)?, &name, &columns, row)?;
    }
    Ok(())
}

impl Published {
    /// The row; what has no name of its own is called `number`.
    pub(super) fn task(self, benchmark: &str, number: &str, places: Places<'_>) -> Result<Row, String> {
        let mut metadata = self.more.0;
        metadata.insert("data_source".to_owned(), self.data_source.clone().into());
        let id = format!("{benchmark}/{}", self.data_id.as_ref().map_or(number, |id| id.0.as_str()));
        let kind = TaskKind::new(self.category.unwrap_or(self.data_source));
        let (question, right) = (question(&self.prompt)?, right(self.reward_model, &mut metadata)?);
        Ok(Row::new(id, kind, question, right, metadata, pictures(self.images, places)?))
    }
}
