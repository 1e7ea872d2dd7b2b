//! The tool that is called. In: a server's list of tools, and what settings say. Out: one tool, and its arguments for a query. Sends nothing.

use hypereyes_environment::Fault;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::Told;
use crate::http::call::Miss;
use crate::mcp::{ARGUMENT, encoded};

/// What tools that search texts are called, and pictures; the first that is there is taken.
const TOOLS: [&[&str]; 2] = [
    &["search", "web_search", "text_search", "search_web", "search_text", "retrieve", "query"],
    &["search_pictures", "image_search", "search_images", "search_image", "search_by_image", "reverse_image_search", "picture_search"],
];
/// What their argument is called.
const ARGUMENTS: [&[&str]; 2] = [
    &["query", "queries", "q", "text", "search_query", "question", "keywords", "input"],
    &["picture", "pictures", "image", "images", "image_base64", "picture_base64", "base64", "image_data", "data"],
];
/// What an argument for the number of hits is called.
const HITS: &[&str] = &["hits", "num_results", "max_results", "top_k", "topk", "k", "limit", "count", "num", "n"];
/// Names that are quoted in a refusal.
const QUOTED: usize = 20;

/// A tool, and how it is called.
#[derive(Debug)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The argument for what is searched for, and whether it takes a list.
    argument: (String, bool),
    /// Arguments that are the same in every call.
    fixed: Vec<(String, Value)>,
    /// Arguments that go into a header, too, each with the header's name.
    headers: Vec<(String, HeaderName)>,
}

impl Tool {
    /// The one of `tools` that settings name, or that searches for what is wanted as far as names tell.
    ///
    /// # Errors
    /// [`Miss`] with the names that there are.
    pub fn of(tools: &[Value], told: &Told, wants: &Value) -> Result<Self, Miss> {
        let kind = usize::from(wants.get("picture").is_some());
        let named = |name: &str| tools.iter().find(|tool| tool.get("name").and_then(Value::as_str) == Some(name));
        let names = || quoted(tools.iter().filter_map(|tool| tool.get("name")?.as_str()));
        let found = match (&told.tool, tools) {
            (Some(name), _) => named(name).ok_or_else(|| format!("it has no tool {name:?}; it has {}", names())),
            (None, [only]) => Ok(only),
            (None, _) => TOOLS[kind].iter().find_map(|name| named(name)).ok_or_else(|| {
                let what = ["texts", "pictures"][kind];
                format!("which of its tools searches {what}? say tool=NAME in parameters; it has {}", names())
            }),
        };
        found.and_then(|tool| Self::called(tool, told, kind)).map_err(|why| (Fault::Refused, why))
    }

