//! The page itself. In: [`Material`]. Out: HTML with its style inside and no script, no font and no picture from elsewhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hypereyes_domain::TaskKind;
use hypereyes_eval::Report;
use hypereyes_run::{Step, TeacherMeans};

use super::chart::{Chart, Series};
use super::html::{escape, number};
use super::{Material, episode};

const STYLE: &str = include_str!("style.css");

/// Renders the page.
pub fn render(material: &Material) -> String {
    let summary = &material.outcome.summary;
    let mut html = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str(
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">",
    );
    put(&mut html, format_args!("<title>hypereyes run, seed {}</title><style>{STYLE}</style></head><body><main>", summary.seed));
    html.push_str(&headline(material));
    if let Some(nothing) = &material.outcome.summary.learned_nothing {
        put(&mut html, format_args!("<p class=\"lead\"><b>{}.</b></p>", escape(nothing)));
    }
    html.push_str(&table(material));
    html.push_str(&curves(&material.steps));
    html.push_str(&examples(material));
    html.push_str(&facts(material));
    html.push_str("</main></body></html>\n");
    html
}

fn headline(material: &Material) -> String {
    let summary = &material.outcome.summary;
    let (before, after) = (&summary.before, &summary.after);
    let points = (after.accuracy - before.accuracy) * 100.0;
    let title = format!(
        "From {:.1} to {:.1} % right answers, from {:.2} to {:.2} tool rounds",
        before.accuracy * 100.0,
        after.accuracy * 100.0,
        before.rounds,
        after.rounds
    );
    let mut html = format!(
        "<h1>{}</h1><p class=\"lead\">{} optimiser steps on {} groups in {}; measured on {} held-out tasks with the same seeds before and after. \
         Without tools the start policy answers {:.1} % right.</p><div class=\"cards\">",
        escape(&title),
        summary.steps,
        summary.groups_trained,
        escape(&duration(summary.wall_seconds)),
        after.tasks,
        summary.closed_book_accuracy * 100.0
    );
    let mut card = |name: &str, value: String, change: String, better: bool| {
        let class = if better { "up" } else { "down" };
        put(
            &mut html,
            format_args!(
                "<div class=\"stat\"><span>{name}</span><b>{value}</b><small><span class=\"{class}\">{change}</span></small></div>"
            ),
        );
    };
    card("Accuracy", format!("{:.1} %", after.accuracy * 100.0), format!("{points:+.1} points"), points >= 0.0);
    let mut relative = |name: &str, was: f64, is: f64, decimals: usize, less_is_better: bool| {
        let share = if was.abs() > 1e-12 { (is - was) / was * 100.0 } else { 0.0 };
        card(
            name,
            format!("{is:.decimals$}"),
            format!("{share:+.0} % from {was:.decimals$}"),
            (share <= 0.0) == less_is_better || share == 0.0,
        );
    };
    relative("Tool rounds", before.rounds, after.rounds, 2, true);
    relative("Searches", before.searches, after.searches, 2, true);
    relative("Thousand tokens", before.kilotokens, after.kilotokens, 3, true);
    relative("Cost-aware score", before.cas, after.cas, 2, false);
    html.push_str("</div>");
    html
}

