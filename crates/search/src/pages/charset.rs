//! The letters of a page. In: its bytes, and what HTTP says of them. Out: a text; it never fails, as no browser does.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// Bytes in which a page may say what its letters are.
const HEAD: usize = 1024;

/// The text of some bytes: by their mark, by HTTP, by what the page says of itself, or as most pages are.
pub(super) fn text<'a>(kind: Option<&str>, bytes: &'a [u8]) -> std::borrow::Cow<'a, str> {
    let named = |label: &str| Encoding::for_label(label.trim_matches(['"', '\'', ' ']).as_bytes());
    let of_http = kind.and_then(label).and_then(named);
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(HEAD)]);
    let of_page = || label(&head).and_then(named);
    let guessed = || if std::str::from_utf8(bytes).is_ok() { UTF_8 } else { WINDOWS_1252 };
    // A mark at the beginning counts before everything else.
    of_http.or_else(of_page).unwrap_or_else(guessed).decode(bytes).0
}

/// What follows `charset=`.
fn label(text: &str) -> Option<&str> {
    let at = text.to_ascii_lowercase().find("charset=")? + "charset=".len();
    let label = text.get(at..)?.trim_start_matches(['"', '\'', ' ']);
    Some(&label[..label.find(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | ':'))).unwrap_or(label.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_they_are_meant() {
        let check = |kind: Option<&str>, bytes: &[u8], expected: &str| assert_eq!(text(kind, bytes), expected, "{kind:?} {bytes:?}");
        check(None, "é".as_bytes(), "é");
        check(None, b"\xe9", "é");
        check(Some("text/html; charset=\"ISO-8859-2\""), b"\xb1", "ą");
        check(Some("text/html"), b"<meta charset='Shift_JIS'>\x93\xfa", "<meta charset='Shift_JIS'>日");
        check(Some("text/html;charset=iso-8859-1"), b"\xef\xbb\xbf\xc3\xa9", "é");
        check(Some("text/plain; charset=none-such"), "é".as_bytes(), "é");
        check(Some("text/plain; charset="), b"", "");
    }
}
