//! Hits of a tool's result, whatever shape it has; and in which way one failed. In: an answer. Out: hits, or a miss. Sends nothing.

use hypereyes_environment::{Fault, Hit};
use serde_json::Value;

use crate::http::call::{Miss, text};
use crate::mcp::{HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, NO_CAPABILITY, NO_METHOD, PARSE, UNSUPPORTED_VERSION};

/// What lists of hits are called, and what they are wrapped in.
const LISTS: &[&str] = &["results", "hits", "organic", "organic_results", "items", "documents", "web", "data", "result"];
/// How deep a list is looked for.
const DEEPEST: usize = 4;
/// Characters of a server's words that are quoted.
const QUOTED: usize = 300;

/// The names under which the parts of a hit are looked for.
const TITLE: &[&str] = &["title", "name"];
const CONTENT: &[&str] = &["content", "snippet", "text", "description", "summary", "page_content", "contents", "body"];
const URL: &[&str] = &["url", "link", "uri", "href"];
const SOURCE: &[&str] = &["source", "site", "engine"];
const DATE: &[&str] = &["date", "published_date", "publishedDate", "published", "age"];
const SCORE: &[&str] = &["score", "relevance", "similarity"];

/// Words that tell in which way a tool failed, for which the protocol has none.
const WORDS: &[(Fault, &[&str])] = &[
    (Fault::RateLimited, &["rate limit", "rate_limit", "ratelimit", "too many requests"]),
    (Fault::Quota, &["quota", "credits", "usage limit", "out of searches", "payment required"]),
    (Fault::Timeout, &["timed out", "timeout"]),
    (
        Fault::Refused,
        &["unauthorized", "forbidden", "api key", "api_key", "permission denied", "unknown tool", "validation error", "invalid argument"],
    ),
];

/// The code of an answer that is an error.
pub fn code(body: &Value) -> Option<i64> {
    body.pointer("/error/code")?.as_i64()
}

/// The miss of an answer that is an error.
pub fn error(body: &Value) -> Option<Miss> {
    let (code, said) = (code(body)?, said(body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default()));
    let fault = match code {
        PARSE | INVALID_REQUEST | NO_METHOD | INVALID_PARAMS | HEADER_MISMATCH | NO_CAPABILITY | UNSUPPORTED_VERSION => Fault::Refused,
        _ => by_words(&said).unwrap_or(Fault::Unavailable),
    };
    Some((fault, format!("error {code}: {said}")))
}

/// The hits of an answer to a call for one query, at most `most`; `at` is the pointer to their list, where it is not looked for.
///
/// # Errors
/// [`Miss`].
pub fn hits(body: &Value, at: Option<&str>, most: usize) -> Result<Vec<Hit>, Miss> {
    if let Some(miss) = error(body) {
        return Err(miss);
    }
    let result = body.get("result").filter(|result| result.is_object());
    let result = result.ok_or_else(|| (Fault::Unavailable, "its answer has no result".to_owned()))?;
    match result.get("resultType").and_then(Value::as_str) {
        None | Some("complete") => {}
        Some("input_required") => return Err((Fault::Refused, "its tool asks back, and there is nobody to answer".to_owned())),
        Some(other) => return Err((Fault::Unavailable, format!("its result is of no kind that is known: {:?}", said(other)))),
    }
    let structured = result.get("structuredContent").filter(|content| !content.is_null());
    let blocks = result.get("content").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if result.get("isError") == Some(&Value::Bool(true)) {
        // Ours says how each query failed.
        let told = structured.and_then(|content| found(content, 0)).and_then(Result::err);
        return Err(told.unwrap_or_else(|| {
            let said = said(&texts(blocks).join(" "));
            (by_words(&said).unwrap_or(Fault::Unavailable), format!("its tool failed: {said}"))
        }));
    }
    let parsed = parsed(blocks);
    let found = match at {
        Some(at) => structured.into_iter().chain(&parsed).find_map(|content| found(content.pointer(at)?, 0)),
        None if blocks.is_empty() && structured.is_some() => structured.and_then(|content| found(content, 0)),
        None => structured.and_then(|content| found(content, 0)).or_else(|| in_blocks(blocks, &parsed)),
    };
    let missing = || match at {
        Some(at) => format!("its result has no hits at {at} (hits_at)"),
        None => "hits are not found in its result; say hits_at=/POINTER in parameters".to_owned(),
    };
    let mut hits = found.unwrap_or_else(|| Err((Fault::Unavailable, missing())))?;
    hits.truncate(most);
    Ok(hits)
}

/// Hits in blocks of content: JSON, a list of links, or plain text. No blocks at all are nothing found.
fn in_blocks(blocks: &[Value], parsed: &[Value]) -> Option<Result<Vec<Hit>, Miss>> {
    let texts = texts(blocks);
    if !parsed.is_empty() && parsed.len() == texts.len() {
        // One block with all of it, or a block for each hit.
        return match parsed {
            [only] => found(only, 0),
            many => found(&Value::Array(many.to_vec()), 0),
        };
    }
    let links: Vec<Hit> = blocks.iter().filter_map(link).collect();
    match (links.is_empty(), texts.is_empty()) {
        (false, _) => Some(Ok(links)),
        // A picture, say, holds no hits; and it is not nothing found.
        (true, true) if !blocks.is_empty() => None,
        (true, _) => Some(Ok(plain(&texts.join("\n")))),
    }
}

