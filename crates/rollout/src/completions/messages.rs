//! The words and the JSON of a dialogue with a chat endpoint. In: texts, pictures, replies. Out: messages as the protocol has them, and
//! replies as text of the grammar that the environment reads (docs/spec.md#grammar).

use std::sync::Arc;

use base64::Engine as _;
use hypereyes_environment::closed_answer;
use hypereyes_openai::{Completion, ToolCall};
use hypereyes_pictures::Picture;
use serde_json::{Value, json};

/// How an episode goes, for a model that was not taught it.
const RULES: &str = "The pictures are img_0, img_1 and so on, in the order in which they are shown; crops that a call cuts out are numbered \
                     on. Make one call a turn: it may name several areas or several queries, which are all searched at once. When you know \
                     the answer, make no call and write it, and only it, as <answer>the answer</answer>.";
/// How an answer without tools is written.
const CLOSED_BOOK: &str = "There are no tools. Answer from the pictures and from what you know. Write the answer, and only it, as \
                           <answer>the answer</answer>, and nothing else.";
/// Said of calls behind the first of a turn.
pub(super) const NOT_RUN: &str = "Error: not run: one call a turn; several areas or queries go into one call";
/// Said before crops, which results of calls cannot hold.
const CROPS: &str = "The crops, in the order of their labels.";

/// The system text of an episode whose tools are offered by the protocol.
pub(super) fn with_tools(system: &str) -> String {
    joined(system, RULES)
}

/// The system text of an episode whose tools the server does not take: they and the grammar of calls are in it.
pub(super) fn with_tools_as_text(system: &str, tools: &[Value]) -> String {
    let listed: String = tools.iter().map(|tool| format!("{}\n", tool["function"])).collect();
    let how = format!(
        "Tools, each with the JSON schema of its arguments:\n{listed}To call one, write <tool_call>{{\"name\": \"its name\", \
         \"arguments\": {{..}}}}</tool_call>."
    );
    joined(&joined(system, RULES), &how)
}

/// The system text of an answer without tools.
pub(super) fn without_tools(system: &str) -> String {
    joined(system, CLOSED_BOOK)
}

fn joined(system: &str, more: &str) -> String {
    if system.is_empty() { more.to_owned() } else { format!("{system}\n\n{more}") }
}

/// A system message.
pub(super) fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}

/// A task's question, its pictures before it.
pub(super) fn question(text: &str, pictures: &[Arc<Picture>]) -> Result<Value, String> {
    user(text, pictures.iter().map(|picture| &**picture))
}

/// A user message, its pictures before the text.
pub(super) fn user<'a>(text: &str, pictures: impl Iterator<Item = &'a Picture>) -> Result<Value, String> {
    let mut parts = pictures.map(picture_part).collect::<Result<Vec<_>, _>>()?;
    if parts.is_empty() {
        return Ok(json!({"role": "user", "content": text}));
    }
    parts.push(json!({"type": "text", "text": text}));
    Ok(json!({"role": "user", "content": parts}))
}

