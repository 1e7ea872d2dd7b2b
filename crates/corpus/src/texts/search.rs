//! Documents found by their words (BM25), and read by their address, title or id. In: a folder that `build.rs` made. Out: hits, best
//! first; the same query gives the same list.

use std::path::Path;

use hypereyes_environment::Hit;
use hypereyes_search::words;
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, ConstScoreQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, Value};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{DocAddress, Index, IndexReader, ReloadPolicy, Searcher, TantivyDocument, TantivyError, Term};

use super::{Fields, KINDS, named, schema};
use crate::Error;
use crate::metrics::CUT;
use crate::readonly::ReadOnly;
use crate::shown::{MOST_HIT, cut};

/// Bytes of a page, at most, and passages of it.
const MOST_PAGE: usize = 256 << 10;
const MOST_PASSAGES: usize = 256;

/// Documents that can be searched.
pub(crate) struct Texts {
    searcher: Searcher,
    fields: Fields,
    analyzer: TextAnalyzer,
}

impl Texts {
    /// Opens an index of `count` documents.
    pub fn open(folder: &Path, count: u64) -> Result<Self, Error> {
        let damaged = |error: TantivyError| Error::damaged(folder, error.to_string());
        let index = Index::open(ReadOnly::open(folder).map_err(damaged)?).map_err(damaged)?;
        let (schema, fields) = schema();
        if index.schema() != schema {
            return Err(Error::damaged(folder, "its fields are those of another version"));
        }
        let reader: IndexReader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into().map_err(damaged)?;
        let searcher = reader.searcher();
        if searcher.num_docs() != count {
            return Err(Error::damaged(folder, format!("it has {} documents, not {count}", searcher.num_docs())));
        }
        Ok(Self { searcher, fields, analyzer: words::analyzer() })
    }

    /// The `limit` best documents. A score is 1 where a document of mean length has every word of the query that any document has.
    pub fn search(&self, query: &str, limit: usize) -> Result<Vec<Hit>, TantivyError> {
        let mut distinct: Vec<String> = vec![];
        for word in words::of_query(query, &self.analyzer) {
            if !distinct.contains(&word) {
                distinct.push(word);
            }
        }
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = vec![];
        let mut weight = 0.0f32;
        for word in &distinct {
            let term = Term::from_field_text(self.fields.body, word);
            let having = self.searcher.doc_freq(&term)? as f32;
            if having > 0.0 {
                weight += (1.0 + (self.searcher.num_docs() as f32 - having + 0.5) / (having + 0.5)).ln();
                clauses.push((Occur::Should, Box::new(TermQuery::new(term, IndexRecordOption::WithFreqs))));
            }
        }
        if clauses.is_empty() || limit == 0 {
            return Ok(vec![]);
        }
        let best = self.searcher.search(&BooleanQuery::new(clauses), &TopDocs::with_limit(limit))?;
        let hit = |(score, address): (f32, DocAddress)| {
            let document: TantivyDocument = self.searcher.doc(address)?;
            let content = cut(self.stored(&document, self.fields.text), MOST_HIT, "hit").to_owned();
            let score = Some(f64::from(score / weight).clamp(0.0, 1.0));
            Ok(Hit {
                title: self.stored(&document, self.fields.title).to_owned(),
                content,
                url: self.url(&document),
                score,
                ..Hit::default()
            })
        };
        best.into_iter().map(hit).collect()
    }

    /// The page of an address, a title or an id: all documents that bear it, in the order of the corpus. The first of the three that any
    /// document bears is what is meant.
    pub fn page(&self, name: &str) -> Result<Option<Hit>, TantivyError> {
        for kind in KINDS {
            let page = self.page_of(&named(kind, name))?;
            if page.is_some() {
                return Ok(page);
            }
        }
        Ok(None)
    }

    /// All documents with a term of the field of addresses.
    fn page_of(&self, term: &str) -> Result<Option<Hit>, TantivyError> {
        let term = Term::from_field_text(self.fields.address, term);
        let query = ConstScoreQuery::new(Box::new(TermQuery::new(term, IndexRecordOption::Basic)), 1.0);
        // Of equal scores the lower number comes first. One more than is taken tells whether there are more.
        let found = self.searcher.search(&query, &TopDocs::with_limit(MOST_PASSAGES + 1))?;
        let mut page: Option<Hit> = None;
        for (at, (_, address)) in found.into_iter().enumerate() {
            if at == MOST_PASSAGES {
                metrics::counter!(CUT, "what" => "page").increment(1);
                break;
            }
            let document: TantivyDocument = self.searcher.doc(address)?;
            let text = self.stored(&document, self.fields.text);
            match &mut page {
                None => {
                    let title = self.stored(&document, self.fields.title).to_owned();
                    page =
                        Some(Hit { title, content: cut(text, MOST_PAGE, "page").to_owned(), url: self.url(&document), ..Hit::default() });
                }
                Some(page) => {
                    let room = MOST_PAGE.saturating_sub(page.content.len() + 1);
                    if text.len() > room {
                        metrics::counter!(CUT, "what" => "page").increment(1);
                        break;
                    }
                    page.content.push('\n');
                    page.content.push_str(text);
                }
            }
        }
        Ok(page)
    }

    fn stored<'a>(&self, document: &'a TantivyDocument, field: Field) -> &'a str {
        document.get_first(field).and_then(|value| value.as_str()).unwrap_or_default()
    }

    fn url(&self, document: &TantivyDocument) -> Option<String> {
        let url = self.stored(document, self.fields.url);
        (!url.is_empty()).then(|| url.to_owned())
    }
}
