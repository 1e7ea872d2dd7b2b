//! One task as a policy worked on it: the picture with the boxes over it, each round with what was found, the verdict.
//!
//! In: an [`Episode`] and its task. Out: what `episode.html` shows. Only the picture is drawn here, and escapes what it says.

use std::fmt::Write as _;

use hypereyes_domain::{Accuracy, Area, Ending, Task, TaskKind};
use hypereyes_pictures::RgbImage;
use minijinja::Value;
use serde::Serialize;

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
#[derive(Serialize)]
pub struct Card {
    kind: String,
    question: String,
    answer: String,
    after: Side,
    before: Option<Side>,
}

/// What one policy made of the task.
#[derive(Serialize)]
struct Side {
    verdict: Verdict,
    /// Rounds and searches, in words.
    cost: String,
    /// The picture with its boxes; empty without one.
    picture: Value,
    turns: Vec<TurnView>,
    /// Why there is no answer, where there is none.
    ended: Option<&'static str>,
}

/// A verdict as a badge: a class of the style sheet, and what it says.
#[derive(Clone, Copy, Serialize)]
struct Verdict {
    class: Option<&'static str>,
    text: &'static str,
}

/// One turn. `step` says which of the others count.
#[derive(Serialize)]
struct TurnView {
    class: &'static str,
    step: &'static str,
    round: usize,
    reason: Option<String>,
    /// Areas or queries, in words.
    count: String,
    /// The picture that areas are on, or the tool that was asked for texts.
    on: String,
    shots: Vec<ShotView>,
    asked: Vec<AskedView>,
    /// The answer, or what was said instead of a call.
    text: String,
    /// What a call that could not be run was answered with.
    told: String,
}

/// An area with its crop.
#[derive(Serialize)]
struct ShotView {
    colour: usize,
    number: usize,
    crop: Option<Value>,
    found: FoundView,
    place: String,
}

/// A query; `about` is the area whose finding it is about.
#[derive(Serialize)]
struct AskedView {
    query: String,
    about: Option<usize>,
    colour: usize,
    found: FoundView,
}

/// What a search found.
#[derive(Serialize)]
struct FoundView {
    hits: Vec<HitView>,
    note: Option<String>,
}

/// One hit.
#[derive(Serialize)]
struct HitView {
    text: String,
    relevance: Option<f64>,
}

/// Makes the card of a task.
pub fn card(task: &Task, picture: Option<&RgbImage>, after: &Told, before: Option<&Told>) -> Card {
    Card {
        kind: kind(&task.kind).to_owned(),
        question: task.question.clone(),
        answer: task.answer().to_owned(),
        after: side(picture, after),
        before: before.map(|before| side(picture, before)),
    }
}

/// A kind of task, for people: our own in words, others as their set calls them.
pub fn kind(kind: &TaskKind) -> &str {
    let at = TaskKind::SYNTHETIC.iter().position(|known| known == kind);
    at.map_or(kind.as_str(), |at| ["visual, select", "visual, hop", "textual constraints"][at])
}

