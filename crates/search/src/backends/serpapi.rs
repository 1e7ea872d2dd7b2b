//! SerpAPI (serpapi.com): texts by its `google` engine. Its key goes in the address, which therefore stands nowhere.

use hypereyes_environment::{Fault, Hit, Query};
use serde_json::Value;

use super::{Kind, Open};
use crate::config::BackEndConfig;
use crate::http::call::{Call, KeyIn, Miss, Reply, Service, by_status, list, object, text, text_of, words};

/// SerpAPI as a back end.
pub(super) const KIND: Kind = Kind {
    name: "serpapi",
    text: true,
    image: false,
    is_service: true,
    is_paid: true,
    is_restricted: true,
    url: "https://serpapi.com",
    key: Some((KeyIn::Parameter("api_key"), "SERPAPI_API_KEY")),
    parameters: &["gl", "hl", "location", "google_domain", "no_cache"],
    open: Open::Service(|config| Box::new(SerpApi::new(config))),
};

/// What it is told besides the query.
pub struct SerpApi {
    hits: u32,
    said: Vec<(String, String)>,
}

impl SerpApi {
    /// As settings say.
    pub fn new(config: &BackEndConfig) -> Self {
        Self { hits: config.hits, said: config.said() }
    }
}

impl Service for SerpApi {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let mut query = vec![
            ("engine".to_owned(), "google".to_owned()),
            ("q".to_owned(), text_of(queries)?.to_owned()),
            ("num".to_owned(), self.hits.to_string()),
        ];
        query.extend(self.said.iter().cloned());
        Ok(Call::get("/search.json", query))
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        let said = self.said.iter().map(|(name, value)| (name.as_str(), value.as_str().into()));
        said.chain([("num", self.hits.into()), ("engine", "google".into())]).collect()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        let status = body.pointer("/search_metadata/status").and_then(Value::as_str);
        match status {
            Some("Success") | None => {}
            Some("Queued" | "Processing") => return Err((Fault::Unavailable, "it has not finished the search".into())),
            Some(other) => return Err((Fault::Unavailable, format!("it says {other}: {}", words(body)))),
        }
        // A search that succeeds and finds nothing may say so as an error.
        if status.is_none() && body.get("organic_results").is_none() {
            return Err((Fault::Unavailable, format!("it gives neither a status nor results: {}", words(body))));
        }
        let mut hits = vec![];
        if let Some(answer) = body.get("answer_box") {
            hits.extend(hit(answer, &["answer", "snippet"]));
        }
        if let Some(known) = body.get("knowledge_graph") {
            hits.extend(hit(known, &["description"]));
        }
        hits.extend(list(body, "organic_results")?.iter().filter_map(|item| hit(item, &["snippet"])));
        Ok(vec![Ok(hits)])
    }

    /// Its one status for an hour's throughput and for a month's searches is told apart by its words.
    fn refused(&self, reply: &Reply) -> Miss {
        let said = words(&reply.body);
        let out = said.to_lowercase().contains("run out of searches");
        (if out { Fault::Quota } else { by_status(reply.status) }, said)
    }
}

fn hit(item: &Value, content: &[&str]) -> Option<Hit> {
    let (title, content) = (text(item, &["title"]), text(item, content));
    (title.is_some() || content.is_some()).then(|| Hit {
        title: title.unwrap_or_default(),
        content: content.unwrap_or_default(),
        url: text(item, &["link"]),
        source: item.get("source").filter(|source| source.is_string()).and_then(|_| text(item, &["source"])),
        date: text(item, &["date"]),
        ..Hit::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn serpapi() -> SerpApi {
        SerpApi::new(&BackEndConfig { parameters: vec!["hl=en".into()], ..BackEndConfig::default() })
    }

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let call = serpapi().call(0, &[Query::Text("capital of Peru".into())]).expect("a text");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(call.query, [pair("engine", "google"), pair("q", "capital of Peru"), pair("num", "10"), pair("hl", "en")]);
        let body = json!({
            "search_metadata": {"status": "Success"},
            "answer_box": {"title": "Capital", "snippet": "Lima"},
            "knowledge_graph": {"title": "Peru", "description": "a country", "source": {"name": "W"}},
            "organic_results": [{"position": 1, "title": "Lima", "link": "https://x/l", "snippet": "the capital", "source": "X", "date": "2024"}],
        });
        let hits = serpapi().read(&body, &[]).expect("read").remove(0).expect("hits");
        assert_eq!(hits.iter().map(|hit| hit.title.as_str()).collect::<Vec<_>>(), ["Capital", "Peru", "Lima"]);
        assert_eq!((hits[1].source.as_deref(), hits[2].source.as_deref()), (None, Some("X")));
        let nothing = json!({"search_metadata": {"status": "Success"}, "error": "Google hasn't returned any results for this query."});
        assert_eq!(serpapi().read(&nothing, &[]), Ok(vec![Ok(vec![])]));
        for broken in
            [json!({"search_metadata": {"status": "Error"}, "error": "x"}), json!({"search_metadata": {"status": "Processing"}}), json!({})]
        {
            assert_eq!(serpapi().read(&broken, &[]).expect_err("no results").0, Fault::Unavailable, "{broken}");
        }
    }

    #[test]
    fn out_of_searches_is_no_rate() {
        let refused = |status, said: &str| serpapi().refused(&Reply { status, body: json!({"error": said}) }).0;
        assert_eq!(refused(429, "Your account has run out of searches."), Fault::Quota);
        assert_eq!(refused(429, "You are exceeding your hourly throughput limit."), Fault::RateLimited);
        assert_eq!(refused(401, "Invalid API key."), Fault::Refused);
    }
}
