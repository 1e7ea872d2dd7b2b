//! Serper (google.serper.dev): texts, by `/search`.

use hypereyes_environment::{Fault, Hit, Query};
use serde_json::{Value, json};

use super::Kind;
use crate::http::call::{Call, Fields, KeyIn, Miss, Reply, Said, Service, by_status, list, object, text_of, words};

/// Serper as a back end.
pub(super) const KIND: Kind = Kind::paid(
    "serper",
    "https://google.serper.dev",
    (KeyIn::Header("x-api-key"), "SERPER_API_KEY"),
    &["gl", "hl", "location", "tbs", "autocorrect"],
    |config| Box::new(Serper(Said::of(config, MOST))),
);

/// Results of one request, at most.
const MOST: u32 = 100;

/// How it calls the parts of a hit.
const FIELDS: Fields = Fields { content: &["snippet"], url: "link", source: "source", date: "date" };

/// Of its own answer, above the hits.
const ANSWER: Fields = Fields { content: &["answer", "snippet", "description"], ..FIELDS };

/// What it is told besides the query.
pub struct Serper(Said);

impl Service for Serper {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        Ok(Call::post("/search", self.0.in_body(json!({"q": text_of(queries)?, "num": self.0.hits}))))
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        self.0.all()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        let answer = body.get("answerBox").and_then(|answer| ANSWER.hit(answer));
        Ok(vec![Ok(answer.into_iter().chain(FIELDS.hits(list(body, "organic")?)).collect())])
    }

    fn refused(&self, reply: &Reply) -> Miss {
        refused(reply)
    }
}

/// Its one status for being asked too often and for being out of credits is told apart by its words.
pub(super) fn refused(reply: &Reply) -> Miss {
    let said = words(&reply.body);
    let credits = said.to_lowercase().contains("credit");
    (if credits { Fault::Quota } else { by_status(reply.status) }, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackEndConfig;

    fn serper() -> Serper {
        Serper(Said::of(&BackEndConfig { hits: 5, parameters: vec!["gl=pe".into()], ..BackEndConfig::default() }, MOST))
    }

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let call = serper().call(9, &[Query::Text("capital of Peru".into())]).expect("a text");
        assert_eq!(call, Call::post("/search", json!({"q": "capital of Peru", "num": 5, "gl": "pe"})));
        let body = json!({
            "searchParameters": {"q": "capital of Peru"},
            "answerBox": {"title": "Peru / Capital", "answer": "Lima"},
            "organic": [
                {"title": "Lima", "link": "https://x/lima", "snippet": "Lima is the capital", "date": "2 days ago", "position": 1},
                {"position": 2},
            ],
            "credits": 1,
        });
        let hits = serper().read(&body, &[]).expect("read").remove(0).expect("hits");
        assert_eq!(hits.len(), 2);
        assert_eq!(
            (hits[0].content.as_str(), hits[1].date.as_deref(), hits[1].url.as_deref()),
            ("Lima", Some("2 days ago"), Some("https://x/lima"))
        );
        assert_eq!(serper().read(&json!({"organic": []}), &[]), Ok(vec![Ok(vec![])]), "nothing found");
        assert!(serper().read(&json!({"organic": 7}), &[]).is_err() && serper().read(&json!("x"), &[]).is_err());
    }

    #[test]
    fn out_of_credits_is_no_rate() {
        let refused = |status, said: &str| serper().refused(&Reply { status, body: json!({"message": said, "statusCode": status}) }).0;
        assert_eq!(refused(429, "Too many requests"), Fault::RateLimited);
        assert_eq!(refused(400, "Not enough credits"), Fault::Quota);
        assert_eq!((refused(403, "Unauthorized."), refused(500, "")), (Fault::Refused, Fault::Unavailable));
    }
}
