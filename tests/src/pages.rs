//! Markdown pages as a reader's browser sees them: the anchors that headings make, and the links between pages. In: a page's text.
//! Out: anchors and links. It opens no file.

use std::collections::{BTreeMap, BTreeSet};

/// Lines of a page outside fenced code, with their numbers from 1.
fn numbered(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(page.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Lines of a page outside fenced code.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    numbered(page).map(|(_, line)| line)
}

/// The words of each line outside code and addresses, in small letters: number of the line, words.
pub fn words(page: &str) -> Vec<(usize, Vec<String>)> {
    let of = |(number, line): (usize, &str)| {
        // Every second part of a line lies between backticks.
        let said = line
            .split('`')
            .step_by(2)
            .flat_map(|part| part.split_whitespace())
            .filter(|word| !word.contains("](") && !word.contains("://"));
        let letters = said.flat_map(|word| word.split(|letter: char| !letter.is_alphanumeric())).filter(|word| !word.is_empty());
        (number, letters.map(str::to_lowercase).collect())
    };
    numbered(page).map(of).collect()
}

/// The anchors of a page: one per heading, made as GitHub makes them, and every `id` of a tag.
pub fn anchors(page: &str) -> BTreeSet<String> {
    let mut times = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    for line in prose(page) {
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=6).contains(&level) && line[level..].starts_with(' ') {
            let slug = slug(line[level..].trim());
            let seen = times.entry(slug.clone()).or_default();
            anchors.insert(if *seen == 0 { slug } else { format!("{slug}-{seen}") });
            *seen += 1;
        }
        anchors.extend(line.split("<a id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    anchors
}

/// A heading as an anchor: small letters, digits, hyphens; blanks become hyphens and all else goes.
fn slug(heading: &str) -> String {
    // Of a link only its words are part of the heading.
    let mut words = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        words.push_str(&before.replace('[', ""));
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    words.push_str(rest);
    let kept = words.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).flat_map(char::to_lowercase).collect()
}

/// What a page links to, as written: `[words](target)` outside code.
pub fn links(page: &str) -> Vec<String> {
    let mut links = vec![];
    for line in prose(page) {
        // Inline code may hold brackets.
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        for (_, rest) in plain.match_indices("](").map(|(at, _)| plain.split_at(at + 2)) {
            links.extend(rest.split_once(')').map(|(target, _)| target.split_whitespace().next().unwrap_or_default().to_owned()));
        }
    }
    links
}

/// Citations of pages in a text, such as `docs/spec.md#trace, #d5`: page and anchor. What follows a citation after a comma, an `and` or
/// a `to` and begins with `#` is of the same page.
pub fn citations(text: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    let name = |text: &str| text.chars().take_while(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect::<String>();
    for (at, _) in text.match_indices("docs/") {
        let length: usize =
            text[at..].chars().take_while(|letter| letter.is_alphanumeric() || "/-_.".contains(*letter)).map(char::len_utf8).sum();
        let page = &text[at..at + length];
        let mut rest = &text[at + length..];
        while page.ends_with(".md")
            && let Some(after) = ["#", ", #", " and #", " to #"].iter().find_map(|joint| rest.strip_prefix(joint))
        {
            let anchor = name(after);
            rest = &after[anchor.len()..];
            found.push((page.to_owned(), anchor));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_become_the_anchors_that_github_makes() {
        let page =
            "# The reward, its *group*\n## [TRACE](x.md) & `s <= 1`\n```\n# no heading\n```\n## Same\n## Same\n| <a id=\"d1\"></a>D1 |";
        let anchors = anchors(page);
        assert_eq!(Vec::from_iter(anchors), ["d1", "same", "same-1", "the-reward-its-group", "trace--s--1"]);
    }

    #[test]
    fn links_are_read_outside_code() {
        assert_eq!(links("see [a](b.md#c) and `[x](y)`, ![d](e.png \"title\")\n```\n[f](g)\n```"), ["b.md#c", "e.png"]);
    }

    #[test]
    fn words_are_read_outside_code_and_addresses() {
        assert_eq!(
            words("A `room` of [one's](room.md) *Own*.\n```\nfloor\n```\nEnd"),
            [(1, vec!["a".to_owned(), "of".into(), "own".into()]), (5, vec!["end".into()])]
        );
    }

    #[test]
    fn a_citation_may_name_several_anchors() {
        let of = |page: &str, anchor: &str| (page.to_owned(), anchor.to_owned());
        let text = "//! (docs/spec.md#trace, #d5 to #d7; see docs/gpu.md). docs/turns.md#boxes and #arguments.";
        let want = [("docs/spec.md", "trace"), ("docs/spec.md", "d5"), ("docs/spec.md", "d7"), ("docs/turns.md", "boxes")];
        assert_eq!(citations(text)[..4], want.map(|(page, anchor)| of(page, anchor)));
        assert_eq!(citations(text)[4], of("docs/turns.md", "arguments"));
    }
}