/// The texts among blocks.
fn texts(blocks: &[Value]) -> Vec<&str> {
    let texts = blocks.iter().filter(|block| block.get("type").and_then(Value::as_str) == Some("text"));
    texts.filter_map(|block| block.get("text")?.as_str()).collect()
}

/// The texts among blocks that are JSON.
fn parsed(blocks: &[Value]) -> Vec<Value> {
    texts(blocks).into_iter().filter_map(json).collect()
}

/// A text that is a list or an object.
fn json(text: &str) -> Option<Value> {
    text.trim_start().starts_with(['{', '[']).then(|| serde_json::from_str(text).ok()).flatten()
}

/// A block that names or holds a resource.
fn link(block: &Value) -> Option<Hit> {
    match block.get("type")?.as_str()? {
        "resource_link" => hit(block),
        "resource" => hit(block.get("resource")?),
        _ => None,
    }
}

/// The hits in a value, if it has any place for them; or how the query failed, if that is what it says.
fn found(value: &Value, depth: usize) -> Option<Result<Vec<Hit>, Miss>> {
    match value {
        _ if depth > DEEPEST => None,
        Value::String(text) => Some(json(text).and_then(|value| found(&value, depth + 1)).unwrap_or_else(|| Ok(plain(text)))),
        Value::Array(items) => match &items[..] {
            // The list of the one query that was asked.
            [Value::Array(_)] => found(&items[0], depth + 1),
            [Value::Object(of_query)] if of_query.get("hits").is_some_and(Value::is_array) || of_query.contains_key("failure") => {
                found(&items[0], depth + 1)
            }
            items => {
                let hits: Vec<Hit> = items.iter().filter_map(hit).collect();
                // What nobody understands is not nothing found.
                (items.is_empty() || !hits.is_empty()).then_some(Ok(hits))
            }
        },
        Value::Object(named) => {
            if let Some(failure) = named.get("failure") {
                let fault = serde_json::from_value(failure.clone()).unwrap_or(Fault::Unavailable);
                return Some(Err((fault, said(&text(value, &["message"]).unwrap_or_default()))));
            }
            // A text is a part of a hit, unless it stands for the whole result, as FastMCP wraps one.
            let holds = |(name, inner): &(&&str, &Value)| !inner.is_string() || **name == "result";
            let inner = LISTS.iter().filter_map(|name| Some((name, named.get(*name)?))).filter(holds);
            let listed = inner.filter_map(|(_, inner)| found(inner, depth + 1)).next();
            listed.or_else(|| Some(Ok(vec![hit(value)?])))
        }
        _ => None,
    }
}

/// One item as a hit; none of what has neither a title nor content.
fn hit(item: &Value) -> Option<Hit> {
    if let Value::String(content) = item {
        return plain(content).pop();
    }
    let (title, content) = (text(item, TITLE), text(item, CONTENT));
    (title.is_some() || content.is_some()).then(|| Hit {
        title: title.unwrap_or_default(),
        content: content.unwrap_or_default(),
        detail: text(item, &["detail", "raw_content"]),
        url: text(item, URL),
        source: text(item, SOURCE),
        date: text(item, DATE),
        score: SCORE.iter().find_map(|name| item.get(*name)?.as_f64()),
    })
}

/// A text as the one hit, if it says anything.
fn plain(text: &str) -> Vec<Hit> {
    let text = text.trim();
    if text.is_empty() { vec![] } else { vec![Hit { content: text.to_owned(), ..Hit::default() }] }
}

/// A server's words, cut.
fn said(words: &str) -> String {
    if words.is_empty() { "it says nothing of the reason".to_owned() } else { words.chars().take(QUOTED).collect() }
}

