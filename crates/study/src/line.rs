//! What became of an arm with one seed: a line of JSON that holds all that tables, claims and curves need, so that a study goes on from
//! its lines alone, on any machine.
//!
//! In: a finished run folder and the terms under which it was run, or the file of lines. Out: the other. Lines are in the order of the
//! study, whatever was run first.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use hypereyes_domain::{Accuracy, TaskId, TaskKind};
use hypereyes_eval::sums::Sums;
use hypereyes_eval::{Evaluation, curve};
use hypereyes_outside::{atomic, jsonl};
use hypereyes_report::outcome::Outcome;
use hypereyes_run::{Played, RunFolder, Step, follow, read_json, read_played};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{Arm, Plan};

/// Longest line that is read: a hundred thousand tasks.
const MAX_LINE: usize = 16 << 20;

/// On what terms an arm is run: what would make another experiment of it. The program's version is not one of them, it is told apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// What `up` is told beyond its defaults.
    pub settings: Value,
    /// The models that it starts from and is taught by, with how they are made; none for the shipped ones.
    pub models: Value,
}

impl Terms {
    /// Those of an arm.
    pub fn of(plan: &Plan, arm: &Arm) -> Self {
        let json = |table: &toml::Table| serde_json::to_value(table).expect("a table is plain data");
        let made = plan.models_of(arm).into_iter().map(|model| {
            let recipe = serde_json::json!({ "from": model.from, "settings": json(&model.settings) });
            (model.name.clone(), recipe)
        });
        let made: serde_json::Map<String, Value> = made.collect();
        let models = serde_json::json!({ "policy": arm.policy, "teacher": arm.teacher, "made": made });
        Self { settings: json(&arm.settings), models }
    }

    /// The first key in which two differ, with both values.
    pub fn differs(&self, other: &Self) -> Option<(String, String, String)> {
        let of = |terms: &Self| flat(&serde_json::to_value(terms).expect("plain data"));
        let (ours, theirs) = (of(self), of(other));
        let key = ours.keys().chain(theirs.keys()).find(|key| ours.get(*key) != theirs.get(*key))?.clone();
        let shown = |values: &BTreeMap<String, Value>| values.get(&key).map_or_else(|| "not set".to_owned(), Value::to_string);
        let (ours, theirs) = (shown(&ours), shown(&theirs));
        Some((key.trim_start_matches("settings.").to_owned(), ours, theirs))
    }
}

/// Every leaf by its dotted key.
fn flat(value: &Value) -> BTreeMap<String, Value> {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let of = |(name, value): (&String, &Value)| {
                let dotted = |(key, leaf): (String, Value)| (if key.is_empty() { name.clone() } else { format!("{name}.{key}") }, leaf);
                flat(value).into_iter().map(dotted).collect::<Vec<_>>()
            };
            fields.iter().flat_map(of).collect()
        }
        leaf => BTreeMap::from([(String::new(), leaf.clone())]),
    }
}

/// A rollout of a held-out task: which of the line's kinds it is, whether it is right, its rounds, searches and tokens. `None` where it
/// failed for a reason outside the policy.
pub type Told = Option<(usize, u8, u32, u32, u64)>;

/// One step of training, or one version that was measured while it was trained. What is not known is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Optimiser steps.
    pub step: u64,
    /// Share of right answers, 0..=1.
    pub accuracy: Option<f64>,
    /// Mean tool rounds.
    pub rounds: Option<f64>,
    /// Mean searches.
    pub searches: Option<f64>,
    /// Mean thousands of tokens.
    pub kilotokens: Option<f64>,
    /// Mean rounds of the references.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference_rounds: Option<f64>,
    /// Share of rollouts that the teacher's log-probs shaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distilled: Option<f64>,
}

