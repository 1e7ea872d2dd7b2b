//! SerpAPI (serpapi.com): texts by its `google` engine. Its key goes in the address, which therefore stands nowhere.

use hypereyes_environment::{Fault, Hit, Query};
use serde_json::Value;

use super::Kind;
use crate::http::call::{Call, Fields, KeyIn, Miss, Reply, Said, Service, by_status, list, object, text_of, words};

/// SerpAPI as a back end.
pub(super) const KIND: Kind = Kind::paid(
    "serpapi",
    "https://serpapi.com",
    (KeyIn::Parameter("api_key"), "SERPAPI_API_KEY"),
    &["gl", "hl", "location", "google_domain", "no_cache"],
    |config| Box::new(SerpApi(Said::of(config, MOST))),
);

/// Results of one request, at most.
const MOST: u32 = 100;

/// How it calls the parts of a hit.
const FIELDS: Fields = Fields { content: &["snippet"], url: "link", source: "source", date: "date" };

/// Of its own answer, above the hits.
const ANSWER: Fields = Fields { content: &["answer", "snippet", "description"], ..FIELDS };

/// What it is told besides the query.
pub struct SerpApi(Said);

impl Service for SerpApi {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let hits = self.0.hits.to_string();
        let query = self.0.in_address(&[("engine", "google"), ("q", text_of(queries)?), ("num", &hits)]);
        Ok(Call::get("/search.json", query))
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        [self.0.all(), vec![("engine", "google".into())]].concat()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        succeeded(body, "organic_results")?;
        let first = ["answer_box", "knowledge_graph"].iter().filter_map(|name| ANSWER.hit(body.get(name)?));
        Ok(vec![Ok(first.chain(FIELDS.hits(list(body, "organic_results")?)).collect())])
    }

    fn refused(&self, reply: &Reply) -> Miss {
        refused(reply)
    }
}

/// Refuses a reply that says of itself that it is none, or that holds neither a word of success nor a list of this name.
pub(super) fn succeeded(body: &Value, results: &str) -> Result<(), Miss> {
    object(body)?;
    let status = body.pointer("/search_metadata/status").and_then(Value::as_str);
    match status {
        Some("Success") => Ok(()),
        Some("Queued" | "Processing") => Err((Fault::Unavailable, "it has not finished the search".into())),
        Some(other) => Err((Fault::Unavailable, format!("it says {other}: {}", words(body)))),
        // A search that succeeds and finds nothing may say so as an error.
        None if body.get(results).is_some() => Ok(()),
        None => Err((Fault::Unavailable, format!("it gives neither a status nor results: {}", words(body)))),
    }
}

/// Its one status for an hour's throughput and for a month's searches is told apart by its words.
pub(super) fn refused(reply: &Reply) -> Miss {
    let said = words(&reply.body);
    let out = said.to_lowercase().contains("run out of searches");
    (if out { Fault::Quota } else { by_status(reply.status) }, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackEndConfig;
    use serde_json::json;

    fn serpapi() -> SerpApi {
        SerpApi(Said::of(&BackEndConfig { parameters: vec!["hl=en".into()], ..BackEndConfig::default() }, MOST))
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
