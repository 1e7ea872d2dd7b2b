//! Reading a decoded completion as the released reward does (spec 2.1). In: response text with special tokens. Out:
//! call and search counts, the final answer, and the turns and actions that were found.
//!
//! Deviates from Python in JSON only: `NaN`, infinities, lone surrogates and nesting beyond 128 levels do not parse here.

use memchr::memchr_iter;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::Call;
use super::python::strip;

const START: &str = "<|im_start|>";
const END: &str = "<|im_end|>";
const ROLES: [&str; 3] = ["assistant", "user", "system"];

/// One turn of the transcript.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Segment<'a> {
    /// `assistant`, `user` or `system`.
    pub role: &'static str,
    /// Its text, stripped.
    pub content: &'a str,
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Action<'a> {
    /// The text between the tags, stripped.
    pub tool_call: &'a str,
    /// The `name` as written (it may be a list); the empty text when there is none.
    pub tool_name: Value,
    /// The observation that followed, or the empty text.
    pub tool_response: &'a str,
    /// The assistant turn that followed, or the empty text.
    pub next_assistant: &'a str,
    /// Searches of the call.
    pub search_count: u64,
    /// The same number; the released code keeps it under two names.
    pub max_parallel: u64,
}

/// What a completion holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Completion<'a> {
    /// Closed tool-call blocks (t).
    pub tool_count: u64,
    /// Searches over all turns (s).
    pub search_count: u64,
    /// Most searches of one turn.
    pub max_parallel: u64,
    /// One entry per assistant turn that has calls.
    pub per_turn: Vec<TurnCount>,
    /// First closed answer of the last assistant turn, stripped; empty means a parse error.
    pub final_answer: &'a str,
    /// Turns with a known role.
    pub segments: Vec<Segment<'a>>,
    /// Closed calls in order.
    pub actions: Vec<Action<'a>>,
    /// True when a name that is no name ended the parse: no counts, no answer.
    pub warned: bool,
}

/// Reads a completion. Never fails: what cannot be read counts as nothing.
pub fn extract_completion(completion: &str) -> Completion<'_> {
    let segments = segments(completion);
    match counted(&segments) {
        Some(counted) => Completion { segments, ..counted },
        None => Completion { segments, warned: true, ..Completion::default() },
    }
}

/// Calls, searches and answer; `None` when a name that is no name ends the parse.
fn counted<'a>(segments: &[Segment<'a>]) -> Option<Completion<'a>> {
    let mut out = Completion::default();
    let turns = || segments.iter().enumerate().filter(|(_, segment)| segment.role == ROLES[0]);
    for (at, segment) in turns() {
        let mut turn = TurnCount { tool_calls: 0, searches: 0 };
        let (tool_response, next_assistant) = aftermath(&segments[at + 1..]);
        for block in closed_blocks(segment.content, "<tool_call>", "</tool_call>") {
            let (tool_name, searches) = searches_of(block)?;
            turn.tool_calls += 1;
            turn.searches += searches;
            out.actions.push(Action {
                tool_call: strip(block),
                tool_name,
                tool_response,
                next_assistant,
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
    let answer = turns().next_back().and_then(|(_, segment)| closed_blocks(segment.content, "<answer>", "</answer>").next());
    out.final_answer = answer.map(strip).unwrap_or_default();
    Some(out)
}

/// Turns with a known role; a text that opens with a header but has no known role is one assistant turn.
fn segments(completion: &str) -> Vec<Segment<'_>> {
    let mut out = Vec::new();
    let mut rest = completion;
    // A text without a header goes on where an assistant was asked to speak.
    if !strip(completion).starts_with(START) {
        rest = push(&mut out, ROLES[0], completion);
    }
    while let Some((_, turn)) = cut(rest, START) {
        rest = turn;
        if let Some(role) = ROLES.into_iter().find(|role| turn.starts_with(role)) {
            rest = push(&mut out, role, &turn[role.len()..]);
        }
    }
    if out.is_empty() {
        out.push(Segment { role: ROLES[0], content: strip(completion) });
    }
    out
}

/// Puts the turn that `body` begins with; what follows it. A turn without its end token swallows what follows, headers
/// included.
fn push<'a>(out: &mut Vec<Segment<'a>>, role: &'static str, body: &'a str) -> &'a str {
    let (content, after) = cut(body, END).unwrap_or((body, ""));
    out.push(Segment { role, content: strip(content) });
    after
}

/// What comes before and after a tag.
#[inline]
fn cut<'a>(text: &'a str, tag: &str) -> Option<(&'a str, &'a str)> {
    let at = memchr_iter(b'<', text.as_bytes()).find(|at| text.as_bytes()[*at..].starts_with(tag.as_bytes()))?;
    Some((&text[..at], &text[at + tag.len()..]))
}

/// Texts between an opening tag and the next closing tag, in order, without overlap.
fn closed_blocks<'a>(content: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = content;
    std::iter::from_fn(move || {
        let (_, body) = cut(rest, open)?;
        let (block, after) = cut(body, close)?;
        rest = after;
        Some(block)
    })
}

/// The observation and the assistant turn that follow a turn.
fn aftermath<'a>(following: &[Segment<'a>]) -> (&'a str, &'a str) {
    let next = following.iter().position(|segment| segment.role == ROLES[0]);
    let between = &following[..next.unwrap_or(following.len())];
    let observation = between.iter().find(|segment| segment.role == ROLES[1]).map(|segment| {
        let body = closed_blocks(segment.content, "<tool_response>", "</tool_response>").next();
        strip(body.unwrap_or(segment.content))
    });
    (observation.unwrap_or_default(), next.map_or("", |at| following[at].content))
}

/// Name and searches of one call; `None` when the name is neither text nor a collection, which ends the whole parse.
fn searches_of(block: &str) -> Option<(Value, u64)> {
    let block = strip(block);
    // A list would be read as the fields of a call, in order.
    let call = if block.starts_with('{') { serde_json::from_str(block).unwrap_or_default() } else { Call::default() };
    let Some(name) = call.name else { return Some((Value::from(""), 0)) };
    let text_search = names(&name, "text_search")?;
    let image_search = names(&name, "image_search")?;
    let searches = if text_search {
        call.arguments.input
    } else if image_search {
        call.arguments.image_id.or(call.arguments.img_id)
    } else {
        None
    };
    Some((name, searches.unwrap_or(0)))
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
            let text = call(body);
            let read = extract_completion(&text);
            assert_eq!((read.tool_count, read.search_count, read.warned), (1, searches, false), "{body}");
        }
    }

    #[test]
    fn a_name_that_is_none_ends_the_parse_for_all_turns() {
        let text = "<tool_call>{\"name\":\"text_search\",\"arguments\":{\"input\":\"a\"}}</tool_call><|im_end|>\
            <|im_start|>assistant\n<tool_call>{\"name\":null}</tool_call><answer>A</answer><|im_end|>";
        let read = extract_completion(text);
        assert_eq!((read.tool_count, read.final_answer, read.warned, read.segments.len()), (0, "", true, 2));
        assert!(read.actions.is_empty() && read.per_turn.is_empty());
    }

    #[test]
    fn a_turn_without_its_end_token_swallows_the_next() {
        let read = extract_completion("<answer>A</answer>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\nlate");
        assert_eq!(read.segments.len(), 2);
        assert_eq!((read.segments[1].content, read.final_answer), ("late", ""));
    }

    #[test]
    fn the_last_call_has_no_aftermath() {
        let read = extract_completion("<tool_call>{}</tool_call>");
        assert_eq!((read.actions[0].tool_response, read.actions[0].next_assistant), ("", ""));
    }
}
