//! The form in which two spellings of one answer are equal. In: text. Out: lower-case words joined by single blanks.
//!
//! It knows spelling, not meaning: no synonyms, no unit conversion, no rounding. `docs/judges.md` says what counts;
//! `tests/data/spellings.jsonl` is the table that holds it to that.
//!
//! [`fold`] makes letters comparable, [`number`] reads numbers, [`words`] puts the form together.

mod fold;
mod number;
mod words;

use smallvec::SmallVec;

/// Normalised text, of several answers one behind the other: those of most tasks need no memory of their own.
pub(crate) type Form = SmallVec<[u8; 256]>;

/// Normalises an answer. Two answers that a careful reader takes for the same spelling give the same text; what is in that
/// form already stays as it is.
///
/// The form is put behind what `out` holds.
pub(crate) fn normalise(text: &str, out: &mut Form) {
    if !plain(text, out) {
        any(text, out);
    }
}

/// As [`normalise`], of any text.
fn any(text: &str, out: &mut Form) {
    let from = out.len();
    words::read(&fold::fold(text), out);
    // What is dropped may leave a sign with nothing to belong to, so a form is read until it stays as it is. Most do at once.
    for _ in 0..4 {
        let Ok(form) = std::str::from_utf8(&out[from..]) else { return };
        let again = fold::fold(form);
        let end = out.len();
        words::read(&again, out);
        if out[from..end] == out[end..] {
            out.truncate(end);
            return;
        }
        out.drain(from..end);
    }
}

/// Most answers are letters, blanks and stops, and no articles alone: those are gone through once. Of any other nothing is
/// put, and the answer is false.
fn plain(text: &str, out: &mut Form) -> bool {
    let from = out.len();
    out.extend_from_slice(text.as_bytes());
    out.push(b' ');
    let form = &mut out[from..];
    let bytes = text.as_bytes();
    let letter = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_alphabetic);
    let (mut start, mut end, mut held) = (0, 0, false);
    for (at, byte) in bytes.iter().copied().chain([b' ']).enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {
                form[end] = byte.to_ascii_lowercase();
                end += 1;
                continue;
            }
            // Initials may go on behind blanks.
            b'.' if end - start == 1 && bytes.get(at + 1).is_some_and(u8::is_ascii_whitespace) => {
                start = 0;
                break;
            }
            b'\'' | b'`' | b'.' => continue,
            b' ' | b',' | b';' | b':' | b'!' | b'?' | b'(' | b')' | b'\t' | b'\n' | b'\r' => {}
            b'-' if letter(at.checked_sub(1)) && letter(Some(at + 1)) => {}
            // Digits, signs and what is not ASCII need a closer look.
            _ => {
                start = 0;
                break;
            }
        }
        match &form[start..end] {
            b"" => {}
            word @ (b"a" | b"an" | b"the") => {
                held = word == b"a";
                end = start;
            }
            _ => {
                held = false;
                form[end] = b' ';
                end += 1;
                start = end;
            }
        }
    }
    // An `a` at the end may be no article.
    start = if held { 0 } else { start };
    // Without the blank behind the last word.
    out.truncate(from + start.saturating_sub(1));
    start > 0
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

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
        let mut random = StdRng::seed_from_u64(9);
        for _ in 0..5000 {
            let text: String = (0..random.random_range(0..14)).map(|_| char::from(random.random_range(0x20..0x7f_u8))).collect();
            assert_eq!(format!("{} ж", normalise(&format!("{text} b"))), normalise(&format!("{text} b ж")), "{text:?}");
        }
        // And of letters, blanks and stops alone, where the quick way is the usual one.
        for _ in 0..20_000 {
            let letters = b"aathen  .,'-!(`";
            let text: String = (0..random.random_range(0..9)).map(|_| char::from(letters[random.random_range(0..letters.len())])).collect();
            let mut slow = super::Form::new();
            super::any(&text, &mut slow);
            assert_eq!(normalise(&text).as_bytes(), &slow[..], "{text:?}");
        }
    }

    #[test]
    fn an_article_alone_is_an_answer() {
        assert_eq!(normalise("A"), "a");
        assert_eq!(normalise("!?"), "");
        assert_eq!(normalise("Vitamin A"), "vitamin a");
        assert_eq!(normalise("Beatles, The"), normalise("the Beatles"));
    }

    /// Pieces that matter to the rules, in any order: a form is a form of itself, whatever it is of, and no text panics.
    #[test]
    fn a_form_is_its_own_form() {
        const PIECES: [&str; 78] = [
            "a",
            "the",
            "A",
            "b",
            "C",
            "km",
            "x",
            "Paris",
            "Ω",
            "ς",
            "か",
            "゛",
            "ı",
            "ﬁ",
            "½",
            "5",
            "0",
            "1",
            "12",
            "000",
            "345",
            "000",
            "٣",
            "５",
            "²",
            "⁻",
            "⁺",
            "₂",
            "①",
            "㎡",
            "°",
            "º",
            "-",
            "−",
            "–",
            "—",
            "+",
            "±",
            ".",
            ",",
            "'",
            "’",
            "ʻ",
            "´",
            "\"",
            "″",
            "′",
            "(",
            ")",
            "[",
            "*",
            "**",
            "#",
            "^",
            "_",
            "/",
            "⁄",
            "<",
            ">",
            "=",
            "~",
            "≈",
            "∞",
            "$",
            "€",
            "%",
            "‰",
            "&",
            " ",
            " ",
            "\u{a0}",
            "\u{200b}",
            "\u{ad}",
            "\u{338}",
            "\u{301}",
            "\u{1f1eb}",
            "×",
            "‱",
        ];
        let mut random = StdRng::seed_from_u64(17);
        for _ in 0..200_000 {
            let text: String = (0..random.random_range(0..10)).map(|_| PIECES[random.random_range(0..PIECES.len())]).collect();
            let form = normalise(&text);
            assert_eq!(normalise(&form), form, "{text:?}");
            assert!(!form.starts_with(' ') && !form.ends_with(' ') && !form.contains("  "), "{text:?}: {form:?}");
        }
    }
}
