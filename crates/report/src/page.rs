//! The page itself. In: [`Material`]. Out: HTML with its style inside and no script, no font and no picture from elsewhere.
//!
//! How it is laid out is in `page.html` and `episode.html`; here is what they show.

use std::collections::BTreeSet;

use hypereyes_eval::{Evaluation, Report};
use hypereyes_run::{Step, TeacherMeans};
use hypereyes_scoring::Interval;
use minijinja::{Value, context};
use serde::Serialize;

use super::chart::{Chart, Series};
use super::html::{number, templates};
use super::outcome::Best;
use super::{Material, episode};

/// What pages and drawings look like.
pub const STYLE: &str = include_str!("style.css");

/// Renders the page.
pub fn render(material: &Material) -> String {
    let (summary, details) = (&material.outcome.summary, &material.outcome.details);
    let (charts, more_charts) = curves(&material.steps);
    let cards = material.examples.iter().map(|one| episode::card(&one.task, one.picture.as_ref(), &one.after, one.before.as_ref()));
    let page = context! {
        style => Value::from_safe_string(STYLE.into()),
        summary => summary,
        details => details,
        wall => duration(summary.wall_seconds),
        stats => stats(material),
        charts => Value::from_safe_string(charts),
        more_charts => Value::from_safe_string(more_charts),
        held_out => Value::from_safe_string(held_out(&material.evaluations)),
        examples => cards.collect::<Vec<_>>(),
        dealt => material.examples.iter().any(|example| example.task.layer.is_some()),
        facts => facts(material),
        settings => &material.settings,
    };
    templates().get_template("page.html").and_then(|template| template.render(page)).expect("the templates are tried in tests")
}

/// One number of the headline, and how it changed.
#[derive(Serialize)]
struct Stat {
    name: &'static str,
    value: String,
    change: String,
    better: bool,
}

fn stats(material: &Material) -> Vec<Stat> {
    let (before, after) = (&material.outcome.summary.before, &material.outcome.summary.after);
    let points = (after.accuracy - before.accuracy) * 100.0;
    let relative = |name, was: f64, is: f64, decimals: usize, less_is_better: bool| {
        let share = if was.abs() > 1e-12 { (is - was) / was * 100.0 } else { 0.0 };
        Stat {
            name,
            value: format!("{is:.decimals$}"),
            change: format!("{share:+.0} % from {was:.decimals$}"),
            better: (share <= 0.0) == less_is_better || share == 0.0,
        }
    };
    vec![
        Stat {
            name: "Accuracy",
            value: format!("{:.1} %", after.accuracy * 100.0),
            change: format!("{points:+.1} points"),
            better: points >= 0.0,
        },
        relative("Tool rounds", before.rounds, after.rounds, 2, true),
        relative("Searches", before.searches, after.searches, 2, true),
        relative("Thousand tokens", before.kilotokens, after.kilotokens, 3, true),
        relative("Cost-aware score", before.cas, after.cas, 2, false),
    ]
}

/// Curves as figures: the main ones, and more of them.
fn curves(steps: &[Step]) -> (String, String) {
    let series = |name: &str, value: &dyn Fn(&Step) -> Option<f64>| Series {
        name: name.into(),
        values: steps.iter().map(value).collect(),
        band: None,
    };
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
            "Tokens whose ratio to the policy before the step left the clipping bounds; 0 where a batch makes one update.",
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
    (figures(&main), figures(&more))
}

