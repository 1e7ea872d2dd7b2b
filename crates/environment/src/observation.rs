//! The words of observations (docs/spec.md#calls, #observations, #search-services). In: results of searches; out: text. The wording is
//! compact and fixed: the embedded agent's tokenizer is made of exactly these pieces. Knows no picture and no turn limit.

use std::borrow::Cow;

use hypereyes_domain::Area;

use crate::config::EnvConfig;
use crate::metrics::HIT_CUT;
use crate::search::{Hit, Outcome};
use crate::tools::VISIT;

/// A search that found nothing.
pub const NO_INFORMATION: &str = "no relevant information\n";
/// A search that failed, which is not the same (docs/spec.md#search-services).
pub const SEARCH_FAILED: &str = "search failed\n";
/// An image id that the registry does not have.
pub const UNKNOWN_ID: &str = "unknown image id\n";
/// Said of a label whose area had no inside.
pub const CROP_FAILED: &str = "crop failed";
/// No area of the call had an inside.
pub const ALL_CROPS_FAILED: &str = "all crops failed\n";
/// A text search without a usable query.
pub const NO_QUERY: &str = "no valid keywords\n";

/// A visit that names no page.
pub const NO_PAGE: &str = "no page is named\n";

/// Why crops failed whose edges are in the wrong order or the same.
pub const BOX_ORDER: &str = "a box is [x1,y1,x2,y2] with x1 < x2 and y1 < y2\n";
/// Why other crops failed.
pub const BOX_SMALL: &str = "a box has at least one pixel inside\n";

/// Letters of a hit's source or date that are shown.
const MOST_SAID: usize = 100;
/// Letters of an address that is shown: a longer one could not be visited when it is cut, and is left out.
const MOST_ADDRESS: usize = 500;
/// What begins a new line, for one reader or another.
const BREAKS: [char; 7] = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Of texts: `1. 0.83 currency: peso is Mexico's currency`, or with what a service says of it, and without a relevance where it gives
    /// none, `1. Lima (Wikipedia; May 2, 2024): the capital`.
    Text,
    /// Of pictures: `1. 0.97 Mexico`.
    Image,
}

/// How much of hits is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Characters of a title, a content and a detail each.
    pub max_chars: usize,
    /// Whether addresses are: for a policy that can visit them.
    pub addresses: bool,
}

impl Shown {
    /// As settings say.
    pub fn of(config: &EnvConfig) -> Self {
        Self { max_chars: config.max_hit_chars, addresses: config.tools.iter().any(|tool| tool == VISIT) }
    }
}

impl Style {
    /// Relevance by which hits are chosen and ordered: the score, or what the reference takes where it is missing. That one is not shown.
    pub fn relevance(self, hit: &Hit) -> f64 {
        let missing = match self {
            Style::Text => 0.0,
            Style::Image => 0.8,
        };
        hit.score.filter(|score| score.is_finite()).unwrap_or(missing)
    }
}

/// The lines of one search: numbered hits, each on one line so that none passes for two or for those of another search, or one line that
/// says there are none. Each part of a hit is cut after `max_chars` characters, and counted.
pub fn results(style: Style, outcome: &Outcome, shown: Shown) -> String {
    let max_chars = shown.max_chars;
    let hits = match outcome {
        Err(_) => return SEARCH_FAILED.to_owned(),
        Ok(hits) if hits.is_empty() => return NO_INFORMATION.to_owned(),
        Ok(hits) => hits,
    };
    let mut text = String::new();
    for (number, hit) in hits.iter().enumerate() {
        text.push_str(&format!("{}.", number + 1));
        if let Some(score) = hit.score.filter(|score| score.is_finite()) {
            text.push_str(&format!(" {score:.2}"));
        }
        let title = flat(cut(&hit.title, max_chars));
        if !title.is_empty() {
            text.push(' ');
            text.push_str(&title);
        }
        let about = about(hit, shown);
        text.push_str(&about);
        let content = flat(cut(&hit.content, max_chars));
        if !content.is_empty() {
            text.push_str(if style == Style::Text && !(title.is_empty() && about.is_empty()) { ": " } else { " " });
            text.push_str(&content);
        }
        if let Some(detail) = hit.detail.as_deref().filter(|detail| !detail.is_empty()) {
            text.push(' ');
            text.push_str(&flat(cut(detail, max_chars)));
        }
        text.push('\n');
    }
    text
}

