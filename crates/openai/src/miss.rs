//! Why there is no completion. In: how an attempt ended. Out: a label under which it is counted, a sentence, and whether another attempt
//! can help.

use std::fmt;
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// Letters of a server's own words that are told on.
const MAX_SHOWN: usize = 300;

/// What of a request a server says it cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// The dialogue, or what is to follow it, is longer than the model's context.
    Context,
    /// It takes no `tools`.
    Tools,
    /// It wants `max_completion_tokens` and not `max_tokens`.
    MaxTokens,
    /// It takes no `seed`.
    Seed,
    /// It samples as it does, and takes no `temperature` or `top_p`.
    Sampling,
}

/// An attempt that brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Why, in a word: `connect`, `transport`, `slow`, `deadline`, `busy`, `server`, `refused`, `too_long`, `malformed`, or a caller's own.
    pub label: &'static str,
    /// The same in a sentence, without the key.
    pub message: String,
    /// What of the request was not taken, where the server says so.
    pub complaint: Option<Complaint>,
    /// The status of the server's answer, if it is one.
    pub status: Option<u16>,
    /// Whether another attempt may bring a completion.
    pub(crate) again: bool,
    /// The shortest pause before it that the server asks for.
    pub(crate) after: Option<Duration>,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Miss {}

impl Miss {
    /// Another attempt may succeed.
    pub fn again(label: &'static str, message: impl Into<String>) -> Self {
        Self { label, message: message.into(), complaint: None, status: None, again: true, after: None }
    }

    /// No attempt will.
    pub fn last(label: &'static str, message: impl Into<String>) -> Self {
        Self { again: false, ..Self::again(label, message) }
    }

    /// Whether it is only that the time was up.
    pub fn is_late(&self) -> bool {
        matches!(self.label, "slow" | "deadline")
    }

    /// A request that did not get through, or whose answer did not.
    pub(crate) fn of_transport(error: reqwest::Error) -> Self {
        let label = if error.is_connect() { "connect" } else { "transport" };
        // The sources say what happened, such as `connection refused`.
        let error = error.without_url();
        let mut said = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            said = format!("{said}: {inner}");
            source = inner.source();
        }
        Self::again(label, said)
    }

    /// An answer with another status than success. `said` is its body without the key.
    pub(crate) fn of_status(status: StatusCode, headers: &HeaderMap, said: &str) -> Self {
        Self { status: Some(status.as_u16()), ..Self::of_answer(status, headers, said) }
    }

    fn of_answer(status: StatusCode, headers: &HeaderMap, said: &str) -> Self {
        let error = ErrorBody::of(said);
        let words = format!("{status}{}{}", if error.message.is_empty() { "" } else { ": " }, error.message);
        let busy =
            matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
        // Who has nothing left to pay with is told so with the status of those who are too fast.
        let spent = error.code.contains("insufficient_quota");
        if busy && !spent {
            return Self { after: retry_after(headers), ..Self::again("busy", format!("it is busy: {words}")) };
        }
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            return Self { after: retry_after(headers), ..Self::again("server", format!("it fails: {words}")) };
        }
        Self { complaint: error.complaint(), ..Self::last("refused", format!("it refuses: {words}")) }
    }
}

/// How long a server asks to be left alone: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok()
}

/// What servers say of a request that they do not take, in whichever shape.
#[derive(Default)]
struct ErrorBody {
    /// Code, type and name of the parameter, in lower case.
    code: String,
    /// What is told on: short, and without control characters.
    message: String,
    /// All that was said, in lower case.
    whole: String,
}

impl ErrorBody {
    fn of(said: &str) -> Self {
        let body: Value = serde_json::from_str(said).unwrap_or(Value::Null);
        let error = if body["error"].is_object() { &body["error"] } else { &body };
        let message = [&error["message"], &body["error"], &body["detail"], &body["message"]].into_iter().find_map(Value::as_str);
        let words = message.unwrap_or(said);
        let code: Vec<&str> = ["code", "type", "param"].into_iter().filter_map(|key| error[key].as_str()).collect();
        let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
        let mut short: String = words.chars().take(MAX_SHOWN).map(plain).collect();
        if words.chars().nth(MAX_SHOWN).is_some() {
            short.push_str("...");
        }
        Self { code: code.join(" ").to_lowercase(), message: short.trim().to_owned(), whole: words.to_lowercase() }
    }

    fn complaint(&self) -> Option<Complaint> {
        let says = |words: &[&str]| words.iter().any(|word| self.whole.contains(word) || self.code.contains(word));
        if says(&["context_length", "context length", "context window", "context size", "exceed_context"]) {
            return Some(Complaint::Context);
        }
        if says(&["max_completion_tokens"]) {
            return Some(Complaint::MaxTokens);
        }
        if says(&["tool"]) {
            return Some(Complaint::Tools);
        }
        if says(&["seed"]) {
            return Some(Complaint::Seed);
        }
        says(&["temperature", "top_p"]).then_some(Complaint::Sampling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, said: &str) -> Miss {
        Miss::of_status(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new(), said)
    }

    #[test]
    fn who_may_be_asked_again_is_told_from_who_may_not() {
        for (status, label, again) in
            [(429, "busy", true), (408, "busy", true), (500, "server", true), (503, "server", true), (400, "refused", false)]
        {
            let miss = of(status, "");
            assert_eq!((miss.label, miss.again), (label, again), "{status}");
        }
        for (status, said) in [(429, r#"{"error":{"code":"insufficient_quota","message":"pay"}}"#), (307, ""), (404, "<html>"), (501, "")] {
            assert_eq!((of(status, said).label, of(status, said).again), ("refused", false), "{status}");
        }
    }

    #[test]
    fn complaints_of_many_servers_are_understood() {
        for (said, complaint) in [
            (r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#, Some(Complaint::Context)),
            (r#"{"object":"error","message":"This model's maximum context length is 4096 tokens","code":400}"#, Some(Complaint::Context)),
            (
                r#"{"error":{"message":"'max_tokens' or 'max_completion_tokens' is too large: 1524. This model's maximum context length is 9"}}"#,
                Some(Complaint::Context),
            ),
            (
                r#"{"error":{"message":"Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.","param":"max_tokens"}}"#,
                Some(Complaint::MaxTokens),
            ),
            (r#"{"error":"registry.ollama.ai/library/llava does not support tools"}"#, Some(Complaint::Tools)),
            (r#""auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"#, Some(Complaint::Tools)),
            (r#"{"detail":[{"loc":["body","seed"],"msg":"Extra inputs are not permitted"}]}"#, Some(Complaint::Seed)),
            (r#"{"error":{"message":"Unsupported value: 'temperature' does not support 0 with this model."}}"#, Some(Complaint::Sampling)),
            (r#"{"error":{"message":"no such model"}}"#, None),
            ("", None),
        ] {
            assert_eq!(of(400, said).complaint, complaint, "{said}");
        }
        let long = of(400, &format!(r#"{{"message":"a\nb {}"}}"#, "x".repeat(9999))).message;
        assert!(long.starts_with("it refuses: 400 Bad Request: a b x") && long.len() < 400, "{long}");
    }

    #[test]
    fn a_server_says_how_long_it_wants_to_be_left_alone() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("a header"));
            Miss::of_status(StatusCode::SERVICE_UNAVAILABLE, &headers, "").after
        };
        assert_eq!((after("7"), after("0.5")), (Some(Duration::from_secs(7)), Some(Duration::from_millis(500))));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(after(&date).is_some_and(|pause| (90..=100).contains(&pause.as_secs())));
        for nonsense in ["soon", "-3", "nan", "1e99", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
    }
}
