//! Texts that will stand in logs, lists and labels.
//!
//! In: a text of a peer or a file. Out: whether it shows what it is, or the same text made safe.

use std::borrow::Cow;
use std::fmt::Write;

/// The first character of a text that no id or name from outside may hold, if there is one: control characters, which forge
/// lines of a log; directions (bidi) and line separators, which make a text look like another; marks and tags that show as
/// nothing. Letters of every script pass, and the joiners that some scripts write words with (U+200C, U+200D).
pub fn unprintable(text: &str) -> Option<char> {
    text.chars().find(|c| hidden(*c))
}

/// The text with such characters written as `\n`, `\r` or `\uXXXX` (as JSON has them, so that JSON stays JSON), tabs and those
/// of `keep` apart. What is written to a log goes through here: a value cannot end a line and begin another.
pub fn escaped<'a>(text: &'a str, keep: &[char]) -> Cow<'a, str> {
    let bad = |c: char| hidden(c) && c != '\t' && !keep.contains(&c);
    if !text.chars().any(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !bad(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(out)
}

fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Directions.
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph.
            | '\u{2028}' | '\u{2029}'
            // Nothing to see.
            | '\u{00ad}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
            // Annotations and tags.
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: [&str; 11] = [
        "a\nb",
        "a\rb",
        "a\0",
        "\u{1b}[31mred",
        "\u{85}",
        "abc\u{202e}cba",
        "\u{2066}x",
        "\u{200f}",
        "a\u{2028}b",
        "\u{feff}a",
        "a\u{e0041}",
    ];

    #[test]
    fn what_forges_a_line_or_its_look_is_found() {
        assert!(BAD.iter().all(|bad| unprintable(bad).is_some()), "{BAD:?}");
        for good in ["", "mx-1@7", "Ñandú", "東京", "مكسيكو", "می\u{200c}خواهم", "क्\u{200d}ष", "a b", "🇲🇽", "👩\u{200d}🚀"]
        {
            assert_eq!(unprintable(good), None, "{good:?}");
        }
    }

    #[test]
    fn what_is_escaped_can_stand_in_a_line_and_in_json() {
        for bad in BAD {
            let safe = escaped(bad, &[]);
            assert_eq!(unprintable(&safe), None, "{safe}");
        }
        assert_eq!(escaped("x\n2026 INFO forged\r\u{202e}", &[]), "x\\n2026 INFO forged\\r\\u202e");
        assert_eq!(escaped("\u{e0041}", &[]), "\\udb40\\udc41");
        assert_eq!(escaped("\u{1b}[1mbold\u{1b}[0m\n", &['\u{1b}']), "\u{1b}[1mbold\u{1b}[0m\\n");
        assert!(matches!(escaped("a\tb", &[]), Cow::Borrowed(_)));
    }
}