fn table(material: &Material) -> String {
    let details = &material.outcome.details;
    let mut html = String::from(
        "<div class=\"scroll\"><table class=\"numbers\"><tr><th></th><th>rollouts</th><th>accuracy %</th><th>tool rounds</th><th>searches</th>\
         <th>thousand tokens</th><th>CAS</th></tr>",
    );
    let mut row = |name: &str, sub: bool, rollouts: usize, accuracy: [f64; 3], rounds: [f64; 3], rest: [f64; 3]| {
        let class = if sub { " class=\"sub\"" } else { "" };
        let [searches, kilotokens, cas] = rest;
        put(
            &mut html,
            format_args!(
                "<tr{class}><td>{}</td><td>{rollouts}</td><td>{:.1} <small>{:.1} to {:.1}</small></td><td>{:.2} <small>{:.2} to {:.2}</small></td>\
                 <td>{searches:.2}</td><td>{kilotokens:.3}</td><td>{cas:.2}</td></tr>",
                escape(name),
                accuracy[0] * 100.0,
                accuracy[1] * 100.0,
                accuracy[2] * 100.0,
                rounds[0],
                rounds[1],
                rounds[2]
            ),
        );
    };
    let mut side = |name: &str, report: &Report| {
        let (accuracy, rounds) = (report.accuracy_interval, report.rounds_interval);
        let rest = [report.searches, report.kilotokens, report.cas];
        let accuracy = [report.accuracy, accuracy.low, accuracy.high];
        row(name, false, report.rollouts, accuracy, [report.rounds, rounds.low, rounds.high], rest);
        for kind in &report.by_kind {
            let (accuracy, rounds) = (kind.accuracy_interval, kind.rounds_interval);
            let rest = [kind.searches, kind.kilotokens, kind.cas];
            let accuracy = [kind.accuracy, accuracy.low, accuracy.high];
            row(kind_label(kind.kind), true, kind.rollouts, accuracy, [kind.rounds, rounds.low, rounds.high], rest);
        }
    };
    side("Before", &details.before);
    side("After", &details.after);
    html.push_str(
        "</table></div><p class=\"dim\">Small figures are 95 % intervals. CAS is accuracy² · 100 / (thousand tokens + 2 · rounds + 1).</p>",
    );
    html
}

fn kind_label(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::VisualSelect => "visual, select",
        TaskKind::VisualHop => "visual, hop",
        TaskKind::TextualConstraints => "textual constraints",
    }
}

fn curves(steps: &[Step]) -> String {
    let series = |name: &str, value: &dyn Fn(&Step) -> Option<f64>| Series { name: name.into(), values: steps.iter().map(value).collect() };
    // One line per teacher version: a swap is a line that ends and another that begins.
    let versions: BTreeSet<&String> = steps.iter().flat_map(|step| step.teachers.keys()).collect();
    let by_teacher = |value: &dyn Fn(&TeacherMeans) -> Option<f64>| -> Vec<Series> {
        versions.iter().map(|version| series(version, &|step| step.teachers.get(*version).and_then(value))).collect()
    };
    let chart = |title, note, decimals, from_zero, series| Chart { title, note, decimals, from_zero, series };
    let percent = |share: Option<f64>| share.map(|share| share * 100.0);
    let main = [
        chart(
            "Accuracy, %",
            "Right answers among the rollouts of a step.",
            1,
            false,
            vec![series("rollouts", &|step| percent(step.accuracy))],
        ),
        chart(
            "Tool rounds",
            "Mean of the rollouts, and of the references that they are rewarded against.",
            2,
            true,
            vec![series("rollouts", &|step| step.rounds), series("reference", &|step| step.reference_rounds)],
        ),
        chart(
            "Searches",
            "All areas and queries of an episode.",
            2,
            true,
            vec![series("rollouts", &|step| step.searches), series("reference", &|step| step.reference_searches)],
        ),
        chart("Cost-aware score", "Accuracy squared over cost; higher is better.", 2, false, vec![series("CAS", &|step| step.cas)]),
        chart("Reward", "Accuracy plus the efficiency bonus.", 3, false, vec![series("reward", &|step| step.reward)]),
        chart(
            "Distance to the teacher",
            "Reverse KL per token on distilled rollouts (failures only).",
            3,
            true,
            match versions.len() {
                // Runs of before teachers had versions.
                0 => vec![series("KL", &|step| step.opd_reverse_kl)],
                _ => by_teacher(&|means| means.reverse_kl),
            },
        ),
        chart(
            "Shared choice, %",
            "Of the teacher's likeliest tokens on distilled rollouts, those that are the policy's likeliest too.",
            1,
            false,
            by_teacher(&|means| percent(means.top_overlap)),
        ),
        chart(
            "Distilled, %",
            "Share of rollouts that failed and were shaped by the teacher; untaught ones got no word of it.",
            1,
            true,
            vec![series("taught", &|step| percent(step.distilled)), series("untaught", &|step| percent(step.untaught))],
        ),
        chart(
            "Staleness",
            "Versions between the policy that sampled a rollout and the one that it trained.",
            2,
            true,
            vec![series("mean", &|step| step.staleness), series("most", &|step| step.staleness_max.map(|most| most as f64))],
        ),
        chart("Tokens per second", "Trained.", 0, true, vec![series("tokens/s", &|step| step.tokens_per_second)]),
    ];
    let more = [
        chart("Loss", "Of the policy-gradient objective.", 4, false, vec![series("loss", &|step| step.loss)]),
        chart("Gradient norm", "Before clipping.", 3, true, vec![series("norm", &|step| step.grad_norm)]),
        chart(
            "Clipped, %",
            "Tokens whose ratio left the trust region.",
            2,
            true,
            vec![series("tokens", &|step| percent(step.clip_fraction))],
        ),
        chart(
            "Importance weight",
            "Mean correction between sampler and trainer; 1 is none.",
            3,
            false,
            vec![series("weight", &|step| step.tis_mean)],
        ),
        chart("Thousand tokens", "Per episode, prompt included.", 3, true, vec![series("tokens", &|step| step.kilotokens)]),
        chart("Learning rate", "", 7, true, vec![series("rate", &|step| step.lr)]),
    ];
    let numbers: Vec<u64> = steps.iter().map(|step| step.step).collect();
    let figures = |charts: &[Chart]| charts.iter().map(|chart| chart.figure(&numbers)).collect::<String>();
    let (main, more) = (figures(&main), figures(&more));
    if main.is_empty() {
        return "<h2>Training</h2><p>The run has too few steps for curves.</p>".into();
    }
    let more =
        if more.is_empty() { more } else { format!("<details><summary>More curves</summary><div class=\"charts\">{more}</div></details>") };
    format!(
        "<h2>Training</h2><p>Each point is one optimiser step; bold lines are smoothed, hover for the numbers.</p>\
         <div class=\"charts\">{main}</div>{more}"
    )
}

