//! What a call asks for (docs/spec.md#grammar). In: its JSON. Out: the call, or what the policy is told of it: every argument that is
//! refused is named, and so is what of the call is left undone. What arguments mean, their tool knows. Knows no tag and no picture.

use hypereyes_domain::Call;
use serde_json::{Map, Value};

use crate::tools::{Tool, Tools};

/// Arguments that are named one by one; of what is beyond, the number is said.
const MAX_NAMED: usize = 8;
/// Letters of what the policy wrote that it is told again.
const MAX_SHOWN: usize = 40;

/// Why a call is not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Label under which it is counted: `call`, `tool`, `argument`, `value` or `area`.
    pub reason: &'static str,
    /// What the policy is told.
    pub message: String,
}

impl Refusal {
    /// A refusal that is counted under `reason`.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What of a call is left undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Label under which it is counted: `areas`, `queries` or `pages` beyond the limit, `not_text`, `no_word`.
    pub reason: &'static str,
    /// How many.
    pub count: usize,
    /// What the policy is told.
    pub text: String,
    /// Whether they are left undone because a call has a limit.
    pub over_limit: bool,
}

/// Keys that other action spaces put beside name and arguments, and that say nothing of what is asked.
const BESIDE: [&str; 5] = ["name", "arguments", "id", "type", "index"];

/// Reads a call that is not empty; what of it is left undone is added to `notes`.
pub(crate) fn read_call(call: &Value, tools: &Tools, notes: &mut Vec<Note>) -> Result<Call, Refusal> {
    let refuse = |reason, message: String| Err(Refusal { reason, message });
    let Some(call) = call.as_object() else { return refuse("call", "a call must be an object".into()) };
    let Some(name) = call.get("name").and_then(Value::as_str) else { return refuse("call", "a call needs a name".into()) };
    let tool = tools.get(name)?;
    // An argument in the wrong place must not be taken for none: a box that nobody reads is the whole picture.
    if let Some(stray) = call.keys().find(|key| !BESIDE.contains(&key.as_str())) {
        return refuse("call", format!("a call has name and arguments, not {}: what is asked belongs into arguments", shown(stray)));
    }
    let nothing = Map::new();
    let arguments = match call.get("arguments") {
        None => &nothing,
        Some(value) => match value.as_object() {
            Some(arguments) => arguments,
            None => return refuse("call", "arguments must be an object".into()),
        },
    };
    let known = tool.arguments();
    let mut unknown =
        arguments.keys().filter(|key| known.iter().all(|one| one.name != *key)).map(|key| unknown_argument(tool, key)).peekable();
    if unknown.peek().is_some() {
        let named: Vec<String> = unknown.by_ref().take(MAX_NAMED).collect();
        let more = unknown.count();
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        return refuse("argument", named.join("; ") + &more);
    }
    let arguments = tool.parse(arguments, notes)?;
    Ok(Call { tool: tool.name().to_owned(), searches: tool.cost(&arguments), arguments })
}

/// What is said of an argument that the tool does not have.
fn unknown_argument(tool: &dyn Tool, key: &str) -> String {
    let (name, known, lower) = (tool.name(), tool.arguments(), key.to_lowercase());
    match known.iter().find(|one| one.name == lower || one.also.contains(&lower.as_str())) {
        Some(meant) => format!("{name} has no argument {}: did you mean {}?", shown(key), meant.name),
        None => {
            let has: Vec<&str> = known.iter().map(|one| one.name).collect();
            format!("{name} has no argument {}: it has {}", shown(key), has.join(" and "))
        }
    }
}

/// The first `most` of the items; of the others a note is taken.
pub(crate) fn capped<T>(mut items: Vec<T>, most: usize, what: &'static str, notes: &mut Vec<Note>) -> Vec<T> {
    if items.len() > most {
        let over = items.len() - most;
        let text = format!("not searched, over the limit of {most}: {over} {what}");
        notes.push(Note { reason: what, count: over, text, over_limit: true });
        items.truncate(most);
    }
    items
}

/// What the policy wrote, short and without control characters, in quotes.
pub(crate) fn shown(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut short: String = text.chars().take(MAX_SHOWN).map(plain).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        short.push_str("...");
    }
    format!("\"{short}\"")
}

