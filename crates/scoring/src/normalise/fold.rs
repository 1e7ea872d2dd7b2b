//! Letters made comparable: compatibility forms, letter case, marks, signs that look alike, digits of all scripts, and
//! what cannot be seen. In: text. Out: lower-case letters and the few signs that [`super::words`] knows.
//!
//! Compatibility forms are folded where that does not change a number: `10²` becomes `10^2`, `1½` a one and a half.

use std::iter::Peekable;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{decompose_compatible, is_combining_mark};

/// A blank that does not end a line: between the digits of a number it groups them.
pub(super) const NARROW: char = '\u{1f}';
/// Where a word ends though nothing stands there.
pub(super) const BOUNDARY: char = '\u{1e}';
/// What follows is lowered: the base of a number.
pub(super) const LOWERED: char = '\u{1d}';

/// Folds a text.
pub(super) fn fold(text: &str) -> Vec<char> {
    if text.is_ascii() {
        let kept = text.chars().filter(|letter| !letter.is_control() || letter.is_whitespace());
        return kept.map(|letter| if letter.is_whitespace() { ' ' } else { similar(letter.to_ascii_lowercase()) }).collect();
    }
    let mut out = Vec::with_capacity(text.len());
    for letter in spelled_out(text).nfkd() {
        if is_combining_mark(letter) {
            // Not on Latin letters, nor where a dropped sign stands, nor where it may be left out: elsewhere (Devanagari, Japanese,
            // signs of mathematics) a mark makes another letter. A frame around a letter is none.
            let base = out.last().copied().unwrap_or(' ');
            let counts = !base.is_ascii() && base != '°' || base.is_ascii_digit() || matches!(base, '=' | '<' | '>' | '~');
            if counts && !optional(base, letter) && !('\u{20dd}'..='\u{20e4}').contains(&letter) {
                out.push(letter);
            }
            continue;
        }
        for lower in letter.to_lowercase() {
            match latin(lower) {
                Some(letters) => out.extend(letters.chars()),
                // `İ` lower-cases to `i` and a mark.
                None if is_combining_mark(lower) => {}
                None => out.push(similar(lower)),
            }
        }
    }
    out
}

/// Whether writers leave a mark out as they like: on Greek letters, which lose it in capitals; the dots of a Cyrillic `ё` and the
/// stress of Cyrillic vowels; the vowels of Hebrew and Arabic.
fn optional(base: char, mark: char) -> bool {
    let vowel = matches!(mark, '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}')
        || matches!(mark, '\u{64b}'..='\u{652}' | '\u{670}');
    let stressed = "аеиоуыэюя".contains(base) && matches!(mark, '\u{300}' | '\u{301}') || base == '\u{435}' && mark == '\u{308}';
    vowel || stressed || ('\u{370}'..='\u{3ff}').contains(&base)
}

/// What compatibility decomposition would take the meaning from, in letters that it leaves alone.
fn spelled_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut letters = text.nfc().filter(|letter| !invisible(*letter)).peekable();
    // The last letter on the line, and whether what follows it is raised or lowered.
    let (mut before, mut shifted) = (' ', false);
    while let Some(letter) = letters.next() {
        let was_shifted = std::mem::take(&mut shifted);
        let behind_number = digit(before).is_some() || matches!(before, ')' | ']' | '}');
        match letter {
            _ if raised(letter).is_some() || lowered(letter).is_some() => {
                let mark = if raised(letter).is_some() { '^' } else { LOWERED };
                if behind_number && !was_shifted {
                    out.push(mark);
                }
                out.extend(raised(letter).or(lowered(letter)));
                shifted = was_shifted || behind_number;
                continue;
            }
            '⁺' | '⁻' => {
                // Of an exponent, or of an ion.
                if letters.peek().copied().and_then(raised).is_some() {
                    out.push('^');
                    shifted = true;
                }
                match letter {
                    '⁻' => out.push('-'),
                    _ if !shifted => out.push('+'),
                    _ => {}
                }
                continue;
            }
            '₊' => out.push('+'),
            '₋' => out.push('-'),
            '⁄' | '∕' => out.push('/'),
            '٬' => out.push(','),
            '٫' => out.push('.'),
            '٪' => out.push('%'),
            '♯' => out.push('#'),
            '™' | '℠' | '®' | '©' => {}
            '˝' => out.push('"'),
            '˚' => out.push('°'),
            'º' if followed_by_scale(&mut letters) => out.push('°'),
            '\u{309b}' => out.push('\u{3099}'),
            '\u{309c}' => out.push('\u{309a}'),
            '\u{a0}' | '\u{2007}'..='\u{2009}' | '\u{202f}' | '\u{205f}' => out.push(NARROW),
            _ if letter.is_whitespace() || letter == '\u{2800}' => out.push(' '),
            _ => match digit(letter) {
                Some(digit) => out.push(digit),
                None => decomposed(letter, &mut out),
            },
        }
        before = letter;
    }
    out
}

