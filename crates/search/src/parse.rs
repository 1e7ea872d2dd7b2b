//! The one parser of an assistant turn (spec 1.1, 1.5; resolution D4). In: any text; out: what the policy wants to do.
//! It never fails: what cannot be read is an action of its own. Knows no registry and no limit of turns.

use hypereyes_domain::{Area, Call};
use serde_json::{Map, Value};

use crate::metrics::CAPPED;

/// Most areas of one call; the rest is dropped and counted. More than a picture has entities.
pub const MAX_AREAS: usize = 64;
/// Most queries of one call; the rest is dropped and counted.
pub const MAX_QUERIES: usize = 64;

/// The end token as text; it may still be on the turn.
const END: &str = "<|im_end|>";

/// One assistant turn, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What is in `<reason>`, trimmed.
    pub reason: Option<String>,
    /// What to do.
    pub action: Action,
}

/// What a turn wants. An answer goes before a call in the same turn; of several calls the first counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A closed, non-blank `<answer>`, trimmed.
    Answer(String),
    /// A call that can be executed.
    Call(Call),
    /// A call that names no tool or has arguments of the wrong kind: executed as an error observation, which says this.
    BadCall(String),
    /// Neither: no tags, broken JSON, an empty call, or an answer that was not closed.
    None,
}

/// How tags are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Ours (D4): a trailing end token is not part of the text, an answer must be closed.
    Strict,
    /// As the reference environment reads; only for its golden vectors.
    Compat,
}

/// The parts of a turn before they are understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Tags {
    /// Text of `<reason>`, to the end of the turn if it is not closed.
    pub reason: Option<String>,
    /// JSON of the first `<tool_call>`, to the end of the turn if it is not closed; `None` when it is no JSON.
    pub call: Option<Value>,
    /// Text of `<answer>`.
    pub answer: Option<String>,
}

/// Reads a turn.
pub fn parse_turn(text: &str) -> Turn {
    let tags = read_tags(text, Reading::Strict);
    let action = match (tags.answer, tags.call) {
        (Some(answer), _) if !answer.is_empty() => Action::Answer(answer),
        (_, Some(call)) if !is_falsy(&call) => match read_call(&call) {
            Ok(call) => Action::Call(call),
            Err(message) => Action::BadCall(message.to_owned()),
        },
        _ => Action::None,
    };
    Turn { reason: tags.reason, action }
}

/// Splits a turn into its tags.
pub fn read_tags(text: &str, reading: Reading) -> Tags {
    let text = match reading {
        Reading::Strict => text.trim_end().strip_suffix(END).unwrap_or(text),
        Reading::Compat => text,
    };
    let answer = between(text, "<answer>", "</answer>").and_then(|(inside, closed)| match reading {
        Reading::Strict => closed.then(|| inside.trim().to_owned()),
        Reading::Compat => Some(inside.trim().trim_end_matches(['<', '>', '\n', '\r', '\t']).trim().to_owned()),
    });
    Tags {
        reason: between(text, "<reason>", "</reason>").map(|(inside, _)| inside.trim().to_owned()),
        call: between(text, "<tool_call>", "</tool_call>").and_then(|(inside, _)| serde_json::from_str(inside).ok()),
        answer,
    }
}

/// What follows the first `open`, up to the next `close` or the end, and whether it was closed.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<(&'a str, bool)> {
    let inside = &text[text.find(open)? + open.len()..];
    Some(match inside.find(close) {
        Some(end) => (&inside[..end], true),
        None => (inside, false),
    })
}

/// A call that says nothing ends the episode like no call at all.
fn is_falsy(call: &Value) -> bool {
    match call {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.is_empty(),
    }
}

fn read_call(call: &Value) -> Result<Call, &'static str> {
    let call = call.as_object().ok_or("a call must be an object")?;
    let name = call.get("name").and_then(Value::as_str).ok_or("a call needs a name")?;
    let nothing = Map::new();
    let arguments = match call.get("arguments") {
        None => &nothing,
        Some(value) => value.as_object().ok_or("arguments must be an object")?,
    };
    match name {
        "image_search" => read_image_search(arguments),
        "text_search" => read_text_search(arguments),
        _ => Err("unknown tool"),
    }
}

fn read_image_search(arguments: &Map<String, Value>) -> Result<Call, &'static str> {
    let image_id = match arguments.get("image_id") {
        None => "img_0",
        Some(value) => value.as_str().ok_or("image_id must be text")?.trim(),
    };
    const SHAPE: &str = "area must be a list of lists of 4 numbers";
    let areas = match arguments.get("area") {
        None | Some(Value::Null) => &[][..],
        Some(value) => value.as_array().ok_or(SHAPE)?,
    };
    let areas = areas.iter().map(|area| read_area(area).ok_or(SHAPE)).collect::<Result<Vec<_>, _>>()?;
    Ok(Call::ImageSearch { image_id: image_id.to_owned(), areas: capped(areas, MAX_AREAS, "areas") })
}

fn read_area(area: &Value) -> Option<Area> {
    let numbers: Vec<f64> = area.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
    Some(Area::from(<[f64; 4]>::try_from(numbers).ok()?))
}

fn read_text_search(arguments: &Map<String, Value>) -> Result<Call, &'static str> {
    let pieces: Vec<&str> = match arguments.get("input") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split('|').collect(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        Some(_) => return Err("input must be text or a list of texts"),
    };
    let queries = pieces.into_iter().map(str::trim).filter(|query| !query.is_empty()).map(str::to_owned).collect();
    Ok(Call::TextSearch { queries: capped(queries, MAX_QUERIES, "queries") })
}

