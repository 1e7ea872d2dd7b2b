//! The form in which two spellings of one answer are equal. In: text. Out: lower-case words joined by single blanks.
//!
//! It knows spelling, not meaning: no synonyms, no unit conversion, no rounding.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Normalises an answer. Two answers that a careful reader takes for the same spelling give the same text.
///
/// Compatibility forms are folded (full-width letters, ligatures), marks on Latin letters dropped, articles dropped unless
/// nothing else is left, grouping commas and trailing decimal zeros dropped, digits and a unit after them separated.
pub(crate) fn normalise(text: &str) -> String {
    // Most answers are plain; the rest is decomposed letter by letter first.
    let mut spaced = Vec::with_capacity(text.len() + 8);
    if text.is_ascii() {
        space(text.as_bytes(), |letter| char::from(letter.to_ascii_lowercase()), &mut spaced);
    } else {
        space(&fold(text), |letter| *letter, &mut spaced);
    }
    let spaced = String::from_utf8(spaced).expect("whole letters were put in");
    let mut words = String::with_capacity(spaced.len());
    let mut put = |word: &str| {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(number(word));
    };
    spaced.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the")).for_each(&mut put);
    if words.is_empty() { spaced.split_whitespace().map(number).collect::<Vec<_>>().join(" ") } else { words }
}

/// Compatibility decomposition, lower case, no accents on Latin letters.
fn fold(text: &str) -> Vec<char> {
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
            match plain(lower) {
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
fn plain(letter: char) -> Option<&'static str> {
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
fn space<T>(text: &[T], letter_of: impl Fn(&T) -> char, out: &mut Vec<u8>) {
    let letter_at = |at: usize| text.get(at).map(&letter_of);
    let digit = |at: Option<usize>| at.and_then(letter_at).is_some_and(|letter| letter.is_ascii_digit());
    let put = |out: &mut Vec<u8>, letter: char| match u8::try_from(letter).ok().filter(u8::is_ascii) {
        Some(byte) => out.push(byte),
        None => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
    };
    for at in 0..text.len() {
        let letter = letter_of(&text[at]);
        match letter {
            'a'..='z' | ' ' if !digit(at.checked_sub(1)) => out.push(letter as u8),
            ',' if digit(at.checked_sub(1)) && digit(Some(at + 1)) && groups_thousands(at, letter_at) => {}
            '.' if digit(at.checked_sub(1)) && digit(Some(at + 1)) => out.push(b'.'),
            // A sign counts at the start of a word only: "5-6" is a range, "-5" is a number.
            '-' | '\u{2212}' if digit(Some(at + 1)) && (at == 0 || letter_at(at - 1).is_some_and(char::is_whitespace)) => {
                out.extend_from_slice(b" -");
            }
            '\'' | '\u{2019}' | '\u{2018}' | '`' | '.' | '^' | '°' => {}
            '&' => out.extend_from_slice(b" and "),
            '%' => out.extend_from_slice(b" percent "),
            '$' | '€' | '£' | '¥' => {
                out.push(b' ');
                put(out, letter);
                out.push(b' ');
            }
            _ if letter.is_alphanumeric() || is_combining_mark(letter) => {
                if letter.is_alphabetic() && digit(at.checked_sub(1)) {
                    out.push(b' ');
                }
                put(out, letter);
            }
            _ => out.push(b' '),
        }
    }
}

/// True when the comma at `at` is followed by exactly three digits, as in 12,345,678.
fn groups_thousands(at: usize, letter_at: impl Fn(usize) -> Option<char>) -> bool {
    (at + 1..).take_while(|at| letter_at(*at).is_some_and(|letter| letter.is_ascii_digit())).take(4).count() == 3
}

/// 3.50 and 3.5, 7.0 and 7 are the same number; other words stay.
fn number(word: &str) -> &str {
    if !word.contains('.') {
        return word;
    }
    let digits = word.strip_prefix('-').unwrap_or(word);
    let plain = digits.chars().all(|letter| letter.is_ascii_digit() || letter == '.') && digits.matches('.').count() == 1;
    if plain { word.trim_end_matches('0').trim_end_matches('.') } else { word }
}

#[cfg(test)]
mod tests {
    use super::normalise;

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
