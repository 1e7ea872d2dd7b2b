//! The printable alphabet of byte-level BPE: each of the 256 bytes has one character, and the reverse.
//!
//! In: a byte or a character. Out: the other. Published GPT-2, Qwen and Llama-3 vocabularies all use this alphabet.

/// The character that stands for `byte` in a byte-level vocabulary.
pub fn to_char(byte: u8) -> char {
    if is_shown(byte) {
        return char::from(byte);
    }
    // Bytes without a printable character take the code points from 256 on, in order.
    let before = (0..byte).filter(|other| !is_shown(*other)).count();
    char::from_u32(256 + u32::try_from(before).expect("there are fewer than 256 bytes")).expect("256..512 are characters")
}

/// The bytes that the characters of a vocabulary entry stand for; `None` if one of them is not of the alphabet.
pub fn from_chars(token: &str) -> Option<Vec<u8>> {
    token.chars().map(from_char).collect()
}

fn from_char(character: char) -> Option<u8> {
    (0..=u8::MAX).find(|byte| to_char_cached(*byte) == character)
}

fn to_char_cached(byte: u8) -> char {
    static ALPHABET: std::sync::OnceLock<[char; 256]> = std::sync::OnceLock::new();
    ALPHABET.get_or_init(|| std::array::from_fn(|byte| to_char(u8::try_from(byte).expect("an index below 256"))))[usize::from(byte)]
}

fn is_shown(byte: u8) -> bool {
    matches!(byte, 33..=126 | 161..=172 | 174..=255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        let alphabet: std::collections::HashSet<char> = (0..=u8::MAX).map(to_char).collect();
        assert_eq!(alphabet.len(), 256);
        assert_eq!([to_char(b'A'), to_char(b' '), to_char(b'\n')], ['A', 'Ġ', 'Ċ']);
        assert_eq!(from_chars("ĠAé"), Some(vec![b' ', b'A', 0xE9]));
        assert_eq!(from_chars("日"), None);
    }
}
