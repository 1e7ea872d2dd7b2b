//! What a study came to. In: its plan and its lines. Out: per arm the mean of everything that is measured, its 95 % interval and how it
//! differs from the base arm; a verdict per claim; as JSON for programs and as Markdown for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hypereyes_domain::TaskKind;
use hypereyes_eval::aligned::markdown;
use serde::{Serialize, Serializer};

use crate::claim::{Metric, Quantity};
use crate::line::{Lines, Machine};
use crate::plan::{Plan, START};
use crate::spread::Spread;
use crate::verdict::{self, Verdict};

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
}

impl Mean {
    fn of(spread: &Spread, outward: impl Fn(f64) -> f64) -> Self {
        let interval = spread.interval();
        Self { mean: outward(spread.mean), interval: [outward(interval.low), outward(interval.high)] }
    }
}

/// One arm. Field order is the order of the JSON keys; a mean is `None` without a seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmSummary {
    /// Its name; the key in JSON.
    #[serde(skip)]
    pub name: String,
    /// Share of right answers, 0..=1.
    pub accuracy: Option<f64>,
    /// Mean tool rounds.
    pub rounds: Option<f64>,
    /// Cost-aware score.
    pub cas: Option<f64>,
    /// Seeds that are done.
    pub seeds: usize,
    /// What it is.
    pub about: String,
    /// Seeds that are asked for.
    pub seeds_wanted: usize,
    /// Mean searches.
    pub searches: Option<f64>,
    /// Mean thousands of tokens.
    pub kilotokens: Option<f64>,
    /// 95 % intervals of all five.
    pub intervals: BTreeMap<Metric, [f64; 2]>,
    /// Less the base arm over the seeds that both have; none for the base arm.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub less_base: BTreeMap<Metric, Mean>,
    /// As a part of the base arm's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub of_base: BTreeMap<Metric, Mean>,
    /// Accuracy and rounds by the kind of task.
    pub by_kind: BTreeMap<String, [Option<f64>; 2]>,
    /// Mean seconds of a run; none for the start policy, which runs with the base arm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<f64>,
}

/// All of it. Field order is the order of the JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// In the order of the study, the start policy first.
    #[serde(serialize_with = "by_name")]
    pub arms: Vec<ArmSummary>,
    /// In the order of the study.
    pub claims: Vec<Verdict>,
    /// The arm that others are compared with.
    pub base: String,
    /// What is not run yet: arm and seed.
    pub missing: Vec<(String, u64)>,
    /// Seconds of all runs, one after the other.
    pub run_seconds: f64,
    /// Where they ran.
    pub machines: Vec<Machine>,
    /// What cannot be compared, in words.
    pub warnings: Vec<String>,
}

fn by_name<S: Serializer>(arms: &[ArmSummary], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(arms.iter().map(|arm| (&arm.name, arm)))
}

impl Summary {
    /// What the lines come to.
    pub fn of(plan: &Plan, lines: &Lines) -> Self {
        let mut warnings = verdict::apart(plan, lines);
        warnings.extend(lines.unasked(plan).iter().map(|line| format!("{line} is none of the study: it is left out")));
        let start = arm(
            plan,
            lines,
            START,
            &format!("the policy that {} starts from", plan.base),
            plan.arm(&plan.base).map_or(0, |base| base.seeds.len()),
        );
        let arms = plan.arms.iter().map(|one| arm(plan, lines, &one.name, &one.about, one.seeds.len()));
        let mut machines: Vec<Machine> = vec![];
        for line in lines.iter().filter(|line| plan.arm(&line.arm).is_some()) {
            if !machines.contains(&line.machine) {
                machines.push(line.machine.clone());
            }
        }
        let missing = plan.cells().into_iter().filter(|(arm, seed)| lines.get(&arm.name, *seed).is_none());
        Self {
            arms: std::iter::once(start).chain(arms).collect(),
            claims: plan.claims.iter().map(|claim| verdict::verdict(plan, lines, claim)).collect(),
            base: plan.base.clone(),
            missing: missing.map(|(arm, seed)| (arm.name.clone(), seed)).collect(),
            run_seconds: lines.iter().map(|line| line.wall_seconds).sum(),
            machines,
            warnings,
        }
    }

