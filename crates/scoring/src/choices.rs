//! Multiple choice: which option a text names. In: a question with its options, a text. Out: a letter, or none. It knows no verdict.
//!
//! A letter is read where a text states it as its choice, in the forms that [`Stated`] lists; a letter somewhere in a sentence is none.
//! An option's own text names it as well, where the question lists the options. A text that states two letters, denies one, or states a
//! letter beside the text of another option, names none.

use unicode_normalization::UnicodeNormalization;

use crate::squad::{Words, is_word_of_its_own, words};

/// Letters that are options where the question lists none.
const UNLISTED: std::ops::RangeInclusive<char> = 'A'..='J';

/// Places of a question that are looked at for options: runs are sought from each to all behind it.
const MOST_MARKS: usize = 256;
/// Letters in a row that are looked at: two that differ are too many already.
const MOST_JOINED: usize = 16;

/// Options of a question, in order; none where it lists none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choices(Vec<(char, Words)>);

impl Choices {
    /// The longest run `A.`, `B.`, `C.` .. of a question, of two options at least; of several that of which most begin a line, which
    /// initials within an option do not (`A. Stephen A. Smith`), then the last. `A)`, `(A)`, `A:` and `A、` do as well, each option on a
    /// line or one after the other.
    pub(crate) fn of(question: &str) -> Self {
        let text = plain(question);
        let tokens = tokens(&text);
        let marks: Vec<(usize, char, &str)> = (0..tokens.len()).filter_map(|at| mark(&tokens, at)).take(MOST_MARKS).collect();
        let begins_line = |at: usize| tokens[marks[at].0].begins_line;
        let (mut best, mut best_rank): (Vec<usize>, _) = (vec![], (2, 0));
        for first in (0..marks.len()).filter(|at| matches!(marks[*at].1, 'A' | 'a')) {
            for anywhere in [true, false] {
                let mut run = vec![first];
                for next in (first + 1..marks.len()).filter(|next| anywhere || begins_line(*next)) {
                    let (before, this) = (&marks[run[run.len() - 1]], &marks[next]);
                    if this.1 as u32 == before.1 as u32 + 1 && this.2 == before.2 {
                        run.push(next);
                    }
                }
                let rank = (run.len(), run.iter().filter(|at| begins_line(**at)).count());
                if rank >= best_rank {
                    (best, best_rank) = (run, rank);
                }
            }
        }
        let option = |(at, mark): (usize, &usize)| {
            let from = tokens[marks[*mark].0 + 1].end;
            let until = best.get(at + 1).map(|next| {
                let letter = marks[*next].0;
                let opened = letter.checked_sub(1).filter(|before| is_open(&tokens[*before]));
                tokens[opened.unwrap_or(letter)].start
            });
            // The last one ends with its line.
            let end = until.unwrap_or_else(|| text[from..].find('\n').map_or(text.len(), |line| from + line));
            (marks[*mark].1.to_ascii_uppercase(), words(&text[from..end.max(from)]))
        };
        Self(best.iter().enumerate().map(option).collect())
    }

    /// The option that a text names.
    pub(crate) fn named(&self, text: &str) -> Option<char> {
        let text = plain(text);
        match (self.alone(&text), self.of_words(&words(&text))) {
            (Some(letter), Some(other)) if letter != other => return None,
            (Some(letter), _) | (None, Some(letter)) => return Some(letter),
            (None, None) => {}
        }
        let tokens = tokens(&text);
        let stated = Stated::of(&tokens, |letter| self.has(letter));
        let Some(first) = stated.letters.first().copied() else {
            let behind = behind_lead(&text, &tokens).filter(|_| !stated.denied)?;
            return self.of_words(&words(behind));
        };
        let beside = self.of_words(&words(&text[stated.end..])).is_some_and(|other| other != first);
        let several = stated.letters.iter().any(|letter| *letter != first);
        (!stated.denied && !several && !beside).then_some(first)
    }

    /// The option that a right answer names. Where the question lists none, only a letter by itself does: `A. Smith` is a name.
    pub(crate) fn answer(&self, text: &str) -> Option<char> {
        if !self.0.is_empty() { self.named(text) } else { self.alone(&plain(text)) }
    }

    /// The one option in which these words stand, one behind the other.
    pub(crate) fn holding(&self, said: &[String]) -> Option<char> {
        self.only(|words| !said.is_empty() && words.windows(said.len()).any(|some| some == said))
    }

