//! One task as a policy worked on it, as HTML: the picture with the boxes over it, each round with what was found, the
//! verdict. In: an [`Episode`] and its task. Out: markup, everything from outside escaped.

use std::fmt::Write as _;

use hypereyes_domain::{Accuracy, Area, Ending, Task, TaskKind};
use hypereyes_pictures::RgbImage;

use super::html::{data_uri, escape};
use crate::transcript::{Asked, Episode, Found, Shot, Step, Turn};

/// Colours that the style sheet defines for areas; more areas go round.
const COLOURS: usize = 8;
/// Longer texts are cut: a page is read by people.
const MAX_TEXT: usize = 600;

/// A policy's episode and its verdict.
pub struct Told {
    /// What happened.
    pub episode: Episode,
    /// Whether it was right.
    pub accuracy: Accuracy,
}

/// A task with the trained policy's episode, and the one before training.
pub fn card(task: &Task, picture: Option<&RgbImage>, after: &Told, before: Option<&Told>) -> String {
    let mut html = String::from("<article class=\"task\">");
    let kind = match task.kind {
        TaskKind::VisualSelect => "visual, select",
        TaskKind::VisualHop => "visual, hop",
        TaskKind::TextualConstraints => "textual constraints",
    };
    let change = before
        .map(|before| format!("<span class=\"dim\">before training {} {}</span>", badge(before.accuracy), escape(&cost(before))))
        .unwrap_or_default();
    put(
        &mut html,
        format_args!(
            "<header><span class=\"kind\">{kind}</span><h3>{}</h3><p>{} <b>{}</b>{change}</p></header>",
            escape(&task.question),
            badge(after.accuracy),
            escape(&cost(after))
        ),
    );
    html.push_str(&body(task, picture, after));
    if let Some(before) = before {
        put(
            &mut html,
            format_args!("<details><summary>The same task before training: {} {}</summary>", badge(before.accuracy), escape(&cost(before))),
        );
        html.push_str(&body(task, picture, before));
        html.push_str("</details>");
    }
    html.push_str("</article>");
    html
}

fn body(task: &Task, picture: Option<&RgbImage>, told: &Told) -> String {
    let mut html = String::from("<div class=\"episode\">");
    if let Some(picture) = picture {
        html.push_str(&mosaic(picture, &told.episode));
    }
    html.push_str("<ol class=\"rounds\">");
    let mut round = 0;
    for turn in &told.episode.turns {
        if !matches!(turn.step, Step::Answer { .. } | Step::Nothing { .. }) {
            round += 1;
        }
        html.push_str(&turn_item(task, told, turn, round));
    }
    if !matches!(told.episode.turns.last().map(|turn| &turn.step), Some(Step::Answer { .. } | Step::Nothing { .. })) {
        put(
            &mut html,
            format_args!(
                "<li class=\"end\"><p class=\"dim\">Ended without an answer: {}.</p>{}</li>",
                ending(told.episode.ending),
                truth(task)
            ),
        );
    }
    html.push_str("</ol></div>");
    html
}

/// The picture with a box for every area that was searched on it.
fn mosaic(picture: &RgbImage, episode: &Episode) -> String {
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    // Strokes and labels in parts of the picture's width, so that every canvas looks alike.
    let unit = width / 192.0;
    let mut svg = format!(
        "<svg class=\"mosaic\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"the picture of the question\">\
         <image href=\"{}\" width=\"{width}\" height=\"{height}\"/>",
        data_uri(picture)
    );
    for shot in episode.boxes() {
        let Some(area) = shot.area.map(clamped) else { continue };
        let (x, y) = (area.x1 * width + unit, area.y1 * height + unit);
        let (w, h) = (((area.x2 - area.x1) * width - 2.0 * unit).max(1.0), ((area.y2 - area.y1) * height - 2.0 * unit).max(1.0));
        let (colour, number, side) = (shot.number % COLOURS, shot.number + 1, 11.0 * unit);
        put(
            &mut svg,
            format_args!(
                "<g class=\"c{colour}\"><rect class=\"box\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" stroke-width=\"{:.2}\">\
                 <title>area {number}: {}</title></rect><rect class=\"tag\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side:.1}\" height=\"{side:.1}\"/>\
                 <text class=\"tagtext\" x=\"{:.1}\" y=\"{:.1}\" font-size=\"{:.1}\">{number}</text></g>",
                2.0 * unit,
                escape(&ratios(area)),
                x + side / 2.0,
                y + side * 0.75,
                8.0 * unit,
            ),
        );
    }
    svg.push_str("</svg>");
    format!("<div class=\"picture\">{svg}</div>")
}

