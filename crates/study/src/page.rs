//! The page of a study. In: its plan, what it came to, its curves. Out: HTML with its style inside and nothing from elsewhere, as a run's
//! report; each curve as a file of its own.

use hypereyes_report::html::templates;
use hypereyes_report::page::{STYLE, duration};
use minijinja::{Value, context};
use serde::Serialize;

use crate::curves::Panel;
use crate::line::Lines;
use crate::plan::Plan;
use crate::summary::Summary;

/// An arm as the page tells it.
#[derive(Serialize)]
struct Told<'a> {
    name: &'a str,
    about: &'a str,
    /// What it is told beyond the defaults, as TOML.
    settings: String,
    /// Accuracy (in percent) and rounds by kind of task.
    kinds: Vec<(&'a str, Option<f64>, Option<f64>)>,
}

/// Renders the page.
pub fn render(name: &str, plan: &Plan, lines: &Lines, summary: &Summary, panels: &[Panel]) -> String {
    let figure = |panel: &Panel| {
        let (steps, chart) = panel.chart();
        chart.figure(&steps)
    };
    let arms: Vec<Told<'_>> = summary
        .arms
        .iter()
        .map(|arm| Told {
            name: &arm.name,
            about: &arm.about,
            settings: plan.arm(&arm.name).map(|arm| toml::to_string(&arm.settings).expect("a table")).unwrap_or_default(),
            kinds: arm
                .by_kind
                .iter()
                .map(|(kind, [accuracy, rounds])| (kind.as_str(), accuracy.map(|share| share * 100.0), *rounds))
                .collect(),
        })
        .collect();
    let [held, open] =
        [crate::Ruling::Held, crate::Ruling::Undecided].map(|ruling| summary.claims.iter().filter(|claim| claim.verdict == ruling).count());
    let page = context! {
        style => Value::from_safe_string(STYLE.into()),
        name,
        about => &plan.about,
        summary => summary,
        rows => summary.cells(),
        claims => summary.claim_cells(),
        held, open,
        done => lines.iter().filter(|line| plan.arm(&line.arm).is_some()).count(),
        wanted => plan.cells().len(),
        time => duration(summary.run_seconds),
        charts => Value::from_safe_string(panels.iter().map(figure).collect()),
        arms,
    };
    let mut templates = templates();
    templates.add_template("study.html", include_str!("study.html")).expect("the template is tried in tests");
    templates.get_template("study.html").and_then(|template| template.render(page)).expect("the template is tried in tests")
}

/// Every curve as an SVG file: its name, and what is in it.
pub fn drawings(panels: &[Panel]) -> Vec<(String, String)> {
    let file = |panel: &Panel| {
        let (steps, chart) = panel.chart();
        Some((format!("{}.svg", panel.name()), chart.file(&steps)?))
    };
    panels.iter().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::panels;
    use crate::line::tests::{line, plan};

    #[test]
    fn the_page_tells_arms_claims_and_curves_and_nothing_breaks_out_of_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, mut plan, mut lines) = (folder.path().join("s"), plan(), Lines::default());
        plan.arms[1].about = "with <b>".into();
        let empty = render("quick", &plan, &lines, &Summary::of(&plan, &lines), &[]);
        assert!(empty.contains("0 of 6 runs"), "{empty}");
        for (arm, seed) in [("plain", 1), ("trace", 1), ("plain", 2)] {
            lines.add(&path, &plan, line(&plan, arm, seed, &[(1, 1)], &[(1, 1)])).expect("written");
        }
        let panels = panels(&plan, &lines);
        let page = render("quick", &plan, &lines, &Summary::of(&plan, &lines), &panels);
        for part in
            ["3 of 6 runs", "with &lt;b&gt;", "rounds(trace) / rounds(plain)", "undecided", "enabled = false", "visual_select", "<svg"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        let files = drawings(&panels);
        assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["training-accuracy.svg", "training-rounds.svg"]);
        assert!(files[0].1.starts_with("<svg xmlns="));
    }
}
