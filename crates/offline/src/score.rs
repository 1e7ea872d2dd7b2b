//! `hypereyes score`: accuracy, TRACE bonus, reward and route of groups, offline, as the reward service computes them; and
//! with `--compat` the released reward, number by number.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use hypereyes_chassis::BadInput;
use hypereyes_domain::{Reference, RolloutSummary, Score, Task};
use hypereyes_scoring::compat::{self, Family, run_case, run_reward_func};
use hypereyes_scoring::{JudgeKind, TraceConfig, score_group};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{keys, lines};

/// Arguments of `score`.
#[derive(Args, Debug)]
#[command(
    after_help = "Without --compat a value is {\"task\": {..}, \"group\": {..}, \"reference\": {\"rounds\": 2, \"searches\": 5}}, where the group is as the\n\
    learner records it (trajectories.jsonl) or a bare list \"rollouts\", of which rounds, ending and answer are read, and the reference\n\
    defaults to the group's, then the task's.\n\
    The answer is {\"id\", \"task\", \"reference\", \"scores\": [{accuracy, bonus, branch, reward, route}, ..]}, with the line's id if it has one.\n\
    Answers may be numbers. Keys that nobody reads are wrong input; id, expected, note, notes and metadata are free.\n\n\
    With --compat a value is a case of the released reward, and the answer is {\"id\", \"output\"}; without --family its keys tell which:\n  \
    {\"samples\": [{\"response\", \"label\", \"metadata\"}, ..]}            reward_func\n  \
    {\"completion\": text}                                          extract_completion\n  \
    {\"input\": {\"sft_tc\", \"sft_total_search\", \"rollouts\": [..]}}    group_bonus\n\n\
    Examples:\n  hypereyes score runs/my-run/learner/trajectories.jsonl\n  hypereyes score --compat < groups.jsonl\n  \
    hypereyes score --family extract_completion < completions.jsonl"
)]
pub struct ScoreArgs {
    /// Groups or cases, one JSON object each. Default: stdin.
    pub file: Option<PathBuf>,
    /// The released reward with all its habits, instead of ours.
    #[arg(long)]
    pub compat: bool,
    /// Which part of the released reward: group_bonus, extract_completion, reward_func, cache_sequences,
    /// best_rollout_baseline or group_normalisation. Implies --compat.
    #[arg(long)]
    pub family: Option<Family>,
    /// Who judges answers: exact, alias, contains, em, token_f1 or option. Default: `reward_service.judge` of the settings; with --compat contains.
    #[arg(long, value_parser = judge)]
    pub judge: Option<JudgeKind>,
}

/// A model is asked by the reward service only.
pub fn offline() -> BadInput {
    BadInput::new(format!("reward_service.judge = \"model\" needs the reward service: {} here", choices()))
}

fn judge(text: &str) -> Result<JudgeKind, String> {
    serde_json::from_value(text.into()).map_err(|_| choices())
}

fn choices() -> String {
    format!("choose one of {}", JudgeKind::ALL.map(JudgeKind::label).join(", "))
}

/// What comes out for a group.
#[derive(Serialize)]
struct Scored {
    task: String,
    reference: Option<Reference>,
    scores: Vec<Score>,
}

/// Prints one line per group or case.
///
/// `trace` and `judge` are the reward service's settings; there is no judge where a model judges.
///
/// # Errors
/// Settings or a value that cannot be used.
pub fn run(trace: &TraceConfig, judge: Option<JudgeKind>, args: &ScoreArgs) -> Result<()> {
    trace.check().map_err(|error| BadInput::new(error.to_string()))?;
    lines::each(args.file.as_deref(), |value| {
        if args.compat || args.family.is_some() {
            let output = compat(value, args.family, args.judge.unwrap_or(JudgeKind::Contains))?;
            // A case may come wrapped with its family, as golden files have it.
            let id = value.get("id").or_else(|| value.get("case")?.get("id")).cloned();
            return Ok(json!({"id": id, "output": output}));
        }
        let answer = native(value, trace, args.judge.or(judge).ok_or_else(offline)?)?;
        Ok(keys::under_id(value, answer))
    })
}

/// Keys of a line, and of what it holds as the learner records it: a group lies within a scored one, and that within a taught one.
const LINE: [&str; 12] =
    ["task", "group", "trajectory", "rollouts", "reference", "scored", "scores", "reference_epoch", "teacher", "actor", "step", "accuracy"];
/// Keys of a rollout: how it went, and beside it its tokens.
const ROLLOUT: [&str; 9] = ["rounds", "ending", "answer", "prompt", "response", "mask", "logprobs", "versions", "pictures"];
/// Keys of a round.
const ROUND: [&str; 4] = ["call", "searches", "failed_searches", "found"];
/// Keys of a task.
const TASK: [&str; 8] = ["kind", "question", "answers", "pictures", "layer", "shown", "reference", "id"];

