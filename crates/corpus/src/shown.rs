//! How much of a text is shown. In: a text. Out: as much of it as fits; what is cut is counted.

use crate::metrics::CUT;

/// Bytes of a hit's text, at most; of a document the whole is read by visiting it.
pub(crate) const MOST_HIT: usize = 16 << 10;

/// As much of a text as fits, in whole characters; `what` is `hit` or `page`.
pub(crate) fn cut<'a>(text: &'a str, most: usize, what: &'static str) -> &'a str {
    if text.len() <= most {
        return text;
    }
    metrics::counter!(CUT, "what" => what).increment(1);
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}