    fn called(tool: &Value, told: &Told, kind: usize) -> Result<Self, String> {
        let name =
            tool.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()).ok_or("one of its tools has no name")?.to_owned();
        let schema = tool.get("inputSchema").unwrap_or(&Value::Null);
        let nothing = Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
        let has = |argument: &str| {
            // A tool that names no arguments may take any.
            if known.is_empty() || known.contains_key(argument) {
                return Ok(argument.to_owned());
            }
            Err(format!("its tool {name} has no argument {argument:?}; it has {}", quoted(known.keys().map(String::as_str))))
        };
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let usual = |names: &[&str]| names.iter().find(|name| known.contains_key(**name)).map(|name| (*name).to_owned());
        let argument = match (&told.argument, &required[..]) {
            (Some(argument), _) => has(argument)?,
            (None, _) if known.is_empty() => ARGUMENTS[kind][0].to_owned(),
            (None, [only]) if known.contains_key(*only) => (*only).to_owned(),
            (None, _) => usual(ARGUMENTS[kind]).ok_or_else(|| {
                let names = quoted(known.keys().map(String::as_str));
                format!("which argument of its tool {name} is searched for? say argument=NAME in parameters; it has {names}")
            })?,
        };
        let mut fixed = vec![];
        let counts =
            |hits: &String| *hits != argument && typed(known.get(hits), &told.hits.to_string()).is_some_and(|hits| hits.is_number());
        let hits = told.hits_argument.as_deref().map(has).transpose()?.or_else(|| usual(HITS).filter(counts));
        fixed.extend(hits.map(|hits| (hits, json!(told.hits))));
        for (argument, value) in &told.others {
            let argument = has(argument)?;
            let value =
                typed(known.get(&argument), value).ok_or_else(|| format!("its tool {name} does not take {value:?} as {argument}"))?;
            fixed.push((argument, value));
        }
        let is_list = known.get(&argument).is_some_and(|schema| is(schema, "array") && !is(schema, "string"));
        let headers = known.iter().filter_map(|(argument, schema)| {
            let header = schema.get("x-mcp-header")?.as_str().unwrap_or_default();
            let header = HeaderName::try_from(format!("{ARGUMENT}{}", header.to_ascii_lowercase())).ok().filter(|_| !header.is_empty());
            Some(
                header
                    .map(|header| (argument.clone(), header))
                    .ok_or_else(|| format!("its tool {name} wants {argument} in no header's name")),
            )
        });
        let headers = headers.collect::<Result<_, _>>()?;
        Ok(Self { argument: (argument, is_list), fixed, headers, name })
    }

    /// The arguments of a call, and the headers that say them again.
    pub fn arguments(&self, wants: &Value) -> (Map<String, Value>, HeaderMap) {
        let wanted = wants.get("text").or(wants.get("picture")).cloned().unwrap_or_default();
        let (argument, is_list) = &self.argument;
        let wanted = if *is_list { json!([wanted]) } else { wanted };
        let arguments: Map<String, Value> = self.fixed.iter().cloned().chain([(argument.clone(), wanted)]).collect();
        let mut headers = HeaderMap::new();
        for (argument, header) in &self.headers {
            let said = match arguments.get(argument) {
                Some(Value::String(text)) => encoded(text),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                _ => continue,
            };
            headers.extend(HeaderValue::try_from(said).ok().map(|said| (header.clone(), said)));
        }
        (arguments, headers)
    }
}

/// Whether a schema takes a type, or says that it may be one of several that do.
fn is(schema: &Value, kind: &str) -> bool {
    let listed = |name: &str| schema.get(name).and_then(Value::as_array).into_iter().flatten();
    let among = listed("anyOf").chain(listed("oneOf")).any(|one| one.get("type").and_then(Value::as_str) == Some(kind));
    schema.get("type").and_then(Value::as_str) == Some(kind) || listed("type").any(|one| one == kind) || among
}

/// A value of settings as an argument's schema takes it.
fn typed(schema: Option<&Value>, said: &str) -> Option<Value> {
    let text = || Some(said.into());
    let Some(schema) = schema else { return text() };
    let parsed = || serde_json::from_str::<Value>(said).ok();
    let takes = |value: &Value| match value {
        Value::Bool(_) => is(schema, "boolean"),
        Value::Number(number) => is(schema, "number") || (is(schema, "integer") && !number.is_f64()),
        Value::Array(_) => is(schema, "array"),
        Value::Object(_) => is(schema, "object"),
        Value::Null | Value::String(_) => false,
    };
    let others = ["boolean", "number", "integer", "array", "object"].into_iter().any(|kind| is(schema, kind));
    if is(schema, "string") || !others { text() } else { parsed().filter(takes) }
}

