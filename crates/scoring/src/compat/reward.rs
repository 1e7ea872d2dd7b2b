//! The released reward of a group, end to end (spec 2.2 to 2.5). In: responses with labels and metadata. Out: a score
//! and a distillation branch each.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bonus::{BonusInput, BonusRollout, group_bonus};
use super::python::{int, strip, text, truthy};
use super::transcript::{Completion, extract_completion};
use crate::judge::{Judge, Verdict};

/// One sample of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Decoded response, special tokens kept, observations included.
    pub response: String,
    /// `{"ground_truth": ..}` or a text, possibly within answer tags.
    #[serde(default)]
    pub label: Value,
    /// question, type, tool_call, parallel, index.
    #[serde(default)]
    pub metadata: Value,
}

/// How the released code routes a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// No distillation.
    Skip,
    /// Towards the teacher.
    ReverseKl,
}

/// Score of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleScore {
    /// Accuracy plus bonus.
    pub score: f64,
    /// Where it goes.
    pub opd_branch: Branch,
}

/// Scores the samples of one prompt. One sample alone is an evaluation (the released code has no other test for it):
/// no bonus, nothing below 0, no distillation.
pub fn reward_func(samples: &[Sample], judge: &dyn Judge) -> Vec<SampleScore> {
    let judged: Vec<(f64, Completion<'_>)> = samples.iter().map(|sample| accuracy(sample, judge)).collect();
    if let [(accuracy, _)] = judged.as_slice() {
        return vec![SampleScore { score: accuracy.max(0.0), opd_branch: Branch::Skip }];
    }
    let (sft_tc, sft_total_search) = samples.first().map_or((-1, -1), |sample| original_reference(&sample.metadata));
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let rollout = |(acc_reward, read): &(f64, Completion<'_>)| BonusRollout {
        acc_reward: *acc_reward,
        count: count(read.tool_count),
        total: count(read.search_count),
    };
    let bonuses = group_bonus(&BonusInput { sft_tc, sft_total_search, rollouts: judged.iter().map(rollout).collect() });
    let score = |((accuracy, _), bonus): (&(f64, Completion<'_>), f64)| SampleScore {
        score: if *accuracy <= -0.5 { *accuracy } else { accuracy + bonus },
        opd_branch: if *accuracy <= 0.0 { Branch::ReverseKl } else { Branch::Skip },
    };
    judged.iter().zip(bonuses).map(score).collect()
}

fn accuracy<'a>(sample: &'a Sample, judge: &dyn Judge) -> (f64, Completion<'a>) {
    let read = extract_completion(&sample.response);
    if read.final_answer.is_empty() {
        return (-0.5, Completion::default());
    }
    if sample.metadata.get("type").and_then(Value::as_str) != Some("only_acc") {
        return (-0.5, read);
    }
    let truth = match &sample.label {
        Value::Object(label) => label.get("ground_truth").map(plain).unwrap_or_default(),
        label => plain(label),
    };
    let question = sample.metadata.get("question").map(plain).unwrap_or_default();
    let accuracy = match judge.judge(strip(&without(&question, "<image>")), &untagged(read.final_answer), &[untagged(&truth).into()]) {
        Verdict::Correct => 1.0,
        Verdict::Wrong => 0.0,
    };
    (accuracy, read)
}

fn plain(value: &Value) -> Cow<'_, str> {
    if value.is_null() { Cow::default() } else { text(value) }
}

fn untagged(answer: &str) -> Cow<'_, str> {
    match without(answer, "<answer>") {
        Cow::Borrowed(answer) => match without(answer, "</answer>") {
            Cow::Borrowed(answer) => strip(answer).into(),
            Cow::Owned(answer) => strip(&answer).to_owned().into(),
        },
        Cow::Owned(answer) => strip(&without(&answer, "</answer>")).to_owned().into(),
    }
}

/// The text without a tag; most have none.
fn without<'a>(text: &'a str, tag: &str) -> Cow<'a, str> {
    if text.contains(tag) { text.replace(tag, "").into() } else { text.into() }
}

/// The dataset's reference (calls, searches) of a prompt: -1 for both without a usable `tool_call`, -1 searches when
/// `parallel` cannot be read, 0 searches when it is empty (spec 2.4).
pub fn original_reference(metadata: &Value) -> (i64, i64) {
    let Some(calls) = metadata.get("tool_call").and_then(int) else { return (-1, -1) };
    let searches = match metadata.get("parallel") {
        None => Some(0),
        Some(Value::String(json)) if strip(json).is_empty() => Some(0),
        Some(Value::String(json)) => serde_json::from_str(json).ok().as_ref().and_then(summed),
        Some(list) => summed(list),
    };
    (calls, searches.unwrap_or(-1))
}

fn summed(list: &Value) -> Option<i64> {
    if !truthy(list) {
        return Some(0);
    }
    let number = |item: &Value| if item.is_string() { None } else { int(item) };
    list.as_array()?.iter().try_fold(0_i64, |sum, item| Some(sum.saturating_add(number(item)?)))
}

#[cfg(test)]
mod tests {
    use super::original_reference;
    use serde_json::json;

    #[test]
    fn references_are_read_as_the_dataset_writes_them() {
        for (metadata, expected) in [
            (json!({"tool_call": 2, "parallel": "[2, 1]"}), (2, 3)),
            (json!({"tool_call": 2, "parallel": [2, 1]}), (2, 3)),
            (json!({"tool_call": 2, "parallel": "[]"}), (2, 0)),
            (json!({"tool_call": 2, "parallel": ""}), (2, 0)),
            (json!({"tool_call": 2}), (2, 0)),
            (json!({"tool_call": 2, "parallel": "[2, 1"}), (2, -1)),
            (json!({"tool_call": 2, "parallel": ["2"]}), (2, -1)),
            (json!({"tool_call": null, "parallel": "[2]"}), (-1, -1)),
            (json!({"parallel": "[2]"}), (-1, -1)),
            (json!(null), (-1, -1)),
        ] {
            assert_eq!(original_reference(&metadata), expected, "{metadata}");
        }
    }
}