/// An arm with one seed. Field order is the order of the JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The arm.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// On what terms.
    pub terms: Terms,
    /// Version of the program.
    pub version: String,
    /// BLAKE3 of the held-out tasks.
    pub tasks: String,
    /// BLAKE3 of the start policy's tensors: the same recipe gives other weights on another processor. Not known of the first lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Optimiser steps.
    pub steps: u64,
    /// Groups that were trained.
    pub groups_trained: u64,
    /// Seconds of the whole run.
    pub wall_seconds: f64,
    /// Where it ran.
    pub machine: Machine,
    /// Kinds of task, which `before` and `after` name by their place.
    pub kinds: Vec<TaskKind>,
    /// The start policy, a rollout per task in the order of tasks.
    pub before: Vec<Told>,
    /// The trained policy, the same tasks.
    pub after: Vec<Told>,
    /// Steps of training.
    pub training: Vec<Point>,
    /// Versions that were measured on held-out tasks meanwhile; none without `eval.every`.
    pub measured: Vec<Point>,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor.
    pub cpu: String,
    /// Cores that could be used.
    pub cores: usize,
}

impl Line {
    /// The line of a finished run that began with the policy of digest `start`.
    ///
    /// # Errors
    /// When a file of the run is missing or damaged.
    pub fn of_run(arm: &str, seed: u64, terms: Terms, folder: &RunFolder, start: String, machine: Machine) -> Result<Self> {
        let outcome: Outcome = read_json(&folder.result())?;
        let (before, after) = (read_played(&folder.held_out_before())?, read_played(&folder.held_out_after())?);
        let kinds: Vec<TaskKind> = {
            let mut kinds: Vec<TaskKind> = after.values().chain(before.values()).map(|played| played.task.kind.clone()).collect();
            kinds.sort_by(|one, other| one.rank().cmp(&other.rank()));
            kinds.dedup();
            kinds
        };
        let ids: Vec<&TaskId> = {
            let mut ids: Vec<&TaskId> = before.keys().chain(after.keys()).collect();
            ids.sort();
            ids.dedup();
            ids
        };
        let told = |played: &BTreeMap<TaskId, Played>| -> Vec<Told> { ids.iter().map(|id| told(played.get(*id)?, &kinds)).collect() };
        let mut hasher = blake3::Hasher::new();
        for id in &ids {
            let task = &before.get(*id).or_else(|| after.get(*id)).expect("it is of one of them").task;
            hasher.update(&serde_json::to_vec(task).expect("plain data"));
        }
        let steps = follow::read_all(&folder.metrics()).context("cannot read the run's metrics")?;
        let measured = if folder.evaluations().exists() { curve::read(&folder.evaluations())? } else { vec![] };
        Ok(Self {
            arm: arm.to_owned(),
            seed,
            terms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tasks: hasher.finalize().to_hex().to_string(),
            start: Some(start),
            steps: outcome.summary.steps,
            groups_trained: outcome.summary.groups_trained,
            wall_seconds: (outcome.summary.wall_seconds * 10.0).round() / 10.0,
            machine,
            before: told(&before),
            after: told(&after),
            kinds,
            training: steps.iter().map(Point::from).collect(),
            measured: measured.iter().map(Point::from).collect(),
        })
    }

    /// What a task's rollout adds to sums, before training or after it; `None` for a task of another kind, or one that failed.
    pub fn sums(&self, before: bool, kind: Option<&TaskKind>) -> Vec<Option<Sums>> {
        let told = if before { &self.before } else { &self.after };
        let wanted = kind.map(|kind| self.kinds.iter().position(|known| known == kind));
        let of = |told: &Told| {
            let (kind, right, rounds, searches, tokens) = (*told)?;
            let sums = Sums {
                rollouts: 1.0,
                right: f64::from(right),
                rounds: f64::from(rounds),
                searches: f64::from(searches),
                kilotokens: tokens as f64 / 1000.0,
            };
            wanted.is_none_or(|wanted| wanted == Some(kind)).then_some(sums)
        };
        told.iter().map(of).collect()
    }
}

fn told(played: &Played, kinds: &[TaskKind]) -> Told {
    let right = match played.accuracy {
        Accuracy::Invalid(_) => return None,
        Accuracy::Correct => 1,
        _ => 0,
    };
    let (kind, summary) = (kinds.iter().position(|kind| *kind == played.task.kind)?, &played.trajectory.summary);
    Some((kind, right, summary.round_count(), summary.searches(), played.trajectory.tokens() as u64))
}

/// Four digits after the point: more of a mean over some rollouts is noise, and would be most of a line.
fn short(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite()).map(|value| (value * 1e4).round() / 1e4)
}