/// Checks the keys of a rollout and of its rounds.
fn check_rollout(rollout: &Value, more: &[&str]) -> Result<()> {
    keys::check(rollout, "a rollout", &[&ROLLOUT[..], more].concat())?;
    let rounds = rollout.get("rounds").and_then(Value::as_array);
    rounds.into_iter().flatten().try_for_each(|round| keys::check(round, "a round", &ROUND))
}

/// Scores a group of ours.
fn native(value: &Value, trace: &TraceConfig, judge: JudgeKind) -> Result<Value> {
    let part =
        |key: &'static str| value.get(key).with_context(|| format!("{key:?} is missing; cases of the released reward need --compat"));
    let task = part("task")?;
    keys::check(task, "a task", &TASK)?;
    let task: Task = serde_json::from_value(keys::strip(task, &["id"])).context("\"task\" cannot be read")?;
    // As recorded, a group lies within a scored one, and that within a taught one.
    let mut group = value.get("group").or_else(|| value.get("trajectory")).unwrap_or(value);
    let mut reference = value.get("reference");
    if !std::ptr::eq(group, value) || value.get("rollouts").is_some() {
        keys::check(value, "a line", &LINE)?;
    }
    while let Some(inner) = group.get("scored").or_else(|| group.get("group").filter(|inner| inner.is_object())) {
        keys::check(group, "a group", &LINE)?;
        reference = reference.or_else(|| inner.get("reference"));
        group = inner;
    }
    let rollouts: Vec<RolloutSummary> = match group.get("rollouts") {
        Some(rollouts) => {
            keys::check(group, "a group", &LINE)?;
            rollouts.as_array().into_iter().flatten().try_for_each(|rollout| check_rollout(rollout, &[]))?;
            serde_json::from_value(rollouts.clone()).context("\"rollouts\" cannot be read")?
        }
        None if group.get("rounds").is_none() => {
            keys::check(group, "a line", &[&LINE[..], &ROLLOUT[..]].concat())?;
            anyhow::bail!("neither \"rollouts\" nor one trajectory is there")
        }
        None => vec![{
            check_rollout(group, if std::ptr::eq(group, value) { &LINE[..] } else { &[] })?;
            serde_json::from_value(group.clone()).context("the trajectory cannot be read")?
        }],
    };
    for (at, summary) in rollouts.iter().enumerate() {
        summary.check().map_err(|error| anyhow!("rollouts[{at}].{error}"))?;
    }
    let reference: Option<Reference> = match reference.filter(|reference| !reference.is_null()) {
        Some(reference) => Some(serde_json::from_value(reference.clone()).context("\"reference\" cannot be read")?),
        None => task.reference,
    };
    if let Some(Err((what, reason))) = reference.map(|reference| reference.check()) {
        bail!("reference.{what} {reason}");
    }
    let scores = score_group(trace, &judge, &task, &rollouts, reference);
    Ok(serde_json::to_value(Scored { task: task.id.to_string(), reference, scores })?)
}

/// Runs a case of the released reward.
fn compat(value: &Value, family: Option<Family>, judge: JudgeKind) -> Result<Value> {
    let named = value.get("family").and_then(Value::as_str).map(str::parse::<Family>).transpose()?;
    let case = value.get("case").filter(|_| named.is_some()).unwrap_or(value);
    if !std::ptr::eq(case, value) {
        keys::check(value, "a line", &["family", "case"])?;
    }
    let Some(family) = family.or(named).or_else(|| guess(case)) else {
        let unknown = keys::check(case, "a case", &Family::ALL.map(compat::keys).concat()).err();
        let unknown = unknown.map(|unknown| format!("{unknown}; ")).unwrap_or_default();
        anyhow::bail!("{unknown}its keys tell no family; say which with --family")
    };
    keys::check(case, "a case", &[compat::keys(family), &["family", "case"][..]].concat())?;
    if family == Family::RewardFunc {
        let samples = case.get("samples").and_then(Value::as_array).into_iter().flatten();
        samples.into_iter().try_for_each(|sample| keys::check(sample, "a sample", &["response", "label", "metadata"]))?;
        return Ok(run_reward_func(case, &judge)?);
    }
    Ok(run_case(family, case)?)
}

