//! Control tokens in text from outside, marked before a template sees the text and found again in what it renders.
//!
//! In: texts. Out: the same with private-use characters around control tokens; and a rendered dialogue cut into what is the
//! template's own and what is to stay text. As transformers' `sanitize_control_tokens` does it, but for characters that no
//! text of the dialogue holds, so that nothing has to be taken out of a text.

use serde_json::Value;

/// Characters that marks are chosen from.
const FIRST: u32 = 0xF_0000;
const COUNT: u32 = 0x100;

/// Whether a character may be a mark.
pub(crate) fn is_mark(character: char) -> bool {
    (FIRST..FIRST + COUNT).contains(&u32::from(character))
}

/// The two marks of one dialogue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    open: char,
    close: char,
}

/// A part of a rendered dialogue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// In which control tokens are control tokens.
    Rendered(&'a str),
    /// A control token that stays text.
    Text(&'a str),
}

impl Marks {
    /// Two characters that `texts` do not hold; `None` where they hold nearly all of them.
    pub(crate) fn apart_from(texts: &[&str]) -> Option<Self> {
        let mut free = (FIRST..FIRST + COUNT).filter_map(char::from_u32).filter(|mark| !texts.iter().any(|text| text.contains(*mark)));
        Some(Self { open: free.next()?, close: free.next()? })
    }

    /// Marks every text of a value. `control` holds the control tokens, longest first.
    pub(crate) fn mark(self, value: &mut Value, control: &[String]) {
        match value {
            Value::String(text) => {
                if let Some(marked) = self.marked(text, control) {
                    *text = marked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.mark(item, control)),
            Value::Object(map) => map.values_mut().for_each(|item| self.mark(item, control)),
            _ => {}
        }
    }

    /// The text with marks around its control tokens, and one where it ends like the beginning of a control token, which
    /// another text could complete; `None` where there is nothing to mark.
    fn marked(self, text: &str, control: &[String]) -> Option<String> {
        let mut out = String::new();
        let (mut rest, mut found) = (text, false);
        while !rest.is_empty() {
            if let Some(token) = control.iter().find(|token| rest.starts_with(token.as_str())) {
                out.push(self.open);
                out.push_str(token);
                out.push(self.close);
                rest = &rest[token.len()..];
                found = true;
            } else {
                let next = rest.chars().next().map_or(rest.len(), char::len_utf8);
                out.push_str(&rest[..next]);
                rest = &rest[next..];
            }
        }
        let begun = |token: &String| token.char_indices().skip(1).any(|(at, _)| text.ends_with(&token[..at]));
        if control.iter().any(begun) {
            out.push(self.close);
            found = true;
        }
        found.then_some(out)
    }

    /// A rendered dialogue in pieces. Marks that the template has torn from their token still part what they stand between.
    pub(crate) fn pieces<'a>(self, rendered: &'a str, control: &[String]) -> Vec<Piece<'a>> {
        let mut pieces = vec![];
        let mut rest = rendered;
        while let Some(at) = rest.find([self.open, self.close]) {
            let (before, from) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Piece::Rendered(before));
            }
            let mark = from.chars().next().unwrap_or(self.close);
            rest = &from[mark.len_utf8()..];
            let token = rest
                .split_once(self.close)
                .map(|(token, _)| token)
                .filter(|token| mark == self.open && control.iter().any(|known| known == token));
            if let Some(token) = token {
                pieces.push(Piece::Text(token));
                rest = &rest[token.len() + self.close.len_utf8()..];
            }
        }
        if !rest.is_empty() {
            pieces.push(Piece::Rendered(rest));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn control() -> Vec<String> {
        ["<|im_start|>", "<|im_end|>", "<s>"].map(String::from).to_vec()
    }

    #[test]
    fn control_tokens_of_a_text_are_found_again() {
        let marks = Marks::apart_from(&["x\u{F0000}y"]).expect("free ones");
        let mut value = json!({"role": "user", "content": [{"text": "a<|im_end|>b"}, {"text": "<s>"}, {"text": "plain \u{F0000}"}]});
        marks.mark(&mut value, &control());
        let text = |at: usize| value["content"][at]["text"].as_str().expect("a text");
        assert_eq!(marks.pieces(text(0), &control()), [Piece::Rendered("a"), Piece::Text("<|im_end|>"), Piece::Rendered("b")]);
        assert_eq!(marks.pieces(text(1), &control()), [Piece::Text("<s>")]);
        assert_eq!(marks.pieces(text(2), &control()), [Piece::Rendered("plain \u{F0000}")]);
    }

    #[test]
    fn a_token_cannot_be_put_together_from_several_texts() {
        let marks = Marks::apart_from(&[]).expect("free ones");
        for parts in [["<|im_", "end|>"], ["<", "|im_end|>"], ["<|im_end|", ">"], ["a <s", ">"]] {
            let joined: String = parts.map(|part| marks.marked(part, &control()).unwrap_or_else(|| part.into())).concat();
            let pieces = marks.pieces(&joined, &control());
            assert!(
                pieces.iter().all(|piece| matches!(piece, Piece::Rendered(text) if !control().iter().any(|token| text.contains(token))))
            );
            assert_eq!(pieces.len(), 2, "{pieces:?}");
        }
        assert_eq!(marks.marked("2 > 1, a_b |", &control()), None);
    }

    #[test]
    fn torn_marks_part_what_they_stand_between() {
        let marks = Marks::apart_from(&[]).expect("free ones");
        let torn = format!("a{}b{}c", marks.open, marks.close);
        assert_eq!(marks.pieces(&torn, &control()), [Piece::Rendered("a"), Piece::Rendered("b"), Piece::Rendered("c")]);
        assert!(Marks::apart_from(&[&(FIRST..FIRST + COUNT - 1).filter_map(char::from_u32).collect::<String>()]).is_none());
    }
}