/// The policy on held-out tasks while it was trained, with 95 % intervals; empty where it was not measured then.
fn held_out(evaluations: &[Evaluation]) -> String {
    let series = |name: &str, value: &dyn Fn(&Report) -> f64, band: Option<&dyn Fn(&Report) -> Interval>| {
        let of = |one: &Evaluation| band.map(|band| band(&one.report)).map(|band| [band.low, band.high]);
        let values = evaluations.iter().map(|one| Some(value(&one.report))).collect();
        vec![Series { name: name.into(), values, band: Some(evaluations.iter().map(of).collect()) }]
    };
    let percent = |interval: Interval| Interval { low: interval.low * 100.0, high: interval.high * 100.0 };
    let note = "On the same held-out tasks with the same seeds each time; the band is the 95 % interval of a point.";
    let charts = [
        Chart {
            title: "Held-out accuracy, %",
            note,
            decimals: 1,
            from_zero: false,
            series: series("held out", &|report| report.accuracy * 100.0, Some(&|report| percent(report.accuracy_interval))),
        },
        Chart {
            title: "Held-out tool rounds",
            note,
            decimals: 2,
            from_zero: true,
            series: series("held out", &|report| report.rounds, Some(&|report| report.rounds_interval)),
        },
        Chart {
            title: "Held-out cost-aware score",
            note: "Of the same measurements.",
            decimals: 2,
            from_zero: false,
            series: series("CAS", &|report| report.cas, None),
        },
    ];
    let steps: Vec<u64> = evaluations.iter().map(|one| one.step).collect();
    charts.iter().map(|chart| chart.figure(&steps)).collect()
}

/// What else is to be said of the run.
fn facts(material: &Material) -> Vec<(&'static str, String)> {
    let (summary, details) = (&material.outcome.summary, &material.outcome.details);
    let restarts: Vec<String> =
        details.restarts.iter().filter(|(_, count)| **count > 0).map(|(service, count)| format!("{service} {count}")).collect();
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
    vec![
        ("seed", summary.seed.to_string()),
        ("wall time", format!("{} on {} cores, {}", duration(summary.wall_seconds), details.cores, attempts(details.attempts))),
        ("groups", format!("{} trained, {} dropped", summary.groups_trained, summary.groups_dropped)),
        ("ledger", ledger),
        ("restarts of services", restarts),
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
        ("best version", best(summary.best.as_ref(), material.evaluations.len())),
        ("other settings", if details.told.is_empty() { "none on the way".to_owned() } else { details.told.join("; ") }),
    ]
}

fn best(best: Option<&Best>, measured: usize) -> String {
    let Some(best) = best else { return "not looked for on the way".to_owned() };
    let numbers = &best.numbers;
    format!(
        "step {} of {measured} that were measured: {} % right in {} rounds, CAS {}; {}",
        best.step,
        number(Some(numbers.accuracy * 100.0), 1),
        number(Some(numbers.rounds), 2),
        number(Some(numbers.cas), 2),
        best.policy.display()
    )
}

fn attempts(count: u32) -> String {
    if count <= 1 { "in one attempt".into() } else { format!("in {count} attempts") }
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

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Accuracy, Task, TaskKind};

    use super::*;
    use crate::Example;
    use crate::episode::Told;
    use crate::outcome::tests::outcome;
    use crate::transcript::Episode;
    use crate::transcript::tests::{PARALLEL, chat, mosaic, play};

    fn material() -> Material {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let chat = chat(folder.path());
        let told = |accuracy| Told { episode: Episode::read(Some(&chat), &play(&chat, "q", &PARALLEL), &[mosaic()]), accuracy };
        let task = Task {
            id: "t".into(),
            kind: TaskKind::VISUAL_SELECT,
            question: "Which one has currency <sol>?".into(),
            answers: vec!["Peru".into()],
            pictures: vec![],
            layer: None,
            metadata: Default::default(),
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
        Material {
            outcome: outcome(),
            settings: "run_dir = \"<x>\"".into(),
            steps: (1..=60).map(step).collect(),
            evaluations: vec![],
            examples: vec![example],
        }
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
    fn a_run_that_was_measured_on_the_way_shows_it_with_its_band_and_names_the_best() {
        let plain = material();
        assert!(!render(&plain).contains("Held-out accuracy") && render(&plain).contains("not looked for on the way"));
        let report = plain.outcome.details.after.clone();
        let one = |step| Evaluation { step, version: step, due: step, digest: "ab".into(), seconds: None, time: 1, report: report.clone() };
        let mut measured = Material { evaluations: [0, 20, 40, 60].map(one).to_vec(), ..plain };
        measured.outcome.summary.best = Some(Best::new(&one(40), "runs/a/best".into()));
        let page = render(&measured);
        assert_eq!(page.matches("class=\"band s0\"").count(), 2);
        assert!(page.contains("Held-out accuracy, %") && page.contains("step 40 of 4 that were measured: 50.0 % right"), "{page}");
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
