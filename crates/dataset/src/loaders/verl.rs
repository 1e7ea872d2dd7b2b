//! Rows in the columns that verl's trainer reads: a prompt, pictures, and what is right. In: a row. Out: its question, answers and
//! pictures. It knows no benchmark; several are published so.
//!
//! `candidate_answers` is a JSON list within a text, as MMSearch-R1 writes it, or a list. Candidates that are no text are no answers,
//! as in the authors' scorer (numbers with their ranges, in InfoSeek); they are kept beside the task.

use hypereyes_domain::Metadata;
use serde::Deserialize;
use serde_json::Value;

use super::gather::Encoded;
use super::published::{More, Texts, answers};
use crate::encoded::{PictureCell, Places};

/// Where a message has a picture.
pub(super) const MARK: &str = "<image>";

/// The columns of which a row is made at least.
pub(super) const COLUMNS: [&str; 3] = ["prompt", "images", "reward_model"];

/// A message of the prompt.
#[derive(Deserialize)]
pub(super) struct Message {
    pub role: String,
    pub content: String,
}

/// What the trainer scores by.
#[derive(Deserialize)]
pub(super) struct RewardModel {
    ground_truth: Texts,
    #[serde(default)]
    candidate_answers: Value,
    #[serde(flatten)]
    more: More,
}

/// The question: what the user says, without the places of pictures.
///
/// # Errors
/// When the user says nothing, or speaks more than once.
pub(super) fn question(prompt: &[Message]) -> Result<String, String> {
    let mut said = prompt.iter().filter(|message| message.role == "user");
    match (said.next(), said.next()) {
        (Some(message), None) => Ok(without_marks(&message.content)),
        (None, _) => Err("prompt has no message of the user".into()),
        _ => Err("prompt has several messages of the user".into()),
    }
}

/// A text without the places of pictures.
pub(super) fn without_marks(text: &str) -> String {
    text.replace(MARK, "").trim().to_owned()
}

/// The right answers: the true one, then the candidates. What else there is goes into the metadata.
///
/// # Errors
/// When the candidates are neither a list nor the text of one.
pub(super) fn right(reward_model: RewardModel, metadata: &mut Metadata) -> Result<Vec<String>, String> {
    let list = match reward_model.candidate_answers {
        Value::Null => vec![],
        Value::Array(list) => list,
        Value::String(text) => {
            serde_json::from_str(&text).map_err(|error| format!("reward_model.candidate_answers is no JSON list: {error}"))?
        }
        other => return Err(format!("reward_model.candidate_answers is {other}: neither a list nor the text of one")),
    };
    let (texts, others): (Vec<Value>, Vec<Value>) = list.into_iter().partition(Value::is_string);
    if !others.is_empty() {
        metadata.insert("candidates_no_text".to_owned(), others.into());
    }
    if !reward_model.more.0.is_empty() {
        metadata.insert("reward_model".to_owned(), reward_model.more.0.into());
    }
    let candidates = texts.into_iter().filter_map(|value| value.as_str().map(str::to_owned));
    answers("reward_model.ground_truth", reward_model.ground_truth.0, candidates)
}

/// The pictures of a row, of which there is at least one.
///
/// # Errors
/// Which of them is none, and why.
pub(super) fn pictures(images: Vec<PictureCell>, places: Places<'_>) -> Result<Vec<Encoded>, String> {
    if images.is_empty() {
        return Err("images has no picture".into());
    }
    let resolve = |(at, cell): (usize, PictureCell)| cell.resolve(places).map_err(|why| format!("images[{at}] {why}"));
    images.into_iter().enumerate().map(resolve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    #[test]
    fn the_question_is_what_the_user_says_once() {
        let prompt = [message("system", "You have tools. <image>"), message("user", "<image>\nWho is it?")];
        assert_eq!(question(&prompt), Ok("Who is it?".into()));
        assert_eq!(question(&prompt[..1]), Err("prompt has no message of the user".into()));
        let twice = [message("user", "a"), message("assistant", "b"), message("user", "c")];
        assert_eq!(question(&twice), Err("prompt has several messages of the user".into()));
    }

    #[test]
    fn the_true_answer_stands_before_the_candidates_each_once() {
        let right = |reward_model: Value| {
            let mut metadata = Metadata::new();
            let answers = right(serde_json::from_value(reward_model).map_err(|error| error.to_string())?, &mut metadata)?;
            Ok::<_, String>((answers, Value::from(metadata)))
        };
        use serde_json::json;
        let text = json!({"ground_truth": "Spain", "candidate_answers": "[\"ESP\", \"Spain\", \"\\ud83c\\uddea\\ud83c\\uddf8\"]", "style": "rule"});
        let answers = ["Spain", "ESP", "\u{1f1ea}\u{1f1f8}"].map(str::to_owned).to_vec();
        assert_eq!(right(text), Ok((answers, json!({"reward_model": {"style": "rule"}}))));
        let list = json!({"ground_truth": "9", "candidate_answers": ["nine", 9, {"range": [8, 10]}, ""]});
        assert_eq!(right(list), Ok((vec!["9".into(), "nine".into()], json!({"candidates_no_text": [9, {"range": [8, 10]}]}))));
        for none in [
            json!({"ground_truth": "a"}),
            json!({"ground_truth": "a", "candidate_answers": null}),
            json!({"ground_truth": ["a"], "candidate_answers": "[]"}),
        ] {
            assert_eq!(right(none), Ok((vec!["a".into()], json!({}))));
        }
        for (wrong, why) in [("\"x\"", "no JSON list"), ("\"{}\"", "no JSON list"), ("7", "neither a list nor the text of one")] {
            let error = right(serde_json::from_str(&format!(r#"{{"ground_truth": "a", "candidate_answers": {wrong}}}"#)).expect("JSON"));
            assert!(error.as_ref().is_err_and(|error| error.contains("candidate_answers") && error.contains(why)), "{error:?}");
        }
        assert!(right(json!({"candidate_answers": "[]"})).is_err_and(|why| why.contains("ground_truth")));
    }
}
