//! The one parser of an assistant turn (docs/spec.md#grammar, #episodes, #d4). In: any text; out: what the policy wants to do.
//! It never fails: what cannot be read is an action of its own. Knows no registry and no limit of turns.

use hypereyes_domain::Call;
use serde_json::Value;

use crate::call::read_call;
pub use crate::call::{Note, Refusal};
use crate::tags::{Reading, read_tags};
use crate::tools::Tools;

/// One assistant turn, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Its first thought, trimmed.
    pub reason: Option<String>,
    /// What to do.
    pub action: Action,
    /// What of a call is not done; the observation says so.
    pub notes: Vec<Note>,
}

/// What a turn wants. An answer goes before a call in the same turn; of several calls the first counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A closed, non-blank `<answer>`, trimmed.
    Answer(String),
    /// A call that can be executed. Areas are as the policy wrote them, in whichever units.
    Call(Call),
    /// A call that names no tool or has arguments of the wrong kind: executed as an error observation, which says this.
    BadCall(Refusal),
    /// Neither: no tags outside thoughts, broken JSON, an empty call, or an answer that was not closed.
    None,
}

/// Reads a turn of a policy that may call `tools`.
pub fn parse_turn(text: &str, tools: &Tools) -> Turn {
    let tags = read_tags(text, Reading::Strict);
    let mut notes = Vec::new();
    let action = match (tags.answer, tags.call) {
        (Some(answer), _) if !answer.is_empty() => Action::Answer(answer),
        (_, Some(call)) if !is_falsy(&call) => match read_call(&call, tools, &mut notes) {
            Ok(call) => Action::Call(call),
            Err(refusal) => Action::BadCall(refusal),
        },
        _ => Action::None,
    };
    Turn { reason: tags.reason, action, notes }
}

/// The answer of a turn that was cut off: only one that was closed counts.
pub fn closed_answer(text: &str) -> Option<String> {
    read_tags(text, Reading::Strict).answer.filter(|answer| !answer.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::{MAX_AREAS, MAX_QUERIES};
    use hypereyes_domain::{Area, TEXT_SEARCH};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    fn action(text: &str) -> Action {
        parse_turn(text, &Tools::default()).action
    }

    fn queries(text: &str) -> Vec<String> {
        match action(text) {
            Action::Call(Call { tool, arguments, .. }) if tool == TEXT_SEARCH => {
                serde_json::from_value(arguments["input"].clone()).expect("a list of texts")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_must_be_closed_and_the_end_token_is_no_part_of_it() {
        assert_eq!(action("<reason>r</reason><answer> Paris </answer><|im_end|>"), Action::Answer("Paris".into()));
        assert_eq!(action("<answer>Paris<|im_end|>"), Action::None);
        assert_eq!(action("<answer>  </answer>"), Action::None);
        assert_eq!(parse_turn("<reason> why </reason>", &Tools::default()).reason.as_deref(), Some("why"));
        assert_eq!(closed_answer("<answer>Paris</answer> and"), Some("Paris".into()));
        assert_eq!(closed_answer("<think>maybe <answer>Paris</answer> or"), None);
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
        let call = |image_id: &str, areas: Vec<Area>| Action::Call(Call::image_search(image_id, &areas));
        assert_eq!(area("{}"), call("img_0", vec![]));
        assert_eq!(area(r#"{"image_id":" img_2 ","area":[]}"#), call("img_2", vec![]));
        assert_eq!(area(r#"{"area":[[0,-1,0.5,2]]}"#), call("img_0", vec![Area::from([0.0, -1.0, 0.5, 2.0])]));
        for bad in ["[0,0,1,1]", "[[0,0,1]]", "[[0,0,1,\"1\"]]", "7", "[[0,0,1,true]]"] {
            assert!(matches!(area(&format!("{{\"area\":{bad}}}")), Action::BadCall(_)), "{bad}");
        }
        let many = format!("{{\"area\":[{}]}}", vec!["[0,0,1,1]"; 100].join(","));
        assert!(matches!(area(&many), Action::Call(call) if call.searches as usize == MAX_AREAS));
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
            "<|im_end|>",
            "<think>",
            "</think>",
            "NaN",
            "1e999",
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
            let _ = (parse_turn(&text, &Tools::all()), read_tags(&text, Reading::Compat));
        }
        let deep = format!("<tool_call>{}", "[".repeat(200_000));
        assert_eq!(action(&deep), Action::None);
    }
}
