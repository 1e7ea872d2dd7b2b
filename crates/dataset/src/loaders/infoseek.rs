//! InfoSeek: questions about a picture whose answer stands in an encyclopaedia (arXiv 2302.11713), in the 2,000 of them that MMSearch-R1
//! (arXiv 2506.20670) measures.
//!
//! In: the folder as it is published, with `mmsearch_r1_infoseek_sub_2k.parquet`. Out: a task per row, of the kind that its
//! `data_source` says. It knows no judge; the authors ask whether the answer is the true one or a candidate, word for word.
//!
//! The file is MMSearch-R1's like FVQA's, and is read as that is. Seen were five rows that the authors give as an example of the layout, a
//! real file of InfoSeek's rows; the file itself is kept by Git LFS and was not.

use hypereyes_scoring::Metric;

use super::fvqa::{COLUMNS, Published};
use super::gather::Gather;
use super::{Loader, Opening};
use crate::DataError;

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: "infoseek",
    subsets: &[],
    whole: &[],
    columns: &COLUMNS,
    metric: Metric::Em,
    folder: "the folder mmsearch_r1/data of github.com/EvolvingLMMs-Lab/multimodal-search-r1, after `git lfs pull`",
    read,
};

const FILE: &str = "mmsearch_r1_infoseek_sub_2k.parquet";

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    let row = |number: u64, row: Published| row.task(LOADER.name, &number.to_string(), opening.places());
    gather.table(&opening.file(FILE)?, FILE, LOADER.columns, row).map(drop)
}
