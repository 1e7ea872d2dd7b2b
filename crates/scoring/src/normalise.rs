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
    let folded = fold(text);
    let words: Vec<String> = spaced(&folded).split_whitespace().map(number).collect();
    let kept: Vec<&str> = words.iter().map(String::as_str).filter(|word| !matches!(*word, "a" | "an" | "the")).collect();
    if kept.is_empty() { words.join(" ") } else { kept.join(" ") }
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
fn spaced(text: &[char]) -> String {
    let digit = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(char::is_ascii_digit);
    let mut out = String::with_capacity(text.len() + 8);
    for (at, &letter) in text.iter().enumerate() {
        let before = digit(at.checked_sub(1));
        let after = digit(Some(at + 1));
        match letter {
            ',' if before && after && groups_thousands(text, at) => {}
            '.' if before && after => out.push('.'),
            // A sign counts at the start of a word only: "5-6" is a range, "-5" is a number.
            '-' | '\u{2212}' if after && (at == 0 || text[at - 1].is_whitespace()) => out.push_str(" -"),
            '\'' | '\u{2019}' | '\u{2018}' | '`' | '.' | '^' | '°' => {}
            '&' => out.push_str(" and "),
            '%' => out.push_str(" percent "),
            '$' | '€' | '£' | '¥' => {
                out.push(' ');
                out.push(letter);
                out.push(' ');
            }
            _ if letter.is_alphanumeric() || is_combining_mark(letter) => {
                if before && letter.is_alphabetic() {
                    out.push(' ');
                }
                out.push(letter);
            }
            _ => out.push(' '),
        }
    }
    out
}

/// True when the comma at `at` is followed by exactly three digits, as in 12,345,678.
fn groups_thousands(text: &[char], at: usize) -> bool {
    let run = text[at + 1..].iter().take_while(|letter| letter.is_ascii_digit()).count();
    run == 3
}

/// 3.50 and 3.5, 7.0 and 7 are the same number; other words stay.
fn number(word: &str) -> String {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let plain = digits.chars().all(|letter| letter.is_ascii_digit() || letter == '.') && digits.matches('.').count() == 1;
    if plain { word.trim_end_matches('0').trim_end_matches('.').to_owned() } else { word.to_owned() }
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

    #[test]
    fn an_article_alone_is_an_answer() {
        assert_eq!(normalise("A"), "a");
        assert_eq!(normalise("!?"), "");
    }
}