    /// The table of arms, and that of claims, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = markdown(&self.cells());
        if !self.claims.is_empty() {
            let _ = write!(text, "\n{}", markdown(&self.claim_cells())); // Memory takes every text.
        }
        text
    }

    /// The table of arms, its head first.
    pub fn cells(&self) -> Vec<Vec<String>> {
        let head = ["arm", "seeds", "accuracy %", "rounds", "searches", "tokens", "CAS", "accuracy to base", "rounds to base"];
        let mut cells = vec![head.map(|name| name.replace("base", &self.base)).to_vec()];
        for arm in &self.arms {
            let seeds =
                if arm.seeds == arm.seeds_wanted { arm.seeds.to_string() } else { format!("{} of {}", arm.seeds, arm.seeds_wanted) };
            let shown = |metric: Metric, value: Option<f64>, factor: f64, decimals: usize| {
                let range = arm.intervals.get(&metric).map(|[low, high]| half(low * factor, high * factor, decimals)).unwrap_or_default();
                value.map_or_else(|| "–".to_owned(), |value| format!("{:.decimals$}{range}", value * factor))
            };
            let points = arm.less_base.get(&Metric::Accuracy).map(|mean| {
                let [low, high] = mean.interval;
                format!("{:+.1} ({:+.1} to {:+.1})", mean.mean * 100.0, low * 100.0, high * 100.0)
            });
            let ratio = arm.of_base.get(&Metric::Rounds).map(|mean| {
                let [low, high] = mean.interval;
                format!("x {:.2} ({low:.2} to {high:.2})", mean.mean)
            });
            cells.push(vec![
                arm.name.clone(),
                seeds,
                shown(Metric::Accuracy, arm.accuracy, 100.0, 1),
                shown(Metric::Rounds, arm.rounds, 1.0, 2),
                shown(Metric::Searches, arm.searches, 1.0, 2),
                shown(Metric::Kilotokens, arm.kilotokens, 1000.0, 0),
                shown(Metric::Cas, arm.cas, 1.0, 2),
                points.unwrap_or_default(),
                ratio.unwrap_or_default(),
            ]);
        }
        cells
    }

    /// The table of claims, its head first.
    pub fn claim_cells(&self) -> Vec<Vec<String>> {
        let mut cells = vec![["claim", "verdict", "measured", "95 % interval", "seeds"].map(str::to_owned).to_vec()];
        for claim in &self.claims {
            for (at, part) in claim.parts.iter().enumerate() {
                let verdict = if claim.parts.len() == 1 {
                    claim.verdict.name().to_owned()
                } else if at == 0 {
                    format!("{} ({})", claim.verdict.name(), part.verdict.name())
                } else {
                    format!("({})", part.verdict.name())
                };
                let seeds = part.seeds_needed.map_or_else(|| part.seeds.to_string(), |needed| format!("{} of {needed} needed", part.seeds));
                cells.push(vec![
                    format!("{} {}", part.of, part.claimed),
                    verdict,
                    part.estimate.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}")),
                    part.interval.map_or_else(|| "–".to_owned(), |[low, high]| format!("{low:.3} to {high:.3}")),
                    seeds,
                ]);
            }
        }
        cells
    }
}

/// Half of an interval, which is symmetric where it is of a mean.
fn half(low: f64, high: f64, decimals: usize) -> String {
    format!(" ± {:.decimals$}", (high - low) / 2.0)
}

