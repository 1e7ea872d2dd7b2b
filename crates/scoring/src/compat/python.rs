//! The few habits of Python that the released reward shows through: how a value prints, what counts as blank, how a
//! text becomes a number. In: JSON values. Out: texts and numbers.

use std::borrow::Cow;

use serde_json::Value;

/// What `str.strip` strips: Unicode white space and the four separators that only Python counts in.
pub(super) fn strip(text: &str) -> &str {
    // Most texts have nothing to strip, and then their ends say so.
    if let [b'!'..=b'~', .., b'!'..=b'~'] = text.as_bytes() {
        return text;
    }
    text.trim_matches(|letter: char| letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter))
}

/// Non-blank pieces between vertical bars.
pub(super) fn bar_pieces(text: &str) -> u64 {
    text.split('|').filter(|piece| !strip(piece).is_empty()).count() as u64
}

/// `str(value)` of the value that the JSON decodes to.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        other => {
            let mut out = String::new();
            repr(other, &mut out);
            out.into()
        }
    }
}

fn repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => quoted(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                repr(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (at, (key, item)) in map.iter().enumerate() {
                if at > 0 {
                    out.push_str(", ");
                }
                quoted(key, out);
                out.push_str(": ");
                repr(item, out);
            }
            out.push('}');
        }
    }
}

/// A quoted string. Blanks other than the space are escaped, which matters: an escaped blank is a non-blank piece.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if letter == quote => {
                out.push('\\');
                out.push(letter);
            }
            ' ' => out.push(' '),
            _ if letter.is_control() || letter.is_whitespace() => {
                let code = u32::from(letter);
                out.push_str(&if code < 0x100 { format!("\\x{code:02x}") } else { format!("\\u{code:04x}") });
            }
            _ => out.push(letter),
        }
    }
    out.push(quote);
}

/// `int(value)`: numbers are truncated, texts parsed; `None` where Python would raise.
pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|float| float.trunc() as i64)),
        Value::String(text) => strip(text).parse().ok(),
        _ => None,
    }
}

/// `bool(value)`.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_print_as_python_prints_them() {
        assert_eq!(text(&json!(null)), "None");
        assert_eq!(text(&json!(["a|b", 1, true, {"k": [" "]}])), "['a|b', 1, True, {'k': [' ']}]");
        assert_eq!(text(&json!(["it's", "\u{3000}\n"])), "[\"it's\", '\\u3000\\n']");
        assert_eq!(text(&json!("plain")), "plain");
    }

    #[test]
    fn escaped_blanks_are_pieces() {
        assert_eq!(bar_pieces(&text(&json!(["a|\n|b"]))), 3);
        assert_eq!(bar_pieces("a|\n|b"), 2);
        assert_eq!(bar_pieces("a|\u{1f}|b"), 2);
    }

    #[test]
    fn numbers_are_read_leniently() {
        assert_eq!([int(&json!(2.9)), int(&json!(" 3 ")), int(&json!(null)), int(&json!("x"))], [Some(2), Some(3), None, None]);
    }
}