/// A letter whose decomposition would run into its neighbours is set apart from them.
fn decomposed(letter: char, out: &mut String) {
    let (mut first, mut last, mut count) = (None, letter, 0);
    decompose_compatible(letter, |part| {
        first.get_or_insert(part);
        (last, count) = (part, count + 1);
    });
    let first = first.unwrap_or(letter);
    match first {
        // An accent that stands by itself; used as an apostrophe where it looks like one.
        ' ' if count > 1 => {
            if matches!(letter, '´' | '΄' | '᾽' | '᾿') {
                out.push('\'');
            }
        }
        _ if first != letter && (first.is_ascii_digit() || last.is_ascii_digit() || first == '(') => {
            out.push(BOUNDARY);
            decompose_compatible(letter, |part| out.push(if part == '⁄' { '/' } else { part }));
            out.push(BOUNDARY);
        }
        _ => out.push(letter),
    }
}

/// Whether the name of a temperature scale comes: a masculine ordinal is then typed for a degree.
fn followed_by_scale(letters: &mut Peekable<impl Iterator<Item = char>>) -> bool {
    letters.peek().is_some_and(|next| matches!(next, 'c' | 'C' | 'f' | 'F'))
}

/// Signs that are typed for one another, as one of them.
fn similar(letter: char) -> char {
    match letter {
        '`'
        | '\u{2018}'
        | '\u{2019}'
        | '\u{201b}'
        | '\u{2032}'
        | '\u{2035}'
        | '\u{2b9}'..='\u{2bf}'
        | '\u{2c8}'
        | '\u{2ca}'
        | '\u{2cb}' => '\'',
        // Armenian, Hebrew, NKo; the saltillo, which is a letter.
        '\u{55a}' | '\u{5f3}' | '\u{7f4}' | '\u{7f5}' | '\u{a78b}' | '\u{a78c}' => '\'',
        '\u{201c}'..='\u{201f}' | '\u{5f4}' => '"',
        '\u{2010}'..='\u{2013}' | '\u{2212}' | '\u{2d7}' | '\u{2043}' => '-',
        '\u{2217}' => '*',
        '\u{223c}' | '\u{301c}' => '~',
        'ς' => 'σ',
        _ => letter,
    }
}

/// What takes no place on paper.
fn invisible(letter: char) -> bool {
    match letter {
        _ if letter.is_control() => !letter.is_whitespace(),
        // Soft hyphen, joiners, marks and brackets of direction, variation selectors, tags, fillers, and the Arabic line that
        // only makes a word longer.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{640}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' => true,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' => true,
        '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    }
}

fn raised(letter: char) -> Option<char> {
    let value = match letter {
        '¹' => 1,
        '²' => 2,
        '³' => 3,
        '⁰' | '⁴'..='⁹' => u32::from(letter) - 0x2070,
        _ => return None,
    };
    char::from_digit(value, 10)
}

fn lowered(letter: char) -> Option<char> {
    matches!(letter, '₀'..='₉').then(|| u32::from(letter) - 0x2080).and_then(|value| char::from_digit(value, 10))
}

/// The decimal digit that a letter of any script is (Unicode, general category Nd).
fn digit(letter: char) -> Option<char> {
    /// The zeros; nine more digits follow each.
    const ZEROS: [u32; 66] = [
        0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20, 0x1040,
        0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0,
        0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730,
        0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140,
        0x1e2f0, 0x1e950, 0x1fbf0,
    ];
    let code = u32::from(letter);
    let zero = ZEROS[ZEROS.partition_point(|zero| *zero <= code).checked_sub(1)?];
    char::from_digit(code - zero, 10)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_or_means_alike_is_written_alike() {
        let fold = |text: &str| super::fold(text).into_iter().collect::<String>();
        for (text, want) in [
            ("10²", "10^2"),
            ("10⁻⁶", "10^-6"),
            ("km²", "km2"),
            ("H₂O", "h2o"),
            ("Na⁺", "na+"),
            ("٣٫٥", "3.5"),
            ("Par\u{200b}is", "paris"),
            ("Cote d´Ivoire", "cote d'ivoire"),
            ("ΟΔΟΣ οδος", "οδοσ οδοσ"),
            ("か゛", "か\u{3099}"),
            ("ΑΘΉΝΑ Ἀθήνα", "αθηνα αθηνα"),
            ("ЁЛКА йод Москва\u{301} ѓ", "елка и\u{306}од москва г\u{301}"),
            ("שָׁלוֹם مُحَمَّد آل", "שלום محمد ا\u{653}ل"),
            ("20 ºC", "20 °c"),
        ] {
            assert_eq!(fold(text), want, "{text}");
        }
        assert_eq!(fold("10₂"), format!("10{LOWERED}2"));
        assert_eq!(fold("1½"), format!("1{BOUNDARY}1/2{BOUNDARY}"));
        assert_eq!(digit('\u{66a}'), None);
    }
}
