//! Reading a decoded completion as the released reward does (docs/spec.md#transcripts). In: response text with special tokens. Out:
//! call and search counts, the final answer, and the turns and actions that were found.
//!
//! Deviates from Python in one thing: half of a surrogate pair, which no UTF-8 holds, is shown as U+FFFD (and counts the same).

use serde::{Deserialize, Serialize};

use super::asks::asks;
use super::call::Name;
use super::python::strip;
use super::tags::{Tag, block};
use super::turns::{Event, Role, walk};

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
    /// The tool.
    pub tool_name: Name<'a>,
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

/// What the reward needs of a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outcome<'a> {
    /// As [`Completion::tool_count`].
    pub(super) tool_count: u64,
    /// As [`Completion::search_count`].
    pub(super) search_count: u64,
    /// As [`Completion::final_answer`].
    pub(super) final_answer: &'a str,
}

impl<'a> Outcome<'a> {
    /// Takes an event in, and shows `asked` what a call asks for: its text, its name and its searches. `None` when a name that is no
    /// name ends the parse.
    #[inline]
    fn take(&mut self, event: Event<'a>, asked: impl FnOnce(&'a str, Name<'a>, u64)) -> Option<()> {
        match event {
            Event::Turn(Role::Assistant) => self.final_answer = "",
            Event::Call(call) => {
                let call = strip(call);
                let (name, searches) = asks(call)?;
                self.tool_count += 1;
                self.search_count += searches;
                asked(call, name, searches);
            }
            Event::Answer(answer) => self.final_answer = strip(answer),
            Event::Turn(Role::User | Role::System) | Event::End(_) => {}
        }
        Some(())
    }
}

/// Reads what the reward needs; nothing where a name that is no name ends the parse.
pub(super) fn outcome(completion: &str) -> Outcome<'_> {
    let mut outcome = Outcome::default();
    walk(completion, |event| outcome.take(event, |_, _, _| {})).map(|()| outcome).unwrap_or_default()
}

/// Reads a completion. Never fails: what cannot be read counts as nothing.
pub fn extract_completion(completion: &str) -> Completion<'_> {
    let mut segments: Vec<Segment<'_>> = Vec::new();
    let mut calls = Vec::new();
    let mut outcome = Some(Outcome::default());
    walk(completion, |event| {
        match event {
            Event::Turn(role) => segments.push(Segment { role: role.label(), content: "" }),
            Event::End(text) => segments.last_mut()?.content = strip(text),
            Event::Call(_) | Event::Answer(_) => {}
        }
        // What comes after a name that is no name has turns still.
        let asked = |call, name, searches| calls.push((segments.len(), call, name, searches));
        if outcome.as_mut().is_some_and(|outcome| outcome.take(event, asked).is_none()) {
            outcome = None;
        }
        Some(())
    });
    let Some(Outcome { tool_count, search_count, final_answer }) = outcome else {
        return Completion { segments, warned: true, ..Completion::default() };
    };
    let (mut per_turn, mut actions) = (Vec::new(), Vec::new());
    for calls in calls.chunk_by(|(left, ..), (right, ..)| left == right) {
        let (tool_response, next_assistant) = aftermath(&segments[calls[0].0..]);
        per_turn.push(TurnCount { tool_calls: calls.len() as u64, searches: calls.iter().map(|(.., searches)| searches).sum() });
        actions.extend(calls.iter().map(|(_, tool_call, tool_name, searches)| Action {
            tool_call,
            tool_name: tool_name.clone(),
            tool_response,
            next_assistant,
            search_count: *searches,
            max_parallel: *searches,
        }));
    }
    let max_parallel = per_turn.iter().map(|turn| turn.searches).max().unwrap_or(0);
    Completion { tool_count, search_count, max_parallel, per_turn, final_answer, segments, actions, warned: false }
}

/// The observation and the assistant turn that follow a turn.
fn aftermath<'a>(following: &[Segment<'a>]) -> (&'a str, &'a str) {
    let next = following.iter().position(|segment| segment.role == Role::Assistant.label());
    let between = &following[..next.unwrap_or(following.len())];
    let observed = |segment: &&Segment<'_>| segment.role == Role::User.label() && segment.content.contains(Tag::Response.text());
    let observation = between.iter().find(observed).map(|segment| {
        let body = block(segment.content, Tag::Response, Tag::ResponseEnd);
        strip(body.unwrap_or(segment.content))
    });
    (observation.unwrap_or_default(), next.map_or("", |at| following[at].content))
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
            (r#"{"name":"text_search","arguments":{"input":NaN}}"#, 1),
            (r#"{"name":"text_search","arguments":{"input":[Infinity, -Infinity]}}"#, 1),
            (r#"{"name":"text_search","arguments":{"input":1e999}}"#, 1),
            (r#"{"name":"text_search","arguments":{"input":"a"},"score":NaN}"#, 1),
            (r#"{"name":"text_search","arguments":"{\"input\": NaN}"}"#, 1),
            (r#"{"name":"image_search","arguments":{"image_id":NaN}}"#, 1),
            (r#"{"name":"text_search","arguments":{"input":"\ud800|b"}}"#, 2),
            (r#"{"name":"text_search","arguments":{"input":123456789012345678901234567890}}"#, 1),
            (r#"{"name":"text_search","arguments":{"input":true}}"#, 1),
            (r#"{"name":"text_search","arguments":{"input":"a|b","input":"c"}}"#, 1),
            (r#"{"name":"text_search","arguments":{"input":""}}"#, 0),
            (r#"{"name":"text_search","arguments":{"input":"a"},}"#, 0),
            (r#"{"name":"text_search","arguments":NaN}"#, 0),
            ("{\"name\":\"text_search\",\"arguments\":{\"input\":\"a\tb\"}}", 0),
            ("", 0),
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
    fn a_name_that_is_no_number_is_none() {
        for name in ["NaN", "Infinity", "1e999", "true", "3"] {
            let text = format!("<tool_call>{{\"name\":{name}}}</tool_call><answer>A</answer>");
            assert!(extract_completion(&text).warned, "{name}");
        }
    }

    #[test]
    fn a_user_turn_without_a_response_is_no_observation() {
        let text = "<tool_call>{}</tool_call><|im_end|>\n<|im_start|>user\nGo on.<|im_end|>\n<|im_start|>user\n<tool_response>x</tool_response>\
            <|im_end|>\n<|im_start|>assistant\ny";
        let read = extract_completion(text);
        assert_eq!((read.actions[0].tool_response, read.actions[0].next_assistant), ("x", "y"));
        let read = extract_completion("<tool_call>{}</tool_call><|im_end|>\n<|im_start|>user\nGo on.<|im_end|>");
        assert_eq!(read.actions[0].tool_response, "");
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