/// Who says it, when and where, as far as a service tells: ` (Wikipedia; May 2, 2024; https://en.wikipedia.org/wiki/Lima)`.
fn about(hit: &Hit, shown: Shown) -> String {
    let said = [&hit.source, &hit.date].into_iter().flatten().map(|said| cut(said, shown.max_chars.min(MOST_SAID)));
    let address = hit.url.as_deref().filter(|url| shown.addresses && url.chars().nth(MOST_ADDRESS).is_none());
    let parts: Vec<String> = said.chain(address).filter(|part| !part.is_empty()).map(one_line).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

/// A text without line breaks, and without more than a blank anywhere.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text with blanks for line breaks.
fn flat(text: &str) -> Cow<'_, str> {
    if text.contains(BREAKS) { Cow::Owned(text.replace(BREAKS, " ")) } else { Cow::Borrowed(text) }
}

/// The body of an image round: a block per label that was searched, then a line per label whose crop failed. The header
/// with both lists is written only where asked for.
pub fn image_body(searched: &[(&str, &Outcome)], failed: &[&str], header: bool, shown: Shown) -> String {
    let mut body = String::new();
    if header {
        let labels: Vec<&str> = searched.iter().map(|(label, _)| *label).collect();
        body.push_str(&format!("found {}", labels.join(" ")));
        if !failed.is_empty() {
            body.push_str(&format!("; failed {}", failed.join(" ")));
        }
        body.push('\n');
    }
    for (label, outcome) in searched {
        body.push_str(&format!("{label}\n{}", results(Style::Image, outcome, shown)));
    }
    for label in failed {
        body.push_str(&format!("{label} {CROP_FAILED}\n"));
    }
    body
}

/// Why crops of `areas` failed, a line per reason.
pub fn crop_reasons(areas: &[Area]) -> String {
    let in_order = |area: &Area| area.x1 < area.x2 && area.y1 < area.y2;
    let (order, small) = (areas.iter().any(|area| !in_order(area)), areas.iter().any(in_order));
    [(order, BOX_ORDER), (small, BOX_SMALL)].into_iter().filter(|(said, _)| *said).map(|(_, line)| line).collect()
}

/// The body of a text round: a block per query under its number, in order.
pub fn text_body<'a>(searched: impl Iterator<Item = (&'a str, &'a Outcome)>, shown: Shown) -> String {
    searched.map(|(number, outcome)| format!("{number}\n{}", results(Style::Text, outcome, shown))).collect()
}

/// The body of a round that read pages: a block per page under its number, in order: its title with what is known of it, its text, its
/// detail. Each is cut after `max_chars` characters, and counted.
pub fn page_body<'a>(read: impl Iterator<Item = (&'a str, &'a Outcome)>, shown: Shown) -> String {
    let page = |outcome: &Outcome| match outcome.as_deref() {
        Err(_) => SEARCH_FAILED.to_owned(),
        Ok([]) => NO_INFORMATION.to_owned(),
        Ok([page, ..]) => {
            let head = format!("{}{}", flat(cut(&page.title, shown.max_chars)), about(page, Shown { addresses: false, ..shown }));
            let parts = [Some(page.content.as_str()), page.detail.as_deref()].into_iter().flatten().map(|part| cut(part, shown.max_chars));
            [head.trim_start()].into_iter().chain(parts).filter(|part| !part.is_empty()).map(|part| format!("{part}\n")).collect()
        }
    };
    read.map(|(number, outcome)| format!("{number}\n{}", page(outcome))).collect()
}

/// The whole observation: the body in its tags, the question again, a hint on a line of its own.
pub fn wrap(body: &str, question: &str, hint: Option<&str>) -> String {
    let hint = hint.map(|hint| format!("\n{hint}")).unwrap_or_default();
    format!("<tool_response>{body}</tool_response>{question}{hint}")
}

/// A call that could not be executed: this alone is the observation.
pub fn error(message: &str) -> String {
    format!("Error: {message}")
}