fn arm(plan: &Plan, lines: &Lines, name: &str, about: &str, seeds_wanted: usize) -> ArmSummary {
    let of = |metric: Metric, kind: Option<&TaskKind>| Quantity { metric, arm: name.to_owned(), kind: kind.cloned() };
    let spread = |metric: Metric, kind: Option<&TaskKind>| verdict::spread(plan, lines, &of(metric, kind), None, false);
    let all: BTreeMap<Metric, Spread> = Metric::ALL.into_iter().filter_map(|metric| Some((metric, spread(metric, None)?))).collect();
    let mean = |metric: Metric| all.get(&metric).map(|spread| spread.mean);
    let to_base = |is_ratio: bool| -> BTreeMap<Metric, Mean> {
        let base = |metric: Metric| Quantity { arm: plan.base.clone(), ..of(metric, None) };
        let outward = if is_ratio { f64::exp } else { |value| value };
        let one = |metric: Metric| {
            let spread = verdict::spread(plan, lines, &of(metric, None), Some(&base(metric)), is_ratio)?;
            Some((metric, Mean::of(&spread, outward)))
        };
        if name == plan.base { BTreeMap::new() } else { Metric::ALL.into_iter().filter_map(one).collect() }
    };
    let mine: Vec<_> = lines.iter().filter(|line| line.arm == if name == START { plan.base.as_str() } else { name }).collect();
    let mut kinds: Vec<&TaskKind> = mine.iter().flat_map(|line| &line.kinds).collect();
    kinds.sort_by(|one, other| one.rank().cmp(&other.rank()));
    kinds.dedup();
    let by_kind = kinds.into_iter().map(|kind| {
        let values = [Metric::Accuracy, Metric::Rounds].map(|metric| spread(metric, Some(kind)).map(|spread| spread.mean));
        (kind.to_string(), values)
    });
    let seconds = mine.iter().map(|line| line.wall_seconds).sum::<f64>() / mine.len().max(1) as f64;
    ArmSummary {
        name: name.to_owned(),
        accuracy: mean(Metric::Accuracy),
        rounds: mean(Metric::Rounds),
        cas: mean(Metric::Cas),
        seeds: all.get(&Metric::Accuracy).map_or(0, |spread| spread.seeds),
        about: about.to_owned(),
        seeds_wanted,
        searches: mean(Metric::Searches),
        kilotokens: mean(Metric::Kilotokens),
        intervals: all.iter().map(|(metric, spread)| (*metric, Mean::of(spread, |value| value).interval)).collect(),
        less_base: to_base(false),
        of_base: to_base(true),
        by_kind: by_kind.collect(),
        wall_seconds: (name != START && !mine.is_empty()).then_some(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::tests::{line, plan};

    #[test]
    fn the_json_has_the_promised_keys_and_the_table_every_arm() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, plan, mut lines) = (folder.path().join("s"), plan(), Lines::default());
        for (arm, seed, rounds) in [("plain", 1, 4), ("trace", 1, 2), ("plain", 2, 4)] {
            let after: Vec<(u8, u32)> = (0..10).map(|at| (u8::from(at % 2 == 0), rounds)).collect();
            lines.add(&path, &plan, line(&plan, arm, seed, &[(0, 6); 10], &after)).expect("written");
        }
        let summary = Summary::of(&plan, &lines);
        let json = serde_json::to_value(&summary).expect("plain data");
        for (key, want) in [("accuracy", 0.5), ("rounds", 2.0), ("seeds", 1.0)] {
            assert_eq!(json["arms"]["trace"][key].as_f64(), Some(want), "{key}");
        }
        assert!(json["arms"]["trace"]["cas"].is_number() && json["arms"]["start"]["rounds"] == 6.0, "{json}");
        assert_eq!(json["arms"]["trace"]["of_base"]["rounds"]["mean"].as_f64().map(|mean| (mean * 1e9).round() / 1e9), Some(0.5));
        assert_eq!((&json["claims"][0]["verdict"], json["missing"].as_array().expect("a list").len()), (&"undecided".into(), 3));
        let keys: Vec<&String> = json["arms"].as_object().expect("a table").keys().collect();
        assert_eq!(keys, ["start", "plain", "trace"]);
        let table = summary.markdown();
        for part in ["1 of 3", "2 of 3", "accuracy to plain", "x 0.50", "rounds(trace) / rounds(plain) <= 0.8", "undecided"] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }
}
