//! Words of an answer as SQuAD's evaluation script compares them, and their overlap. In: texts. Out: words, whether they are the same,
//! token F1. It knows no verdict and no threshold.
//!
//! The script's rules, in its order: lower case, ASCII punctuation deleted (`e-mail` is `email`, `3.5` is `35`), articles `a`, `an`,
//! `the` dropped, split at blanks. Two things are ours:
//!
//! - Chinese and Japanese do not put blanks between words, so that the script would take a sentence for one word. As in the scripts of
//!   CMRC 2018 and MLQA, each of their letters is a word, and their punctuation is deleted too. Texts without such a letter or sign are
//!   not touched by this.
//! - An answer of nothing but articles or punctuation (`The The`, `A`, `?`) is compared with them. The script compares nothing with
//!   nothing there, and finds `a` to be `the`.

/// An answer's words, in order; none for a blank text.
pub(crate) type Words = Vec<String>;

/// The words of a text.
pub(crate) fn words(text: &str) -> Words {
    let lower = text.to_lowercase();
    let kept: String = lower.chars().filter(|letter| !letter.is_ascii_punctuation() && !is_east_asian_sign(*letter)).collect();
    let all = split(&without_articles(&kept));
    if !all.is_empty() {
        return all;
    }
    let with_articles = split(&kept);
    if with_articles.is_empty() { split_at_blanks(&lower).map(str::to_owned).collect() } else { with_articles }
}

/// Overlap of a prediction's words with an answer's, each counted as often as it is in both: the harmonic mean of the shares of both
/// that it is, 0 to 1; 0 without words.
pub(crate) fn f1(prediction: &[String], answer: &[String]) -> f64 {
    let (mut left, mut right): (Vec<&String>, Vec<&String>) = (prediction.iter().collect(), answer.iter().collect());
    left.sort_unstable();
    right.sort_unstable();
    let (mut same, mut from) = (0_u32, 0);
    for word in &left {
        while right.get(from).is_some_and(|other| other < word) {
            from += 1;
        }
        if right.get(from) == Some(word) {
            (same, from) = (same + 1, from + 1);
        }
    }
    if same == 0 {
        return 0.0;
    }
    // The script's own order of operations: the last bit agrees.
    let (precision, recall) = (f64::from(same) / left.len() as f64, f64::from(same) / right.len() as f64);
    (2.0 * precision * recall) / (precision + recall)
}

/// Every maximal run of letters and digits that is an article, as a blank.
fn without_articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let inside = first.is_alphanumeric();
        let end = rest.find(|letter: char| letter.is_alphanumeric() != inside).unwrap_or(rest.len());
        let run = &rest[..end];
        out.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = &rest[end..];
    }
    out
}

/// At blanks; and where letters are words, at each of them. Signs that then stand beside such letters or around the words between them
/// (a quotation mark, a dash) go.
fn split(text: &str) -> Words {
    let mut out = Words::new();
    for part in split_at_blanks(text) {
        if !part.chars().any(is_word_of_its_own) {
            out.push(part.to_owned());
            continue;
        }
        let mut run = String::new();
        for letter in part.chars() {
            if is_word_of_its_own(letter) {
                take(&mut run, &mut out);
                out.push(letter.to_string());
            } else {
                run.push(letter);
            }
        }
        take(&mut run, &mut out);
    }
    out
}

fn take(run: &mut String, out: &mut Words) {
    let run = std::mem::take(run);
    let word = run.trim_matches(|letter: char| !letter.is_alphanumeric());
    if !word.is_empty() {
        out.push(word.to_owned());
    }
}

/// Blanks as Python's `str.split` has them: those of Unicode and the four separators of ASCII.
fn split_at_blanks(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| letter.is_whitespace() || matches!(letter, '\u{1c}'..='\u{1f}')).filter(|part| !part.is_empty())
}

/// Han, Hiragana, Katakana, Bopomofo.
pub(crate) fn is_word_of_its_own(letter: char) -> bool {
    matches!(letter,
        '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{3096}' | '\u{309d}'..='\u{309f}' | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}'
        | '\u{3105}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9d}' | '\u{1b000}'..='\u{1b16f}' | '\u{20000}'..='\u{3ffff}')
}

/// Punctuation of East Asian typography: ideographic, and the wide forms of ASCII's.
fn is_east_asian_sign(letter: char) -> bool {
    matches!(letter,
        '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{3030}' | '\u{303d}' | '\u{30a0}' | '\u{30fb}'
        | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}' | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_script() {
        for (text, want) in [
            ("The Eiffel Tower.", vec!["eiffel", "tower"]),
            ("e-mail, 3.5  an\tA\u{a0}b", vec!["email", "35", "b"]),
            ("the’s anthem theatre", vec!["’s", "anthem", "theatre"]),
            ("", vec![]),
            (" \n", vec![]),
        ] {
            assert_eq!(words(text), want, "{text:?}");
        }
    }

    #[test]
    fn letters_of_scripts_without_blanks_are_words() {
        for (text, want) in [
            ("北京大学。", vec!["北", "京", "大", "学"]),
            ("“北京”（Beijing）", vec!["北", "京", "beijing"]),
            ("iPhone15手机", vec!["iphone15", "手", "机"]),
            ("東京タワー", vec!["東", "京", "タ", "ワ", "ー"]),
            ("서울 대학교", vec!["서울", "대학교"]),
        ] {
            assert_eq!(words(text), want, "{text:?}");
        }
    }

    #[test]
    fn an_answer_of_articles_or_signs_is_compared_with_them() {
        assert_eq!((words("The The"), words("A."), words("?!")), (vec!["the".into(), "the".into()], vec!["a".into()], vec!["?!".into()]));
        assert_eq!((f1(&words("the"), &words("a")), f1(&words("a"), &words("A"))), (0.0, 1.0));
    }
}
