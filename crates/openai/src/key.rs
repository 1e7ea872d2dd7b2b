//! API keys. In: the name of an environment variable. Out: what is sent as authorisation, and texts in which the key does not stand.

use hypereyes_chassis::secret::SecretText;
use reqwest::header::HeaderValue;

/// A key that is sent as `Authorization: Bearer`.
#[derive(Debug)]
pub(crate) struct Key(SecretText);

impl Key {
    /// The key in the variable `name`; none where the name is empty.
    ///
    /// # Errors
    /// A sentence that follows the name of the table and begins with `api_key_env`.
    pub(crate) fn of(name: &str) -> Result<Option<Self>, String> {
        let Some(text) = SecretText::of_variable("api_key_env", name)? else { return Ok(None) };
        Self::new(text).map(Some)
    }

    fn new(text: SecretText) -> Result<Self, String> {
        match HeaderValue::from_str(text.expose()) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(format!("api_key_env names {}, whose value cannot be a header", text.from())),
        }
    }

    /// The variable that it is from.
    pub(crate) fn variable(&self) -> &str {
        self.0.from()
    }

    /// What is sent.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", self.0.expose())).expect("it was tried");
        header.set_sensitive(true);
        header
    }

    /// A text of the server's with the key taken out.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        self.0.hidden_in(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_as_a_header_that_is_not_shown() {
        let key = Key::new(SecretText::new("api_key_env", "SOME_KEY", "sk-secret".into()).expect("sound")).expect("a header");
        assert_eq!((key.header(), key.variable()), (HeaderValue::from_static("Bearer sk-secret"), "SOME_KEY"));
        assert!(!format!("{key:?} {:?}", key.header()).contains("secret"));
    }
}