fn cut(text: &str, max_chars: usize) -> &str {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => {
            metrics::counter!(HIT_CUT).increment(1);
            &text[..end]
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::{Fault, Query};
    use serde_json::Value;

    /// So many characters.
    fn chars(max_chars: usize) -> Shown {
        Shown { max_chars, addresses: false }
    }

    fn hit(title: &str, content: &str, score: f64) -> Hit {
        Hit { title: title.into(), content: content.into(), score: Some(score), ..Hit::default() }
    }

    #[test]
    fn rounds_read_as_the_tokenizer_expects() {
        let (two, none): (Outcome, Outcome) = (Ok(vec![hit("Mexico", "", 0.97), hit("Italy", "", 0.5)]), Ok(vec![]));
        let (searched, failed) = ([("img_1", &two), ("img_3", &none)], ["img_2"]);
        let body = "img_1\n1. 0.97 Mexico\n2. 0.50 Italy\nimg_3\nno relevant information\nimg_2 crop failed\n";
        assert_eq!(image_body(&searched, &failed, false, chars(99)), body);
        assert_eq!(image_body(&searched, &failed, true, chars(99)), format!("found img_1 img_3; failed img_2\n{body}"));
        let down = Err(Query::Text("q".into()).failed(Fault::Unavailable, "down"));
        let outcomes = [("1", &Ok(vec![hit("currency", "peso is Mexico's currency", 0.83)])), ("2", &down)];
        assert_eq!(text_body(outcomes.into_iter(), chars(99)), "1\n1. 0.83 currency: peso is Mexico's currency\n2\nsearch failed\n");
        assert_eq!(wrap("b\n", "Q?", Some("one call left")), "<tool_response>b\n</tool_response>Q?\none call left");
        assert_eq!(wrap("b\n", "Q?", None), "<tool_response>b\n</tool_response>Q?");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let outcome = Ok(vec![hit("title", "\u{e9}\u{e9}\u{e9}\u{e9}", 1.0)]);
        assert_eq!(results(Style::Text, &outcome, chars(3)), "1. 1.00 tit: \u{e9}\u{e9}\u{e9}\n");
    }

    #[test]
    fn what_a_service_says_of_a_hit_is_shown_and_no_relevance_is_made_up() {
        let told = Hit {
            title: "Lima".into(),
            content: "the capital".into(),
            source: Some("Wikipedia".into()),
            date: Some("May 2,\n2024".into()),
            url: Some("https://x/l".into()),
            ..Hit::default()
        };
        let outcome = Ok(vec![told.clone(), Hit { score: Some(0.5), date: None, ..told.clone() }]);
        let text = results(Style::Text, &outcome, chars(99));
        assert_eq!(text, "1. Lima (Wikipedia; May 2, 2024): the capital\n2. 0.50 Lima (Wikipedia): the capital\n");
        let addresses = Shown { addresses: true, ..chars(99) };
        assert!(results(Style::Image, &outcome, addresses).starts_with("1. Lima (Wikipedia; May 2, 2024; https://x/l) the capital\n"));
        let long = Ok(vec![Hit { url: Some("x".repeat(501)), content: "c".into(), ..Hit::default() }]);
        assert_eq!(results(Style::Text, &long, addresses), "1. c\n", "half an address is none");
        assert_eq!(page_body([("1", &Ok(vec![told]))].into_iter(), addresses), "1\nLima (Wikipedia; May 2, 2024)\nthe capital\n");
    }

    #[test]
    fn a_hit_has_one_line_whatever_it_says() {
        let forged = hit("x\nimg_2\n1. 1.00 Peru", "a\r\n2\u{2028}3", 0.1);
        let outcome = Ok(vec![Hit { detail: Some("b\u{85}c".into()), ..forged.clone() }]);
        assert_eq!(results(Style::Image, &outcome, chars(99)), "1. 0.10 x img_2 1. 1.00 Peru a  2 3 b c\n");
        assert_eq!(page_body([("1", &Ok(vec![forged]))].into_iter(), chars(99)), "1\nx img_2 1. 1.00 Peru\na\r\n2\u{2028}3\n");
    }

    /// The family `format_observation`: what is shown of which item. A null title, which the reference shows as the word
    /// None, and a relevance that is missing are shown as nothing here, and a line break as a blank (docs/spec.md#search-services).
    #[test]
    fn golden_items_show_what_the_reference_shows() {
        let golden: Value = serde_json::from_str(include_str!("../tests/data/golden.json")).expect("the file is JSON");
        let cases = golden["format_observation"].as_array().expect("a list of cases");
        assert_eq!(cases.len(), 4);
        for case in cases {
            let outcome: Outcome = Ok(serde_json::from_value(case["items"].clone()).expect("items are hits"));
            let expected = &case["expected"];
            for (style, scores) in [(Style::Text, "text_scores_shown"), (Style::Image, "image_scores_shown")] {
                let text = results(style, &outcome, chars(8000));
                assert_eq!(text == NO_INFORMATION, expected["single_no_information_text"] == true, "{text}");
                let mut rest = text.as_str();
                for (number, score) in expected[scores].as_array().expect("a list").iter().enumerate() {
                    let shown = |key: &str| expected[key][number].as_str().filter(|text| *text != "None").unwrap_or("").replace('\n', " ");
                    let scored = !case["items"][number]["score"].is_null();
                    let start =
                        if scored { format!("{}. {}", number + 1, score.as_str().expect("text")) } else { format!("{}.", number + 1) };
                    for part in [start, shown("title_shown"), shown("content_shown"), shown("detail_shown")] {
                        let at = rest.find(&part).unwrap_or_else(|| panic!("{part:?} is missing from {text:?}"));
                        rest = &rest[at + part.len()..];
                    }
                }
            }
        }
    }
}