fn turn_item(task: &Task, told: &Told, turn: &Turn, round: usize) -> String {
    let reason = turn.reason.as_deref().filter(|reason| !reason.is_empty());
    let reason = reason.map(|reason| format!("<p class=\"reason\">{}</p>", escape(&cut(reason)))).unwrap_or_default();
    let (class, head, inner) = match &turn.step {
        Step::Images { on, shots } => {
            let head =
                format!("Round {round} · <code>image_search</code> · {} at once on {}", plural(shots.len(), "area", "areas"), escape(on));
            ("call", head, format!("<div class=\"shots\">{}</div>", shots.iter().map(shot_html).collect::<String>()))
        }
        Step::Texts { asked } => {
            let head = format!("Round {round} · <code>text_search</code> · {} at once", plural(asked.len(), "query", "queries"));
            ("call", head, format!("<table class=\"asked\">{}</table>", asked.iter().map(asked_html).collect::<String>()))
        }
        Step::Refused { wanted, told } => {
            let inner = format!("<pre>{}</pre><p class=\"dim\">{}</p>", escape(&cut(wanted)), escape(&cut(told)));
            ("call bad", format!("Round {round} · a call that could not be run"), inner)
        }
        Step::Answer { text } => {
            ("answer", "Answer".to_owned(), format!("<p><b>{}</b> {}</p>{}", escape(&cut(text)), badge(told.accuracy), truth(task)))
        }
        Step::Nothing { text } => {
            ("answer bad", "Neither a call nor an answer".to_owned(), format!("<pre>{}</pre>{}", escape(&cut(text)), truth(task)))
        }
    };
    format!("<li class=\"{class}\"><h4>{head}</h4>{reason}{inner}</li>")
}

fn shot_html(shot: &Shot) -> String {
    let crop = shot.crop.as_ref().map(|crop| format!("<img src=\"{}\" alt=\"the crop\">", data_uri(crop))).unwrap_or_default();
    let place = shot.area.map_or("whole picture".to_owned(), ratios);
    let (colour, number) = (shot.number % COLOURS, shot.number + 1);
    format!(
        "<figure class=\"shot c{colour}\">{crop}<figcaption><i>{number}</i>{}<small>{}</small></figcaption></figure>",
        found_html(&shot.found),
        escape(&place)
    )
}

fn asked_html(asked: &Asked) -> String {
    let mark = asked.about.map(|about| format!("<i class=\"c{}\">{}</i>", about % COLOURS, about + 1)).unwrap_or_default();
    format!("<tr><td>{mark}<code>{}</code></td><td>{}</td></tr>", escape(&cut(&asked.query)), found_html(&asked.found))
}

fn found_html(found: &Found) -> String {
    let hit = |hit: &crate::transcript::Hit| {
        format!("<span class=\"hit-text\">{} <small>{:.2}</small></span>", escape(&cut(&hit.text)), hit.relevance)
    };
    let mut html: String = found.hits.iter().map(hit).collect();
    if let Some(note) = &found.note {
        put(&mut html, format_args!("<span class=\"dim\">{}</span>", escape(&cut(note))));
    }
    html
}

fn truth(task: &Task) -> String {
    format!("<p class=\"dim\">Right: {}</p>", escape(&cut(task.answer())))
}

fn badge(accuracy: Accuracy) -> &'static str {
    match accuracy {
        Accuracy::Correct => "<span class=\"badge good\">right</span>",
        Accuracy::Wrong => "<span class=\"badge bad\">wrong</span>",
        Accuracy::Unparsed => "<span class=\"badge bad\">no answer</span>",
        Accuracy::Invalid(_) => "<span class=\"badge\">no verdict</span>",
    }
}

