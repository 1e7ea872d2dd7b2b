//! MMSearch-Plus: questions about one to five pictures whose answer lies outside of them (arXiv 2508.21475).
//!
//! In: the folder as it is published, `data-00000-of-00002.arrow` and `data-00001-of-00002.arrow`, 311 rows as `datasets` saves them. Out: a
//! task per row: its category is the kind, the right answers are in their order. It knows no judge; the authors ask a model, and have
//! published no script.
//!
//! Texts are published so that nobody trains on them by mistake: question, answers, `video_url` and `arxiv_id` are base64 of the UTF-8
//! text, each byte XORed with the SHA-256 of the canary, repeated (the authors' `decrypt_after_load.py`). The canary is the name of their
//! repository, `MMSearch-Plus`, and what it hides must not be written where it is crawled. Pictures are in the clear.
//!
//! Columns and types are those that the card of the published data declares; the file was not seen.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hypereyes_domain::TaskKind;
use hypereyes_scoring::Metric;
use serde::Deserialize;

use super::gather::{Encoded, Gather, Row};
use super::published::{More, Texts, answers, nullable};
use super::{Loader, Opening};
use crate::DataError;
use crate::encoded::{PictureCell, Places};

/// The benchmark.
pub(super) const LOADER: Loader = Loader {
    name: NAME,
    subsets: &[],
    whole: &[],
    columns: &[
        "question",
        "answer",
        "num_images",
        "arxiv_id",
        "video_url",
        "category",
        "difficulty",
        "subtask",
        "img_1",
        "img_2",
        "img_3",
        "img_4",
        "img_5",
    ],
    metric: Metric::Accuracy,
    folder: "the data set Cie1/MMSearch-Plus of huggingface.co",
    read,
};

const NAME: &str = "mmsearch-plus";

/// The SHA-256 of `MMSearch-Plus`.
const KEY: [u8; 32] = [
    0x15, 0x18, 0x93, 0xd5, 0x82, 0x3b, 0x40, 0x7d, 0x66, 0x31, 0x60, 0x61, 0x38, 0x6d, 0x77, 0xa0, 0x0c, 0x0b, 0xea, 0xa9, 0x58, 0xe1,
    0x32, 0x78, 0xf8, 0x03, 0x8b, 0xed, 0xa5, 0x1e, 0xae, 0x15,
];

/// A row as it is published; further columns are kept.
#[derive(Deserialize)]
struct Published {
    question: String,
    answer: Texts,
    num_images: usize,
    #[serde(deserialize_with = "nullable")]
    arxiv_id: Option<String>,
    #[serde(deserialize_with = "nullable")]
    video_url: Option<String>,
    category: String,
    #[serde(deserialize_with = "nullable")]
    img_1: Option<PictureCell>,
    #[serde(deserialize_with = "nullable")]
    img_2: Option<PictureCell>,
    #[serde(deserialize_with = "nullable")]
    img_3: Option<PictureCell>,
    #[serde(deserialize_with = "nullable")]
    img_4: Option<PictureCell>,
    #[serde(deserialize_with = "nullable")]
    img_5: Option<PictureCell>,
    #[serde(flatten)]
    more: More,
}

fn read(opening: &Opening<'_>, gather: &mut Gather) -> Result<(), DataError> {
    let mut before = 0;
    for name in parts(opening)? {
        // Rows have no name of their own: they are counted through all files.
        let make = |number: u64, row: Published| of(before + number, row, opening.places());
        before += gather.table(&opening.file(&name)?, &name, LOADER.columns, make)?;
    }
    Ok(())
}

