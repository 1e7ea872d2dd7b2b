//! Brave Search (api.search.brave.com): texts.

use hypereyes_environment::{Hit, Query};
use serde_json::Value;

use super::Kind;
use crate::http::call::{Call, Fields, KeyIn, Miss, Said, Service, list, object, text_of};

/// Brave as a back end.
pub(super) const KIND: Kind = Kind::paid(
    "brave",
    "https://api.search.brave.com",
    (KeyIn::Header("x-subscription-token"), "BRAVE_API_KEY"),
    &["country", "search_lang", "freshness", "safesearch"],
    |config| Box::new(Brave(Said::of(config, MOST))),
);

/// Results of one request, at most.
const MOST: u32 = 20;

/// How it calls the parts of a hit.
const FIELDS: Fields = Fields { content: &["description"], url: "url", source: "", date: "age" };

/// What it is told besides the query.
pub struct Brave(Said);

impl Service for Brave {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let hits = self.0.hits.to_string();
        let query = self.0.in_address(&[("q", text_of(queries)?), ("count", &hits)]);
        Ok(Call::get("/res/v1/web/search", query))
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        self.0.all()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        // Without `web` nothing was found.
        let Some(web) = body.get("web").filter(|web| !web.is_null()) else { return Ok(vec![Ok(vec![])]) };
        object(web)?;
        let hit = |item: &Value| {
            let more = item.get("extra_snippets").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let more: Vec<&str> = more.collect();
            let source = item.pointer("/profile/name").and_then(Value::as_str).map(str::to_owned);
            Some(Hit { detail: (!more.is_empty()).then(|| more.join(" ")), source, ..FIELDS.hit(item)? })
        };
        Ok(vec![Ok(list(web, "results")?.iter().filter_map(hit).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackEndConfig;
    use serde_json::json;

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let brave = Brave(Said::of(&BackEndConfig { hits: 50, ..BackEndConfig::default() }, MOST));
        let call = brave.call(0, &[Query::Text("capital of Peru".into())]).expect("a text");
        assert_eq!((call.path.as_str(), call.query[1].1.as_str()), ("/res/v1/web/search", "20"), "it gives 20 at most");
        let body = json!({"web": {"results": [
            {"title": "Lima", "url": "https://x/l", "description": "the capital", "age": "May 2, 2024", "extra_snippets": ["a", "b"]},
        ]}});
        let hits = brave.read(&body, &[]).expect("read").remove(0).expect("hits");
        assert_eq!((hits[0].detail.as_deref(), hits[0].date.as_deref()), (Some("a b"), Some("May 2, 2024")));
        assert_eq!(brave.read(&json!({"query": {}}), &[]), Ok(vec![Ok(vec![])]));
        assert!(brave.read(&json!({"web": []}), &[]).is_err());
    }
}
