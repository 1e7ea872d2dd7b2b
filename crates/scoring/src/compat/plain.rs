//! A call in the layout that policies write: `{"name": "..", "arguments": {"..": ".."}}`. In: text. Out: its parts, borrowed.
//!
//! Anything else (an escape, another kind of value, a third level) is left to who reads all of JSON. What is read here is read there
//! to the same parts, several times slower.

use super::call::{Arguments, Call, Name};

/// The call, if it is written in that layout.
pub(super) fn call(json: &str) -> Option<Call<'_>> {
    let mut call = Call::default();
    let mut cursor = Cursor { json, at: 0 };
    cursor.object(|cursor, key| {
        match key {
            "name" => call.name = Some(Name::Text(cursor.string()?)),
            "arguments" => cursor.arguments(&mut call.arguments)?,
            _ => return None,
        }
        Some(())
    })?;
    cursor.blanks();
    (cursor.at == json.len()).then_some(call)
}

struct Cursor<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn arguments(&mut self, arguments: &mut Arguments) -> Option<()> {
        *arguments = Arguments::default();
        self.object(|cursor, key| {
            let value = cursor.string()?;
            arguments.put(key, || value);
            Some(())
        })
    }

    /// An object whose values are read by `member`.
    #[inline]
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            let key = self.string()?;
            self.take(b':')?;
            member(self, key)?;
            if self.take(b',').is_none() {
                return self.take(b'}');
            }
        }
    }

    /// A string that means what it shows.
    #[inline]
    fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let from = self.at;
        let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..b' ');
        let to = from + self.json.as_bytes()[from..].iter().position(special)?;
        self.take_at(to, b'"')?;
        Some(&self.json[from..to])
    }

    /// One byte, blanks before it aside.
    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        if self.take_at(self.at, byte).is_some() {
            return Some(());
        }
        self.blanks();
        self.take_at(self.at, byte)
    }

    #[inline]
    fn take_at(&mut self, at: usize, byte: u8) -> Option<()> {
        (*self.json.as_bytes().get(at)? == byte).then(|| self.at = at + 1)
    }

    #[inline]
    fn blanks(&mut self) {
        while matches!(self.json.as_bytes().get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_read_here_is_read_by_the_reader_of_all_json_to_the_same_parts() {
        // Pieces of calls in any order: most are no JSON, some are plain, some are not.
        let pieces = [
            "{",
            "}",
            "\"",
            ":",
            ",",
            " ",
            "\n",
            "\\",
            "\\u0041",
            "|",
            "é",
            "\u{3000}",
            "\u{1}",
            "[",
            "]",
            "null",
            "7",
            "\"name\":",
            "\"arguments\":",
            "\"text_search\"",
            "\"input\":",
            "\"a|b\"",
            "\"image_id\":",
            "\"img_id\":",
            "\"other\":",
            "{\"name\": \"text_search\", \"arguments\": ",
            "{\"input\": \"a||b\"}",
            "{\"img_id\": \"1|2\", \"x\": \"\"}",
            "{}",
        ];
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let mut plain = 0;
        for _ in 0..200_000 {
            let text: String = (0..random.random_range(1..9)).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
            if let Some(read) = call(&text) {
                let any = Call::of_any(&text);
                assert_eq!((json!(read.name), read.arguments), (json!(any.name), any.arguments), "{text}");
                plain += 1;
            }
        }
        assert!(plain > 1000, "only {plain} calls were plain");
    }
}
