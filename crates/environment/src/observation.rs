//! The words of observations (docs/spec.md#calls, #observations, #search-services). In: results of searches; out: text. The wording is
//! compact and fixed: the embedded agent's tokenizer is made of exactly these pieces. Knows no picture and no turn limit.

use hypereyes_domain::Area;

use crate::metrics::HIT_CUT;
use crate::search::{Hit, Outcome};

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

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Of texts: `1. 0.83 currency: peso is Mexico's currency`.
    Text,
    /// Of pictures: `1. 0.97 Mexico`.
    Image,
}

impl Style {
    /// Relevance of a hit: its score, or what the reference shows where a score is missing.
    pub fn relevance(self, hit: &Hit) -> f64 {
        let missing = match self {
            Style::Text => 0.0,
            Style::Image => 0.8,
        };
        hit.score.filter(|score| score.is_finite()).unwrap_or(missing)
    }
}

/// The lines of one search: numbered hits, or one line that says there are none. Each part of a hit is cut after
/// `max_chars` characters, and counted.
pub fn results(style: Style, outcome: &Outcome, max_chars: usize) -> String {
    let hits = match outcome {
        Err(_) => return SEARCH_FAILED.to_owned(),
        Ok(hits) if hits.is_empty() => return NO_INFORMATION.to_owned(),
        Ok(hits) => hits,
    };
    let mut text = String::new();
    for (number, hit) in hits.iter().enumerate() {
        text.push_str(&format!("{}. {:.2}", number + 1, style.relevance(hit)));
        let title = cut(&hit.title, max_chars);
        if !title.is_empty() {
            text.push(' ');
            text.push_str(title);
        }
        let content = cut(&hit.content, max_chars);
        if !content.is_empty() {
            text.push_str(if style == Style::Text && !title.is_empty() { ": " } else { " " });
            text.push_str(content);
        }
        if let Some(detail) = hit.detail.as_deref().filter(|detail| !detail.is_empty()) {
            text.push(' ');
            text.push_str(cut(detail, max_chars));
        }
        text.push('\n');
    }
    text
}

/// The body of an image round: a block per label that was searched, then a line per label whose crop failed. The header
/// with both lists is written only where asked for.
pub fn image_body(searched: &[(&str, &Outcome)], failed: &[&str], header: bool, max_chars: usize) -> String {
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
        body.push_str(&format!("{label}\n{}", results(Style::Image, outcome, max_chars)));
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
pub fn text_body<'a>(searched: impl Iterator<Item = (&'a str, &'a Outcome)>, max_chars: usize) -> String {
    searched.map(|(number, outcome)| format!("{number}\n{}", results(Style::Text, outcome, max_chars))).collect()
}

/// The body of a round that read pages: a block per page under its number, in order. Title, text and detail are each cut after
/// `max_chars` characters, and counted.
pub fn page_body<'a>(read: impl Iterator<Item = (&'a str, &'a Outcome)>, max_chars: usize) -> String {
    let page = |outcome: &Outcome| match outcome.as_deref() {
        Err(_) => SEARCH_FAILED.to_owned(),
        Ok([]) => NO_INFORMATION.to_owned(),
        Ok([page, ..]) => {
            let parts = [Some(&page.title), Some(&page.content), page.detail.as_ref()];
            parts.into_iter().flatten().filter(|part| !part.is_empty()).map(|part| format!("{}\n", cut(part, max_chars))).collect()
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

    fn hit(title: &str, content: &str, score: f64) -> Hit {
        Hit { title: title.into(), content: content.into(), score: Some(score), ..Hit::default() }
    }

    #[test]
    fn rounds_read_as_the_tokenizer_expects() {
        let (two, none): (Outcome, Outcome) = (Ok(vec![hit("Mexico", "", 0.97), hit("Italy", "", 0.5)]), Ok(vec![]));
        let (searched, failed) = ([("img_1", &two), ("img_3", &none)], ["img_2"]);
        let body = "img_1\n1. 0.97 Mexico\n2. 0.50 Italy\nimg_3\nno relevant information\nimg_2 crop failed\n";
        assert_eq!(image_body(&searched, &failed, false, 99), body);
        assert_eq!(image_body(&searched, &failed, true, 99), format!("found img_1 img_3; failed img_2\n{body}"));
        let down = Err(Query::Text("q".into()).failed(Fault::Unavailable, "down"));
        let outcomes = [("1", &Ok(vec![hit("currency", "peso is Mexico's currency", 0.83)])), ("2", &down)];
        assert_eq!(text_body(outcomes.into_iter(), 99), "1\n1. 0.83 currency: peso is Mexico's currency\n2\nsearch failed\n");
        assert_eq!(wrap("b\n", "Q?", Some("one call left")), "<tool_response>b\n</tool_response>Q?\none call left");
        assert_eq!(wrap("b\n", "Q?", None), "<tool_response>b\n</tool_response>Q?");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let outcome = Ok(vec![hit("title", "\u{e9}\u{e9}\u{e9}\u{e9}", 1.0)]);
        assert_eq!(results(Style::Text, &outcome, 3), "1. 1.00 tit: \u{e9}\u{e9}\u{e9}\n");
    }

    /// The family `format_observation`: what is shown of which item. A null title, which the reference shows as the word
    /// None, is shown as nothing here (docs/spec.md#search-services).
    #[test]
    fn golden_items_show_what_the_reference_shows() {
        let golden: Value = serde_json::from_str(include_str!("../tests/data/golden.json")).expect("the file is JSON");
        let cases = golden["format_observation"].as_array().expect("a list of cases");
        assert_eq!(cases.len(), 4);
        for case in cases {
            let outcome: Outcome = Ok(serde_json::from_value(case["items"].clone()).expect("items are hits"));
            let expected = &case["expected"];
            for (style, scores) in [(Style::Text, "text_scores_shown"), (Style::Image, "image_scores_shown")] {
                let text = results(style, &outcome, 8000);
                assert_eq!(text == NO_INFORMATION, expected["single_no_information_text"] == true, "{text}");
                let mut rest = text.as_str();
                for (number, score) in expected[scores].as_array().expect("a list").iter().enumerate() {
                    let shown = |key: &str| expected[key][number].as_str().filter(|text| *text != "None").unwrap_or("").to_owned();
                    let start = format!("{}. {}", number + 1, score.as_str().expect("text"));
                    for part in [start, shown("title_shown"), shown("content_shown"), shown("detail_shown")] {
                        let at = rest.find(&part).unwrap_or_else(|| panic!("{part:?} is missing from {text:?}"));
                        rest = &rest[at + part.len()..];
                    }
                }
            }
        }
    }
}
