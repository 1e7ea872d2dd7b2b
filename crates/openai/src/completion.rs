//! What a server replied. In: the body of a chat completion. Out: its one choice, or what is wrong with it.

use serde_json::Value;

/// Tokens of one request above this are no count.
const MOST_TOKENS: u64 = 1 << 24;
/// Calls of one reply that are read.
const MOST_CALLS: usize = 64;
/// Longest name or id of a call, in bytes.
const MOST_NAME: usize = 256;

/// One reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// What was said; `None` where there are only calls, or nothing.
    pub text: Option<String>,
    /// Calls of tools that the server has read out of the reply, in order.
    pub calls: Vec<ToolCall>,
    /// How it ended.
    pub finish: Finish,
    /// The model's own refusal to say anything.
    pub refusal: Option<String>,
    /// Tokens that the server counted, if it did.
    pub usage: Option<Usage>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// What its result is sent back under; may be empty.
    pub id: String,
    /// Name of the tool.
    pub name: String,
    /// Its arguments, in JSON if the model wrote JSON.
    pub arguments: String,
}

/// How a reply ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// The model was done.
    #[default]
    Done,
    /// It was cut at its token limit.
    Length,
    /// The server withheld it.
    Withheld,
}

/// Tokens of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Everything that was sent, pictures included.
    pub prompt: u64,
    /// Everything that was sampled, thoughts included.
    pub completion: u64,
    /// Of those, thoughts that come in a field of their own and are not sent again; 0 where the server does not say.
    pub reasoning: u64,
}

impl Completion {
    /// Reads a body. Thoughts in a field of their own are not looked at.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let reply: Value = serde_json::from_slice(body).map_err(|error| format!("it is no JSON ({error})"))?;
        let [choice] = reply["choices"].as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err("it has not exactly one choice".into());
        };
        let finish = match choice["finish_reason"].as_str() {
            // A reply that the server broke off is none of the model's.
            Some(why @ ("abort" | "error" | "cancelled" | "insufficient_system_resource")) => {
                return Err(format!("the server gave it up (finish_reason {why})"));
            }
            Some("length" | "max_tokens") => Finish::Length,
            Some("content_filter") => Finish::Withheld,
            _ => Finish::Done,
        };
        let message = &choice["message"];
        if !message.is_object() {
            return Err("its choice has no message".into());
        }
        let refusal = message["refusal"].as_str().filter(|refusal| !refusal.is_empty()).map(str::to_owned);
        Ok(Self { text: text(&message["content"])?, calls: calls(&message["tool_calls"])?, finish, refusal, usage: usage(&reply["usage"]) })
    }
}

fn text(content: &Value) -> Result<Option<String>, String> {
    match content {
        Value::Null => Ok(None),
        Value::String(said) => Ok(Some(said.clone())),
        Value::Array(parts) => {
            let said: Option<String> = parts.iter().map(|part| part["text"].as_str().filter(|_| part["type"] == "text")).collect();
            said.map(Some).ok_or("its content has parts that are no text".into())
        }
        _ => Err("its content is no text".into()),
    }
}

fn calls(list: &Value) -> Result<Vec<ToolCall>, String> {
    let calls = match list {
        Value::Null => return Ok(vec![]),
        Value::Array(calls) if calls.len() <= MOST_CALLS => calls,
        Value::Array(calls) => return Err(format!("it makes {} calls", calls.len())),
        _ => return Err("its tool_calls are no list".into()),
    };
    let short = |value: &Value| value.as_str().filter(|text| text.len() <= MOST_NAME).map(str::to_owned);
    let call = |call: &Value| {
        let function = &call["function"];
        let name = short(&function["name"]).ok_or("a call of it has no name")?;
        let arguments = match &function["arguments"] {
            Value::String(text) => text.clone(),
            Value::Null => "{}".into(),
            // Against the protocol, and meant.
            object @ Value::Object(_) => object.to_string(),
            _ => return Err("a call of it has arguments that are no text"),
        };
        Ok(ToolCall { id: short(&call["id"]).unwrap_or_default(), name, arguments })
    };
    calls.iter().map(call).collect::<Result<_, &str>>().map_err(str::to_owned)
}

