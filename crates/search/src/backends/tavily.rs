//! Tavily (api.tavily.com): texts by `/search`, pages by `/extract`.

use hypereyes_environment::{Fault, Hit, Query};
use serde_json::{Value, json};

use super::Kind;
use crate::http::call::{Call, Fields, KeyIn, Miss, Said, Service, list, object, text};

/// Tavily as a back end.
pub(super) const KIND: Kind = Kind {
    pages: true,
    scores: true,
    ..Kind::paid(
        "tavily",
        "https://api.tavily.com",
        (KeyIn::Bearer, "TAVILY_API_KEY"),
        &["search_depth", "topic", "time_range", "country"],
        |config| Box::new(Tavily(Said::of(config, MOST))),
    )
};

/// Results of one request, at most.
const MOST: u32 = 20;

/// How it calls the parts of a hit.
const FIELDS: Fields = Fields { content: &["content", "raw_content"], url: "url", source: "", date: "published_date" };

/// What it is told besides the query.
pub struct Tavily(Said);

impl Service for Tavily {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        match queries {
            [Query::Text(text)] => {
                let body = json!({"query": text, "max_results": self.0.hits});
                Ok(Call::post("/search", self.0.in_body(body)))
            }
            [Query::Page(address)] => Ok(Call::post("/extract", json!({"urls": [address], "format": "markdown"}))),
            _ => Err((Fault::Refused, "it searches texts and reads pages alone".to_owned())),
        }
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        self.0.all()
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
        let hit = |item: &Value| Some(Hit { score: item.get("score").and_then(Value::as_f64), ..FIELDS.hit(item)? });
        Ok(vec![Ok(results.iter().filter_map(hit).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackEndConfig;
    use crate::http::call::Reply;

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let tavily = Tavily(Said::of(&BackEndConfig { parameters: vec!["topic=news".into()], ..BackEndConfig::default() }, MOST));
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
        let tavily = Tavily(Said::of(&BackEndConfig::default(), MOST));
        for (status, fault) in [(432, Fault::Quota), (433, Fault::Quota), (429, Fault::RateLimited), (401, Fault::Refused)] {
            let miss = tavily.refused(&Reply { status, body: json!({"detail": {"error": "limit"}}) });
            assert_eq!(miss, (fault, "limit".to_owned()));
        }
    }
}
