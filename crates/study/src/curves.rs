//! Learning curves. In: the lines. Out: per arm and metric the mean over seeds at every step, within its 95 % interval; as JSON, and as
//! charts.
//!
//! A step of training is a few dozen rollouts: each seed is smoothed first. Versions that were measured on held-out tasks are not.

use std::collections::{BTreeMap, BTreeSet};

use hypereyes_report::chart::{Chart, Series, smooth};
use serde::Serialize;

use crate::line::{Line, Lines, Point};
use crate::plan::Plan;
use crate::spread::Spread;

/// One arm's curve of one metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The arm.
    pub arm: String,
    /// Seeds in it.
    pub seeds: usize,
    /// Optimiser steps.
    pub steps: Vec<u64>,
    /// Mean over seeds.
    pub mean: Vec<Option<f64>>,
    /// Its 95 % interval; with one seed there is none.
    pub interval: Vec<Option<[f64; 2]>>,
}

/// Curves of one metric.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Panel {
    /// `accuracy`, `rounds`, ..
    pub metric: &'static str,
    /// `training`: rollouts of each step, smoothed; `held_out`: versions that were measured.
    pub on: &'static str,
    /// One per arm that has a line.
    pub curves: Vec<Curve>,
    #[serde(skip)]
    how: How,
}

/// How a panel is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct How {
    title: &'static str,
    note: &'static str,
    decimals: usize,
    factor: f64,
    from_zero: bool,
}

/// What is drawn of a point: the metric, how, and its value.
type Drawn = (&'static str, How, fn(&Point) -> Option<f64>);

const TRAINING: [Drawn; 5] = [
    ("accuracy", how("Accuracy in training, %", "Right answers among the rollouts of a step.", 1, 100.0, false), |point| point.accuracy),
    ("rounds", how("Tool rounds in training", "Mean of the rollouts of a step.", 2, 1.0, true), |point| point.rounds),
    ("searches", how("Searches in training", "All areas and queries of an episode.", 2, 1.0, true), |point| point.searches),
    ("reference_rounds", how("Rounds of the references", "What the rollouts of a step are rewarded against.", 2, 1.0, true), |point| {
        point.reference_rounds
    }),
    ("distilled", how("Distilled, %", "Rollouts of a step that the teacher's log-probs shaped.", 1, 100.0, true), |point| point.distilled),
];

const HELD_OUT: [Drawn; 2] = [
    ("accuracy", how("Accuracy on held-out tasks, %", "Versions that were measured while they were trained.", 1, 100.0, false), |point| {
        point.accuracy
    }),
    ("rounds", how("Tool rounds on held-out tasks", "Versions that were measured while they were trained.", 2, 1.0, true), |point| {
        point.rounds
    }),
];

const fn how(title: &'static str, note: &'static str, decimals: usize, factor: f64, from_zero: bool) -> How {
    How { title, note, decimals, factor, from_zero }
}

/// Everything that can be drawn.
pub fn panels(plan: &Plan, lines: &Lines) -> Vec<Panel> {
    let of = |on: &'static str, drawn: &[Drawn], points: fn(&Line) -> &[Point], is_smooth: bool| -> Vec<Panel> {
        let one = |(metric, how, value): &Drawn| {
            let curve = |arm: &crate::Arm| {
                let seeds: Vec<Vec<(u64, Option<f64>)>> = arm
                    .seeds
                    .iter()
                    .filter_map(|seed| lines.get(&arm.name, *seed))
                    .map(|line| {
                        let points = points(line);
                        let values: Vec<Option<f64>> = points.iter().map(value).collect();
                        let values = if is_smooth { smooth(&values) } else { values };
                        points.iter().map(|point| point.step).zip(values).collect()
                    })
                    .collect();
                curve(&arm.name, &seeds)
            };
            Panel { metric, on, how: *how, curves: plan.arms.iter().filter_map(curve).collect() }
        };
        drawn.iter().map(one).filter(|panel| !panel.curves.is_empty()).collect()
    };
    let held_out = of("held_out", &HELD_OUT, |line| &line.measured, false);
    held_out.into_iter().chain(of("training", &TRAINING, |line| &line.training, true)).collect()
}

