//! Documents as an index of their words: built in `build.rs`, searched in `search.rs`. One segment, whose numbers of documents are their
//! order in the corpus.

mod build;
mod search;

pub(crate) use build::Builder;
pub(crate) use search::Texts;
use tantivy::schema::{Field, IndexRecordOption, STORED, Schema, SchemaBuilder, TextFieldIndexing, TextOptions};

/// What the tokenizer of bodies is called in the index; it is `hypereyes_search::words`.
const TOKENIZER: &str = "words";

/// The fields of a document.
#[derive(Clone, Copy, Debug)]
struct Fields {
    /// Title and text, to be searched.
    body: Field,
    /// By what it can be visited: its address, its title and its id, each [`named`].
    address: Field,
    title: Field,
    text: Field,
    url: Field,
}

/// Kinds of names by which a document is visited, the surest first: its url, its title, its id.
const KINDS: [&str; 3] = ["u", "t", "i"];

/// How a name of a kind is looked up. The kind is part of it: the title of one document may be the id of another.
fn named(kind: &str, name: &str) -> String {
    format!("{kind}:{}", name.trim().to_lowercase())
}

fn schema() -> (Schema, Fields) {
    let options = |tokenizer: &str, lengths: bool, record: IndexRecordOption| {
        let indexing = TextFieldIndexing::default().set_tokenizer(tokenizer).set_fieldnorms(lengths).set_index_option(record);
        TextOptions::default().set_indexing_options(indexing)
    };
    let mut builder = SchemaBuilder::default();
    let fields = Fields {
        body: builder.add_text_field("body", options(TOKENIZER, true, IndexRecordOption::WithFreqs)),
        address: builder.add_text_field("address", options("raw", false, IndexRecordOption::Basic)),
        title: builder.add_text_field("title", STORED),
        text: builder.add_text_field("text", STORED),
        url: builder.add_text_field("url", STORED),
    };
    (builder.build(), fields)
}
