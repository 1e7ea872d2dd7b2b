//! One document, and what a row must have to be one. In: fields of a row. Out: a [`Document`], or why there is none. Knows no format of
//! files.

use serde::{Deserialize, Serialize};

use crate::refused::Refusal;

/// Bytes of a document's text, at most: a long book. Passages are a thousandth of it.
pub const MOST_TEXT: usize = 1 << 20;
/// Bytes of an id, a title or an address, at most.
pub const MOST_SHORT: usize = 4096;

/// What is found and read. What a row does not have is empty.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Document {
    /// What its maker calls it; it can be visited by it.
    pub id: String,
    /// What it is about; searched like the text.
    pub title: String,
    /// What it says; never empty.
    pub text: String,
    /// Where it is from; it can be visited by it.
    pub url: String,
}

/// Fields of a row by their names; any other is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub id: Option<String>,
    pub title: Option<String>,
    pub text: Option<String>,
    /// As Search-R1 has it: the title in quotation marks on a line, then the text.
    pub contents: Option<String>,
    pub url: Option<String>,
}

impl Fields {
    /// The names, as files have them.
    pub const NAMES: [&'static str; 5] = ["id", "title", "text", "contents", "url"];

    /// The document.
    ///
    /// # Errors
    /// Why it is none.
    pub fn document(self) -> Result<Document, Refusal> {
        let Self { id, title, text, contents, url } = self;
        let mut title = title.unwrap_or_default();
        let text = match (text, contents) {
            (Some(text), _) => text,
            (None, Some(contents)) => match quoted(&contents) {
                Some((quoted, rest)) => {
                    if title.trim().is_empty() {
                        title = quoted.to_owned();
                    }
                    rest.to_owned()
                }
                None => contents,
            },
            (None, None) => return Err(Refusal::new("no_text", "it has neither text nor contents")),
        };
        let [id, title, url] = [id.unwrap_or_default(), title, url.unwrap_or_default()].map(|short| short.trim().to_owned());
        if text.trim().is_empty() {
            return Err(Refusal::new("no_text", "its text is empty"));
        }
        if text.len() > MOST_TEXT {
            return Err(Refusal::new(
                "too_long",
                format!("its text has {} bytes, at most {MOST_TEXT} are taken: cut it into passages", text.len()),
            ));
        }
        for (name, short) in [("id", &id), ("title", &title), ("url", &url)] {
            if short.len() > MOST_SHORT {
                return Err(Refusal::new("too_long", format!("its {name} has {} bytes, at most {MOST_SHORT} are taken", short.len())));
            }
        }
        Ok(Document { id, title, text, url })
    }
}

/// The title and the rest, where contents begin with a line in quotation marks.
fn quoted(contents: &str) -> Option<(&str, &str)> {
    let (line, rest) = contents.split_once('\n')?;
    let title = line.trim_end().strip_prefix('"')?.strip_suffix('"')?;
    Some((title, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(title: &str, text: &str, contents: &str) -> Fields {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Fields { id: Some(" 7 ".into()), title: some(title), text: some(text), contents: some(contents), url: None }
    }

    #[test]
    fn contents_are_read_as_search_r1_writes_them() {
        let read = |fields: Fields| fields.document().map(|document| (document.title, document.text)).expect("a document");
        let pair = |title: &str, text: &str| (title.to_owned(), text.to_owned());
        assert_eq!(read(fields("", "", "\"Lima\"\nA city\nin Peru")), pair("Lima", "A city\nin Peru"));
        assert_eq!(read(fields("Lima, Ohio", "", "\"Lima\"\nA city")), pair("Lima, Ohio", "A city"));
        assert_eq!(read(fields("", "", "\"Lima\" is a city\nof Peru")), pair("", "\"Lima\" is a city\nof Peru"));
        assert_eq!(read(fields("T", "own", "\"Lima\"\nA city")), pair("T", "own"), "a text goes before contents");
        assert_eq!(fields("", "x", "").document().expect("a document").id, "7");
    }

    #[test]
    fn what_is_no_document_says_why() {
        let refused = |fields: Fields| fields.document().expect_err("no document");
        assert_eq!(refused(fields("T", "", "")).reason, "no_text");
        assert_eq!(refused(fields("T", " \n", "")).reason, "no_text");
        assert_eq!(refused(fields("", "", "\"Lima\"\n ")).reason, "no_text");
        let long = "x".repeat(MOST_TEXT + 1);
        assert!(fields("", &long[1..], "").document().is_ok());
        let refusal = refused(fields("", &long, ""));
        assert!(refusal.reason == "too_long" && refusal.message.contains("1048577 bytes"), "{refusal:?}");
        assert_eq!(refused(fields(&long[..MOST_SHORT + 1], "x", "")).reason, "too_long");
    }
}