/// Names for a message, not too many and not too long.
fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.take(QUOTED).map(|name| name.chars().take(60).collect()).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told { hits: 5, ..Told::default() }
    }

    fn tool(name: &str, properties: Value) -> Value {
        json!({"name": name, "inputSchema": {"type": "object", "properties": properties}})
    }

    fn arguments(tools: &[Value], told: &Told, wants: Value) -> Result<(String, Value), String> {
        let tool = Tool::of(tools, told, &wants).map_err(|(fault, why)| format!("{}: {why}", fault.label()))?;
        Ok((tool.name.clone(), Value::Object(tool.arguments(&wants).0)))
    }

    #[test]
    fn names_tell_what_settings_do_not() {
        let text = json!({"text": "peru"});
        let tools = [
            tool("fetch", json!({"url": {"type": "string"}})),
            tool("web_search", json!({"query": {"type": "string"}, "num_results": {"type": "integer"}})),
            tool("image_search", json!({"image": {"anyOf": [{"type": "string"}, {"type": "null"}]}})),
            tool(
                "many",
                json!({"queries": {"type": "array", "items": {"type": "string"}}, "hl": {}, "safe": {"type": "boolean"}, "n": {"type": "integer"}}),
            ),
        ];
        assert_eq!(arguments(&tools, &told(), text.clone()), Ok(("web_search".into(), json!({"num_results": 5, "query": "peru"}))));
        assert_eq!(arguments(&tools, &told(), json!({"picture": "aGk="})), Ok(("image_search".into(), json!({"image": "aGk="}))));
        let others = vec![("hl".to_owned(), "en".to_owned()), ("safe".to_owned(), "true".to_owned())];
        let many = Told { tool: Some("many".into()), others, ..told() };
        assert_eq!(
            arguments(&tools, &many, text.clone()),
            Ok(("many".into(), json!({"n": 5, "hl": "en", "safe": true, "queries": ["peru"]})))
        );
        let named = Told { tool: Some("fetch".into()), argument: Some("url".into()), ..told() };
        assert_eq!(arguments(&tools, &named, text.clone()), Ok(("fetch".into(), json!({"url": "peru"}))));
        // A tool that says nothing of its arguments, alone.
        assert_eq!(arguments(&[json!({"name": "x"})], &told(), text.clone()), Ok(("x".into(), json!({"query": "peru"}))));
        // The one that is required, whatever it is called.
        let required = json!({"name": "y", "inputSchema": {"properties": {"was": {"type": "string"}, "k": {}}, "required": ["was"]}});
        assert_eq!(arguments(&[required], &told(), text.clone()), Ok(("y".into(), json!({"was": "peru"}))), "k may be anything");

        for (change, why) in [
            (Told { tool: Some("find".into()), ..told() }, "no tool \"find\"; it has fetch, web_search"),
            (Told { argument: Some("q".into()), ..told() }, "web_search has no argument \"q\"; it has query, num_results"),
            (Told { others: vec![("num_results".into(), "many".into())], ..told() }, "does not take \"many\" as num_results"),
        ] {
            let error = arguments(&tools, &change, text.clone()).expect_err("refused");
            assert!(error.starts_with("refused: ") && error.contains(why), "{error}");
        }
        let none = arguments(&[tools[0].clone(), tools[0].clone()], &told(), text.clone()).expect_err("which?");
        assert!(none.contains("which of its tools searches texts"), "{none}");
        let none = arguments(&[tool("search", json!({"a": {}, "b": {}}))], &told(), text).expect_err("which?");
        assert!(none.contains("which argument of its tool search"), "{none}");
    }

    #[test]
    fn an_argument_that_belongs_into_a_header_stands_there_too() {
        let tools = [tool(
            "search",
            json!({"query": {"type": "string", "x-mcp-header": "Query"}, "k": {"type": "integer", "x-mcp-header": "Top"}}),
        )];
        let wants = json!({"text": "Per\u{fa}"});
        let (_, headers) = Tool::of(&tools, &told(), &wants).expect("a tool").arguments(&wants);
        assert_eq!(headers["mcp-param-query"], "=?base64?UGVyw7o=?=");
        assert_eq!(headers["mcp-param-top"], "5");
        let bad = [tool("search", json!({"query": {"type": "string", "x-mcp-header": "a b"}}))];
        assert!(Tool::of(&bad, &told(), &wants).expect_err("no header").1.contains("no header's name"));
    }
}
