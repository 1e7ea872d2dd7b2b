//! A retriever as Search-R1 has it (`POST /retrieve`), which verl, slime and SkyRL ask the same way: texts, many in one request.

use hypereyes_environment::{Fault, Hit, Query};
use serde_json::{Value, json};

use super::Kind;
use crate::http::call::{Call, Miss, Service, list, object, text};

/// The retriever as a back end.
pub(super) const KIND: Kind = Kind { scores: true, ..Kind::own("retriever", &[], |config| Box::new(Retriever { hits: config.hits })) };

/// Queries of one request.
const MOST: usize = 64;

/// What it is told besides the queries.
pub struct Retriever {
    hits: u32,
}

impl Service for Retriever {
    fn most(&self) -> usize {
        MOST
    }

    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let texts = queries.iter().map(|query| match query {
            Query::Text(text) => Ok(text.as_str()),
            _ => Err((Fault::Refused, "it searches texts alone".to_owned())),
        });
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        Ok(Call::post("/retrieve", json!({"queries": texts, "topk": self.hits, "return_scores": true})))
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        vec![("topk", self.hits.into())]
    }

    fn read(&self, body: &Value, queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        let lists = list(body, "result")?;
        if lists.len() != queries.len() {
            return Err((Fault::Unavailable, format!("it answers {} of {} queries", lists.len(), queries.len())));
        }
        let read = |found: &Value| match found.as_array() {
            // Online servers of this shape do not hear `topk`.
            Some(found) => Ok(found.iter().take(self.hits as usize).map(hit).collect()),
            None => Err((Fault::Unavailable, "one of its results is no list".to_owned())),
        };
        Ok(lists.iter().map(read).collect())
    }
}

/// With scores a document is wrapped, without it is the item itself. Its first line is its title, in quotes.
fn hit(item: &Value) -> Hit {
    let document = item.get("document").unwrap_or(item);
    let contents = text(document, &["contents"]).unwrap_or_default();
    let (title, content) = match text(document, &["title"]) {
        Some(title) => (title, text(document, &["text"]).unwrap_or_else(|| contents.clone())),
        None => {
            let (title, rest) = contents.split_once('\n').unwrap_or(("", &contents));
            (title.trim().trim_matches('"').to_owned(), rest.trim().to_owned())
        }
    };
    Hit { title, content, url: text(document, &["url"]), score: item.get("score").and_then(Value::as_f64), ..Hit::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_asked_for_many_at_once_and_read_in_each_of_its_shapes() {
        let (retriever, queries) = (Retriever { hits: 2 }, [Query::Text("a".into()), Query::Text("b".into())]);
        let call = retriever.call(0, &queries).expect("texts");
        assert_eq!(call, Call::post("/retrieve", json!({"queries": ["a", "b"], "topk": 2, "return_scores": true})));
        let body = json!({"result": [
            [{"document": {"id": "7", "contents": "\"Lima\"\nLima is the capital\nof Peru"}, "score": 0.8}],
            [{"id": "8", "contents": "\"Peru\"\na country"}, {"contents": "one line"}, {"contents": "a third"}],
        ]});
        let lists = retriever.read(&body, &queries).expect("read");
        let first = &lists[0].as_ref().expect("hits")[0];
        assert_eq!((first.title.as_str(), first.content.as_str(), first.score), ("Lima", "Lima is the capital\nof Peru", Some(0.8)));
        let second = lists[1].as_ref().expect("hits");
        assert_eq!((second.len(), second[0].title.as_str(), second[1].content.as_str()), (2, "Peru", "one line"));
        assert!(retriever.read(&json!({"result": [[]]}), &queries).expect_err("one is missing").1.contains("1 of 2"));
        assert!(retriever.read(&json!({"result": [[], 7]}), &queries).expect("one is broken")[1].is_err());
    }
}
