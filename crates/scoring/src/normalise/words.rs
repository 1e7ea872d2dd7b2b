//! The words of an answer. In: folded text. Out: its form.
//!
//! Punctuation and blanks separate and do not count. A sign counts where it tells answers apart: of a number (`-5`, `±5`,
//! `10^6`, `1/2`, `5'`), of a grade or an ion (`A+`, `O-`), of a language (`C++`, `C#`), of money, of a suit.

use super::Form;
use super::fold::{BOUNDARY, LOWERED, NARROW};
use super::number::{begins, read as number};
use unicode_normalization::char::is_combining_mark;

/// Longest word that a minus or a star behind it makes another one, in letters: grades, blood groups, ions.
const GRADE: usize = 3;

/// Puts the form of a text behind what `out` holds.
pub(super) fn read(text: &[char], out: &mut Form) {
    let from = out.len();
    let mut words = Words {
        out,
        from,
        start: from,
        last: from,
        held: None,
        among_words: false,
        behind_number: false,
        minus: false,
        comma: false,
        starred: false,
        quotes: [false; 2],
    };
    let mut at = 0;
    while at < text.len() {
        at = Place { text, at }.step(&mut words);
    }
    words.finish();
}

/// Words as they are found, each with a blank behind it.
struct Words<'a> {
    out: &'a mut Form,
    /// Where the form begins.
    from: usize,
    /// Where the word begins that is being written, and where the one before it.
    start: usize,
    last: usize,
    /// An article that is dropped as soon as another word comes, and whether a comma stands before it.
    held: Option<(&'static str, bool)>,
    /// Some word has letters.
    among_words: bool,
    /// The last word ends with a digit.
    behind_number: bool,
    /// What comes next has a minus.
    minus: bool,
    /// A comma came since the last word.
    comma: bool,
    /// A star came that belongs to no word: others are markup as well.
    starred: bool,
    /// Quotes that are open, single and double.
    quotes: [bool; 2],
}

impl Words<'_> {
    fn open(&self) -> &[u8] {
        &self.out[self.start..]
    }

    /// Whether the word that is being written has any.
    fn has_letters(&self) -> bool {
        std::str::from_utf8(self.open()).is_ok_and(|word| word.chars().any(char::is_alphabetic))
    }

    fn is_empty(&self) -> bool {
        self.out.len() == self.from && self.held.is_none()
    }

    fn put(&mut self, letter: char) {
        self.out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// A letter of a word; behind digits or a sign it begins another one.
    fn letter(&mut self, letter: char) {
        let mark = is_combining_mark(letter);
        if self.open().last().is_some_and(|last| (last.is_ascii_digit() && letter.is_alphabetic() && !mark) || sign(*last) && !mark) {
            self.end();
        }
        if std::mem::take(&mut self.minus) {
            self.put('-');
        }
        self.put(letter);
    }

    /// A number: behind letters part of their word, behind another number set apart from it.
    fn number(&mut self, digits: &[u8]) {
        if self.open().last().is_some_and(|last| sign(*last)) {
            self.end();
        }
        if self.open().is_empty() && self.behind_number {
            self.out.extend_from_slice(b"; ");
            self.start = self.out.len();
        }
        if std::mem::take(&mut self.minus) && digits.iter().any(|digit| matches!(digit, b'1'..=b'9')) {
            self.put('-');
        }
        self.out.extend_from_slice(digits);
    }

    /// A word by itself.
    fn word(&mut self, word: &str) {
        self.end();
        self.out.extend_from_slice(word.as_bytes());
        self.end();
    }

    /// What comes next is another word.
    fn end(&mut self) {
        let article = match self.open() {
            b"" => return,
            b"a" => Some("a"),
            b"an" => Some("an"),
            b"the" => Some("the"),
            _ => None,
        };
        if article.is_some() {
            self.held = article.map(|article| (article, self.comma));
            self.out.truncate(self.start);
            return;
        }
        (self.held, self.comma) = (None, false);
        self.among_words |= self.has_letters();
        self.behind_number = self.open().last().is_some_and(u8::is_ascii_digit);
        self.out.push(b' ');
        self.last = std::mem::replace(&mut self.start, self.out.len());
    }

    /// A sign of money: behind the number that an answer begins with it stands in front of it (`5 €` is `€5`), unless another
    /// number comes.
    fn money(&mut self, letter: char, number_comes: bool) {
        self.end();
        let amount = self.behind_number
            && self.last == self.from
            && self.out[self.last..].iter().find(|byte| **byte != b'-').is_some_and(u8::is_ascii_digit);
        if number_comes || !amount {
            return self.word(letter.encode_utf8(&mut [0; 4]));
        }
        let mut sign = [0; 4];
        let sign = letter.encode_utf8(&mut sign).bytes().chain([b' ']);
        self.out.insert_many(self.last, sign);
        self.start = self.out.len();
    }

    /// An article at the end is a name (`Vitamin A`), unless it was put behind a comma (`Beatles, The`); alone it is the answer.
    fn finish(mut self) {
        self.end();
        let kept = self.held.filter(|(article, comma)| self.out.len() == self.from || *article == "a" && !comma);
        match kept {
            Some((article, _)) => self.out.extend_from_slice(article.as_bytes()),
            // The blank behind the last word.
            None if self.out.len() > self.from => drop(self.out.pop()),
            None => {}
        }
    }
}