fn capped<T>(mut items: Vec<T>, most: usize, what: &'static str) -> Vec<T> {
    if items.len() > most {
        metrics::counter!(CAPPED, "what" => what).increment((items.len() - most) as u64);
        items.truncate(most);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    fn action(text: &str) -> Action {
        parse_turn(text).action
    }

    fn queries(text: &str) -> Vec<String> {
        match action(text) {
            Action::Call(Call::TextSearch { queries }) => queries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn golden_turns_read_as_in_the_reference() {
        let golden: Value = serde_json::from_str(include_str!("../tests/data/golden.json")).expect("the file is JSON");
        let cases = golden["extract_action"].as_array().expect("a list of cases");
        assert_eq!(cases.len(), 10);
        for case in cases {
            let tags = read_tags(case["text"].as_str().expect("text"), Reading::Compat);
            let expected = &case["expected"];
            assert_eq!(tags.reason.as_deref(), expected["reason"].as_str(), "{case}");
            assert_eq!(tags.answer.as_deref(), expected["answer"].as_str(), "{case}");
            assert_eq!(tags.call.unwrap_or_default(), expected["tool_call"], "{case}");
        }
    }

    #[test]
    fn an_answer_must_be_closed_and_the_end_token_is_no_part_of_it() {
        assert_eq!(action("<reason>r</reason><answer> Paris </answer><|im_end|>"), Action::Answer("Paris".into()));
        assert_eq!(action("<answer>Paris<|im_end|>"), Action::None);
        assert_eq!(action("<answer>  </answer>"), Action::None);
        assert_eq!(parse_turn("<reason> why </reason>").reason.as_deref(), Some("why"));
    }

    #[test]
    fn an_unclosed_call_before_the_end_token_is_read() {
        assert_eq!(queries("<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":\"a\"}}<|im_end|>\n"), ["a"]);
    }

    #[test]
    fn an_answer_goes_before_a_call_and_the_first_call_counts() {
        let call = |query: &str| format!("<tool_call>{{\"name\":\"text_search\",\"arguments\":{{\"input\":\"{query}\"}}}}</tool_call>");
        assert_eq!(action(&format!("{}<answer>x</answer>", call("a"))), Action::Answer("x".into()));
        assert_eq!(queries(&format!("{}{}", call("a"), call("b"))), ["a"]);
    }

    #[test]
    fn queries_are_split_trimmed_and_filtered() {
        let input =
            |json: &str| queries(&format!("<tool_call>{{\"name\":\"text_search\",\"arguments\":{{\"input\":{json}}}}}</tool_call>"));
        assert_eq!(input(r#"" a | |b\uff5cc ""#), ["a", "b\u{ff5c}c"]);
        assert_eq!(input(r#"[" a ",7,null,""," b|c "]"#), ["a", "b|c"]);
        assert!(input("null").is_empty());
        assert_eq!(input(&format!("{:?}", vec!["q"; 100])).len(), MAX_QUERIES);
    }

    #[test]
    fn areas_are_lists_of_four_numbers() {
        let area = |json: &str| action(&format!("<tool_call>{{\"name\":\"image_search\",\"arguments\":{json}}}</tool_call>"));
        let call = |image_id: &str, areas| Action::Call(Call::ImageSearch { image_id: image_id.into(), areas });
        assert_eq!(area("{}"), call("img_0", vec![]));
        assert_eq!(area(r#"{"image_id":" img_2 ","area":[]}"#), call("img_2", vec![]));
        assert_eq!(area(r#"{"area":[[0,-1,0.5,2]]}"#), call("img_0", vec![Area::from([0.0, -1.0, 0.5, 2.0])]));
        for bad in ["[0,0,1,1]", "[[0,0,1]]", "[[0,0,1,\"1\"]]", "7", "[[0,0,1,true]]"] {
            assert!(matches!(area(&format!("{{\"area\":{bad}}}")), Action::BadCall(_)), "{bad}");
        }
        let many = format!("{{\"area\":[{}]}}", vec!["[0,0,1,1]"; 100].join(","));
        assert!(matches!(area(&many), Action::Call(Call::ImageSearch { areas, .. }) if areas.len() == MAX_AREAS));
    }

    #[test]
    fn wrong_calls_are_errors_and_empty_ones_are_none() {
        let call = |json: &str| action(&format!("<tool_call>{json}</tool_call>"));
        for bad in [
            r#"{"name":"fly","arguments":{}}"#,
            r#"{"arguments":{}}"#,
            r#"{"name":null}"#,
            r#"{"name":"text_search","arguments":"{}"}"#,
            r#"{"name":"text_search","arguments":{"input":7}}"#,
            r#"{"name":"image_search","arguments":{"image_id":0}}"#,
            "[1]",
        ] {
            assert!(matches!(call(bad), Action::BadCall(_)), "{bad}");
        }
        for none in ["{}", "null", "0", "[]", "\"\"", "{bad}", "", "false"] {
            assert_eq!(call(none), Action::None, "{none}");
        }
    }

    #[test]
    fn any_bytes_are_a_turn() {
        let pieces = [
            "<tool_call>",
            "</tool_call>",
            "<answer>",
            "</answer>",
            "<reason>",
            "{",
            "}",
            "\"name\":",
            "[",
            "]",
            "\"",
            "|",
            END,
            "\u{e9}",
            "\\u",
        ];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..rng.next_u32() % 24 {
                if rng.next_u32().is_multiple_of(2) {
                    bytes.extend_from_slice(pieces[rng.next_u32() as usize % pieces.len()].as_bytes());
                } else {
                    bytes.push(rng.next_u32() as u8);
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            let _ = (parse_turn(&text), read_tags(&text, Reading::Compat));
        }
        let deep = format!("<tool_call>{}", "[".repeat(200_000));
        assert_eq!(action(&deep), Action::None);
    }
}