fn guess(case: &Value) -> Option<Family> {
    let has = |key: &str| case.get(key).is_some();
    match case.get("input") {
        _ if has("samples") => Some(Family::RewardFunc),
        _ if has("completion") => Some(Family::ExtractCompletion),
        _ if has("ops") => Some(Family::CacheSequences),
        _ if has("rewards") => Some(Family::GroupNormalisation),
        Some(Value::Object(_)) => Some(Family::GroupBonus),
        Some(Value::Array(_)) => Some(Family::BestRolloutBaseline),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::Trajectory;

    use super::*;

    #[test]
    fn cases_are_told_by_their_keys_or_their_wrapping() {
        let bonus = json!({"input": {"sft_tc": 2, "sft_total_search": 4, "rollouts": [
            {"acc_reward": 1.0, "count": 2, "total": 4}, {"acc_reward": -0.5, "count": 0, "total": 0}]}});
        let want = json!([0.2, 0.0]);
        assert_eq!(compat(&bonus, None, JudgeKind::Contains).expect("runs"), want);
        assert_eq!(compat(&json!({"family": "group_bonus", "case": bonus}), None, JudgeKind::Contains).expect("runs"), want);
        let read = compat(&json!({"completion": "<answer>x</answer>"}), None, JudgeKind::Contains).expect("runs");
        assert_eq!(read["final_answer"], "x");
        let error = compat(&json!({"x": 1}), None, JudgeKind::Contains).expect_err("no family").to_string();
        assert!(error.contains("--family"), "{error}");
    }

    #[test]
    fn groups_are_scored_as_they_are_recorded() {
        let task =
            json!({"id": "t", "kind": "visual_select", "question": "q", "answers": ["Peru"], "reference": {"rounds": 2, "searches": 4}});
        let rollout = |answer: &str| {
            json!({"prompt": [1], "response": [], "mask": [], "logprobs": [], "versions": [], "pictures": [],
                "rounds": [{"call": null, "searches": 2, "failed_searches": 0}, {"call": null, "searches": 2, "failed_searches": 0}],
                "ending": "answered", "answer": answer})
        };
        let group = json!({"id": "t@0", "task": "t", "actor": "a", "rollouts": [rollout("peru"), rollout("Chile")]});
        let plain = json!({"task": task, "group": group});
        // As the learner records it, how a rollout went stands beside its tokens.
        let summary: RolloutSummary = serde_json::from_value(rollout("Peru")).expect("a summary");
        let recorded = serde_json::to_value(Trajectory { response: vec![7], mask: vec![true], ..Trajectory::from(summary.clone()) });
        let recorded = recorded.expect("JSON");
        assert_eq!((&recorded["response"], &recorded["rounds"]), (&json!([7]), &rollout("Peru")["rounds"]));
        assert_eq!(serde_json::from_value::<Trajectory>(recorded.clone()).expect("ours").summary, summary);
        assert_eq!(serde_json::from_value::<RolloutSummary>(recorded).expect("a summary is read from where it was recorded"), summary);
        let taught = json!({"step": 1, "task": task, "group": {"scored": {"group": group, "scores": [], "reference": {"rounds": 1, "searches": 1}}}});
        let score = |value: &Value| native(value, &TraceConfig::default(), JudgeKind::Alias).expect("scores");
        let scored = score(&plain);
        assert_eq!(scored["scores"][0]["reward"], 1.2);
        assert_eq!(scored["scores"][1]["route"], "distill");
        assert_eq!(score(&taught)["reference"], json!({"rounds": 1, "searches": 1}));
        assert_eq!(score(&json!({"task": task, "trajectory": rollout("Peru")}))["scores"].as_array().map(Vec::len), Some(1));
        // As an evaluation records it, with what was found.
        let mut played = rollout("Peru");
        played["rounds"][0]["found"] =
            json!([{"label": "1", "hits": [{"title": "t", "content": "c", "score": 0.5}]}, {"label": "2", "note": "n"}]);
        let played = json!({"task": task, "trajectory": played, "accuracy": "correct"});
        assert_eq!(score(&played)["scores"].as_array().map(Vec::len), Some(1));
        assert!(
            native(&json!({"samples": []}), &TraceConfig::default(), JudgeKind::Alias)
                .expect_err("a case")
                .to_string()
                .contains("--compat")
        );
    }

    #[test]
    fn counts_that_contradict_each_other_are_refused_by_name() {
        let task = json!({"id": "t", "kind": "visual_select", "question": "q", "answers": ["Peru"]});
        let round = |searches: u32, failed: u32| json!({"call": null, "searches": searches, "failed_searches": failed});
        let rollout = |rounds: Value| json!({"rounds": rounds, "ending": "answered", "answer": "Peru"});
        let refused = |value: Value| native(&value, &TraceConfig::default(), JudgeKind::Alias).expect_err("refused").to_string();
        let group = |rounds: Value| json!({"task": task, "rollouts": [rollout(json!([])), rollout(rounds)]});
        assert_eq!(refused(group(json!([round(1, 2)]))), "rollouts[1].rounds[0].failed_searches is 2, but 1 searches ran");
        let wrapping = group(json!([round(u32::MAX, 0), round(1, 0)]));
        assert_eq!(refused(wrapping), "rollouts[1].rounds have more searches together than can be counted");
        let mut silent = group(json!([round(1, 0)]));
        silent["rollouts"][1]["answer"] = Value::Null;
        assert_eq!(refused(silent), "rollouts[1].answer is missing, but the ending is answered");
        let mut bought = group(json!([round(1, 0)]));
        bought["reference"] = json!({"rounds": 1, "searches": 0});
        assert!(refused(bought.clone()).starts_with("reference.searches is 0"));
        let given = bought.as_object_mut().expect("an object").remove("reference");
        bought["task"]["reference"] = given.expect("it was there");
        assert!(refused(bought).starts_with("reference.searches is 0"));
    }
}