/// Whether a byte of a word is a sign behind it.
fn sign(byte: u8) -> bool {
    matches!(byte, b'+' | b'-' | b'#' | b'*' | b'\'')
}

/// A letter and its neighbours.
struct Place<'a> {
    text: &'a [char],
    at: usize,
}

impl Place<'_> {
    /// Takes the letter in; where the next one is.
    fn step(&self, words: &mut Words<'_>) -> usize {
        let (at, letter) = (self.at, self.text[self.at]);
        let (before, after) = (self.before(1), self.after(1));
        let behind_digit = before.is_some_and(|letter| letter.is_ascii_digit());
        let point = letter == '.' && !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '.');
        if letter.is_ascii_digit() || point && begins(self.text, at) {
            let among_words = words.among_words || words.has_letters();
            let (digits, end) = number(self.text, at, among_words);
            words.number(&digits);
            return end;
        }
        match letter {
            'x' if behind_digit && self.digit(after) => words.word("x"),
            _ if letter.is_alphanumeric() || is_combining_mark(letter) => words.letter(letter),
            '\'' => self.apostrophe(words),
            '"' => self.quote(words),
            // `No.5` is two words.
            '.' if self.digit(after) => words.end(),
            '.' if self.joins_initials() => return self.seen_after(at + 1),
            '.' | '°' => {}
            '-' => self.minus(words),
            '+' => self.plus(words),
            '#' if before.is_some_and(char::is_alphabetic) && !self.alphanumeric(after) => words.put('#'),
            '*' => return self.star(words),
            '^' => self.power(words),
            '_' | LOWERED if self.between_digits() => words.word("_"),
            '/' if self.is_fraction() => words.word("/"),
            '×' if self.between_digits() => words.word("x"),
            '×' => words.end(),
            '<' | '>' => return self.bound(words),
            '~' if begins(self.text, self.seen_after(at + 1)) => words.word("≈"),
            '&' => words.word("and"),
            '%' => words.word("percent"),
            '‰' => words.word("permille"),
            '‱' => words.word("permyriad"),
            _ if currency(letter) => {
                let next = self.seen_after(at + 1);
                words.money(letter, begins(self.text, next) || self.text.get(next) == Some(&'-') && begins(self.text, next + 1));
            }
            _ if symbol(letter) => {
                words.end();
                words.letter(letter);
                words.end();
            }
            _ => {
                words.comma |= letter == ',';
                words.end();
            }
        }
        at + 1
    }

    /// Whether this stop stands behind an initial and before another one: `J. K.` is `J.K.`.
    fn joins_initials(&self) -> bool {
        let next = self.seen_after(self.at + 1);
        let initial = |letter: Option<char>| letter.is_some_and(char::is_alphabetic);
        initial(self.before(1))
            && !self.alphanumeric(self.before(2))
            && initial(self.text.get(next).copied())
            && self.text.get(next + 1) == Some(&'.')
    }

    /// Part of a name (`Nuku'alofa`), a quote, or feet and minutes behind a number.
    fn apostrophe(&self, words: &mut Words<'_>) {
        let behind_number = words.open().last().is_some_and(|last| last.is_ascii_digit() || *last == b'\'');
        if behind_number && !self.after(1).is_some_and(char::is_alphabetic) {
            if !std::mem::take(&mut words.quotes[0]) {
                words.put('\'');
            }
        } else if self.opens() {
            words.quotes[0] = true;
        } else if !self.alphanumeric(self.after(1)) {
            words.quotes[0] = false;
        }
    }

    /// A quote, or inches and seconds behind a number; between letters it is an abbreviation's, as in Hebrew.
    fn quote(&self, words: &mut Words<'_>) {
        let letter = |letter: Option<char>| letter.is_some_and(char::is_alphabetic);
        if words.open().last().is_some_and(u8::is_ascii_digit) {
            match std::mem::take(&mut words.quotes[1]) {
                true => words.end(),
                false => {
                    words.put('\'');
                    words.put('\'');
                }
            }
        } else if !(letter(self.before(1)) && letter(self.after(1))) {
            words.quotes[1] = self.opens();
            words.end();
        }
    }

    /// Whether a quote here opens.
    fn opens(&self) -> bool {
        !self.before(1).is_some_and(|before| before.is_alphanumeric() || matches!(before, '.' | ')' | ']' | '}' | '%' | '\'' | '"'))
    }

    fn minus(&self, words: &mut Words<'_>) {
        let next = self.at + 1;
        let number_at = |at: usize| {
            let money = self.text.get(at).is_some_and(|letter| currency(*letter));
            begins(self.text, if money { self.seen_after(at + 1) } else { at })
        };
        let signs = self.is_sign_position();
        let name =
            self.after(1).is_some_and(|letter| matches!(letter, '∞' | '√') || letter.is_alphabetic() && !self.alphanumeric(self.after(2)));
        let first = words.is_empty() && words.open().is_empty();
        let digit_follows = number_at(next + usize::from(self.after(1) == Some(BOUNDARY)));
        if signs && (digit_follows || name) || first && number_at(self.seen_after(next)) {
            words.end();
            words.minus = true;
        } else if self.after(1) == Some('-')
            && !self.alphanumeric(self.after(2))
            && self.before(1).is_some_and(char::is_alphabetic)
            && self.is_short(words)
            || words.open().ends_with(b"-") && self.before(1) == Some('-') && !self.alphanumeric(self.after(1))
        {
            // `C--` is a language.
            words.put('-');
        } else if self.is_grade(words) && !(self.digit(self.before(1)) && self.digit(self.text.get(self.seen_after(next)).copied())) {
            words.put('-');
        } else {
            words.end();
        }
    }

    /// Whether a minus here may belong to what follows: `5-6` is a range, `-5` a number.
    fn is_sign_position(&self) -> bool {
        match self.before(1) {
            None => true,
            Some('\'' | '"') => !self.alphanumeric(self.before(2)),
            Some(letter) => !letter.is_alphanumeric() && !matches!(letter, ')' | ']' | '}' | '%' | '‰' | '°'),
        }
    }

    /// Whether a sign here stands behind a short word and before none.
    fn is_grade(&self, words: &Words<'_>) -> bool {
        self.alphanumeric(self.before(1))
            && !self.alphanumeric(self.after(1))
            && !matches!(self.after(1), Some('-' | '+' | '*'))
            && self.is_short(words)
    }

    fn is_short(&self, words: &Words<'_>) -> bool {
        std::str::from_utf8(words.open()).is_ok_and(|word| (1..=GRADE).contains(&word.chars().count()))
    }

    fn plus(&self, words: &mut Words<'_>) {
        let open = words.open().last().copied();
        let behind = self.alphanumeric(self.before(1)) || open == Some(b'+');
        if open.is_some() && behind && (!self.alphanumeric(self.after(1)) || open == Some(b'+')) {
            words.put('+');
        } else if begins(self.text, self.seen_after(self.at + 1)) && (words.is_empty() && open.is_none() || words.out.ends_with(b"^ ")) {
            // A number without it is the same.
        } else {
            words.word("+");
        }
    }

    fn star(&self, words: &mut Words<'_>) -> usize {
        let double = self.after(1) == Some('*');
        let next = self.at + 1 + usize::from(double);
        let before = self.seen_before(self.at);
        if !words.starred && self.digit(before) && self.digit(self.text.get(self.seen_after(next)).copied()) {
            words.word(if double { "^" } else { "x" });
        } else if !words.starred && !double && self.before(1).is_some_and(char::is_alphabetic) && self.is_grade(words) {
            words.put('*');
        } else {
            words.starred = true;
            words.end();
        }
        next
    }

    fn power(&self, words: &mut Words<'_>) {
        let base = self.seen_before(self.at);
        let exponent = self.text.get(self.seen_after(self.at + 1)).copied();
        if self.before(1).is_some_and(char::is_alphabetic) && self.digit(self.after(1)) {
            // `km^2` is `km2`.
        } else if !(words.is_empty() && words.open().is_empty())
            && base.is_some_and(|letter| letter.is_alphanumeric() || matches!(letter, ')' | ']' | '}'))
            && exponent.is_some_and(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '+' | '(' | '{' | '['))
        {
            words.word("^");
        }
    }

    /// A bound of a number; elsewhere a bracket.
    fn bound(&self, words: &mut Words<'_>) -> usize {
        let equal = self.after(1) == Some('=');
        let next = self.at + 1 + usize::from(equal);
        let bounded = self.seen_after(next);
        if begins(self.text, bounded) || self.text.get(bounded) == Some(&'-') && begins(self.text, bounded + 1) {
            words.word(match (self.text[self.at], equal) {
                ('<', false) => "<",
                ('<', true) => "≤",
                (_, false) => ">",
                (_, true) => "≥",
            });
        } else {
            words.end();
        }
        next
    }

    /// `1/2`, but not one of the strokes of a date.
    fn is_fraction(&self) -> bool {
        let number = |letter: &char| letter.is_ascii_digit() || *letter == '.';
        let beyond = |letters: &mut dyn Iterator<Item = &char>| {
            letters.skip_while(|letter| blank(**letter)).skip_while(|letter| number(letter)).find(|letter| !blank(**letter)) == Some(&'/')
        };
        self.between_digits() && !beyond(&mut self.text[..self.at].iter().rev()) && !beyond(&mut self.text[self.at + 1..].iter())
    }

    fn between_digits(&self) -> bool {
        self.digit(self.seen_before(self.at)) && self.digit(self.text.get(self.seen_after(self.at + 1)).copied())
    }

    fn before(&self, count: usize) -> Option<char> {
        self.at.checked_sub(count).map(|at| self.text[at])
    }

    fn after(&self, count: usize) -> Option<char> {
        self.text.get(self.at + count).copied()
    }

    /// The last letter before `at` that is no blank.
    fn seen_before(&self, at: usize) -> Option<char> {
        self.text[..at].iter().rev().copied().find(|letter| !blank(*letter))
    }

    /// Where the first letter from `at` on is that is no blank.
    fn seen_after(&self, at: usize) -> usize {
        at + self.text.get(at..).unwrap_or_default().iter().take_while(|letter| blank(**letter)).count()
    }

    fn digit(&self, letter: Option<char>) -> bool {
        letter.is_some_and(|letter| letter.is_ascii_digit())
    }

    fn alphanumeric(&self, letter: Option<char>) -> bool {
        letter.is_some_and(char::is_alphanumeric)
    }
}

fn blank(letter: char) -> bool {
    matches!(letter, ' ' | NARROW | BOUNDARY)
}

/// A sign of money.
fn currency(letter: char) -> bool {
    matches!(letter, '$' | '¢'..='¥' | '\u{58f}' | '\u{60b}' | '\u{9f2}' | '\u{9f3}' | '\u{e3f}' | '\u{17db}' | '\u{20a0}'..='\u{20cf}')
}

/// A picture or a sign of mathematics, which is an answer or a part of one: `♠`, `∞`, `±`, flags.
fn symbol(letter: char) -> bool {
    matches!(letter, '±' | '÷' | '¬' | '\u{2190}'..='\u{23ff}' | '\u{2500}'..='\u{2767}' | '\u{2776}'..='\u{27e5}' | '\u{27f0}'..='\u{2982}' | '\u{2999}'..='\u{2bff}')
        || matches!(letter, '\u{1f000}'..='\u{1faff}')
}
