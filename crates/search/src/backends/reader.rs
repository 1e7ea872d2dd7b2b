//! A reader of pages in Jina's shape (r.jina.ai): `GET {url}/{page}`. It answers without a key, too, more slowly.

use hypereyes_environment::{Fault, Hit, Query};
use reqwest::Url;
use serde_json::Value;

use super::Kind;
use crate::http::call::{Call, KeyIn, Miss, Service, object, text, words};

/// A reader as a back end.
pub(super) const KIND: Kind = Kind {
    text: false,
    pages: true,
    is_open: true,
    ..Kind::paid("reader", "https://r.jina.ai", (KeyIn::Bearer, "JINA_API_KEY"), &[], |_| Box::new(Reader))
};

/// Reads pages; it is told nothing else.
pub struct Reader;

impl Service for Reader {
    fn call(&self, _layer: u64, queries: &[Query]) -> Result<Call, Miss> {
        let [Query::Page(address)] = queries else { return Err((Fault::Refused, "it reads pages alone".to_owned())) };
        let page = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty());
        let Some(page) = page.filter(|url| url.password().is_none()) else {
            return Err((Fault::Refused, "a page is named by its http or https address".to_owned()));
        };
        let pairs = page.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Ok(Call::get(format!("/{}{}", page.origin().ascii_serialization(), page.path()), pairs))
    }

    fn path(&self, _layer: u64, _query: &Query) -> String {
        String::new()
    }

    fn read(&self, body: &Value, _queries: &[Query]) -> Result<Vec<Result<Vec<Hit>, Miss>>, Miss> {
        object(body)?;
        let page = body.get("data").unwrap_or(body);
        let part = |name: &str| text(page, &[name]);
        let (title, content) = (part("title"), part("content").or_else(|| part("text")));
        if title.is_none() && content.is_none() {
            return Err((Fault::Unavailable, format!("it gives no page: {}", words(body))));
        }
        let date = part("publishedTime");
        let (title, content) = (title.unwrap_or_default(), content.unwrap_or_default());
        Ok(vec![Ok(vec![Hit { title, content, url: part("url"), date, ..Hit::default() }])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_asked_and_read_as_documented() {
        let call = Reader.call(0, &[Query::Page("https://en.wikipedia.org/wiki/Lima?action=raw#top".into())]).expect("a page");
        assert_eq!(call.path, "/https://en.wikipedia.org/wiki/Lima");
        assert_eq!(call.query, [("action".to_owned(), "raw".to_owned())]);
        for bad in ["Mexico", "ftp://x/y", "https://a:b@x/"] {
            assert_eq!(Reader.call(0, &[Query::Page(bad.into())]).expect_err(bad).0, Fault::Refused);
        }
        let page = json!({"title": "Lima", "url": "https://x/l", "content": "# Lima", "publishedTime": "2024"});
        for body in [json!({"code": 200, "status": 20000, "data": page}), page.clone()] {
            let hits = Reader.read(&body, &[]).expect("read").remove(0).expect("a page");
            assert_eq!((hits[0].title.as_str(), hits[0].content.as_str(), hits[0].date.as_deref()), ("Lima", "# Lima", Some("2024")));
        }
        assert!(Reader.read(&json!({"code": 451, "message": "no"}), &[]).expect_err("none").1.ends_with("no"));
    }
}
