//! A number as it is typed. In: folded text, where a number begins. Out: its digits without grouping, and where it ends.
//!
//! Grouping is believed only where it is whole: `1,000,000`, `12,34,567`, `1 000`, `1'000`, `1_000`, `1.000.000`. So `1,5`
//! is no fifteen and `1, 2` no twelve. Zeros at the end of a fraction do not count, zeros in front do (007, 01209).

use smallvec::SmallVec;

use super::fold::NARROW;

/// Most groups behind the first one that are believed: there are no larger numbers, and long lists are not read again and again.
const MAX_GROUPS: usize = 32;

/// The digits of a number.
pub(super) type Digits = SmallVec<[u8; 32]>;

/// Whether a number begins at `at`: a digit, or a point with one behind it.
pub(super) fn begins(text: &[char], at: usize) -> bool {
    digit(text, at) || text.get(at) == Some(&'.') && digit(text, at + 1)
}

/// Reads the number that begins at `at`. With `among_words`, two groups that a plain blank keeps apart may be two names
/// (Boeing 747 400), and stay apart.
pub(super) fn read(text: &[char], at: usize, among_words: bool) -> (Digits, usize) {
    let mut digits = Digits::new();
    if text[at] == '.' {
        digits.push(b'0');
    }
    let mut end = run(text, at);
    take(text, at, end, &mut digits);
    if let Some(grouped) = grouped(text, at, end, among_words) {
        take(text, end, grouped, &mut digits);
        end = grouped;
    }
    if !(text.get(end) == Some(&'.') && digit(text, end + 1)) {
        return (digits, end);
    }
    let fraction = run(text, end + 1);
    if text.get(fraction) == Some(&'.') && digit(text, fraction + 1) {
        // A version, a date, an address: as it is written.
        while text.get(end) == Some(&'.') && digit(text, end + 1) {
            digits.push(b'.');
            let next = run(text, end + 1);
            take(text, end + 1, next, &mut digits);
            end = next;
        }
        return (digits, end);
    }
    let whole = digits.len();
    digits.push(b'.');
    take(text, end + 1, fraction, &mut digits);
    let kept = digits.iter().rposition(|digit| *digit != b'0').expect("there is a point");
    digits.truncate(if kept == whole { whole } else { kept + 1 });
    (digits, fraction)
}

/// Where the groups behind a number's first one end, if there are any.
fn grouped(text: &[char], at: usize, end: usize, among_words: bool) -> Option<usize> {
    let first = end - at;
    let mark = *text.get(end)?;
    if !(1..=3).contains(&first) || text[at] == '0' || !matches!(mark, ',' | ' ' | NARROW | '\'' | '_' | '.') {
        return None;
    }
    let next = |end: usize, size: usize| {
        let until = run(text, end + 1);
        (text.get(end) == Some(&mark) && until == end + 1 + size).then_some(until)
    };
    let threes = || {
        let (mut end, mut groups) = (end, 0);
        while groups < MAX_GROUPS
            && let Some(until) = next(end, 3)
        {
            (end, groups) = (until, groups + 1);
        }
        let whole = text.get(end) != Some(&mark) || !digit(text, end + 1);
        let least = if mark == '.' || mark == ' ' && among_words { 2 } else { 1 };
        (whole && groups >= least).then_some(end)
    };
    // As in India: 12,34,567.
    let lakhs = || {
        let (mut end, mut groups) = (end, 0);
        while groups < MAX_GROUPS
            && let Some(until) = next(end, 2)
        {
            (end, groups) = (until, groups + 1);
        }
        let until = next(end, 3)?;
        (text.get(until) != Some(&mark) || !digit(text, until + 1)).then_some(until)
    };
    threes().or_else(|| if mark == ',' && first < 3 { lakhs() } else { None })
}

fn digit(text: &[char], at: usize) -> bool {
    text.get(at).is_some_and(char::is_ascii_digit)
}

/// Where the digits from `at` on end.
fn run(text: &[char], at: usize) -> usize {
    at + text.get(at..).unwrap_or_default().iter().take_while(|letter| letter.is_ascii_digit()).count()
}

fn take(text: &[char], from: usize, to: usize, digits: &mut Digits) {
    digits.extend(text[from..to].iter().filter(|letter| letter.is_ascii_digit()).map(|letter| *letter as u8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouping_is_believed_where_it_is_whole() {
        let number = |text: &str| {
            let text: Vec<char> = text.chars().collect();
            let (digits, end) = read(&text, 0, false);
            (String::from_utf8(digits.to_vec()).expect("digits"), text.len() - end)
        };
        for (text, digits, left) in [
            ("1,000", "1000", 0),
            ("1,00,000", "100000", 0),
            ("12,34,567.50", "1234567.5", 0),
            ("1 000 000 km", "1000000", 3),
            ("1'000", "1000", 0),
            ("1_000_000", "1000000", 0),
            ("1.000.000", "1000000", 0),
            ("1.000", "1", 0),
            (".50", "0.5", 0),
            ("1.2.10", "1.2.10", 0),
            ("1,5", "1", 2),
            ("1,0000", "1", 5),
            ("1,000,00", "1", 7),
            ("0,500", "0", 4),
            ("1234,567", "1234", 4),
            ("1, 200", "1", 5),
            ("007", "007", 0),
        ] {
            assert_eq!(number(text), (digits.to_owned(), left), "{text}");
        }
        let (long, longer) = (vec!["111"; 33].join(","), vec!["111"; 34].join(","));
        assert_eq!((number(&long), number(&longer)), (("111".repeat(33), 0), ("111".into(), 33 * 4)));
        let among: Vec<char> = "747 400".chars().collect();
        assert_eq!(read(&among, 0, true).1, 3);
    }
}
