//! Tavily (api.tavily.com): texts by `/search`, pages by `/extract`.

use hypereyes_environment::{Fault, Hit, Query};
use serde_json::{Value, json};

use super::{Kind, Open};
use crate::config::BackEndConfig;
use crate::http::call::{Call, KeyIn, Miss, Service, list, object, text};

/// Tavily as a back end.
pub(super) const KIND: Kind = Kind {
    name: "tavily",
    text: true,
    image: false,
    is_service: true,
    is_paid: true,
    is_restricted: true,
    url: "https://api.tavily.com",
    key: Some((KeyIn::Bearer, "TAVILY_API_KEY")),
    parameters: &["search_depth", "topic", "time_range", "country"],
    open: Open::Service(|config| Box::new(Tavily::new(config))),
};

/// Results of one request, at most.
const MOST: u32 = 20;

/// What it is told besides the query.
pub struct Tavily {
    hits: u32,
    said: Vec<(String, String)>,
}

impl Tavily {
    /// As settings say.
    pub fn new(config: &BackEndConfig) -> Self {
        Self { hits: config.hits.min(MOST), said: config.said() }
    }
}

impl Service for Tavily {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        match queries {
            [Query::Text(text)] => {
                let mut body = json!({"query": text, "max_results": self.hits});
                for (name, value) in &self.said {
                    body[name] = value.as_str().into();
                }
                Ok(Call::post("/search", body))
            }
            [Query::Page(address)] => Ok(Call::post("/extract", json!({"urls": [address], "format": "markdown"}))),
            _ => Err((Fault::Refused, "it searches texts and reads pages alone".to_owned())),
        }
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        let said = self.said.iter().map(|(name, value)| (name.as_str(), value.as_str().into()));
        said.chain([("max_results", self.hits.into())]).collect()
    }

    fn read(&self, body: &Value, queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        let results = list(body, "results")?;
        if let [Query::Page(_)] = queries {
            let failed = list(body, "failed_results")?.first().map(|failed| text(failed, &["error"]).unwrap_or_default());
            if let Some(said) = failed.filter(|_| results.is_empty()) {
                return Ok(vec![Err((Fault::Unavailable, format!("it could not read the page: {said}")))]);
            }
        }
        let hit = |item: &Value| Hit {
            title: text(item, &["title"]).unwrap_or_default(),
            content: text(item, &["content", "raw_content"]).unwrap_or_default(),
            url: text(item, &["url"]),
            date: text(item, &["published_date"]),
            score: item.get("score").and_then(Value::as_f64),
            ..Hit::default()
        };
        Ok(vec![Ok(results.iter().map(hit).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Reply;

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let tavily = Tavily::new(&BackEndConfig { parameters: vec!["topic=news".into()], ..BackEndConfig::default() });
        let (asks, reads) = (Query::Text("capital of Peru".into()), Query::Page("https://x/l".into()));
        let call = tavily.call(0, std::slice::from_ref(&asks)).expect("a text");
        assert_eq!(call.body, Some(json!({"query": "capital of Peru", "max_results": 10, "topic": "news"})));
        let body =
            json!({"results": [{"title": "Lima", "url": "https://x/l", "content": "the capital", "score": 0.9}], "response_time": 1.2});
        let hits = tavily.read(&body, &[asks]).expect("read").remove(0).expect("hits");
        assert_eq!((hits[0].score, hits[0].content.as_str()), (Some(0.9), "the capital"));
        assert_eq!(tavily.call(0, std::slice::from_ref(&reads)).expect("a page").path, "/extract");
        let read = json!({"results": [{"url": "https://x/l", "raw_content": "# Lima"}], "failed_results": []});
        assert_eq!(tavily.read(&read, std::slice::from_ref(&reads)).expect("read")[0].as_ref().expect("a page")[0].content, "# Lima");
        let failed = json!({"results": [], "failed_results": [{"url": "https://x/l", "error": "gone"}]});
        assert!(tavily.read(&failed, &[reads]).expect("read")[0].as_ref().expect_err("no page").1.ends_with("gone"));
    }

    #[test]
    fn its_limits_are_quotas() {
        let tavily = Tavily::new(&BackEndConfig::default());
        for (status, fault) in [(432, Fault::Quota), (433, Fault::Quota), (429, Fault::RateLimited), (401, Fault::Refused)] {
            let miss = tavily.refused(&Reply { status, body: json!({"detail": {"error": "limit"}}) });
            assert_eq!(miss, (fault, "limit".to_owned()));
        }
    }
}