/// The mean of several seeds' curves, at the steps that any of them has; `None` where nothing is known.
fn curve(arm: &str, seeds: &[Vec<(u64, Option<f64>)>]) -> Option<Curve> {
    let steps: BTreeSet<u64> = seeds.iter().flatten().filter(|(_, value)| value.is_some()).map(|(step, _)| *step).collect();
    let by_step: Vec<BTreeMap<u64, f64>> =
        seeds.iter().map(|points| points.iter().filter_map(|(step, value)| Some((*step, (*value)?))).collect()).collect();
    let at = |step: &u64| {
        let values: Vec<(f64, f64)> = by_step.iter().filter_map(|points| Some((*points.get(step)?, 0.0))).collect();
        Spread::of(&values)
    };
    let spreads: Vec<Option<Spread>> = steps.iter().map(at).collect();
    let interval = |spread: &Option<Spread>| {
        let spread = spread.as_ref().filter(|spread| spread.seeds > 1)?;
        let interval = spread.interval();
        Some([interval.low, interval.high])
    };
    (!steps.is_empty()).then(|| Curve {
        arm: arm.to_owned(),
        seeds: by_step.iter().filter(|points| !points.is_empty()).count(),
        mean: spreads.iter().map(|spread| spread.as_ref().map(|spread| spread.mean)).collect(),
        interval: spreads.iter().map(interval).collect(),
        steps: steps.into_iter().collect(),
    })
}

impl Panel {
    /// Steps of the drawing, and the drawing.
    pub fn chart(&self) -> (Vec<u64>, Chart) {
        let How { title, note, decimals, factor, from_zero } = self.how;
        let steps: Vec<u64> =
            self.curves.iter().flat_map(|curve| curve.steps.iter().copied()).collect::<BTreeSet<u64>>().into_iter().collect();
        let series = |curve: &Curve| {
            let place: BTreeMap<u64, usize> = curve.steps.iter().enumerate().map(|(at, step)| (*step, at)).collect();
            let at = |step: &u64| place.get(step).copied();
            let values = steps.iter().map(|step| curve.mean[at(step)?].map(|value| value * factor)).collect();
            let band = steps.iter().map(|step| curve.interval[at(step)?].map(|band| band.map(|end| end * factor))).collect();
            let name = if curve.seeds == 1 { format!("{} (one seed)", curve.arm) } else { curve.arm.clone() };
            Series { name, values, band: Some(band) }
        };
        (steps.clone(), Chart { title, note, decimals, from_zero, series: self.curves.iter().map(series).collect() })
    }

    /// What its file is called, without an ending.
    pub fn name(&self) -> String {
        format!("{}-{}", self.on, self.metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::tests::{line, plan};

    #[test]
    fn a_curve_is_the_mean_over_seeds_within_its_interval() {
        let seeds = [vec![(1, Some(1.0)), (2, Some(2.0))], vec![(1, Some(3.0)), (2, None), (3, Some(5.0))]];
        let curve = curve("a", &seeds).expect("known");
        assert_eq!((&curve.steps[..], &curve.mean[..]), (&[1, 2, 3][..], &[Some(2.0), Some(2.0), Some(5.0)][..]));
        // Two values that differ by two: a deviation of sqrt 2, over sqrt 2 seeds, times 12.706.
        let [low, high] = curve.interval[0].expect("two seeds");
        assert!((high - 2.0 - 12.706).abs() < 1e-9 && (2.0 - low - 12.706).abs() < 1e-9);
        assert_eq!(curve.interval[1..], [None, None], "one seed has no interval");
        assert_eq!(super::curve("a", &[vec![(1, None)]]), None);
    }

    #[test]
    fn every_arm_with_a_line_is_in_the_panels() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, plan, mut lines) = (folder.path().join("s"), plan(), Lines::default());
        assert_eq!(panels(&plan, &lines), []);
        for (arm, seed) in [("plain", 1), ("trace", 1), ("plain", 2)] {
            lines.add(&path, &plan, line(&plan, arm, seed, &[(1, 1)], &[(1, 1)])).expect("written");
        }
        let panels = panels(&plan, &lines);
        let names: Vec<String> = panels.iter().map(Panel::name).collect();
        assert_eq!(names, ["training-accuracy", "training-rounds"], "what nobody knows is not drawn");
        let (steps, chart) = panels[0].chart();
        assert_eq!(steps, [1, 2, 3, 4]);
        let figure = chart.figure(&steps);
        assert!(figure.contains(">plain<") && figure.contains("trace (one seed)") && figure.contains("50.0"), "{figure}");
        let json = serde_json::to_value(&panels[0]).expect("plain data");
        assert_eq!((&json["metric"], json["curves"].as_array().map(Vec::len)), (&"accuracy".into(), Some(2)));
    }
}
