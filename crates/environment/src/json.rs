//! The JSON of a call, read as the released environment's Python does: with `NaN`, `Infinity` and numbers beyond a double, which
//! stand for numbers that nothing can be done with. In: text. Out: a value; such a number is an object that says what it was.

use serde_json::{Value, json};

/// Key of what stands for a number that is none.
const NO_NUMBER: &str = "no_number";

/// The value of a text, or nothing when it is no JSON.
pub(crate) fn read(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| serde_json::from_str(&marked(text)?).ok())
}

/// What is written where a number should be and is none, such as `NaN`.
pub(crate) fn no_number(value: &Value) -> Option<&str> {
    value.as_object().filter(|object| object.len() == 1)?.get(NO_NUMBER)?.as_str()
}

/// The text with marks in the place of numbers that are none; nothing when there are no such numbers.
fn marked(text: &str) -> Option<String> {
    let (mut out, mut rest, mut found) = (String::new(), text, false);
    while let Some(first) = rest.bytes().next() {
        let length = match first {
            b'"' => string(rest),
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let word = &rest[..rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count()];
                let number = word.parse::<f64>().ok().filter(|_| !word.contains(['n', 'i']));
                if matches!(word, "NaN" | "Infinity" | "-Infinity") || number.is_some_and(|number| !number.is_finite()) {
                    found = true;
                    out.push_str(&json!({NO_NUMBER: word}).to_string());
                    rest = &rest[word.len()..];
                    continue;
                }
                word.len()
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    found.then_some(out)
}

/// Bytes of the string that a text begins with, to its end if it is not closed.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_none_are_told_from_texts_and_numbers() {
        let value = read(r#"{"a":[NaN,-Infinity,1e999,-2.5,"NaN \" Infinity",[Infinity]]}"#).expect("Python reads it");
        let list = value["a"].as_array().expect("a list");
        let none: Vec<Option<&str>> = list.iter().map(no_number).collect();
        assert_eq!(none, [Some("NaN"), Some("-Infinity"), Some("1e999"), None, None, None]);
        assert_eq!((list[3].as_f64(), list[4].as_str()), (Some(-2.5), Some("NaN \" Infinity")));
        assert_eq!(no_number(&list[5][0]), Some("Infinity"));
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["", "{bad}", "nan", "Infinit", "{\"a\":NaN", "N", "-", "\"NaN", "\"\\", "[1,]", "Nan", "é"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