fn by_words(said: &str) -> Option<Fault> {
    let said = said.to_lowercase();
    WORDS.iter().find(|(_, words)| words.iter().any(|word| said.contains(word))).map(|(fault, _)| *fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(result: Value) -> Result<Vec<Hit>, Miss> {
        hits(&json!({"jsonrpc": "2.0", "id": 1, "result": result}), None, 10)
    }

    fn titles(result: Value) -> Vec<String> {
        read(result).expect("hits").into_iter().map(|hit| if hit.title.is_empty() { hit.content } else { hit.title }).collect()
    }

    fn said_as_text(texts: &[&str]) -> Value {
        json!({"content": texts.iter().map(|text| json!({"type": "text", "text": text})).collect::<Vec<_>>()})
    }

    #[test]
    fn hits_are_found_in_every_shape_that_servers_use() {
        let item =
            json!({"title": "Lima", "link": "https://x/l", "snippet": "the capital", "score": 0.9, "date": "2 days ago", "source": "x"});
        for name in ["results", "hits", "organic"] {
            let hits = read(json!({"structuredContent": {name: [item]}, "resultType": "complete"})).expect("hits");
            let Hit { title, content, url, source, date, score, .. } = &hits[0];
            assert_eq!((title.as_str(), content.as_str(), url.as_deref()), ("Lima", "the capital", Some("https://x/l")));
            assert_eq!((source.as_deref(), date.as_deref(), *score), (Some("x"), Some("2 days ago"), Some(0.9)));
        }
        let text = item.to_string();
        assert_eq!(titles(json!({"structuredContent": {"result": [item, item]}})), ["Lima", "Lima"], "a list, as FastMCP wraps one");
        assert_eq!(titles(json!({"structuredContent": {"data": {"web": {"results": [item]}}}})), ["Lima"]);
        assert_eq!(titles(json!({"structuredContent": {"results": [{"hits": [item]}]}})), ["Lima"], "a list for the query");
        assert_eq!(titles(json!({"structuredContent": {"result": [[item]]}})), ["Lima"]);
        assert_eq!(titles(json!({"structuredContent": {"result": json!({"results": [item]}).to_string()}})), ["Lima"], "JSON in a text");
        assert_eq!(titles(said_as_text(&[&format!("[{text}]")])), ["Lima"]);
        assert_eq!(titles(said_as_text(&[&text, &text])), ["Lima", "Lima"], "a block for each");
        assert_eq!(titles(said_as_text(&[" Lima it is ", "so"])), ["Lima it is \nso"], "plain text is one hit");
        assert_eq!(titles(json!({"structuredContent": {"result": ["a", "b"]}})), ["a", "b"]);
        let links = json!({"content": [
            {"type": "resource_link", "uri": "https://x/l", "name": "Lima"},
            {"type": "resource", "resource": {"uri": "https://x/m", "text": "more"}},
        ]});
        assert_eq!(titles(links), ["Lima", "more"]);
        let body = json!({"result": {"structuredContent": {"deep": {"er": [item]}}}});
        assert_eq!(hits(&body, Some("/deep/er"), 10).expect("there").len(), 1);
        assert!(hits(&body, Some("/deep"), 10).expect_err("not there").1.contains("/deep"));
        assert_eq!(hits(&json!({"result": {"structuredContent": {"results": [item, item, item]}}}), None, 2).expect("hits").len(), 2);
    }

    #[test]
    fn nothing_found_is_nothing_and_what_nobody_understands_is_not() {
        for result in
            [json!({"structuredContent": {"results": []}}), json!({"content": []}), json!({}), said_as_text(&["[]"]), said_as_text(&[""])]
        {
            assert_eq!(read(result.clone()), Ok(vec![]), "{result}");
        }
        for result in [
            json!({"structuredContent": {"a": 1}, "content": [{"type": "text", "text": "{\"a\":1}"}]}),
            json!({"structuredContent": {"results": [{"a": 1}]}, "content": [{"type": "text", "text": "{}"}]}),
            json!({"structuredContent": {"a": 1}}),
            json!({"content": [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]}),
        ] {
            let (fault, said) = read(result).expect_err("what?");
            assert!(fault == Fault::Unavailable && said.contains("hits_at"), "{said}");
        }
    }

    #[test]
    fn failures_have_a_type() {
        let failed = |said: &str| read(json!({"isError": true, "content": [{"type": "text", "text": said}]})).expect_err("failed").0;
        assert_eq!(failed("Error calling tool: rate limit exceeded"), Fault::RateLimited);
        assert_eq!(failed("Not enough credits"), Fault::Quota);
        assert_eq!(failed("upstream timed out"), Fault::Timeout);
        assert_eq!(failed("Unauthorized: bad API key"), Fault::Refused);
        assert_eq!(failed("2 validation errors for call[search]"), Fault::Refused);
        assert_eq!((failed("boom"), failed("")), (Fault::Unavailable, Fault::Unavailable));
        let ours = json!({"isError": true, "structuredContent": {"results": [{"failure": "miss", "message": "not kept"}]}});
        assert_eq!(read(ours), Err((Fault::Miss, "not kept".to_owned())));
        let told = json!({"structuredContent": {"results": [{"failure": "odd"}]}});
        assert_eq!(read(told).expect_err("failed").0, Fault::Unavailable);
        assert_eq!(read(json!({"resultType": "input_required", "inputRequests": {}})).expect_err("asks").0, Fault::Refused);
        assert_eq!(read(json!({"resultType": "task"})).expect_err("unknown").0, Fault::Unavailable);
        let error = |code: i64, said: &str| hits(&json!({"error": {"code": code, "message": said}}), None, 1).expect_err("an error").0;
        assert_eq!((error(-32602, "Unknown tool"), error(-32603, "boom")), (Fault::Refused, Fault::Unavailable));
        assert_eq!((error(-32000, "Quota exceeded"), error(429, "Too Many Requests")), (Fault::Quota, Fault::RateLimited));
        assert_eq!(hits(&json!({"result": 7}), None, 1).expect_err("none").0, Fault::Unavailable);
    }
}
