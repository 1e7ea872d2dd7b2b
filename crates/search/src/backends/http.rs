//! Our own HTTP shape, which [`crate::serve`] speaks and which is the one to write a server of one's own in: texts, pictures and
//! pages, many in one request, each answered with hits or with the way in which it failed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypereyes_environment::{Fault, Hit, Query};
use hypereyes_pictures::encode_png;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Kind;
use crate::http::call::{Call, Miss, Service, list, object};

/// What settings call it.
pub(crate) const NAME: &str = "http";
/// Our shape as a back end.
pub(super) const KIND: Kind =
    Kind { image: true, pages: true, layers: true, scores: true, ..Kind::own(NAME, &[], |config| Box::new(Http { hits: config.hits })) };

/// Queries of one request: a picture may have megabytes.
pub const MOST: usize = 8;

/// A query on the wire: exactly one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Sent {
    /// Free text.
    Text(String),
    /// A picture: PNG or JPEG in base64.
    Picture(String),
    /// An address or a title.
    Page(String),
}

/// What is posted to `/layers/<layer>/search`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What is searched for.
    pub queries: Vec<Sent>,
    /// Hits of each, at most.
    pub hits: u32,
}

/// What came of a query on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Told {
    /// Hits, best first; none where nothing was found.
    Hits {
        /// They.
        hits: Vec<Hit>,
    },
    /// A failure.
    Failure {
        /// In which way.
        failure: Fault,
        /// What happened.
        message: String,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// As many as there were queries, in their order.
    pub results: Vec<Told>,
}

/// What it is told besides the queries.
pub struct Http {
    hits: u32,
}

impl Service for Http {
    fn most(&self) -> usize {
        MOST
    }

    fn call(&self, layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let sent = |query: &Query| match query {
            Query::Text(text) => Ok(Sent::Text(text.clone())),
            Query::Page(address) => Ok(Sent::Page(address.clone())),
            // Without loss: a crop that was changed on its way would find other things.
            Query::Picture(picture) => {
                let bytes = encode_png(picture).map_err(|error| (Fault::Refused, format!("a picture cannot be sent: {error}")))?;
                Ok(Sent::Picture(STANDARD.encode(bytes)))
            }
        };
        let queries = queries.iter().map(sent).collect::<Result<_, Miss>>()?;
        let question = serde_json::to_value(Question { queries, hits: self.hits }).expect("plain values");
        Ok(Call::post(path(layer), question))
    }

    fn path(&self, layer: u64, _query: &Query) -> String {
        path(layer)
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        vec![("hits", json!(self.hits))]
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        // One that cannot be read takes no other with it.
        let outcome = |told: &Value| match serde_json::from_value(told.clone()) {
            Ok(Told::Hits { hits }) => Ok(hits),
            Ok(Told::Failure { failure, message }) => Err((failure, message)),
            Err(_) => Err((Fault::Unavailable, "its result is neither hits nor a failure".to_owned())),
        };
        Ok(list(body, "results")?.iter().map(outcome).collect())
    }
}

fn path(layer: u64) -> String {
    format!("/layers/{layer}/search")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn every_kind_of_query_is_sent_and_failures_come_back_as_they_are() {
        let http = Http { hits: 3 };
        let picture = Arc::new(hypereyes_pictures::RgbImage::from_pixel(2, 2, [1, 2, 3].into()));
        let queries = [Query::Text("a".into()), Query::Page("b".into()), Query::Picture(picture.clone())];
        let call = http.call(7, &queries).expect("sent");
        assert_eq!(call.path, "/layers/7/search");
        let question: Question = serde_json::from_value(call.body.expect("posted")).expect("ours");
        let Sent::Picture(sent) = &question.queries[2] else { panic!("a picture") };
        let bytes = STANDARD.decode(sent).expect("base64");
        let back = hypereyes_pictures::decode(&bytes, &hypereyes_pictures::Limits::default()).expect("PNG");
        assert_eq!(&back, &*picture, "not a pixel is lost");
        let body = json!({"results": [{"hits": [{"title": "t"}]}, {"failure": "quota", "message": "used up"}, {"hits": []}]});
        let read = http.read(&body, &queries).expect("read");
        assert_eq!(read[0].as_ref().expect("hits")[0].title, "t");
        assert_eq!((&read[1], &read[2]), (&Err((Fault::Quota, "used up".to_owned())), &Ok(vec![])));
        let odd = http.read(&json!({"results": [{"more": 1}, {"hits": [{"score": "high"}]}, {"hits": []}]}), &queries).expect("read");
        assert!(odd[0].is_err() && odd[1].is_err() && odd[2].is_ok(), "{odd:?}");
    }
}
