//! The form in which two spellings of one answer are equal. In: text. Out: lower-case words joined by single blanks.
//!
//! It knows spelling, not meaning: no synonyms, no unit conversion, no rounding.

use smallvec::SmallVec;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Normalised text, of several answers one behind the other: those of most tasks need no memory of their own.
pub(crate) type Form = SmallVec<[u8; 256]>;

/// Normalises an answer. Two answers that a careful reader takes for the same spelling give the same text.
///
/// Compatibility forms are folded (full-width letters, ligatures), marks on Latin letters dropped, articles dropped unless
/// nothing else is left, grouping commas and trailing decimal zeros dropped, digits and a unit after them separated.
///
/// The form is put behind what `out` holds.
pub(crate) fn normalise(text: &str, out: &mut Form) {
    if plain(text, out) {
        return;
    }
    let from = out.len();
    let folded = fold(text);
    for articles in [false, true] {
        let mut words = Words { start: from, out, articles };
        space(&folded, &mut words);
        words.end();
        if out.len() > from {
            // The blank behind the last word.
            out.pop();
            return;
        }
    }
}

/// Most answers are letters, blanks and stops, and no articles alone: those are gone through once. Of any other nothing is
/// put, and the answer is false.
fn plain(text: &str, out: &mut Form) -> bool {
    let from = out.len();
    out.extend_from_slice(text.as_bytes());
    out.push(b' ');
    let form = &mut out[from..];
    let (mut start, mut end) = (0, 0);
    for byte in text.bytes().chain([b' ']) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {
                form[end] = byte.to_ascii_lowercase();
                end += 1;
            }
            b'\'' | b'`' | b'.' | b'^' => {}
            b'0'..=b'9' | b'&' | b'%' | b'$' | 0x80.. => {
                start = 0;
                break;
            }
            _ if matches!(&form[start..end], b"" | b"a" | b"an" | b"the") => end = start,
            _ => {
                form[end] = b' ';
                end += 1;
                start = end;
            }
        }
    }
    // Without the blank behind the last word.
    out.truncate(from + start.saturating_sub(1));
    start > 0
}

/// Words as they are found, each with a blank behind it.
struct Words<'a> {
    out: &'a mut Form,
    /// Where the word begins that is being written.
    start: usize,
    /// Whether articles stay.
    articles: bool,
}

impl Words<'_> {
    fn put(&mut self, letter: char) {
        self.out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// A word by itself.
    fn word(&mut self, word: &str) {
        self.end();
        self.out.extend_from_slice(word.as_bytes());
        self.end();
    }

    /// What comes next is another word.
    fn end(&mut self) {
        let word = &self.out[self.start..];
        if word.is_empty() {
            return;
        }
        if !self.articles && matches!(word, b"a" | b"an" | b"the") {
            self.out.truncate(self.start);
            return;
        }
        let kept = number(word);
        self.out.truncate(self.start + kept);
        self.out.push(b' ');
        self.start = self.out.len();
    }
}

/// Compatibility decomposition, lower case, no accents on Latin letters.
fn fold(text: &str) -> Vec<char> {
    if text.is_ascii() {
        return text.chars().map(|letter| letter.to_ascii_lowercase()).collect();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut base = ' ';
    for letter in text.nfkd() {
        if is_combining_mark(letter) {
            // Only on Latin letters: elsewhere (Devanagari, Hebrew, Japanese) a mark makes another letter.
            if !base.is_ascii_alphabetic() {
                out.push(letter);
            }
            continue;
        }
        base = letter;
        for lower in letter.to_lowercase() {
            match latin(lower) {
                Some(letters) => out.extend(letters.chars()),
                // `İ` lower-cases to `i` and a mark.
                None if is_combining_mark(lower) => {}
                None => out.push(lower),
            }
        }
    }
    out
}

/// Latin letters that do not decompose.
fn latin(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'ł' => "l",
        'đ' | 'ð' => "d",
        'þ' => "th",
        'ħ' => "h",
        'ı' => "i",
        'ŋ' => "n",
        _ => return None,
    })
}