fn examples(material: &Material) -> String {
    if material.examples.is_empty() {
        return String::new();
    }
    let dealt = if material.examples.iter().any(|example| example.task.layer != 0) {
        " Names and facts are dealt anew among the pictures in every layer of the world, so they are not those of the real one: only searching helps."
    } else {
        ""
    };
    let mut html = format!(
        "<h2>What the trained policy does</h2><p>Held-out tasks. Boxes are the areas that it cut out and searched, one colour per area; \
         the same colours mark the queries that follow from them.{dealt}</p>"
    );
    for example in &material.examples {
        html.push_str(&episode::card(&example.task, example.picture.as_ref(), &example.after, example.before.as_ref()));
    }
    html
}

fn facts(material: &Material) -> String {
    let (summary, details) = (&material.outcome.summary, &material.outcome.details);
    let restarts: Vec<String> =
        details.restarts.iter().filter(|(_, count)| **count > 0).map(|(room, count)| format!("{room} {count}")).collect();
    let restarts = if restarts.is_empty() { "none".to_owned() } else { restarts.join(", ") };
    let ledger = &details.ledger;
    let others: Vec<String> = ledger.others.iter().map(|(what, count)| format!("{count} {what}")).collect();
    let ledger = format!(
        "{} leased, {} trained, {}{} trained twice, {} in flight at the end",
        ledger.leased,
        ledger.trained,
        others.iter().map(|text| format!("{text}, ")).collect::<String>(),
        ledger.trained_twice,
        ledger.open
    );
    let rows = [
        ("seed", summary.seed.to_string()),
        ("wall time", format!("{} on {} cores, {}", duration(summary.wall_seconds), details.cores, sittings(details.sittings))),
        ("groups", format!("{} trained, {} dropped", summary.groups_trained, summary.groups_dropped)),
        ("ledger", ledger),
        ("restarts of rooms", restarts),
        (
            "closed book",
            format!(
                "{} % before, {} % after",
                number(Some(summary.closed_book_accuracy * 100.0), 1),
                number(Some(details.closed_book_after * 100.0), 1)
            ),
        ),
        (
            "left out",
            format!("{} rollouts before, {} after, for reasons outside the policy", details.before.invalid, details.after.invalid),
        ),
        ("policy", details.policy.display().to_string()),
        ("other settings", if details.told.is_empty() { "none on the way".to_owned() } else { details.told.join("; ") }),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(value))).collect();
    format!(
        "<h2>The run</h2><dl>{rows}</dl><details><summary>Resolved settings</summary><pre>{}</pre></details>",
        escape(&material.settings)
    )
}

