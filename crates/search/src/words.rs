//! Words of texts and of queries, the same for everything that is searched in this process. In: a text. Out: its words. Knows no index.

use tantivy::tokenizer::{AsciiFoldingFilter, TextAnalyzer, WhitespaceTokenizer};

use crate::metrics::QUERY_CUT;

/// Words of a query that are searched; the rest is dropped and counted.
pub const MAX_WORDS: usize = 32;

/// What makes words of what [`plain_words`] gives: they end at blanks, and letters are without accents.
pub fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(WhitespaceTokenizer::default()).filter(AsciiFoldingFilter).build()
}

/// All words of a text, in order.
pub fn analysed(text: &str, analyzer: &mut TextAnalyzer) -> Vec<String> {
    let text = plain_words(text);
    let mut words = Vec::new();
    analyzer.token_stream(&text).process(&mut |token| words.push(token.text.clone()));
    words
}

/// The first words of a query, in order.
pub fn of_query(query: &str, analyzer: &TextAnalyzer) -> Vec<String> {
    let mut words = analysed(query, &mut analyzer.clone());
    if words.len() > MAX_WORDS {
        metrics::counter!(QUERY_CUT).increment(1);
        words.truncate(MAX_WORDS);
    }
    words
}

/// Lower-case words joined by blanks: runs of letters and digits. A point or comma between digits stays (4.2 and 2.4
/// would share their words otherwise), a possessive 's goes; a character of a script without blanks is a word by itself.
pub fn plain_words(text: &str) -> String {
    let text = text.to_lowercase().replace('\u{2019}', "'");
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text.chars();
    let mut before = ' ';
    while let Some(here) = rest.next() {
        let mut ahead = rest.clone();
        let (next, after) = (ahead.next().unwrap_or(' '), ahead.next().unwrap_or(' '));
        let in_number = (here == '.' || here == ',') && before.is_ascii_digit() && next.is_ascii_digit();
        let previous = std::mem::replace(&mut before, here);
        if here == '\'' && previous.is_alphanumeric() && next == 's' && !after.is_alphanumeric() {
            before = rest.next().unwrap_or(' ');
            out.push(' ');
        } else if stands_alone(here) {
            out.extend([' ', here, ' ']);
        } else if here.is_alphanumeric() || in_number {
            out.push(here);
        } else {
            out.push(' ');
        }
    }
    out
}

/// Kana and Chinese characters: nothing stands between their words.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_numbers_and_drop_the_possessive() {
        assert_eq!(plain_words("4.2 million, Mexico's St. John's"), "4.2 million  mexico  st  john ");
        assert_eq!(plain_words("'s's's 4.,2 a\u{2019}s b'st 1.2.3"), " s   4  2 a  b st 1.2.3");
    }

    #[test]
    fn scripts_without_blanks_are_read_character_by_character() {
        assert_eq!(analysed("東京は Tōkyō, Łódź", &mut analyzer()), ["東", "京", "は", "tokyo", "lodz"]);
    }
}
