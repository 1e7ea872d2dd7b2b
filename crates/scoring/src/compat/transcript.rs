//! Reading a decoded completion as the released reward does (spec 2.1). In: response text with special tokens. Out:
//! call and search counts, the final answer, and the turns and actions that were found.
//!
//! Deviates from Python in JSON only: `NaN`, infinities, lone surrogates and nesting beyond 128 levels do not parse here.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::python::{bar_pieces, strip, text};

const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";
const ROLES: [&str; 3] = ["assistant", "user", "system"];

/// One turn of the transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// `assistant`, `user` or `system`.
    pub role: String,
    /// Its text, stripped.
    pub content: String,
}

/// Calls of one assistant turn that has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnCount {
    /// Closed tool-call blocks.
    pub tool_calls: u64,
    /// Searches over them.
    pub searches: u64,
}

/// One closed tool call with what followed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The text between the tags, stripped.
    pub tool_call: String,
    /// The `name` as written (it may be a list); the empty text when there is none.
    pub tool_name: Value,
    /// The observation that followed, or the empty text.
    pub tool_response: String,
    /// The assistant turn that followed, or the empty text.
    pub next_assistant: String,
    /// Searches of the call.
    pub search_count: u64,
    /// The same number; the released code keeps it under two names.
    pub max_parallel: u64,
}

/// What a completion holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Closed tool-call blocks (t).
    pub tool_count: u64,
    /// Searches over all turns (s).
    pub search_count: u64,
    /// Most searches of one turn.
    pub max_parallel: u64,
    /// One entry per assistant turn that has calls.
    pub per_turn: Vec<TurnCount>,
    /// First closed answer of the last assistant turn, stripped; empty means a parse error.
    pub final_answer: String,
    /// Turns with a known role.
    pub segments: Vec<Segment>,
    /// Closed calls in order.
    pub actions: Vec<Action>,
    /// True when a name that is no name ended the parse: no counts, no answer.
    pub warned: bool,
}

/// Reads a completion. Never fails: what cannot be read counts as nothing.
pub fn extract_completion(completion: &str) -> Completion {
    let segments = segments(completion);
    let counted = counted(&segments);
    let warned = counted.is_none();
    Completion { segments, warned, ..counted.unwrap_or_default() }
}

/// Calls, searches and answer; `None` when a name that is no name ends the parse.
fn counted(segments: &[Segment]) -> Option<Completion> {
    let mut out = Completion::default();
    let turns = || segments.iter().enumerate().filter(|(_, segment)| segment.role == ROLES[0]);
    for (at, segment) in turns() {
        let mut turn = TurnCount { tool_calls: 0, searches: 0 };
        let (tool_response, next_assistant) = aftermath(&segments[at + 1..]);
        for block in closed_blocks(&segment.content, "<tool_call>", "</tool_call>") {
            let (tool_name, searches) = searches_of(block)?;
            turn.tool_calls += 1;
            turn.searches += searches;
            out.actions.push(Action {
                tool_call: strip(block).to_owned(),
                tool_name,
                tool_response: tool_response.clone(),
                next_assistant: next_assistant.clone(),
                search_count: searches,
                max_parallel: searches,
            });
        }
        if turn.tool_calls > 0 {
            out.tool_count += turn.tool_calls;
            out.search_count += turn.searches;
            out.max_parallel = out.max_parallel.max(turn.searches);
            out.per_turn.push(turn);
        }
    }
    let answer = turns().last().and_then(|(_, segment)| closed_blocks(&segment.content, "<answer>", "</answer>").next());
    out.final_answer = answer.map(strip).unwrap_or_default().to_owned();
    Some(out)
}

/// Turns with a known role; a text that opens with a header but has no known role is one assistant turn.
fn segments(completion: &str) -> Vec<Segment> {
    let headed = strip(completion).starts_with(START);
    let whole = if headed { completion.to_owned() } else { format!("{START}{}\n{completion}", ROLES[0]) };
    let mut out = Vec::new();
    let mut rest = whole.as_str();
    while let Some(at) = rest.find(START) {
        rest = &rest[at + START.len()..];
        let Some(role) = ROLES.into_iter().find(|role| rest.starts_with(role)) else { continue };
        let body = &rest[role.len()..];
        // A turn without its end token swallows what follows, headers included.
        let (content, after) = body.split_once(END).unwrap_or((body, ""));
        out.push(Segment { role: role.to_owned(), content: strip(content).to_owned() });
        rest = after;
    }
    if out.is_empty() {
        out.push(Segment { role: ROLES[0].to_owned(), content: strip(&whole).to_owned() });
    }
    out
}

