//! `text_search`: searches documents for texts (docs/spec.md#grammar, #calls). In: queries. Out: hits per query.

use hypereyes_domain::{Call, TEXT_SEARCH};
use serde_json::{Map, Value, json};

use super::{Argument, Ran, RunFuture, Tool};
use crate::boxes::BoxUnits;
use crate::call::{Note, Refusal, capped};
use crate::config::EnvConfig;
use crate::observation::{self, Shown, Style};
use crate::scene::Scene;
use crate::search::Query;

/// Most queries of one call; the rest is dropped, said and counted.
pub const MAX_QUERIES: usize = 64;

/// Text search, one result list per query.
#[derive(Clone, Copy, Debug)]
pub struct TextSearch;

const ARGUMENTS: &[Argument] = &[Argument {
    name: "input",
    also: &["inputs", "query", "queries", "query_list", "q", "search", "search_query", "text", "texts", "keyword", "keywords", "question"],
}];

impl Tool for TextSearch {
    fn name(&self) -> &'static str {
        TEXT_SEARCH
    }

    fn description(&self) -> &'static str {
        "Text search: finds documents for queries. All queries of a call are searched at once."
    }

    fn arguments(&self) -> &'static [Argument] {
        ARGUMENTS
    }

    fn schema(&self, _units: BoxUnits) -> Value {
        json!({"type": "object", "properties": {
            "input": {"type": "array", "description": "Queries.", "items": {"type": "string"}},
        }, "required": ["input"]})
    }

    fn parse(&self, arguments: &Map<String, Value>, notes: &mut Vec<Note>) -> Result<Value, Refusal> {
        let given = texts("input", arguments.get("input"), |text| text.split('|').collect(), notes)?;
        let queries: Vec<&str> = given.iter().copied().filter(|query| has_word(query)).collect();
        let wordless = given.len() - queries.len();
        if wordless > 0 {
            let text = format!("not searched, no letter or digit: {wordless} of input");
            notes.push(Note { reason: "no_word", count: wordless, text, over_limit: false });
        }
        Ok(Call::text_search(&capped(queries, MAX_QUERIES, "queries", notes)).arguments)
    }

    fn cost(&self, arguments: &Value) -> u32 {
        u32::try_from(listed(arguments, "input").count()).unwrap_or(u32::MAX)
    }

    fn run<'a>(&'a self, call: &'a Call, scene: &'a mut Scene) -> RunFuture<'a> {
        Box::pin(async move {
            let scene: &Scene = scene;
            let queries: Vec<Query> = listed(&call.arguments, "input").map(|query| Query::Text(query.to_owned())).collect();
            if queries.is_empty() {
                return Ran::nothing("no_query", observation::NO_QUERY);
            }
            let mut outcomes = scene.search(&queries).await;
            for hits in outcomes.iter_mut().flatten() {
                hits.retain(|hit| Style::Text.relevance(hit) >= scene.config().text_min_relevance);
                hits.truncate(scene.config().text_hits);
            }
            Ran { kind: "text", items: Ran::numbered(outcomes), ..Ran::default() }
        })
    }

    fn render(&self, ran: &Ran, config: &EnvConfig) -> String {
        observation::text_body(ran.searched(), Shown::of(config)) + &ran.said
    }
}

/// The texts of an argument: a list of them, of which what is no text is noted, or one text that `split` takes apart. Trimmed; blank
/// ones are none.
pub(super) fn texts<'a>(
    name: &str,
    value: Option<&'a Value>,
    split: impl Fn(&'a str) -> Vec<&'a str>,
    notes: &mut Vec<Note>,
) -> Result<Vec<&'a str>, Refusal> {
    let (pieces, others): (Vec<&str>, usize) = match value {
        None | Some(Value::Null) => (Vec::new(), 0),
        Some(Value::String(text)) => (split(text), 0),
        Some(Value::Array(list)) => {
            let texts: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            let others = list.len() - texts.len();
            (texts, others)
        }
        Some(_) => return Err(Refusal::new("value", format!("{name} must be text or a list of texts"))),
    };
    if others > 0 {
        let text = format!("not searched, no text: {others} of {name}");
        notes.push(Note { reason: "not_text", count: others, text, over_limit: false });
    }
    Ok(pieces.into_iter().map(str::trim).filter(|text| !text.is_empty()).collect())
}

/// The texts of a list that was parsed.
pub(super) fn listed<'a>(arguments: &'a Value, name: &str) -> impl Iterator<Item = &'a str> {
    arguments[name].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Whether a query has a letter or a digit that can be seen. Marks, blanks and invisible letters alone ask for nothing.
fn has_word(query: &str) -> bool {
    // Hangul fillers are letters that leave their place empty.
    query.chars().any(|letter| letter.is_alphanumeric() && !matches!(letter, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'))
}