impl From<&Step> for Point {
    fn from(step: &Step) -> Self {
        Self {
            step: step.step,
            accuracy: short(step.accuracy),
            rounds: short(step.rounds),
            searches: short(step.searches),
            kilotokens: short(step.kilotokens),
            reference_rounds: short(step.reference_rounds),
            distilled: short(step.distilled),
        }
    }
}

impl From<&Evaluation> for Point {
    fn from(evaluation: &Evaluation) -> Self {
        let report = &evaluation.report;
        Self {
            step: evaluation.step,
            accuracy: short(Some(report.accuracy)),
            rounds: short(Some(report.rounds)),
            searches: short(Some(report.searches)),
            kilotokens: short(Some(report.kilotokens)),
            reference_rounds: None,
            distilled: None,
        }
    }
}

/// The lines of a study.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// One per arm and seed, in the order of the study; behind them those that it does not ask for.
    lines: Vec<Line>,
}

impl Lines {
    /// Reads the lines of a study; a file that is not there has none.
    ///
    /// # Errors
    /// A line that is none, is there twice, or was run on other terms than the study now has.
    pub fn read(path: &Path, plan: &Plan) -> Result<Self> {
        let mut lines = Vec::new();
        if path.exists() {
            let place = |number: u64| format!("{} line {number}", path.display());
            let rows = jsonl::Lines::open(path, MAX_LINE).with_context(|| format!("cannot read {}", path.display()))?;
            for row in rows.values::<Line>() {
                let row = row.with_context(|| format!("cannot read {}", path.display()))?;
                let line = row.value.map_err(|reason| BadInput::new(format!("{}: {reason}", place(row.number))))?;
                if lines.iter().any(|known: &Line| (&known.arm, known.seed) == (&line.arm, line.seed)) {
                    return Err(BadInput::new(format!("{}: {} with seed {} is there twice", place(row.number), line.arm, line.seed)).into());
                }
                let asked = plan.arm(&line.arm).filter(|arm| arm.seeds.contains(&line.seed));
                if let Some((key, was, is)) = asked.and_then(|arm| line.terms.differs(&Terms::of(plan, arm))) {
                    let text = format!(
                        "{}: {} with seed {} was run with {key} = {was}, and the study now has {is}: give the arm another name, or take the \
                         line away",
                        place(row.number),
                        line.arm,
                        line.seed
                    );
                    return Err(BadInput::new(text).into());
                }
                lines.push(line);
            }
        }
        let mut all = Self { lines };
        all.order(plan);
        Ok(all)
    }

    fn order(&mut self, plan: &Plan) {
        let place = |line: &Line| {
            let arm = plan.arms.iter().position(|arm| arm.name == line.arm)?;
            Some((arm, plan.arms[arm].seeds.iter().position(|seed| *seed == line.seed)?))
        };
        self.lines.sort_by_key(|line| place(line).map_or((1, 0, 0), |(arm, seed)| (0, arm, seed)));
    }

    /// The line of an arm with a seed.
    pub fn get(&self, arm: &str, seed: u64) -> Option<&Line> {
        self.lines.iter().find(|line| line.arm == arm && line.seed == seed)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }

