//! The layouts in which others publish rows to train on, told apart by their columns. In: a row. Out: which layout it is. What a layout's
//! columns mean stands in `columns.rs`.

use std::fmt;
use std::str::FromStr;

use hypereyes_tables::Cell;
use serde::Serialize;

/// A layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `prompt`, `images`, `reward_model`, `extra_info`.
    Verl,
    /// The same, with the reference's rounds and searches in `extra_info.tool_call` and `extra_info.parallel`.
    Hypereyes,
    /// The same, with `reward_model.candidate_answers`.
    MmsearchR1,
    /// slime and Relax: `prompt` or `input`, `label`, `metadata`.
    Slime,
    /// Our own: what a line of `tasks.jsonl` has.
    Tasks,
    /// `question` and `answer`, with an `image` or `images`.
    Plain,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Verl, Self::Hypereyes, Self::MmsearchR1, Self::Slime, Self::Tasks, Self::Plain];

    /// Its name, as in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verl => "verl",
            Self::Hypereyes => "hypereyes",
            Self::MmsearchR1 => "mmsearch-r1",
            Self::Slime => "slime",
            Self::Tasks => "tasks",
            Self::Plain => "plain",
        }
    }

    /// The layout of a row; none where its columns are none of them.
    pub(super) fn of(row: &Cell, keys: &Keys) -> Option<Self> {
        let has = |name: &str| row.get(name).is_some();
        let any = |names: &[&str]| names.iter().any(|name| has(name));
        let said = |name: &Option<String>| name.as_deref().is_some_and(has);
        let has_within = |column: &str, names: &[&str]| {
            let within = row.get(column);
            names.iter().any(|name| within.is_some_and(|within| within.get(name).is_some()))
        };
        // Whoever names a column means that it is read.
        if [&keys.input, &keys.label, &keys.metadata].into_iter().any(said) {
            return Some(Self::Slime);
        }
        if has("prompt") && has("reward_model") {
            let is_ours = has_within("extra_info", &["tool_call", "parallel", super::columns::KEPT]);
            let has_candidates = has_within("reward_model", &["candidate_answers"]);
            return Some(match (is_ours, has_candidates) {
                (true, _) => Self::Hypereyes,
                (false, true) => Self::MmsearchR1,
                (false, false) => Self::Verl,
            });
        }
        if has("question") && has("answers") && has("id") && has("kind") {
            return Some(Self::Tasks);
        }
        if any(&INPUTS) && has("label") {
            return Some(Self::Slime);
        }
        (any(&QUESTIONS) && any(&ANSWERS)).then_some(Self::Plain)
    }
}

/// Where slime and Relax have what is asked.
pub(super) const INPUTS: [&str; 3] = ["prompt", "input", "messages"];
/// Where plain rows have it.
pub(super) const QUESTIONS: [&str; 3] = ["question", "query", "problem"];
/// Where plain rows have what is right.
pub(super) const ANSWERS: [&str; 4] = ["answers", "answer", "ground_truth", "label"];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "relax" {
            return Ok(Self::Slime);
        }
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| format!("there is no format {text:?}; there are {names}"))
    }
}

/// Columns that are called otherwise than slime's default, as its flags of these names say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// What is asked: a text, or messages.
    pub input: Option<String>,
    /// What is right.
    pub label: Option<String>,
    /// What is kept beside.
    pub metadata: Option<String>,
    /// Pictures.
    pub images: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart_by_their_columns() {
        let of = |json: &str| Format::of(&serde_json::from_str(json).expect("JSON"), &Keys::default());
        assert_eq!(of(r#"{"prompt": [], "reward_model": {"ground_truth": "a"}, "extra_info": {"index": 0}}"#), Some(Format::Verl));
        assert_eq!(of(r#"{"prompt": [], "reward_model": {"candidate_answers": "[]"}}"#), Some(Format::MmsearchR1));
        assert_eq!(of(r#"{"prompt": [], "reward_model": {}, "extra_info": {"parallel": null}}"#), Some(Format::Hypereyes));
        assert_eq!(of(r#"{"input": "q", "label": "a"}"#), Some(Format::Slime));
        assert_eq!(of(r#"{"id": 1, "kind": "k", "question": "q", "answers": []}"#), Some(Format::Tasks));
        assert_eq!(of(r#"{"question": "q", "answer": "a", "images": []}"#), Some(Format::Plain));
        assert_eq!(of(r#"{"text": "q"}"#), None);
        let keys = Keys { input: Some("text".into()), ..Keys::default() };
        assert_eq!(Format::of(&serde_json::from_str(r#"{"text": "q"}"#).expect("JSON"), &keys), Some(Format::Slime));
        let gold = Keys { label: Some("gold".into()), ..Keys::default() };
        let row = serde_json::from_str(r#"{"question": "q", "answer": "a", "gold": "b"}"#).expect("JSON");
        assert_eq!(Format::of(&row, &gold), Some(Format::Slime), "the answer that was named, or none");
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(serde_json::to_value(format).expect("a text"), format.name());
        }
        assert!("csv".parse::<Format>().is_err_and(|why| why.contains("mmsearch-r1")));
    }
}