fn sittings(count: u32) -> String {
    if count <= 1 { "in one sitting".into() } else { format!("in {count} sittings") }
}

/// Minutes and seconds, for people.
pub fn duration(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0).round() as u64 } else { 0 };
    match seconds {
        0..=90 => format!("{seconds} s"),
        91..=7200 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn put(into: &mut String, arguments: std::fmt::Arguments<'_>) {
    into.write_fmt(arguments).expect("memory takes every text");
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Accuracy, Task};

    use super::*;
    use crate::Example;
    use crate::episode::Told;
    use crate::outcome::tests::outcome;
    use crate::transcript::Episode;
    use crate::transcript::tests::{PARALLEL, chat, mosaic, play};

    fn material() -> Material {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let told = |accuracy| Told { episode: Episode::read(&chat, &play(&chat, "q", &PARALLEL), &[mosaic()]), accuracy };
        let task = Task {
            id: "t".into(),
            kind: TaskKind::VisualSelect,
            question: "Which one has currency <sol>?".into(),
            answers: vec!["Peru".into()],
            pictures: vec![],
            layer: 0,
            shown: vec![],
            reference: None,
        };
        let step = |at: u64| Step {
            step: at,
            accuracy: Some(0.4 + at as f64 / 200.0),
            rounds: Some(4.0 - at as f64 / 30.0),
            reference_rounds: Some(3.0),
            staleness: Some(0.2),
            ..Step::default()
        };
        let example = Example { task, picture: Some(mosaic()), after: told(Accuracy::Correct), before: Some(told(Accuracy::Wrong)) };
        Material { outcome: outcome(), settings: "run_dir = \"<x>\"".into(), steps: (1..=60).map(step).collect(), examples: vec![example] }
    }

    #[test]
    fn the_page_is_one_file_that_needs_nothing_else() {
        let page = render(&material());
        for elsewhere in ["http://", "https://", "<script", "@import", "url(", "<link"] {
            assert!(!page.contains(elsewhere), "{elsewhere} is in the page");
        }
        assert!(page.len() < 3 << 20, "{} bytes", page.len());
        assert!(page.starts_with("<!doctype html>") && page.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn the_page_shows_numbers_curves_settings_and_an_episode() {
        let page = render(&material());
        for want in
            ["50.0 %", "-60 % from 5.00", "Tool rounds", "reference", "&lt;sol&gt;", "run_dir = &quot;&lt;x&gt;&quot;", "reward 1", "13 s"]
        {
            assert!(page.contains(want), "{want} is missing");
        }
        assert!(page.matches("<figure class=\"chart\">").count() >= 3);
        for tag in ["div", "figure", "svg", "article", "details", "table", "ol", "li", "span", "p"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "<{tag}> is not balanced");
        }
    }

    #[test]
    fn a_run_without_steps_or_examples_has_a_page_too() {
        let page = render(&Material { steps: vec![], examples: vec![], ..material() });
        assert!(page.contains("too few steps") && !page.contains("What the trained policy does"));
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!(duration(12.4), "12 s");
        assert_eq!(duration(754.0), "12 min 34 s");
        assert_eq!(duration(3.0 * 3600.0 + 120.0), "3 h 02 min");
        assert_eq!(duration(f64::NAN), "0 s");
    }
}
