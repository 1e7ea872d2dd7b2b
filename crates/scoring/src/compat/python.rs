//! The few habits of Python that the released reward shows through: how a value prints, what counts as blank, how a
//! text becomes a number. In: JSON values. Out: texts and numbers.

use std::borrow::Cow;

use serde_json::Value;

use super::json::Py;

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
        other => Py::from(other).text().into_owned().into(),
    }
}

/// A quoted string. Blanks other than the space are escaped, which matters: an escaped blank is a non-blank piece.
pub(super) fn quoted(text: &str, out: &mut String) {
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

/// `int(value)`: numbers are truncated, texts parsed as Python does (blanks around, a sign, single underscores between
/// digits); `None` where Python would raise. What is larger than 64 bits stays at their end.
pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|float| float.trunc() as i64)),
        Value::String(text) => {
            let text = strip(text);
            let (negative, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) => (text.starts_with('-'), digits),
                None => (false, text),
            };
            if digits.is_empty() || digits.split('_').any(|part| part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit())) {
                return None;
            }
            let number = digits
                .bytes()
                .filter(u8::is_ascii_digit)
                .fold(0_i64, |number, digit| number.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
            Some(if negative { -number } else { number })
        }
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
        assert_eq!([int(&json!("+1_000")), int(&json!("-2")), int(&json!("1__0")), int(&json!("_1"))], [Some(1000), Some(-2), None, None]);
        assert_eq!([int(&json!(true)), int(&json!("2.0")), int(&json!("99999999999999999999"))], [Some(1), None, Some(i64::MAX)]);
    }
}
