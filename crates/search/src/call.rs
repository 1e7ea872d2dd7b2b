//! What a call asks for (docs/spec.md#grammar). In: its JSON. Out: the call, or what the policy is told of it: every argument that is
//! refused is named, and so is what of the call is left undone. Knows no tag and no picture.

use hypereyes_domain::{Area, Call};
use serde_json::{Map, Value};

use crate::json::no_number;

/// Most areas of one call; the rest is dropped, said and counted. More than a picture has entities.
pub const MAX_AREAS: usize = 64;
/// Most queries of one call; the rest is dropped, said and counted.
pub const MAX_QUERIES: usize = 64;
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

/// What of a call is left undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Label under which it is counted: `areas` or `queries` beyond the limit, `not_text`, `no_word`.
    pub reason: &'static str,
    /// How many.
    pub count: usize,
    /// What the policy is told.
    pub text: String,
}

fn refuse<T>(reason: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { reason, message: message.into() })
}

/// A tool and its arguments.
struct Tool {
    name: &'static str,
    arguments: &'static [&'static str],
}

const IMAGE_SEARCH: Tool = Tool { name: "image_search", arguments: &["image_id", "area"] };
const TEXT_SEARCH: Tool = Tool { name: "text_search", arguments: &["input"] };

/// What other action spaces call our arguments.
const OTHER_NAMES: [(&str, &[&str]); 3] = [
    (
        "input",
        &["inputs", "query", "queries", "query_list", "q", "search", "search_query", "text", "texts", "keyword", "keywords", "question"],
    ),
    (
        "area",
        &["areas", "bbox", "bboxes", "bbox_2d", "box", "boxes", "box_2d", "crop", "region", "regions", "coordinate", "coordinates", "rect"],
    ),
    ("image_id", &["img_id", "image", "img", "id", "imageid", "image_ids", "picture", "img_idx", "image_index"]),
];
/// Keys that other action spaces put beside name and arguments, and that say nothing of what is asked.
const BESIDE: [&str; 5] = ["name", "arguments", "id", "type", "index"];

/// Reads a call that is not empty; what of it is left undone is added to `notes`.
pub(crate) fn read_call(call: &Value, notes: &mut Vec<Note>) -> Result<Call, Refusal> {
    let Some(call) = call.as_object() else { return refuse("call", "a call must be an object") };
    let Some(name) = call.get("name").and_then(Value::as_str) else { return refuse("call", "a call needs a name") };
    let Some(tool) = [IMAGE_SEARCH, TEXT_SEARCH].into_iter().find(|tool| tool.name == name) else {
        return refuse("tool", format!("unknown tool {}: there are image_search and text_search", shown(name)));
    };
    // An argument in the wrong place must not be taken for none: a box that nobody reads is the whole picture.
    if let Some(stray) = call.keys().find(|key| !BESIDE.contains(&key.as_str())) {
        return refuse("call", format!("a call has name and arguments, not {}: what is asked belongs into arguments", shown(stray)));
    }
    let nothing = Map::new();
    let arguments = match call.get("arguments") {
        None => &nothing,
        Some(value) => match value.as_object() {
            Some(arguments) => arguments,
            None => return refuse("call", "arguments must be an object"),
        },
    };
    let mut unknown = arguments.keys().filter(|key| !tool.arguments.contains(&key.as_str())).map(|key| tool.unknown(key)).peekable();
    if unknown.peek().is_some() {
        let named: Vec<String> = unknown.by_ref().take(MAX_NAMED).collect();
        let more = unknown.count();
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        return refuse("argument", named.join("; ") + &more);
    }
    match tool.name {
        "image_search" => read_image_search(arguments, notes),
        _ => read_text_search(arguments, notes),
    }
}

impl Tool {
    /// What is said of an argument that the tool does not have.
    fn unknown(&self, key: &str) -> String {
        let lower = key.to_lowercase();
        let meant = OTHER_NAMES.iter().find(|(ours, others)| *ours == lower || others.contains(&lower.as_str()));
        let meant = meant.map(|(ours, _)| *ours).filter(|ours| self.arguments.contains(ours));
        match meant {
            Some(ours) => format!("{} has no argument {}: did you mean {ours}?", self.name, shown(key)),
            None => format!("{} has no argument {}: it has {}", self.name, shown(key), self.arguments.join(" and ")),
        }
    }
}