    /// A letter that is the whole text, signs around it aside.
    fn alone(&self, text: &str) -> Option<char> {
        let bare = text.trim_matches(|letter: char| !letter.is_alphanumeric());
        bare.chars().next().filter(|_| bare.len() == 1).map(|letter| letter.to_ascii_uppercase()).filter(|letter| self.has(*letter))
    }

    fn has(&self, letter: char) -> bool {
        if self.0.is_empty() { UNLISTED.contains(&letter) } else { self.0.iter().any(|(known, _)| *known == letter) }
    }

    /// The one option with these words.
    fn of_words(&self, said: &Words) -> Option<char> {
        self.only(|words| !words.is_empty() && words == said)
    }

    /// The option that alone is such a one.
    fn only(&self, is_one: impl Fn(&Words) -> bool) -> Option<char> {
        let mut such = self.0.iter().filter(|(_, words)| is_one(words));
        let first = such.next()?;
        such.next().is_none().then_some(first.0)
    }
}

/// Letters that a text states.
struct Stated {
    letters: Vec<char>,
    /// A letter is stated not to be the answer.
    denied: bool,
    /// Where the text goes on behind the first of them.
    end: usize,
}

impl Stated {
    /// A letter is stated where it
    ///
    /// - is in brackets: `(B)`, `[B]`, `\boxed{B}`;
    /// - begins a line, with a sign behind it: `B)`, `B.`, `B:`, `B、`; or is all of a line;
    /// - follows a word that leads to it: `option B`, `the answer is B`, `I choose B`, `答案是B`, `选B`;
    /// - begins a line that says so: `B is correct`;
    /// - is joined to such a letter: `B and C`, `B, C`, `B/C`.
    fn of(tokens: &[Token<'_>], is_option: impl Fn(char) -> bool) -> Self {
        let mut stated = Self { letters: vec![], denied: false, end: 0 };
        for at in 0..tokens.len() {
            let Some(letter) = letter(&tokens[at]).filter(|letter| is_option(*letter)) else { continue };
            let before = at.checked_sub(1).map(|before| &tokens[before]);
            let next = tokens.get(at + 1);
            let enclosed = before.is_some_and(is_open) && next.is_some_and(is_close);
            let heads = tokens[at].begins_line && (mark(tokens, at).is_some() || next.is_none_or(|next| next.new_line));
            let (led, denied_lead) = lead(tokens, at);
            let led = led && !is_small_word(tokens, at);
            let says = tokens[at].begins_line && says_so(&tokens[at + 1..]);
            if !(enclosed || heads || led || says) {
                continue;
            }
            let first = at - usize::from(enclosed);
            stated.denied |= denied_lead || first.checked_sub(1).is_some_and(|before| denies(tokens[before].text));
            if stated.letters.is_empty() {
                let signs = tokens[at + 1..].iter().take_while(|token| !token.is_word).last();
                stated.end = signs.unwrap_or(&tokens[at]).end;
            }
            stated.letters.push(letter);
            stated.letters.extend(joined(tokens, at).take(MOST_JOINED).filter(|letter| is_option(*letter)));
        }
        stated
    }
}

/// A word, or a sign; quotation marks and markup are neither.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    start: usize,
    end: usize,
    is_word: bool,
    /// Nothing stands between it and the one before it.
    glued: bool,
    /// No word stands before it on its line.
    begins_line: bool,
    /// It is the first on its line.
    new_line: bool,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found: Vec<Token<'_>> = vec![];
    let (mut line_has_word, mut new_line, mut end_before) = (false, true, usize::MAX);
    let mut letters = text.char_indices().peekable();
    while let Some((start, letter)) = letters.next() {
        if letter == '\n' {
            (line_has_word, new_line) = (false, true);
        }
        if letter.is_whitespace() || matches!(letter, '*' | '_' | '`' | '#' | '>' | '"' | '“' | '”' | '「' | '」') {
            // Markup stands between nothing.
            if !letter.is_whitespace() && end_before == start {
                end_before = start + letter.len_utf8();
            }
            continue;
        }
        let mut end = start + letter.len_utf8();
        let is_word = letter.is_alphanumeric();
        if is_word && !is_word_of_its_own(letter) {
            while let Some((at, next)) = letters.peek().copied() {
                let inner = matches!(next, '\'' | '’') && text[at + next.len_utf8()..].starts_with(char::is_alphabetic);
                if !(inner || next.is_alphanumeric() && !is_word_of_its_own(next)) {
                    break;
                }
                end = at + next.len_utf8();
                letters.next();
            }
        }
        let glued = end_before == start;
        found.push(Token { text: &text[start..end], start, end, is_word, glued, begins_line: !line_has_word, new_line });
        line_has_word |= is_word;
        (new_line, end_before) = (false, end);
    }
    found
}