fn side(picture: Option<&RgbImage>, told: &Told) -> Side {
    let mut round = 0;
    let turns = told.episode.turns.iter().map(|turn| {
        round += usize::from(!matches!(turn.step, Step::Answer { .. } | Step::Nothing { .. }));
        view(turn, round)
    });
    let turns: Vec<TurnView> = turns.collect();
    let ended = !matches!(told.episode.turns.last().map(|turn| &turn.step), Some(Step::Answer { .. } | Step::Nothing { .. }));
    Side {
        verdict: verdict(told.accuracy),
        cost: cost(told),
        picture: Value::from_safe_string(picture.map(|picture| mosaic(picture, &told.episode)).unwrap_or_default()),
        turns,
        ended: ended.then(|| ending(told.episode.ending)),
    }
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
fn view(turn: &Turn, round: usize) -> TurnView {
    let mut view = TurnView {
        class: "call",
        step: "",
        round,
        reason: turn.reason.clone(),
        count: String::new(),
        on: String::new(),
        shots: vec![],
        asked: vec![],
        text: String::new(),
        told: String::new(),
    };
    match &turn.step {
        Step::Images { on, shots } => {
            (view.step, view.count, view.on) = ("images", plural(shots.len(), "area", "areas"), on.clone());
            view.shots = shots.iter().map(shot).collect();
        }
        Step::Texts { tool, asked: queries } => {
            (view.step, view.count, view.on) = ("texts", plural(queries.len(), "query", "queries"), tool.clone());
            view.asked = queries.iter().map(asked).collect();
        }
        Step::Refused { wanted, told } => {
            (view.class, view.step, view.text, view.told) = ("call bad", "refused", wanted.clone(), told.clone());
        }
        Step::Answer { text } => (view.class, view.step, view.text) = ("answer", "answer", text.clone()),
        Step::Nothing { text } => (view.class, view.step, view.text) = ("answer bad", "nothing", text.clone()),
    }
    view
}

fn shot(shot: &Shot) -> ShotView {
    ShotView {
        colour: shot.number % COLOURS,
        number: shot.number + 1,
        crop: shot.crop.as_ref().map(|crop| Value::from_safe_string(data_uri(crop))),
        found: found(&shot.found),
        place: shot.area.map_or("whole picture".to_owned(), ratios),
    }
}

fn asked(asked: &Asked) -> AskedView {
    AskedView {
        query: asked.query.clone(),
        about: asked.about.map(|about| about + 1),
        colour: asked.about.unwrap_or(0) % COLOURS,
        found: found(&asked.found),
    }
}

fn found(found: &Found) -> FoundView {
    let hits = found.hits.iter().map(|hit| HitView { text: hit.text.clone(), relevance: hit.relevance });
    FoundView { hits: hits.collect(), note: found.note.clone() }
}

fn verdict(accuracy: Accuracy) -> Verdict {
    let (class, text) = match accuracy {
        Accuracy::Correct => (Some("good"), "right"),
        Accuracy::Wrong => (Some("bad"), "wrong"),
        Accuracy::NotAttempted => (Some("bad"), "declined"),
        Accuracy::Unparsed => (Some("bad"), "no answer"),
        Accuracy::Invalid(_) => (None, "no verdict"),
    };
    Verdict { class, text }
}

/// Rounds and searches, in words.
fn cost(told: &Told) -> String {
    let (mut rounds, mut searches) = (0, 0);
    for turn in &told.episode.turns {
        let found = match &turn.step {
            Step::Images { shots, .. } => shots.iter().filter(|shot| shot.crop.is_some()).count(),
            Step::Texts { asked, .. } => asked.len(),
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
/// A text as far as a page shows it.
pub fn cut(text: &str) -> String {
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
    use hypereyes_domain::{Reference, TaskKind};

    use super::*;
    use crate::transcript::tests::{PARALLEL, chat, mosaic as picture, play};

    /// The card as the page shows it.
    fn page(card: Card) -> String {
        crate::html::templates()
            .template_from_str("{% from 'episode.html' import card %}{{ card(example) }}")
            .and_then(|template| template.render(minijinja::context! { example => card }))
            .expect("the template is sound")
    }

    fn task(question: &str) -> Task {
        Task {
            id: "t".into(),
            kind: TaskKind::VISUAL_SELECT,
            question: question.into(),
            answers: vec!["Peru<script>".into()],
            pictures: vec![],
            layer: None,
            metadata: Default::default(),
            shown: vec![],
            reference: Some(Reference { rounds: 2, searches: 4 }),
        }
    }

    #[test]
    fn a_parallel_episode_shows_boxes_queries_answer_and_verdict() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let told = |turns: &[&str]| Told {
            episode: Episode::read(Some(&chat), &play(&chat, "Which one has currency sol?", turns), &[picture()]),
            accuracy: Accuracy::Correct,
        };
        let html = page(card(&task("Which one has currency sol?"), Some(&picture()), &told(&PARALLEL), Some(&told(&PARALLEL[1..]))));
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
        let told = Told { episode: Episode::read(Some(&chat), &play(&chat, "q", &turns), &[picture()]), accuracy: Accuracy::Wrong };
        let html = page(card(&task("<script>alert(1)</script>"), None, &told, None));
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