fn read_image_search(arguments: &Map<String, Value>, notes: &mut Vec<Note>) -> Result<Call, Refusal> {
    let image_id = match arguments.get("image_id") {
        None => "img_0",
        Some(value) => match value.as_str() {
            Some(text) => text.trim(),
            None => return refuse("value", "image_id must be text, such as \"img_0\""),
        },
    };
    let areas = match arguments.get("area") {
        None | Some(Value::Null) => &[][..],
        Some(value) => match value.as_array() {
            Some(areas) if areas.iter().any(Value::is_number) => return refuse("area", format!("area is one box; {SHAPE}")),
            Some(areas) => areas,
            None => return refuse("area", format!("area is no list; {SHAPE}")),
        },
    };
    let areas = areas.iter().enumerate().map(|(at, area)| read_area(at, area)).collect::<Result<Vec<_>, _>>()?;
    Ok(Call::ImageSearch { image_id: image_id.to_owned(), areas: capped(areas, MAX_AREAS, "areas", notes) })
}

const SHAPE: &str = "it must be a list of boxes, [[x1,y1,x2,y2]]";

fn read_area(at: usize, area: &Value) -> Result<Area, Refusal> {
    let Some(edges) = area.as_array() else { return refuse("area", format!("area[{at}] is no list; {SHAPE}")) };
    if edges.len() != 4 {
        return refuse("area", format!("area[{at}] has {} numbers; {SHAPE}", edges.len()));
    }
    let mut numbers = [0.0; 4];
    for (number, edge) in numbers.iter_mut().zip(edges) {
        *number = match (edge.as_f64(), no_number(edge)) {
            (Some(edge), _) => edge,
            (None, Some(text)) => return refuse("area", format!("area[{at}] has {text}, which is no place; {SHAPE}")),
            (None, None) => return refuse("area", format!("area[{at}] has {}, which is no number; {SHAPE}", shown_value(edge))),
        };
    }
    Ok(Area::from(numbers))
}

fn read_text_search(arguments: &Map<String, Value>, notes: &mut Vec<Note>) -> Result<Call, Refusal> {
    let (pieces, others): (Vec<&str>, usize) = match arguments.get("input") {
        None | Some(Value::Null) => (Vec::new(), 0),
        Some(Value::String(text)) => (text.split('|').collect(), 0),
        Some(Value::Array(list)) => {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            let others = list.len() - texts.len();
            (texts, others)
        }
        Some(_) => return refuse("value", "input must be text or a list of texts"),
    };
    if others > 0 {
        notes.push(Note { reason: "not_text", count: others, text: format!("not searched, no text: {others} of input") });
    }
    let given: Vec<&str> = pieces.into_iter().map(str::trim).filter(|query| !query.is_empty()).collect();
    let queries: Vec<String> = given.iter().filter(|query| has_word(query)).map(|query| (*query).to_owned()).collect();
    let wordless = given.len() - queries.len();
    if wordless > 0 {
        notes.push(Note { reason: "no_word", count: wordless, text: format!("not searched, no letter or digit: {wordless} of input") });
    }
    Ok(Call::TextSearch { queries: capped(queries, MAX_QUERIES, "queries", notes) })
}

/// Whether a query has a letter or a digit that can be seen. Marks, blanks and invisible letters alone ask for nothing.
fn has_word(query: &str) -> bool {
    // Hangul fillers are letters that leave their place empty.
    query.chars().any(|letter| letter.is_alphanumeric() && !matches!(letter, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'))
}

fn capped<T>(mut items: Vec<T>, most: usize, what: &'static str, notes: &mut Vec<Note>) -> Vec<T> {
    if items.len() > most {
        let over = items.len() - most;
        notes.push(Note { reason: what, count: over, text: format!("not searched, over the limit of {most}: {over} {what}") });
        items.truncate(most);
    }
    items
}

/// What the policy wrote, short and without control characters, in quotes.
fn shown(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    let mut short: String = text.chars().take(MAX_SHOWN).map(plain).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        short.push_str("...");
    }
    format!("\"{short}\"")
}

fn shown_value(value: &Value) -> String {
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
        read_call(&call, &mut Vec::new()).expect_err("refused").message
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
        assert!(read_call(&of_openai, &mut Vec::new()).is_ok());
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
            let call = read_call(&text(json!({"input": input})), &mut notes).expect("a call");
            (call.searches(), notes.iter().map(|note| (note.reason, note.count)).collect::<Vec<_>>())
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