    /// Adds a line and replaces the file whole.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn add(&mut self, path: &Path, plan: &Plan, line: Line) -> Result<()> {
        self.lines.push(line);
        self.order(plan);
        let mut bytes = Vec::new();
        for line in &self.lines {
            serde_json::to_writer(&mut bytes, line).expect("plain data");
            bytes.push(b'\n');
        }
        atomic::write(path, &bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Lines that the study does not ask for, as `arm with seed n`.
    pub fn unasked(&self, plan: &Plan) -> Vec<String> {
        let is_asked = |line: &&Line| plan.arm(&line.arm).is_some_and(|arm| arm.seeds.contains(&line.seed));
        self.lines.iter().filter(|line| !is_asked(line)).map(|line| format!("{} with seed {}", line.arm, line.seed)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A study of two arms and two seeds.
    pub(crate) fn plan() -> Plan {
        let text = r#"
about = "a"
base = "plain"
seeds = [1, 2, 3]
claims = ["rounds(trace) <= 0.8 x rounds(plain)"]
settings = { learner = { steps = 4 } }
[arms.plain]
about = "without"
[arms.trace]
about = "with"
settings = { reward_service = { trace = { enabled = false } } }
"#;
        Plan::parse(text).expect("sound")
    }

    /// A line whose rollouts are right and take rounds as they are given: (right, rounds).
    pub(crate) fn line(plan: &Plan, arm: &str, seed: u64, before: &[(u8, u32)], after: &[(u8, u32)]) -> Line {
        let told = |rollouts: &[(u8, u32)]| -> Vec<Told> {
            let one = |(at, (right, rounds)): (usize, &(u8, u32))| Some((at % 2, *right, *rounds, 2 * rounds, 400));
            rollouts.iter().enumerate().map(one).collect()
        };
        Line {
            arm: arm.into(),
            seed,
            terms: Terms::of(plan, plan.arm(arm).expect("there")),
            version: "0".into(),
            tasks: format!("tasks of {seed}"),
            start: Some("one".into()),
            steps: 4,
            groups_trained: 32,
            wall_seconds: 10.0,
            machine: Machine { cpu: "c".into(), cores: 2 },
            kinds: vec![TaskKind::VISUAL_SELECT, TaskKind::VISUAL_HOP],
            before: told(before),
            after: told(after),
            training: (1..=4).map(|step| Point { step, accuracy: Some(0.5), rounds: Some(4.0), ..Point::default() }).collect(),
            measured: vec![],
        }
    }

    #[test]
    fn lines_are_kept_in_the_order_of_the_study_and_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, plan) = (folder.path().join("s.jsonl"), plan());
        let mut lines = Lines::read(&path, &plan).expect("none yet");
        for (arm, seed) in [("trace", 2), ("plain", 1), ("trace", 1)] {
            lines.add(&path, &plan, line(&plan, arm, seed, &[(1, 4), (0, 6)], &[(1, 2), (1, 2)])).expect("written");
        }
        let read = Lines::read(&path, &plan).expect("ours");
        assert_eq!(read, lines);
        let order: Vec<(&str, u64)> = read.iter().map(|line| (line.arm.as_str(), line.seed)).collect();
        assert_eq!(order, [("plain", 1), ("trace", 1), ("trace", 2)]);
        let text = std::fs::read_to_string(&path).expect("there");
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("\"after\":[[0,1,2,4,400],[1,1,2,4,400]]"), "{text}");
    }

    #[test]
    fn a_line_on_other_terms_is_refused_by_the_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, plan) = (folder.path().join("s.jsonl"), plan());
        Lines::default().add(&path, &plan, line(&plan, "trace", 1, &[(1, 1)], &[(1, 1)])).expect("written");
        let mut other = plan.clone();
        other.arms[1].settings["learner"]["steps"] = toml::Value::Integer(9);
        let error = Lines::read(&path, &other).expect_err("other terms").to_string();
        assert!(error.contains("line 1: trace with seed 1 was run with learner.steps = 4, and the study now has 9"), "{error}");
        other.arms.remove(1);
        let lines = Lines::read(&path, &other).expect("nobody asks for it");
        assert_eq!(lines.unasked(&other), ["trace with seed 1"]);
        std::fs::write(&path, std::fs::read_to_string(&path).expect("there").repeat(2)).expect("written");
        assert!(Lines::read(&path, &plan).expect_err("twice").to_string().contains("line 2: trace with seed 1 is there twice"));
    }

    #[test]
    fn sums_are_of_a_kind_where_one_is_asked_for() {
        let plan = plan();
        let mut line = line(&plan, "plain", 1, &[(1, 4), (0, 6), (1, 5)], &[(1, 2), (1, 3), (0, 4)]);
        line.after[2] = None;
        let rounds =
            |before, kind: Option<&TaskKind>| line.sums(before, kind).iter().map(|sums| sums.map(|sums| sums.rounds)).collect::<Vec<_>>();
        assert_eq!(rounds(true, None), [Some(4.0), Some(6.0), Some(5.0)]);
        assert_eq!(rounds(false, None), [Some(2.0), Some(3.0), None]);
        assert_eq!(rounds(true, Some(&TaskKind::VISUAL_HOP)), [None, Some(6.0), None]);
        assert_eq!(rounds(true, Some(&TaskKind::new("other"))), [None, None, None]);
    }
}
