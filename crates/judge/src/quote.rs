//! Texts within a message to a model that judges. In: question, right answers, prediction. Out: JSON strings.
//!
//! What the policy wrote is data. It stands in a JSON string, so that no quote, line or fence in it can end it and pass for
//! the question, the right answer or the instruction; and what a chat template would take for a mark of its own (`<|im_end|>`,
//! `</think>`, `[INST]`) is escaped, so that no server makes a token of it.

use std::fmt::Write as _;

/// Longest prediction that is sent, in bytes, where no right answer is longer than a quarter of it.
pub const MAX_PREDICTION_BYTES: usize = 4096;

/// Whether a prediction is longer than any right answer to this can be: such a text names everything, and is wrong.
pub fn is_too_long(prediction: &str, answers: &[String]) -> bool {
    let longest = answers.iter().map(String::len).max().unwrap_or(0);
    prediction.len() > MAX_PREDICTION_BYTES.max(4 * longest)
}

/// Several texts, as a JSON list of such strings.
pub fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A text as a JSON string in which no mark of a chat template is left.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    let letters: Vec<char> = text.chars().collect();
    for (at, letter) in letters.iter().copied().enumerate() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // A tag of one or two letters is markup of text, and no template's.
            '<' if is_small_tag(&letters[at + 1..]) => out.push('<'),
            '<' | '[' | '|' | '\u{ff5c}' | '\u{2581}' => escape(letter, &mut out),
            // What turns the direction of writing, or cannot be seen, could hide what is said.
            _ if letter.is_control() || hidden(letter) => escape(letter, &mut out),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}

fn is_small_tag(rest: &[char]) -> bool {
    let name = rest.iter().take_while(|letter| letter.is_ascii_alphabetic()).count();
    (1..=2).contains(&name) && rest.get(name) == Some(&'>')
}

fn hidden(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn escape(letter: char, out: &mut String) {
    for unit in letter.encode_utf16(&mut [0; 2]) {
        write!(out, "\\u{unit:04x}").expect("a text takes what is written to it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_or_turns_the_writing_is_escaped() {
        for letter in [
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200f}',
            '\u{202e}',
            '\u{2066}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0041}',
        ] {
            let text = quoted(&format!("a{letter}b"));
            assert!(text.is_ascii() && text.starts_with("\"a\\u") && text.ends_with("b\""), "{text}");
            assert_eq!(serde_json::from_str::<String>(&text).expect("JSON"), format!("a{letter}b"));
        }
    }

    #[test]
    fn a_prediction_is_as_long_as_an_answer_can_be() {
        assert!(!is_too_long(&"x".repeat(MAX_PREDICTION_BYTES), &["Paris".into()]));
        assert!(is_too_long(&"x".repeat(MAX_PREDICTION_BYTES + 1), &["Paris".into()]));
        assert!(!is_too_long(&"x".repeat(MAX_PREDICTION_BYTES + 1), &["y".repeat(2000)]));
    }
}
