//! The tags of a transcript, where they stand. In: text. Out: positions, in order.
//!
//! What lies between them is not known here.

use memchr::memchr;
use wide::u8x16;

/// What gives a transcript its structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Start,
    End,
    Call,
    CallEnd,
    Response,
    ResponseEnd,
    Answer,
    AnswerEnd,
}

impl Tag {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Tag::Start => "<|im_start|>",
            Tag::End => "<|im_end|>",
            Tag::Call => "<tool_call>",
            Tag::CallEnd => "</tool_call>",
            Tag::Response => "<tool_response>",
            Tag::ResponseEnd => "</tool_response>",
            Tag::Answer => "<answer>",
            Tag::AnswerEnd => "</answer>",
        }
    }

    /// The one that a text begins with.
    #[inline]
    fn before(text: &[u8]) -> Option<Self> {
        // Each by what follows its bracket: every text is then compared with two at most.
        let is = |tag: Tag| text.starts_with(tag.text().as_bytes()).then_some(tag);
        match *text.get(1)? {
            b'|' => is(Tag::End).or_else(|| is(Tag::Start)),
            b't' => is(Tag::Call).or_else(|| is(Tag::Response)),
            b'a' => is(Tag::Answer),
            b'/' => match *text.get(2)? {
                b't' => is(Tag::CallEnd).or_else(|| is(Tag::ResponseEnd)),
                b'a' => is(Tag::AnswerEnd),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Goes through a text once, a block at a time.
pub(super) struct Tags<'a> {
    text: &'a [u8],
    /// Where the block begins.
    from: usize,
    /// Where the next one does.
    next: usize,
    /// Its brackets that are left, a bit each.
    brackets: u64,
}

impl<'a> Tags<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text: text.as_bytes(), from: 0, next: 0, brackets: 0 }
    }

    /// The next bracket.
    #[inline]
    fn bracket(&mut self) -> Option<usize> {
        while self.brackets == 0 {
            self.block()?;
        }
        let at = self.from + self.brackets.trailing_zeros() as usize;
        self.brackets &= self.brackets - 1;
        Some(at)
    }

    /// Looks at the next block.
    #[inline]
    fn block(&mut self) -> Option<()> {
        let rest = self.text.get(self.next..)?;
        self.from = self.next;
        self.brackets = match rest.first_chunk::<64>() {
            Some(block) => brackets(block),
            None if rest.is_empty() => return None,
            None => {
                let mut block = [0; 64];
                block[..rest.len()].copy_from_slice(rest);
                brackets(&block)
            }
        };
        self.next += 64;
        if self.brackets == 0 {
            // After one without any comes more of the same, as in pages: passed over at once.
            self.next += memchr(b'<', self.text.get(self.next..)?)?;
        }
        Some(())
    }
}

/// A bit for every byte that is a bracket.
#[inline]
fn brackets(block: &[u8; 64]) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    let bits = |part: &[u8; 16]| u64::from(u8x16::from(*part).simd_eq(u8x16::splat(b'<')).to_bitmask() as u16);
    parts.iter().rev().fold(0, |mask, part| mask << 16 | bits(part))
}

impl Iterator for Tags<'_> {
    type Item = (usize, Tag);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, Tag)> {
        loop {
            let at = self.bracket()?;
            if let Some(tag) = Tag::before(&self.text[at..]) {
                return Some((at, tag));
            }
        }
    }
}

/// What stands between the first opening tag and the closing one behind it.
pub(super) fn block(text: &str, open: Tag, close: Tag) -> Option<&str> {
    let mut tags = Tags::of(text);
    let from = tags.find(|(_, tag)| *tag == open)?.0 + open.text().len();
    let to = tags.find(|(_, tag)| *tag == close)?.0;
    Some(&text[from..to])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_stand_where_they_are_written_and_nothing_like_them_is_one() {
        let all = [Tag::Start, Tag::End, Tag::Call, Tag::CallEnd, Tag::Response, Tag::ResponseEnd, Tag::Answer, Tag::AnswerEnd];
        for tag in all {
            let text = format!("<{0}< {0}{1}<", tag.text(), &tag.text()[..tag.text().len() - 1]);
            let first = 1;
            let second = first + tag.text().len() + 2;
            assert_eq!(Tags::of(&text).collect::<Vec<_>>(), [(first, tag), (second, tag)], "{text}");
        }
        assert_eq!(block("</answer><answer>a<answer>b</answer>c</answer>", Tag::Answer, Tag::AnswerEnd), Some("a<answer>b"));
        assert_eq!(block("<answer>a", Tag::Answer, Tag::AnswerEnd), None);
    }
}