/// Texts between an opening tag and the next closing tag, in order, without overlap.
fn closed_blocks<'a>(content: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = content;
    std::iter::from_fn(move || {
        let (_, body) = rest.split_once(open)?;
        let (block, after) = body.split_once(close)?;
        rest = after;
        Some(block)
    })
}

/// The observation and the assistant turn that follow a turn.
fn aftermath(following: &[Segment]) -> (String, String) {
    let next = following.iter().position(|segment| segment.role == ROLES[0]);
    let between = &following[..next.unwrap_or(following.len())];
    let observation = between.iter().find(|segment| segment.role == ROLES[1]).map(|segment| {
        let body = closed_blocks(&segment.content, "<tool_response>", "</tool_response>").next();
        strip(body.unwrap_or(&segment.content)).to_owned()
    });
    (observation.unwrap_or_default(), next.map(|at| following[at].content.clone()).unwrap_or_default())
}

/// Name and searches of one call; `None` when the name is neither text nor a collection, which ends the whole parse.
fn searches_of(block: &str) -> Option<(Value, u64)> {
    let nothing = || Some((Value::from(""), 0));
    let Ok(Value::Object(call)) = serde_json::from_str::<Value>(strip(block)) else { return nothing() };
    let Some(name) = call.get("name") else { return nothing() };
    let text_search = names(name, "text_search")?;
    let image_search = names(name, "image_search")?;
    let arguments = match call.get("arguments") {
        Some(Value::String(json)) => serde_json::from_str(json).unwrap_or(Value::Null),
        Some(arguments) => arguments.clone(),
        None => Value::Null,
    };
    let subject = if text_search {
        arguments.get("input")
    } else if image_search {
        arguments.get("image_id").or_else(|| arguments.get("img_id"))
    } else {
        None
    };
    Some((name.clone(), subject.map_or(0, |subject| bar_pieces(&text(subject)))))
}

/// Python's `part in name`: substring of a text, element of a list, key of an object; `None` where it would raise.
fn names(name: &Value, part: &str) -> Option<bool> {
    match name {
        Value::String(name) => Some(name.contains(part)),
        Value::Array(items) => Some(items.iter().any(|item| item.as_str() == Some(part))),
        Value::Object(map) => Some(map.contains_key(part)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_the_text_not_the_environment() {
        let call = |body: &str| format!("<tool_call>{body}</tool_call><|im_end|>\n");
        for (body, searches) in [
            (r#"{"name":"text_search","arguments":{"input":["a","b","c"]}}"#, 1),
            (r#"{"name":"text_search","arguments":{"input":"a||b| "}}"#, 2),
            (r#"{"name":"text_search","arguments":{"input":null}}"#, 1),
            (r#"{"name":"text_search","arguments":[1]}"#, 0),
            (r#"{"name":"image_search","arguments":{"image_id":"img_0|img_1"}}"#, 2),
            (r#"{"name":"image_search","arguments":{}}"#, 0),
            (r#"{"name":"calculator","arguments":{"input":"1|2"}}"#, 0),
            ("not json", 0),
        ] {
            let read = extract_completion(&call(body));
            assert_eq!((read.tool_count, read.search_count, read.warned), (1, searches, false), "{body}");
        }
    }

    #[test]
    fn a_name_that_is_none_ends_the_parse_for_all_turns() {
        let text = "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":\"a\"}}</tool_call><|im_end|>\
            <|im_start|>assistant\n<tool_call>{\"name\":null}</tool_call><answer>A</answer><|im_end|>";
        let read = extract_completion(text);
        assert_eq!((read.tool_count, read.final_answer.as_str(), read.warned, read.segments.len()), (0, "", true, 2));
        assert!(read.actions.is_empty() && read.per_turn.is_empty());
    }

    #[test]
    fn a_turn_without_its_end_token_swallows_the_next() {
        let read = extract_completion("<answer>A</answer>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\nlate");
        assert_eq!(read.segments.len(), 2);
        assert_eq!((read.segments[1].content.as_str(), read.final_answer.as_str()), ("late", ""));
    }

    #[test]
    fn the_last_call_has_no_aftermath() {
        let read = extract_completion("<tool_call>{}</tool_call>");
        assert_eq!((read.actions[0].tool_response.as_str(), read.actions[0].next_assistant.as_str()), ("", ""));
    }
}
