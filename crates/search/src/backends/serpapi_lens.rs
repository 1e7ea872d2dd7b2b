//! Google Lens by SerpAPI (serpapi.com, engine `google_lens`): what a picture shows, by an address at which Google can fetch it.

use hypereyes_environment::{Hit, Query};
use serde_json::Value;

use super::Kind;
use super::serpapi::{refused, succeeded};
use crate::http::call::{Call, Fields, KeyIn, Miss, Reply, Said, Service, list};

/// Lens by SerpAPI as a back end.
pub(super) const KIND: Kind = Kind {
    text: false,
    image: true,
    by_address: true,
    ..Kind::paid(
        "serpapi_lens",
        "https://serpapi.com",
        (KeyIn::Parameter("api_key"), "SERPAPI_API_KEY"),
        &["type", "hl", "country", "no_cache"],
        |config| Box::new(Lens(Said::of(config, MOST))),
    )
};

/// Results that are taken of a reply: it gives as many as there are.
const MOST: u32 = 100;
/// Where its kinds of matches are.
const MATCHES: [&str; 3] = ["visual_matches", "exact_matches", "products"];
/// How it calls the parts of a hit.
const FIELDS: Fields = Fields { content: &["snippet"], url: "link", source: "source", date: "date" };

/// What it is told besides the address.
pub struct Lens(Said);

impl Service for Lens {
    fn call_at(&self, address: &str) -> Result<Call, Miss> {
        Ok(Call::get(PATH, self.0.in_address(&[("engine", "google_lens"), ("url", address)])))
    }

    fn path(&self, _layer: u64, _query: &Query) -> String {
        PATH.to_owned()
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        [self.0.all(), vec![("engine", "google_lens".into())]].concat()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        succeeded(body, MATCHES[0])?;
        let mut hits = vec![];
        for name in MATCHES {
            hits.extend(FIELDS.hits(list(body, name)?));
        }
        hits.truncate(self.0.hits as usize);
        Ok(vec![Ok(hits)])
    }

    fn refused(&self, reply: &Reply) -> Miss {
        refused(reply)
    }
}

const PATH: &str = "/search.json";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackEndConfig;
    use serde_json::json;

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let lens =
            Lens(Said::of(&BackEndConfig { hits: 2, parameters: vec!["type=visual_matches".into()], ..BackEndConfig::default() }, MOST));
        let call = lens.call_at("https://b/c.png?sig=1").expect("a picture");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(call.query, [pair("engine", "google_lens"), pair("url", "https://b/c.png?sig=1"), pair("type", "visual_matches")]);
        let body = json!({
            "search_metadata": {"status": "Success"},
            "search_parameters": {"url": "https://b/c.png?sig=1"},
            "visual_matches": [
                {"position": 1, "title": "Machu Picchu", "link": "https://x/m", "source": "Wikipedia", "thumbnail": "https://t", "image": "https://i"},
                {"position": 2, "title": "Cusco", "link": "https://x/c", "source": "X", "price": {"value": "$5"}},
                {"position": 3, "title": "more"},
            ],
        });
        let hits = lens.read(&body, &[]).expect("read").remove(0).expect("hits");
        assert_eq!(
            hits.iter().map(|hit| (hit.title.as_str(), hit.source.as_deref())).collect::<Vec<_>>(),
            [("Machu Picchu", Some("Wikipedia")), ("Cusco", Some("X"))]
        );
        assert!(hits[0].score.is_none() && hits[0].url.as_deref() == Some("https://x/m"));
        assert_eq!(lens.read(&json!({"search_metadata": {"status": "Success"}}), &[]), Ok(vec![Ok(vec![])]), "nothing found");
        assert!(lens.read(&json!({"error": "x"}), &[]).is_err() && lens.call(0, &[Query::Text("a".into())]).is_err());
    }
}