/// Rounds and searches, in words.
fn cost(told: &Told) -> String {
    let (mut rounds, mut searches) = (0, 0);
    for turn in &told.episode.turns {
        let found = match &turn.step {
            Step::Images { shots, .. } => shots.iter().filter(|shot| shot.crop.is_some()).count(),
            Step::Texts { asked } => asked.len(),
            Step::Refused { .. } => 0,
            Step::Answer { .. } | Step::Nothing { .. } => continue,
        };
        (rounds, searches) = (rounds + 1, searches + found);
    }
    format!("{}, {}", plural(rounds, "round", "rounds"), plural(searches, "search", "searches"))
}

fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Answered => "it answered",
        Ending::NoAction => "a turn held neither a call nor an answer",
        Ending::TurnLimit => "the limit of turns was reached",
        Ending::TurnTruncated => "a turn was too long",
        Ending::ContextFull => "the context was full",
        Ending::Failed(_) => "something outside the policy failed",
    }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The part of a box that lies on the picture; what a policy wrote may be anything.
fn clamped(area: Area) -> Area {
    let inside = |value: f64| if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 };
    let (x1, y1) = (inside(area.x1), inside(area.y1));
    Area { x1, y1, x2: inside(area.x2).max(x1), y2: inside(area.y2).max(y1) }
}

/// Two corners in two digits at most.
fn ratios(area: Area) -> String {
    let short = |value: f64| (value * 100.0).round() / 100.0;
    format!("{} {} – {} {}", short(area.x1), short(area.y1), short(area.x2), short(area.y2))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn put(into: &mut String, arguments: std::fmt::Arguments<'_>) {
    into.write_fmt(arguments).expect("memory takes every text");
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::Reference;

    use super::*;
    use crate::transcript::tests::{PARALLEL, chat, mosaic as picture, play};

    fn task(question: &str) -> Task {
        Task {
            id: "t".into(),
            kind: TaskKind::VisualSelect,
            question: question.into(),
            answers: vec!["Peru<script>".into()],
            pictures: vec![],
            layer: 0,
            shown: vec![],
            reference: Some(Reference { rounds: 2, searches: 4 }),
        }
    }

    #[test]
    fn a_parallel_episode_shows_boxes_queries_answer_and_verdict() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let told = |turns: &[&str]| Told {
            episode: Episode::read(&chat, &play(&chat, "Which one has currency sol?", turns), &[picture()]),
            accuracy: Accuracy::Correct,
        };
        let html = card(&task("Which one has currency sol?"), Some(&picture()), &told(&PARALLEL), Some(&told(&PARALLEL[1..])));
        assert_eq!(html.matches("class=\"box\"").count(), 2, "one box per area");
        for want in [
            "2 areas at once",
            "2 queries at once",
            "2 rounds, 4 searches",
            "class=\"badge good\"",
            "Mexico",
            "currency Peru",
            "before training",
        ] {
            assert!(html.contains(want), "{want} is missing");
        }
    }

    #[test]
    fn what_a_policy_or_a_task_says_cannot_become_markup() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let turns = [
            "<reason><b onclick=x>\"&</reason><tool_call>{\"name\": \"text_search\", \"arguments\": {\"input\": \"<svg onload=y>\"}}</tool_call>",
            "<answer><iframe src='z'></answer>",
        ];
        let told = Told { episode: Episode::read(&chat, &play(&chat, "q", &turns), &[picture()]), accuracy: Accuracy::Wrong };
        let html = card(&task("<script>alert(1)</script>"), None, &told, None);
        for bad in ["<script", "<b onclick", "<svg onload", "<iframe"] {
            assert!(!html.contains(bad), "{bad} got through");
        }
        assert!(html.contains("&lt;script&gt;alert(1)"));
    }

    #[test]
    fn boxes_stay_on_the_picture_whatever_was_written() {
        let wild = Area { x1: -3.0, y1: f64::NAN, x2: 9.0, y2: f64::INFINITY };
        let inside = clamped(wild);
        assert!([inside.x1, inside.y1, inside.x2, inside.y2].iter().all(|value| (0.0..=1.0).contains(value)), "{inside:?}");
    }
}