/// Drops or spaces out everything that is neither letter nor digit, with an eye on numbers.
fn space(text: &[char], words: &mut Words<'_>) {
    let digit = |at: usize| text.get(at).is_some_and(char::is_ascii_digit);
    for (at, letter) in text.iter().copied().enumerate() {
        let before = at.checked_sub(1).map(|at| text[at]);
        let behind_digit = before.is_some_and(|letter| letter.is_ascii_digit());
        match letter {
            ',' if behind_digit && groups_thousands(&text[at + 1..]) => {}
            '.' if behind_digit && digit(at + 1) => words.put('.'),
            // A sign counts at the start of a word only: "5-6" is a range, "-5" is a number.
            '-' | '\u{2212}' if digit(at + 1) && before.is_none_or(char::is_whitespace) => {
                words.end();
                words.put('-');
            }
            '\'' | '\u{2019}' | '\u{2018}' | '`' | '.' | '^' | '°' => {}
            '&' => words.word("and"),
            '%' => words.word("percent"),
            '$' | '€' | '£' | '¥' => words.word(letter.encode_utf8(&mut [0; 4])),
            _ if letter.is_alphanumeric() || is_combining_mark(letter) => {
                if behind_digit && letter.is_alphabetic() {
                    words.end();
                }
                words.put(letter);
            }
            _ => words.end(),
        }
    }
}

/// True when exactly three digits come, as behind the commas of 12,345,678.
fn groups_thousands(text: &[char]) -> bool {
    text.iter().take(4).take_while(|letter| letter.is_ascii_digit()).count() == 3
}

/// How much of a word counts: 3.50 and 3.5, 7.0 and 7 are the same number; other words stay.
fn number(word: &[u8]) -> usize {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    let mut points = digits.iter().filter(|letter| !letter.is_ascii_digit());
    if points.next() != Some(&b'.') || points.next().is_some() {
        return word.len();
    }
    let kept = word.iter().rposition(|letter| *letter != b'0').expect("there is a point");
    if word[kept] == b'.' { kept } else { kept + 1 }
}

#[cfg(test)]
mod tests {
    fn normalise(text: &str) -> String {
        let mut out = super::Form::from_slice(b"before");
        super::normalise(text, &mut out);
        String::from_utf8(out[6..].to_vec()).expect("whole letters were put in")
    }

    #[test]
    fn spellings_of_one_answer_agree() {
        for (left, right) in [
            ("The Netherlands", "netherlands"),
            ("São Tomé & Príncipe", "sao tome and principe"),
            ("1,000", "1000"),
            ("12,345,678 km²", "12345678km2"),
            ("3.50", "3.5"),
            ("7.0 m", "7m"),
            ("U.S.A.", "usa"),
            ("St. John's", "St Johns"),
            ("Ｔｏｋｙｏ", "tokyo"),
            ("Straße", "strasse"),
            ("Łódź", "lodz"),
            ("İstanbul", "istanbul"),
            ("50%", "50 percent"),
            ("  new\n york ", "New York"),
            ("Guinea-Bissau", "guinea bissau"),
        ] {
            assert_eq!(normalise(left), normalise(right), "{left} / {right}");
        }
    }

    #[test]
    fn different_answers_stay_different() {
        for (left, right) in [("-5", "5"), ("1.5", "15"), ("1,5", "15"), ("$5", "£5"), ("Niger", "Nigeria"), ("か", "が"), ("100", "1")]
        {
            assert_ne!(normalise(left), normalise(right), "{left} / {right}");
        }
    }

    /// The way for plain text and the way for any text are one: a letter that decomposes to nothing else is put behind.
    #[test]
    fn plain_text_is_normalised_as_any_other() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(9);
        for _ in 0..5000 {
            let text: String = (0..random.random_range(0..14)).map(|_| char::from(random.random_range(0x20..0x7f_u8))).collect();
            assert_eq!(format!("{} ж", normalise(&format!("{text} b"))), normalise(&format!("{text} b ж")), "{text:?}");
        }
    }

    #[test]
    fn an_article_alone_is_an_answer() {
        assert_eq!(normalise("A"), "a");
        assert_eq!(normalise("!?"), "");
    }
}
