//! Brave Search (api.search.brave.com): texts.

use hypereyes_environment::{Hit, Query};
use serde_json::Value;

use super::{Kind, Open};
use crate::config::BackEndConfig;
use crate::http::call::{Call, KeyIn, Miss, Service, list, object, text, text_of};

/// Brave as a back end.
pub(super) const KIND: Kind = Kind {
    name: "brave",
    text: true,
    image: false,
    is_service: true,
    is_paid: true,
    is_restricted: true,
    url: "https://api.search.brave.com",
    key: Some((KeyIn::Header("X-Subscription-Token"), "BRAVE_API_KEY")),
    parameters: &["country", "search_lang", "freshness", "safesearch"],
    open: Open::Service(|config| Box::new(Brave::new(config))),
};

/// Results of one request, at most.
const MOST: u32 = 20;

/// What it is told besides the query.
pub struct Brave {
    hits: u32,
    said: Vec<(String, String)>,
}

impl Brave {
    /// As settings say.
    pub fn new(config: &BackEndConfig) -> Self {
        Self { hits: config.hits.min(MOST), said: config.said() }
    }
}

impl Service for Brave {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let mut query = vec![("q".to_owned(), text_of(queries)?.to_owned()), ("count".to_owned(), self.hits.to_string())];
        query.extend(self.said.iter().cloned());
        Ok(Call::get("/res/v1/web/search", query))
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        let said = self.said.iter().map(|(name, value)| (name.as_str(), value.as_str().into()));
        said.chain([("count", self.hits.into())]).collect()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        // Without `web` nothing was found.
        let Some(web) = body.get("web").filter(|web| !web.is_null()) else { return Ok(vec![Ok(vec![])]) };
        object(web)?;
        let hit = |item: &Value| {
            let more = item.get("extra_snippets").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let more: Vec<&str> = more.collect();
            Hit {
                title: text(item, &["title"]).unwrap_or_default(),
                content: text(item, &["description"]).unwrap_or_default(),
                detail: (!more.is_empty()).then(|| more.join(" ")),
                url: text(item, &["url"]),
                source: item.pointer("/profile/name").and_then(Value::as_str).map(str::to_owned),
                date: text(item, &["age"]),
                ..Hit::default()
            }
        };
        Ok(vec![Ok(list(web, "results")?.iter().map(hit).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let brave = Brave::new(&BackEndConfig { hits: 50, ..BackEndConfig::default() });
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
