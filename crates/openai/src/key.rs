//! API keys. In: the name of an environment variable. Out: what is sent as authorisation, and texts in which the key does not stand. The
//! key is shown nowhere.

use std::fmt;

use reqwest::header::HeaderValue;

/// Keys shorter than this are not looked for in texts: nobody's key is `a`.
const LEAST: usize = 4;

/// A key, and the variable that it is from.
pub(crate) struct Key {
    variable: String,
    secret: String,
    header: HeaderValue,
}

impl fmt::Debug for Key {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("variable", &self.variable).finish_non_exhaustive()
    }
}

impl Key {
    /// The key in the variable `name`; none where the name is empty.
    ///
    /// # Errors
    /// A sentence that follows the name of the table and begins with `api_key_env`.
    pub(crate) fn of(name: &str) -> Result<Option<Self>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        // What cannot be a variable's name may be the key itself.
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err("api_key_env is no name of an environment variable; it names one, and never holds the key itself".into());
        }
        let value = std::env::var(name).map_err(|_| format!("api_key_env names {name}, which is not set"))?;
        Self::new(name, value).map(Some)
    }

    fn new(name: &str, value: String) -> Result<Self, String> {
        if value.trim().is_empty() {
            return Err(format!("api_key_env names {name}, which is empty"));
        }
        let header = HeaderValue::from_str(&format!("Bearer {value}"));
        let mut header =
            header.map_err(|_| format!("api_key_env names {name}, whose value cannot be a header (a line break at its end?)"))?;
        header.set_sensitive(true);
        Ok(Self { variable: name.to_owned(), secret: value, header })
    }

    /// The variable that it is from.
    pub(crate) fn variable(&self) -> &str {
        &self.variable
    }

    /// What is sent.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// A text of the server's with the key taken out.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        let secret = self.secret.trim();
        if secret.len() < LEAST { text.to_owned() } else { text.replace(secret, "[key]") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_and_shown_nowhere() {
        let key = Key::new("SOME_KEY", "sk-secret".into()).expect("sound");
        assert_eq!(key.header(), "Bearer sk-secret");
        assert!(!format!("{key:?} {:?}", key.header()).contains("secret"));
        assert_eq!(key.hidden_in("wrong key sk-secret."), "wrong key [key].");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        assert!(Key::of("").expect("none").is_none());
        for (name, says) in [("sk-secret", "never holds"), ("NO_SUCH_VARIABLE_HERE", "NO_SUCH_VARIABLE_HERE, which is not set")] {
            let error = Key::of(name).expect_err("refused");
            assert!(error.starts_with("api_key_env") && error.contains(says) && !error.contains("secret"), "{error}");
        }
        let error = Key::new("K", "sk-secret\n".into()).expect_err("a line break");
        assert!(error.contains("line break") && !error.contains("secret"), "{error}");
    }
}