/// Wide and circled letters, brackets and stops as those of ASCII.
fn plain(text: &str) -> String {
    text.trim().nfkc().collect()
}

/// A token that is one capital.
fn letter(token: &Token<'_>) -> Option<char> {
    token.text.chars().next().filter(|letter| letter.is_ascii_uppercase() && token.text.len() == 1)
}

fn is_open(token: &Token<'_>) -> bool {
    matches!(token.text, "(" | "[" | "{" | "【")
}

fn is_close(token: &Token<'_>) -> bool {
    token.glued && matches!(token.text, ")" | "]" | "}" | "】")
}

/// A letter with the sign behind it that marks an option, and that sign.
fn mark<'a>(tokens: &[Token<'a>], at: usize) -> Option<(usize, char, &'a str)> {
    let token = &tokens[at];
    let letter = token.text.chars().next().filter(|letter| letter.is_ascii_alphabetic() && token.text.len() == 1)?;
    let sign = tokens.get(at + 1).filter(|sign| sign.glued && matches!(sign.text, ")" | "]" | "." | ":" | "、"))?;
    // Initials and abbreviations go on behind their stop.
    let goes_on = sign.text == "." && tokens.get(at + 2).is_some_and(|next| next.glued && next.is_word && next.text.is_ascii());
    (!goes_on).then_some((at, letter, sign.text))
}

