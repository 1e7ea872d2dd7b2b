//! IMEB: questions about several entities of one picture, each of which has to be looked up (HyperEyes, arXiv 2605.07177).
//!
//! In: a folder with its parquet files; published is one, `IMEB_demo.parquet`. Out: a task per row, of the kind that its `data_source`
//! says, where there is one. It knows no judge; the authors ask a model, and weigh its verdict against rounds and tokens.
//!
//! **No file of it was seen.** The columns are those that the released code reads: `prompt` (messages, `<image>` where a picture stands),
//! `images`, `reward_model.ground_truth`, and `extra_info` with `question`, `index`, and what a success has cost (`tool_call` rounds, and in
//! `parallel` the searches of each, as the text of a JSON list). The question is `extra_info.question`, else what the user says in the
//! prompt. The prompt's own description of tools is left out: a policy has that of the tools that it has here. The domain of a question,
//! by which the paper splits its figures, is no column that the code reads; whatever else there is stays beside the task.

use hypereyes_domain::{Reference, TaskKind};
use hypereyes_scoring::Metric;
use serde::Deserialize;
use serde_json::Value;

use super::gather::{Gather, Row};
use super::published::{More, Name};
use super::verl::{self, MARK, Message, RewardModel, pictures, question, right, without_marks};
use super::{Loader, Opening};
use crate::DataError;
use crate::encoded::{PictureCell, Places};

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: NAME,
    subsets: &[],
    whole: &[],
    columns: &[verl::COLUMNS[0], verl::COLUMNS[1], verl::COLUMNS[2], "extra_info"],
    metric: Metric::Accuracy,
    folder: "the folder IEMB of github.com/DeepExperience/HyperEyes",
    read,
};

const NAME: &str = "imeb";
/// What is published.
const DEMO: &str = "IMEB_demo.parquet";

/// A row as the released code reads it; further columns are kept.
#[derive(Deserialize)]
struct Published {
    prompt: Vec<Message>,
    images: Vec<PictureCell>,
    reward_model: RewardModel,
    #[serde(deserialize_with = "super::published::nullable")]
    extra_info: Option<ExtraInfo>,
    data_source: Option<String>,
    #[serde(flatten)]
    more: More,
}

/// What stands beside a row.
#[derive(Deserialize)]
struct ExtraInfo {
    question: Option<String>,
    index: Option<Name>,
    tool_call: Option<u32>,
    #[serde(default)]
    parallel: Value,
    #[serde(flatten)]
    more: More,
}

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    let names = opening.names(|name| name.ends_with(".parquet"))?;
    if names.is_empty() {
        return Err(opening.lacks(DEMO));
    }
    let mut before = 0;
    for name in names {
        let make = |number: u64, row: Published| of(before + number, row, opening.places());
        before += gather.table(&opening.file(&name)?, &name, LOADER.columns, make)?;
    }
    Ok(())
}

fn of(number: u64, row: Published, places: Places<'_>) -> Result<Row, String> {
    let marks: usize = row.prompt.iter().map(|message| message.content.matches(MARK).count()).sum();
    if marks < row.images.len() {
        return Err(format!("prompt has {marks} {MARK}, but images has {} pictures", row.images.len()));
    }
    let mut metadata = row.more.0;
    let (mut id, mut asked, mut reference) = (number.to_string(), None, None);
    if let Some(extra) = row.extra_info {
        reference = cost(extra.tool_call, &extra.parallel)?;
        id = extra.index.map_or(id, |index| index.0);
        asked = extra.question.map(|question| without_marks(&question)).filter(|question| !question.is_empty());
        if !extra.more.0.is_empty() {
            metadata.insert("extra_info".to_owned(), extra.more.0.into());
        }
    }
    let kind = TaskKind::new(row.data_source.unwrap_or_else(|| NAME.to_owned()));
    let (asked, right) = (asked.map_or_else(|| question(&row.prompt), Ok)?, right(row.reward_model, &mut metadata)?);
    let mut row = Row::new(format!("{NAME}/{id}"), kind, asked, right, metadata, pictures(row.images, places)?);
    row.task.reference = reference;
    Ok(row)
}

/// What a success has cost; nothing where a row does not say, or says that it searched nothing: that is nobody's measure.
fn cost(rounds: Option<u32>, parallel: &Value) -> Result<Option<Reference>, String> {
    let list = match parallel {
        Value::String(text) => serde_json::from_str(text).map_err(|error| format!("extra_info.parallel is no JSON list: {error}"))?,
        other => other.clone(),
    };
    let searches: Option<Vec<u32>> =
        serde_json::from_value(list).map_err(|error| format!("extra_info.parallel is no list of whole numbers: {error}"))?;
    let (Some(rounds), Some(searches)) = (rounds, searches) else { return Ok(None) };
    let searches = searches.iter().try_fold(0u32, |sum, one| sum.checked_add(*one)).ok_or("extra_info.parallel has too many searches")?;
    Ok(Some(Reference { rounds, searches }).filter(Reference::is_possible))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_success_has_cost_is_read_from_a_text_or_a_list() {
        let said = Ok(Some(Reference { rounds: 2, searches: 3 }));
        assert_eq!(cost(Some(2), &json!("[2, 1]")), said);
        assert_eq!(cost(Some(2), &json!([2, 1])), said);
        for (rounds, parallel) in [(None, json!("[2]")), (Some(1), Value::Null), (Some(0), json!("[]")), (Some(2), json!([0, 0]))] {
            assert_eq!(cost(rounds, &parallel), Ok(None), "{rounds:?} {parallel}");
        }
        for parallel in [json!("[2,"), json!("x"), json!(7), json!([-1]), json!("[1.5]"), json!([u32::MAX, 1])] {
            assert!(cost(Some(2), &parallel).is_err_and(|why| why.starts_with("extra_info.parallel ")), "{parallel}");
        }
    }
}
