//! SearXNG, a metasearch server of one's own: texts. An engine of its that failed is told inside a reply of 200.

use hypereyes_environment::{Fault, Hit, Query};
use serde_json::Value;

use super::Kind;
use crate::http::call::{Call, Fields, Miss, Reply, Said, Service, by_status, list, object, text, text_of, words};
use crate::metrics::ENGINES_FAILED;

/// SearXNG as a back end.
pub(super) const KIND: Kind = Kind::own("searxng", &["categories", "engines", "language", "time_range", "safesearch"], |config| {
    Box::new(SearXng(Said::of(config, MOST)))
});

/// Results of one request, at most.
const MOST: u32 = 100;

/// How it calls the parts of a hit.
const FIELDS: Fields = Fields { content: &["content"], url: "url", source: "engine", date: "publishedDate" };

/// What it is told besides the query.
pub struct SearXng(Said);

impl Service for SearXng {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let query = self.0.in_address(&[("q", text_of(queries)?), ("format", "json")]);
        Ok(Call::get("/search", query))
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        self.0.all()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        let (answers, results) = (list(body, "answers")?, list(body, "results")?);
        let failed: Vec<String> = list(body, "unresponsive_engines")?.iter().map(unresponsive).collect();
        metrics::counter!(ENGINES_FAILED).increment(failed.len() as u64);
        if results.is_empty() && answers.is_empty() && !failed.is_empty() {
            // Nothing was found because nobody searched.
            return Err((Fault::Unavailable, format!("engines failed: {}", failed.join(", "))));
        }
        let answer = |item: &Value| {
            // Older releases give texts, newer ones objects.
            let said = item.as_str().map(str::to_owned).or_else(|| text(item, &["answer"]));
            said.map(|content| Hit { title: "answer".into(), content, url: text(item, &["url"]), ..Hit::default() })
        };
        let hits = answers.iter().filter_map(answer).chain(FIELDS.hits(results));
        // It gives as many as its engines find.
        Ok(vec![Ok(hits.take(self.0.hits as usize).collect())])
    }

    fn refused(&self, reply: &Reply) -> Miss {
        match reply.status {
            403 => (Fault::Refused, "is `json` among its `search.formats`? by default it is not".to_owned()),
            status => (by_status(status), words(&reply.body)),
        }
    }
}

/// An engine and why it failed.
fn unresponsive(item: &Value) -> String {
    let part = |at: usize| item.get(at).and_then(Value::as_str).unwrap_or("?");
    format!("{} ({})", part(0), part(1)).chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackEndConfig;
    use serde_json::json;

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let searxng =
            SearXng(Said::of(&BackEndConfig { hits: 2, parameters: vec!["language=en".into()], ..BackEndConfig::default() }, MOST));
        let call = searxng.call(0, &[Query::Text("capital of Peru".into())]).expect("a text");
        assert_eq!(
            call.query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            ["q=capital of Peru", "format=json", "language=en"]
        );
        let body = json!({"query": "q", "answers": [{"answer": "Lima"}], "unresponsive_engines": [["bing", "timeout"]], "results": [
            {"url": "https://x/l", "title": "Lima", "content": "the capital", "engine": "wikipedia", "score": 7.5, "publishedDate": null},
            {"url": "https://x/m", "title": "more"},
        ]});
        let hits = searxng.read(&body, &[]).expect("read").remove(0).expect("hits");
        assert_eq!(hits.iter().map(|hit| hit.title.as_str()).collect::<Vec<_>>(), ["answer", "Lima"]);
        assert_eq!(hits[1].score, None, "its scores are no relevance of 0 to 1");
    }

    #[test]
    fn engines_that_failed_are_not_nothing_found() {
        let searxng = SearXng(Said::of(&BackEndConfig::default(), MOST));
        let read = |failed: Value| searxng.read(&json!({"results": [], "unresponsive_engines": failed}), &[]);
        assert_eq!(read(json!([])), Ok(vec![Ok(vec![])]));
        let miss = read(json!([["google", "access denied"], ["bing", "timeout"]])).expect_err("nobody searched");
        assert_eq!(miss, (Fault::Unavailable, "engines failed: google (access denied), bing (timeout)".to_owned()));
        assert!(searxng.refused(&Reply { status: 403, body: Value::Null }).1.contains("search.formats"));
    }
}