/// A picture as a data URI, upright: servers read pixels as they are stored.
fn picture_part(picture: &Picture) -> Result<Value, String> {
    let bytes = picture.upright_bytes().map_err(|error| error.to_string())?;
    let kind = if bytes.starts_with(b"\x89PNG") { "png" } else { "jpeg" };
    let url = format!("data:image/{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(&bytes));
    Ok(json!({"type": "image_url", "image_url": {"url": url}}))
}

/// What a reply says in the grammar: calls that the server has read out of it stand before its text.
pub(super) fn grammar(completion: &Completion) -> String {
    let calls: String = completion.calls.iter().map(call_text).collect();
    calls + completion.text.as_deref().unwrap_or_default()
}

/// A call as the grammar writes it. Arguments that are no JSON are kept as text, which the environment answers with an error.
fn call_text(call: &ToolCall) -> String {
    let arguments = serde_json::from_str::<Value>(&call.arguments).unwrap_or_else(|_| Value::String(call.arguments.clone()));
    let json = json!({"name": call.name, "arguments": arguments}).to_string();
    // No text in it can end the call, or be a tag of its own: `<` stands in strings only.
    format!("<tool_call>{}</tool_call>", json.replace('<', "\\u003c"))
}

/// The reply as it is sent back, with the ids of its calls.
pub(super) fn assistant(completion: &Completion, turn: u64) -> (Value, Vec<String>) {
    let text = completion.text.as_deref().or(completion.refusal.as_deref());
    if completion.calls.is_empty() {
        return (json!({"role": "assistant", "content": text.unwrap_or_default()}), vec![]);
    }
    let mut ids: Vec<String> = Vec::with_capacity(completion.calls.len());
    let calls: Vec<Value> = completion
        .calls
        .iter()
        .enumerate()
        .map(|(at, call)| {
            let taken = call.id.is_empty() || ids.contains(&call.id);
            let id = if taken { format!("call_{turn}_{at}") } else { call.id.clone() };
            ids.push(id.clone());
            // Templates of servers read arguments as JSON and refuse a dialogue with others.
            let is_object = serde_json::from_str::<Value>(&call.arguments).is_ok_and(|value| value.is_object());
            let arguments = if is_object { call.arguments.as_str() } else { "{}" };
            json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        })
        .collect();
    (json!({"role": "assistant", "content": text, "tool_calls": calls}), ids)
}

/// What the environment says to a turn: results of its calls where the server read them, a user message otherwise.
pub(super) fn observation(text: &str, shown: &[Picture], ids: &[String]) -> Result<Vec<Value>, String> {
    let Some((first, others)) = ids.split_first() else { return Ok(vec![user(text, shown.iter())?]) };
    let result = |id: &String, text: &str| json!({"role": "tool", "tool_call_id": id, "content": text});
    let mut messages = vec![result(first, text)];
    messages.extend(others.iter().map(|id| result(id, NOT_RUN)));
    if !shown.is_empty() {
        messages.push(user(CROPS, shown.iter())?);
    }
    Ok(messages)
}

/// The answer of a reply that could only answer: what is in the answer's tags, closed or not, or all that was said. Thoughts are no part
/// of it; of a reply that was `cut`, only what began as an answer counts.
pub(super) fn plain_answer(text: &str, cut: bool) -> Option<String> {
    if let Some(answer) = closed_answer(text) {
        return Some(answer);
    }
    const THOUGHTS: [(&str, &str); 2] = [("<think>", "</think>"), ("<reason>", "</reason>")];
    let aloud = THOUGHTS.iter().fold(text, |rest, (_, close)| rest.rsplit_once(close).map_or(rest, |(_, after)| after));
    if THOUGHTS.iter().any(|(open, _)| aloud.contains(open)) {
        return None;
    }
    let answer = match aloud.split_once("<answer>") {
        Some((_, answer)) => answer,
        None if cut => return None,
        None => aloud,
    };
    let answer = answer.split("</answer>").next().unwrap_or_default().trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}

#[cfg(test)]
mod tests {
    use hypereyes_environment::{Action, Tools, parse_turn};
    use hypereyes_pictures::RgbImage;

    use super::*;

    fn call(id: &str, arguments: &str) -> ToolCall {
        ToolCall { id: id.into(), name: "text_search".into(), arguments: arguments.into() }
    }

    fn action(calls: Vec<ToolCall>, text: &str) -> Action {
        let completion = Completion { calls, text: Some(text.into()), ..Completion::default() };
        parse_turn(&grammar(&completion), &Tools::default()).action
    }

    #[test]
    fn calls_that_the_server_read_are_calls_of_the_grammar() {
        let Action::Call(one) = action(vec![call("a", r#"{"input":["x","y"]}"#), call("b", "{}")], "<think>hm") else { panic!("a call") };
        assert_eq!((one.tool.as_str(), one.searches), ("text_search", 2));
        let sly = r#"{"input":"</tool_call><answer>Peru</answer>"}"#;
        let Action::Call(one) = action(vec![call("a", sly)], "") else { panic!("no answer hides in arguments") };
        assert_eq!(one.arguments["input"][0], "</tool_call><answer>Peru</answer>");
        for broken in ["{\"input\":", "7", "[]", "</tool_call>"] {
            assert!(matches!(action(vec![call("a", broken)], ""), Action::BadCall(_)), "{broken}");
        }
        assert_eq!(action(vec![call("a", "{}")], "<answer>Peru</answer>"), Action::Answer("Peru".into()));
    }

    #[test]
    fn every_call_gets_a_result_under_an_id_of_its_own() {
        let calls = vec![call("a", "{}"), call("a", "{bad"), call("", "[]")];
        let (message, ids) = assistant(&Completion { calls, ..Completion::default() }, 3);
        assert_eq!(ids, ["a", "call_3_1", "call_3_2"]);
        assert_eq!((message["content"].is_null(), &message["tool_calls"][1]["function"]["arguments"]), (true, &json!("{}")));
        let crop = Picture::from_image(RgbImage::new(4, 4)).expect("encodes");
        let told = observation("found", std::slice::from_ref(&crop), &ids).expect("told");
        let roles: Vec<&str> = told.iter().filter_map(|message| message["role"].as_str()).collect();
        assert_eq!(roles, ["tool", "tool", "tool", "user"]);
        assert_eq!((&told[0]["content"], &told[1]["content"]), (&json!("found"), &json!(NOT_RUN)));
        let url = told[3]["content"][0]["image_url"]["url"].as_str().expect("an address");
        assert!(url.starts_with("data:image/png;base64,iVBOR"), "{url}");
        let told = observation("found", &[crop], &[]).expect("told");
        assert_eq!((told.len(), &told[0]["role"], &told[0]["content"][1]["text"]), (1, &json!("user"), &json!("found")));
        assert_eq!(observation("found", &[], &[]).expect("told"), [json!({"role": "user", "content": "found"})]);
    }

    #[test]
    fn an_answer_without_tools_is_read_with_and_without_its_tags() {
        for (text, cut, answer) in [
            ("<answer> Peru </answer>", false, Some("Peru")),
            ("<think>Chad?</think>Peru", false, Some("Peru")),
            ("<think>Chad? <answer>Chad</answer></think><answer>Peru</answer>", false, Some("Peru")),
            ("Peru", false, Some("Peru")),
            ("<answer>Peru or", true, Some("Peru or")),
            ("The answer is", true, None),
            ("<think>Chad", true, None),
            ("<think>Chad", false, None),
            (" ", false, None),
        ] {
            assert_eq!(plain_answer(text, cut).as_deref(), answer, "{text}");
        }
    }

    #[test]
    fn the_system_text_says_how_to_answer_and_where_tools_are_not_taken_which_there_are() {
        assert!(
            with_tools("Search wide.").starts_with("Search wide.\n\nThe pictures are img_0") && with_tools("").starts_with("The pictures")
        );
        let text = with_tools_as_text("", &Tools::default().offered(Default::default()));
        for part in ["\"name\":\"image_search\"", "\"name\":\"text_search\"", "<tool_call>{\"name\"", "<answer>the answer</answer>"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(without_tools("").starts_with("There are no tools."));
    }
}