/// The same of any value.
pub(crate) fn shown_value(value: &Value) -> String {
    match value {
        Value::String(text) => shown(text),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::Null => "null".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(call: Value) -> String {
        read_call(&call, &Tools::default(), &mut Vec::new()).expect_err("refused").message
    }

    fn text(arguments: Value) -> Value {
        json!({"name": "text_search", "arguments": arguments})
    }

    fn image(arguments: Value) -> Value {
        json!({"name": "image_search", "arguments": arguments})
    }

    #[test]
    fn every_argument_that_is_refused_is_named() {
        assert_eq!(refused(text(json!({"query": "Iceland"}))), "text_search has no argument \"query\": did you mean input?");
        let both = refused(text(json!({"input": ["a"], "Queries": ["b"], "top_k": 3})));
        assert!(both.contains("\"Queries\": did you mean input?") && both.contains("\"top_k\": it has input"), "{both}");
        for other in ["bbox", "bbox_2d", "areas", "box"] {
            let said = refused(image(json!({"image_id": "img_0", other: [[0, 0, 1, 1]]})));
            assert_eq!(said, format!("image_search has no argument \"{other}\": did you mean area?"), "never the whole picture");
        }
        assert!(refused(image(json!({"img_id": "img_1"}))).contains("did you mean image_id?"));
        assert_eq!(refused(image(json!({"query": "a"}))), "image_search has no argument \"query\": it has image_id and area");
        let beside = refused(json!({"name": "image_search", "area": [[0, 0, 0.5, 1]]}));
        assert!(beside.contains("\"area\"") && beside.contains("arguments"), "{beside}");
        assert!(refused(json!({"name": "text_search", "parameters": {"input": "a"}})).contains("\"parameters\""));
        assert!(refused(json!({"name": "search\n", "arguments": {}})).contains("unknown tool \"search \""));
        let long = refused(text(json!({"x".repeat(9999): 1})));
        assert!(long.len() < 150, "{long}");
        let many: Map<String, Value> = (0..50).map(|at| (format!("x{at}"), Value::Null)).collect();
        assert!(refused(text(Value::Object(many))).ends_with("; and 42 more"));
        let of_openai = json!({"id": "call_1", "type": "function", "name": "text_search", "arguments": {"input": "a"}});
        assert!(read_call(&of_openai, &Tools::default(), &mut Vec::new()).is_ok());
    }

    #[test]
    fn what_is_wrong_with_an_area_is_said() {
        let said = |area: &str| {
            let call = format!(r#"{{"name":"image_search","arguments":{{"area":{area}}}}}"#);
            refused(crate::json::read(&call).expect("JSON"))
        };
        for (area, what) in [
            ("[0,0,1,1]", "area is one box; it must be a list of boxes, [[x1,y1,x2,y2]]"),
            ("[[0,0,1,1],[0,0,1]]", "area[1] has 3 numbers"),
            ("[[0,0,1,\"1\"]]", "area[0] has \"1\", which is no number"),
            ("[[0,0,NaN,1]]", "area[0] has NaN, which is no place"),
            ("[[0,0,1e999,1]]", "area[0] has 1e999"),
            ("[[0,0,[1],true]]", "area[0] has a list"),
            ("\"[[0,0,1,1]]\"", "area is no list"),
            ("[{\"x1\":0}]", "area[0] is no list"),
            ("[null]", "area[0] is no list"),
        ] {
            assert!(said(area).starts_with(what), "{area}: {}", said(area));
        }
    }

    #[test]
    fn what_is_not_searched_is_noted() {
        let noted = |input: Value| {
            let mut notes = Vec::new();
            let call = read_call(&text(json!({"input": input})), &Tools::default(), &mut notes).expect("a call");
            (call.searches, notes.iter().map(|note| (note.reason, note.count)).collect::<Vec<_>>())
        };
        assert_eq!(noted(json!(["a", " ", ""])), (1, vec![]));
        assert_eq!(noted(json!(["a", 7, null, {"query": "b"}])), (1, vec![("not_text", 3)]));
        for nothing in
            ["?", "... --", "\u{200b}", "\u{2060}\u{feff}", "\u{ad}", "\u{3164}", "\u{2800}", "\u{1160}\u{115f}", "“”", "$", "🙂"]
        {
            assert_eq!(noted(json!([nothing])), (0, vec![("no_word", 1)]), "{nothing:?}");
        }
        for something in ["C++", "東京", "π", "5", "¿qué?", "Ⅳ", "\u{200b}a"] {
            assert_eq!(noted(json!([something])), (1, vec![]), "{something:?}");
        }
        assert_eq!(noted(json!(vec!["q"; 100])), (64, vec![("queries", 36)]));
        assert_eq!(noted(json!("a|?|b")), (2, vec![("no_word", 1)]));
    }
}
