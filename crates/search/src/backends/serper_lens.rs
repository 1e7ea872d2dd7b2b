//! Google Lens by Serper (google.serper.dev, `/lens`): what a picture shows, by an address at which Google can fetch it.

use hypereyes_environment::{Hit, Query};
use serde_json::{Value, json};

use super::Kind;
use super::serper::refused;
use crate::http::call::{Call, Fields, KeyIn, Miss, Reply, Said, Service, list, object};

/// Lens by Serper as a back end.
pub(super) const KIND: Kind = Kind {
    text: false,
    image: true,
    by_address: true,
    ..Kind::paid("serper_lens", "https://google.serper.dev", (KeyIn::Header("x-api-key"), "SERPER_API_KEY"), &["gl", "hl"], |config| {
        Box::new(Lens(Said::of(config, MOST)))
    })
};

/// Results that are taken of a reply: it gives as many as there are.
const MOST: u32 = 100;
/// How it calls the parts of a hit.
const FIELDS: Fields = Fields { content: &["snippet"], url: "link", source: "source", date: "date" };

/// What it is told besides the address.
pub struct Lens(Said);

impl Service for Lens {
    fn call_at(&self, address: &str) -> Result<Call, Miss> {
        Ok(Call::post(PATH, self.0.in_body(json!({"url": address}))))
    }

    fn path(&self, _layer: u64, _query: &Query) -> String {
        PATH.to_owned()
    }

    fn says(&self, _layer: u64) -> Vec<(&str, Value)> {
        self.0.all()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        // Its other name for them was there before.
        let of = if body.get("organic").is_some() { "organic" } else { "visual_matches" };
        let mut hits = FIELDS.hits(list(body, of)?);
        hits.truncate(self.0.hits as usize);
        Ok(vec![Ok(hits)])
    }

    fn refused(&self, reply: &Reply) -> Miss {
        refused(reply)
    }
}

const PATH: &str = "/lens";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BackEndConfig;

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let lens = Lens(Said::of(&BackEndConfig { hits: 1, parameters: vec!["gl=pe".into()], ..BackEndConfig::default() }, MOST));
        assert_eq!(lens.call_at("https://b/c.png"), Ok(Call::post("/lens", json!({"url": "https://b/c.png", "gl": "pe"}))));
        let hit = json!({"title": "Machu Picchu", "source": "Wikipedia", "link": "https://x/m", "imageUrl": "https://i", "thumbnailUrl": "https://t"});
        for body in [json!({"organic": [hit, hit], "credits": 3}), json!({"visual_matches": [hit, hit]})] {
            let hits = lens.read(&body, &[]).expect("read").remove(0).expect("hits");
            assert_eq!((hits.len(), hits[0].title.as_str(), hits[0].source.as_deref()), (1, "Machu Picchu", Some("Wikipedia")));
        }
        assert_eq!(lens.read(&json!({"organic": []}), &[]), Ok(vec![Ok(vec![])]), "nothing found");
        assert!(lens.read(&json!([1]), &[]).is_err() && lens.read(&json!({"organic": 1}), &[]).is_err());
    }
}
