//! Keys that settings had once. In: what a config type says of its former keys. Out: an error that names the key of today, where an
//! unknown key would only be unknown.

use std::fmt;

/// A key that is not one any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The key or table as it was, with dots.
    pub was: String,
    /// Where what it said is said now.
    pub now: Now,
}

/// Where a former key is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// Under another key, with the same values.
    Key(String),
    /// Nowhere; a clause that says what does what was meant.
    Gone(String),
}

impl Moved {
    /// A key that has another name or place.
    pub fn to(was: &str, now: &str) -> Self {
        Self { was: was.to_owned(), now: Now::Key(now.to_owned()) }
    }

    /// A key that is gone, and what does what was meant.
    pub fn gone(was: &str, instead: &str) -> Self {
        Self { was: was.to_owned(), now: Now::Gone(instead.to_owned()) }
    }

    /// Former keys of a table, as they are called where that table lies.
    pub fn under(table: &str, keys: Vec<Self>) -> impl Iterator<Item = Self> {
        let within = move |key: String| format!("{table}.{key}");
        keys.into_iter().map(move |Self { was, now }| Self {
            was: within(was),
            now: match now {
                Now::Key(key) => Now::Key(within(key)),
                Now::Gone(instead) => Now::Gone(instead),
            },
        })
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.now {
            Now::Key(key) => write!(f, "is called {key} now"),
            Now::Gone(instead) => write!(f, "is no key any more: {instead}"),
        }
    }
}