/// Whether words before a letter lead to it (`the answer is`, `option`), and whether they deny it.
fn lead(tokens: &[Token<'_>], at: usize) -> (bool, bool) {
    let (mut led, mut denied) = (false, false);
    for token in tokens[..at].iter().rev().take(8) {
        let word = token.text.to_lowercase();
        match word.as_str() {
            "answer" | "option" | "choice" | "choose" | "chose" | "pick" | "select" | "选" | "選" | "项" | "項" | "案" | "择" | "擇" =>
            {
                led = true;
            }
            "is" | "be" | "would" | "should" | "must" | "letter" | "correct" | "right" | "the" | "my" | "final" | "是" | "为" | "為" => {
            }
            "(" | "[" | "{" | ":" | "=" => {}
            _ => {
                denied = denies(&word);
                break;
            }
        }
        // What stands before a line's end belongs to the line before.
        if token.new_line && !led {
            break;
        }
    }
    (led, led && denied)
}

fn denies(word: &str) -> bool {
    let word = word.to_lowercase();
    matches!(word.as_str(), "not" | "no" | "never" | "neither" | "nor" | "than" | "except" | "cannot" | "不" | "非")
        || word.ends_with("n't")
        || word.ends_with("n’t")
}

/// `is correct`, `is the right answer`.
fn says_so(behind: &[Token<'_>]) -> bool {
    let word = |at: usize| behind.get(at).map_or("", |token| token.text);
    word(0) == "is"
        && (matches!(word(1), "correct" | "right" | "true") || word(1) == "the" && matches!(word(2), "correct" | "right" | "answer"))
}

/// Letters that follow one with nothing but what joins them in between.
fn joined<'a>(tokens: &'a [Token<'_>], at: usize) -> impl Iterator<Item = char> + 'a {
    let mut from = at + 1;
    std::iter::from_fn(move || {
        let joins = |token: &Token<'_>| matches!(token.text, "," | "/" | "&" | "+" | "、" | "and" | "or" | "和" | "或" | "与");
        let aside = |token: &Token<'_>| is_close(token) || is_open(token);
        let mut has_joined = false;
        while let Some(token) = tokens.get(from).filter(|token| joins(token) || aside(token)) {
            has_joined |= joins(token);
            from += 1;
        }
        let next = tokens.get(from).filter(|_| has_joined && !is_small_word(tokens, from))?;
        from += 1;
        letter(next)
    })
}

/// Whether a capital is the article or the pronoun that begins a phrase, and no option: `The answer is A dog`.
fn is_small_word(tokens: &[Token<'_>], at: usize) -> bool {
    const GO_ON: [&str; 8] = ["because", "since", "as", "and", "or", "is", "which", "but"];
    let phrase = tokens.get(at + 1).is_some_and(|next| next.is_word && !next.glued && !next.new_line && !GO_ON.contains(&next.text));
    matches!(tokens[at].text, "A" | "I") && phrase
}

/// What follows `answer is`, `answer:` or `option:`, where something does.
fn behind_lead<'a>(text: &'a str, tokens: &[Token<'_>]) -> Option<&'a str> {
    let leads = |pair: &[Token<'_>]| {
        matches!(pair[0].text.to_lowercase().as_str(), "answer" | "option" | "choice" | "案")
            && matches!(pair[1].text, "is" | ":" | "是" | "为")
    };
    let at = tokens.windows(2).rposition(leads)?;
    Some(&text[tokens[at + 1].end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CITIES: &str = "Which city is it?\nA. Paris\nB. New London\nC. Vitamin C\nD. A dog";

    fn named(question: &str, text: &str) -> Option<char> {
        Choices::of(question).named(text)
    }

    #[test]
    fn options_are_found_in_a_question() {
        let of = |question: &str| {
            Choices::of(question).0.into_iter().map(|(letter, words)| format!("{letter} {}", words.join(" "))).collect::<Vec<_>>()
        };
        assert_eq!(of(CITIES), ["A paris", "B new london", "C vitamin c", "D dog"]);
        assert_eq!(of("Which? (A) Paris (B) London\n(C) Rome\nAnswer with a letter."), ["A paris", "B london", "C rome"]);
        assert_eq!(of("Which? A: Paris, B: London"), ["A paris", "B london"]);
        assert_eq!(of("哪个城市？\nA、北京\nB、上海"), ["A 北 京", "B 上 海"]);
        assert_eq!(of("哪个？Ａ．北京 Ｂ．上海"), ["A 北 京", "B 上 海"]);
        assert_eq!(of("a) red\nb) green"), ["A red", "B green"]);
        assert_eq!(of("See A. x B. y above.\nA. Paris\nB. Rome\nC. Oslo"), ["A paris", "B rome", "C oslo"]);
        let initials = "Who?\nA. Stephen A. Smith\nB. Rome\nC. D. B. Cooper\nD. K. Roe";
        assert_eq!(of(initials), ["A stephen smith", "B rome", "C d b cooper", "D k roe"]);
        for none in ["Who is J.K. Rowling?", "Is it A or B?", "Vitamin A: what is it?", "", "B. x C. y"] {
            assert_eq!(of(none), Vec::<String>::new(), "{none}");
        }
    }

    #[test]
    fn a_letter_is_read_in_the_forms_in_which_it_is_stated() {
        for said in [
            "B",
            "b",
            "(B)",
            "B.",
            "**B**",
            "B) New London",
            "B. New London",
            "B: because it is",
            "(B) New London",
            "[B]",
            "\\boxed{B}",
            "$\\boxed{\\text{B}}$",
            "option B",
            "Option (B).",
            "The answer is B",
            "The answer is: B.",
            "Answer: B",
            "**Answer:** B",
            "My final answer is **B**.",
            "The correct answer is (B), because of the bridge.",
            "I choose B because it is",
            "B is correct.",
            "B is the right answer",
            "B\n\nIt has a bridge.",
            "It has a bridge.\nAnswer: B",
            "I think it is the bridge.\n\nB",
            "答案是B",
            "答案：Ｂ",
            "选B",
            "选项（B）",
            "Ⓑ",
            "New London",
            "the New London!",
            "The answer is New London.",
            "Option B, option B.",
        ] {
            assert_eq!(named(CITIES, said), Some('B'), "{said}");
        }
        assert_eq!(named(CITIES, "Vitamin C"), Some('C'));
        assert_eq!(named(CITIES, "Answer: A dog"), Some('D'));
        assert_eq!(named(CITIES, "The answer is A because"), Some('A'));
        assert_eq!(named("Which?", "the answer is J"), Some('J'));
    }

    #[test]
    fn two_letters_and_letters_that_are_none_are_no_answer() {
        for said in [
            "",
            "A or B",
            "B and C",
            "(B) and C",
            "(A) (B)",
            "The answer is A or B",
            "The answer is B, C",
            "Answer: B/C",
            "A\nB",
            "Option A, no, option B",
            "B) Paris",
            "The answer is B: Paris",
            "The answer is not B",
            "It isn't option B",
            "Not (B)",
            "Neither option B",
            "E",
            "The answer is E",
            "London",
            "Paris and New London",
            "Plan B worked",
            "Vitamin B helps",
            "AB",
            "It is B",
            "J.K. Rowling",
        ] {
            assert_eq!(named(CITIES, said), None, "{said}");
        }
        assert_eq!(named("A. red\nB. red", "red"), None, "two options with one text");
        assert_eq!(named("A. B\nB. A", "B"), None, "a letter that is the text of another option");
        assert_eq!(named("Which?", "K"), None);
    }
}
