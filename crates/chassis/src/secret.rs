//! Keys to other people's services. In: the name of an environment variable, or a file. Out: what is sent, and texts in which it does not
//! stand. It is shown nowhere: not by `Debug`, not in an error, and a settings file never holds it.

use std::fmt;
use std::path::Path;

use reqwest::header::HeaderValue;

/// Secrets shorter than this are not looked for in texts: nobody's key is `a`.
const LEAST: usize = 4;
/// Bytes of a file that can be a key.
const MOST_BYTES: u64 = 16 << 10;

/// A key, and where it is from.
#[derive(Clone)]
pub struct SecretText {
    from: String,
    text: String,
}

impl fmt::Debug for SecretText {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretText").field("from", &self.from).finish_non_exhaustive()
    }
}

impl SecretText {
    /// The key in the variable `name`; none where the name is empty. `setting` is the key of the settings that names it.
    ///
    /// # Errors
    /// A sentence that begins with `setting`.
    pub fn of_variable(setting: &str, name: &str) -> Result<Option<Self>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        check_name(setting, name)?;
        let value = std::env::var(name).map_err(|_| format!("{setting} names {name}, which is not set"))?;
        Self::new(setting, name, value).map(Some)
    }

    /// The key in a file, as Kubernetes mounts secrets: line breaks at its end are no part of it.
    ///
    /// # Errors
    /// A sentence that begins with `setting`.
    pub fn of_file(setting: &str, path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let size = std::fs::metadata(path).map_err(|error| format!("{setting} names {shown}, which cannot be read: {error}"))?.len();
        if size > MOST_BYTES {
            return Err(format!("{setting} names {shown}, which has {size} bytes and is no key"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("{setting} names {shown}, which cannot be read: {error}"))?;
        Self::new(setting, &shown.to_string(), text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// A key from a place of this name.
    ///
    /// # Errors
    /// A sentence that begins with `setting`: it is empty, or cannot be sent.
    pub fn new(setting: &str, from: &str, text: String) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err(format!("{setting} names {from}, which is empty"));
        }
        let sendable = text.is_ascii() && HeaderValue::from_str(&text).is_ok();
        if !sendable {
            return Err(format!("{setting} names {from}, whose value cannot be a header (a line break at its end, a byte order mark?)"));
        }
        Ok(Self { from: from.to_owned(), text })
    }

    /// The key behind a word such as `Bearer `, as a header that nobody shows.
    pub fn header(&self, before: &str) -> HeaderValue {
        let mut header = HeaderValue::from_str(&format!("{before}{}", self.text)).expect("it was tried when it was made");
        header.set_sensitive(true);
        header
    }

    /// The variable or file that it is from.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The key itself, to be sent.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// A text with the key taken out.
    pub fn hidden_in(&self, text: &str) -> String {
        let secret = self.text.trim();
        if secret.len() < LEAST { text.to_owned() } else { text.replace(secret, "[key]") }
    }
}

/// Refuses what is no name of a variable: it may be the key itself, and is not quoted. An empty one names none.
///
/// # Errors
/// A sentence that begins with `setting`.
pub fn check_name(setting: &str, name: &str) -> Result<(), String> {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(());
    }
    Err(format!("{setting} is no name of an environment variable; it names one, and never holds the key itself"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_sent_and_shown_nowhere() {
        let key = SecretText::new("api_key_env", "SOME_KEY", "sk-secret".into()).expect("sound");
        assert_eq!((key.expose(), key.from()), ("sk-secret", "SOME_KEY"));
        assert!(!format!("{key:?}").contains("secret"));
        assert_eq!(key.header("Bearer "), "Bearer sk-secret");
        assert!(!format!("{:?}", key.header("")).contains("secret"));
        assert_eq!(key.hidden_in("wrong key sk-secret."), "wrong key [key].");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        let of = |name: &str| SecretText::of_variable("api_key_env", name);
        assert!(of("").expect("none").is_none());
        for (name, says) in [("sk-secret", "never holds"), ("NO_SUCH_VARIABLE_HERE", "NO_SUCH_VARIABLE_HERE, which is not set")] {
            let error = of(name).expect_err("refused");
            assert!(error.starts_with("api_key_env") && error.contains(says) && !error.contains("secret"), "{error}");
        }
        for text in ["sk-secret\n", "\u{feff}sk-secret", "sk-\u{a0}secret"] {
            let error = SecretText::new("api_key_env", "K", text.into()).expect_err("no header");
            assert!(error.contains("line break") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_file_may_end_in_a_line_break_and_is_not_a_book() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, "sk-secret\r\n").expect("written");
        assert_eq!(SecretText::of_file("api_key_file", &path).expect("a key").expose(), "sk-secret");
        std::fs::write(&path, "\n").expect("written");
        assert!(SecretText::of_file("api_key_file", &path).expect_err("empty").contains("which is empty"));
        std::fs::write(&path, vec![b'x'; 20_000]).expect("written");
        assert!(SecretText::of_file("api_key_file", &path).expect_err("long").ends_with("is no key"));
        assert!(SecretText::of_file("api_key_file", &folder.path().join("none")).expect_err("none").starts_with("api_key_file names"));
    }
}