/// What can be no count is none.
fn usage(usage: &Value) -> Option<Usage> {
    let count = |key: &str| usage[key].as_u64().filter(|count| *count <= MOST_TOKENS);
    let completion = count("completion_tokens")?;
    let reasoning = usage["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap_or(0).min(completion);
    Some(Usage { prompt: count("prompt_tokens")?, completion, reasoning })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: Value) -> Result<Completion, String> {
        let usage = json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13});
        Completion::read(json!({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).to_string().as_bytes())
    }

    #[test]
    fn what_is_said_called_and_counted_is_read() {
        let said = read(json!({"role": "assistant", "content": "hi"})).expect("a completion");
        assert_eq!(
            said,
            Completion { text: Some("hi".into()), usage: Some(Usage { prompt: 9, completion: 4, reasoning: 0 }), ..Completion::default() }
        );
        let call = json!({"id": "c1", "type": "function", "function": {"name": "visit", "arguments": "{\"a\":1}"}});
        let bare = json!({"function": {"name": "visit", "arguments": {"a": 1}}});
        let called = read(json!({"content": null, "tool_calls": [call, bare]})).expect("a completion");
        let ids: Vec<(&str, &str)> = called.calls.iter().map(|call| (call.id.as_str(), call.arguments.as_str())).collect();
        assert_eq!((called.text, ids), (None, vec![("c1", "{\"a\":1}"), ("", "{\"a\":1}")]));
        let parts = json!([{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]);
        assert_eq!(read(json!({"content": parts, "reasoning_content": "no"})).expect("a completion").text.as_deref(), Some("hi"));
        assert_eq!(read(json!({"content": null, "refusal": "I will not"})).expect("a completion").refusal.as_deref(), Some("I will not"));
    }

    #[test]
    fn how_it_ended_is_read() {
        let ended = |reason: Value| {
            let body = json!({"choices": [{"message": {"content": ""}, "finish_reason": reason}]}).to_string();
            let completion = Completion::read(body.as_bytes()).expect("a completion");
            assert_eq!(completion.usage, None);
            completion.finish
        };
        assert_eq!([json!("stop"), json!("tool_calls"), json!(null), json!("eos")].map(ended), [Finish::Done; 4]);
        assert_eq!(
            [json!("length"), json!("max_tokens"), json!("content_filter")].map(ended),
            [Finish::Length, Finish::Length, Finish::Withheld]
        );
    }

    #[test]
    fn a_reply_that_the_server_broke_off_is_no_answer() {
        for reason in ["abort", "error", "cancelled", "insufficient_system_resource"] {
            let body = json!({"choices": [{"message": {"content": "Pe"}, "finish_reason": reason}]}).to_string();
            assert!(Completion::read(body.as_bytes()).expect_err(reason).contains(reason));
        }
    }

    #[test]
    fn what_is_no_completion_is_refused() {
        for message in [
            json!(null),
            json!("hi"),
            json!({"content": 7}),
            json!({"content": [{"type": "image"}]}),
            json!({"tool_calls": {}}),
            json!({"tool_calls": [{}]}),
            json!({"tool_calls": [{"function": {"name": "a", "arguments": 7}}]}),
            json!({"tool_calls": [{"function": {"name": "a".repeat(999)}}]}),
            json!({"tool_calls": vec![json!({"function": {"name": "a"}}); 65]}),
        ] {
            assert!(read(message.clone()).is_err(), "{message}");
        }
        for body in ["", "[]", "{\"choices\":[]}", "{\"choices\":[{},{}]}", "{]"] {
            assert!(Completion::read(body.as_bytes()).is_err(), "{body}");
        }
        for usage in [json!({}), json!(7), json!({"prompt_tokens": -1, "completion_tokens": 1}), json!({"prompt_tokens": 1u64 << 60})] {
            let body = json!({"choices": [{"message": {"content": ""}}], "usage": usage}).to_string();
            assert_eq!(Completion::read(body.as_bytes()).expect("a completion").usage, None, "{body}");
        }
    }
}
