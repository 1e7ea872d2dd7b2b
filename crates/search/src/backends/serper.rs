//! Serper (google.serper.dev): texts by `/search`, pictures by `/lens`, which takes the address of a picture.

use hypereyes_environment::{Fault, Hit, Query};
use serde_json::{Value, json};

use super::{Kind, Open};
use crate::config::BackEndConfig;
use crate::http::call::{Call, KeyIn, Miss, Reply, Service, by_status, list, object, text, text_of, words};

/// Serper as a back end.
pub(super) const KIND: Kind = Kind {
    name: "serper",
    text: true,
    image: false,
    is_service: true,
    is_paid: true,
    is_restricted: true,
    url: "https://google.serper.dev",
    key: Some((KeyIn::Header("X-API-KEY"), "SERPER_API_KEY")),
    parameters: &["gl", "hl", "location", "tbs", "autocorrect"],
    open: Open::Service(|config| Box::new(Serper::new(config))),
};

/// What it is told besides the query.
pub struct Serper {
    hits: u32,
    said: Vec<(String, String)>,
}

impl Serper {
    /// As settings say.
    pub fn new(config: &BackEndConfig) -> Self {
        Self { hits: config.hits, said: config.said() }
    }
}

impl Service for Serper {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let mut body = json!({"q": text_of(queries)?, "num": self.hits});
        for (name, value) in &self.said {
            body[name] = value.as_str().into();
        }
        Ok(Call::post("/search", body))
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        let said = self.said.iter().map(|(name, value)| (name.as_str(), value.as_str().into()));
        said.chain([("num", self.hits.into())]).collect()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        let mut hits = vec![];
        if let Some(answer) = body.get("answerBox") {
            hits.extend(hit(answer, &["answer", "snippet"]));
        }
        hits.extend(list(body, "organic")?.iter().filter_map(|item| hit(item, &["snippet"])));
        Ok(vec![Ok(hits)])
    }

    /// Its one status for being asked too often and for being out of credits is told apart by its words.
    fn refused(&self, reply: &Reply) -> Miss {
        let said = words(&reply.body);
        let credits = said.to_lowercase().contains("credit");
        (if credits { Fault::Quota } else { by_status(reply.status) }, said)
    }
}

fn hit(item: &Value, content: &[&str]) -> Option<Hit> {
    let (title, content) = (text(item, &["title"]), text(item, content));
    (title.is_some() || content.is_some()).then(|| Hit {
        title: title.unwrap_or_default(),
        content: content.unwrap_or_default(),
        url: text(item, &["link"]),
        source: text(item, &["source"]),
        date: text(item, &["date"]),
        ..Hit::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serper() -> Serper {
        Serper::new(&BackEndConfig { hits: 5, parameters: vec!["gl=pe".into()], ..BackEndConfig::default() })
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