/// The names of the files, of which none is missing: the parts of one saving, or whatever else is Arrow.
fn parts(opening: &Opening<'_>) -> Result<Vec<String>, DataError> {
    let name = |at: usize, of: usize| format!("data-{at:05}-of-{of:05}.arrow");
    let count = |name: &str| name.strip_suffix(".arrow")?.strip_prefix("data-")?.split_once("-of-")?.1.parse::<usize>().ok();
    let found = opening.names(|name| count(name).is_some())?;
    let Some(of) = found.first().and_then(|first| count(first)) else {
        let others = opening.names(|name| name.ends_with(".arrow"))?;
        return if others.is_empty() { Err(opening.lacks(&name(0, 2))) } else { Ok(others) };
    };
    // However many it says: of a folder that lacks some, a name is missing among as many as it has and one more.
    let wanted: Vec<String> = (0..of.min(found.len() + 1)).map(|at| name(at, of)).collect();
    if let Some(lost) = wanted.iter().find(|name| !found.contains(name)) {
        return Err(opening.lacks(lost));
    }
    if let Some(more) = found.iter().find(|name| !wanted.contains(name)) {
        let reason = format!("is one part more than the {of} that there are: the folder holds the parts of two data sets");
        return Err(DataError::File { path: opening.folder.join(more), reason });
    }
    Ok(wanted)
}

fn of(number: u64, row: Published, places: Places<'_>) -> Result<Row, String> {
    let mut metadata = row.more.0;
    for (column, hidden) in [("arxiv_id", row.arxiv_id), ("video_url", row.video_url)] {
        if let Some(hidden) = hidden.filter(|hidden| !hidden.is_empty()) {
            metadata.insert(column.to_owned(), reveal(column, &hidden)?.into());
        }
    }
    let right: Vec<String> = row.answer.0.iter().map(|hidden| reveal("answer", hidden)).collect::<Result<_, _>>()?;
    let (question, right) = (reveal("question", &row.question)?, answers("answer", right, [])?);
    let pictures = pictures(row.num_images, [row.img_1, row.img_2, row.img_3, row.img_4, row.img_5], places)?;
    Ok(Row::new(format!("{NAME}/{number}"), TaskKind::new(row.category), question, right, metadata, pictures))
}

/// The first `count` pictures, which are all that there are.
fn pictures(count: usize, cells: [Option<PictureCell>; 5], places: Places<'_>) -> Result<Vec<Encoded>, String> {
    let mut pictures = vec![];
    for (at, cell) in (1..).zip(cells) {
        match cell.filter(|cell| !cell.is_empty()) {
            Some(cell) if at <= count => pictures.push(cell.resolve(places).map_err(|why| format!("img_{at} {why}"))?),
            None if at > count => {}
            Some(_) => return Err(format!("num_images is {count}, but there is img_{at}")),
            None => return Err(format!("num_images is {count}, but there is no img_{at}")),
        }
    }
    if pictures.len() == count && count > 0 { Ok(pictures) } else { Err(format!("num_images is {count}: there are 1 to 5")) }
}

/// The text behind a published one; nothing is behind nothing.
fn reveal(column: &str, hidden: &str) -> Result<String, String> {
    let mut bytes = STANDARD.decode(hidden.trim()).map_err(|error| format!("{column} is not as it is published, base64: {error}"))?;
    bytes.iter_mut().zip(KEY.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    String::from_utf8(bytes).map_err(|_| format!("{column} is no text behind the canary of MMSearch-Plus"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_that_the_authors_hid() {
        // By Python's hashlib and base64: a text longer than the key, and one that is not in ASCII.
        assert_eq!(
            reveal("question", "XHazoupSIxVGSAUASk0AwX8rnsE9wVANkW/vhMt5jnp7OOe95xszGAVeDgUYHR7DeH6YzHiHWxaRcOOIwSE=").as_deref(),
            Ok("In which year was the building on the second picture finished?")
        );
        assert_eq!((reveal("answer", "").as_deref(), reveal("answer", "T9svp+tYKA==").as_deref()), (Ok(""), Ok("Zürich")));
        let error = reveal("question", "Where was this filmed?").expect_err("in the clear");
        assert!(error.starts_with("question is not as it is published, base64: "), "{error}");
        let error = reveal("answer", "gA==").expect_err("half a letter");
        assert_eq!(error, "answer is no text behind the canary of MMSearch-Plus");
    }
}
