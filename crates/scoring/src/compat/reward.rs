//! The released reward of a group, end to end (spec 2.2 to 2.5). In: responses with labels and metadata. Out: a score
//! and a distillation branch each.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bonus::{BonusInput, BonusRollout, group_bonus};
use super::python::{int, strip, text, truthy};
use super::transcript::outcome;
use crate::judge::{Judge, Verdict};

const IMAGE: &str = "<image>";

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
    let rollouts: Vec<BonusRollout> = samples.iter().map(|sample| judged(sample, judge)).collect();
    if let [alone] = rollouts.as_slice() {
        return vec![SampleScore { score: alone.acc_reward.max(0.0), opd_branch: Branch::Skip }];
    }
    let (sft_tc, sft_total_search) = samples.first().map_or((-1, -1), |sample| original_reference(&sample.metadata));
    let input = BonusInput { sft_tc, sft_total_search, rollouts };
    let score = |(&BonusRollout { acc_reward, .. }, bonus)| SampleScore {
        score: if acc_reward <= -0.5 { acc_reward } else { acc_reward + bonus },
        opd_branch: if acc_reward <= 0.0 { Branch::ReverseKl } else { Branch::Skip },
    };
    input.rollouts.iter().zip(group_bonus(&input)).map(score).collect()
}

/// Accuracy and cost of a sample. Without an answer nothing else is known of it.
fn judged(sample: &Sample, judge: &dyn Judge) -> BonusRollout {
    let read = outcome(&sample.response);
    if read.final_answer.is_empty() {
        return BonusRollout { acc_reward: -0.5, count: 0, total: 0 };
    }
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let acc_reward = accuracy(sample, read.final_answer, judge);
    BonusRollout { acc_reward, count: count(read.tool_count), total: count(read.search_count) }
}

fn accuracy(sample: &Sample, answer: &str, judge: &dyn Judge) -> f64 {
    if field(&sample.metadata, "type").and_then(Value::as_str) != Some("only_acc") {
        return -0.5;
    }
    let truth = if sample.label.is_object() { field(&sample.label, "ground_truth") } else { Some(&sample.label) };
    let truth = truth.map(plain).unwrap_or_default();
    let question = field(&sample.metadata, "question").map(plain).unwrap_or_default();
    match judge.judge(strip(&unpictured(&question)), &untagged(answer), &[untagged(&truth).into()]) {
        Verdict::Correct => 1.0,
        Verdict::Wrong => 0.0,
    }
}

/// What an object of a few keys has under one of them: looking at them all is less work than hashing one.
fn field<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.as_object()?.iter().find_map(|(name, value)| (name == key).then_some(value))
}

fn plain(value: &Value) -> Cow<'_, str> {
    if value.is_null() { Cow::default() } else { text(value) }
}

/// A text without answer tags; most have not even the bracket that they begin with.
fn untagged(text: &str) -> Cow<'_, str> {
    if !text.as_bytes().contains(&b'<') {
        return strip(text).into();
    }
    strip(&text.replace("<answer>", "").replace("</answer>", "")).to_owned().into()
}

/// A question without the places of its pictures; most have one in front and no other.
fn unpictured(question: &str) -> Cow<'_, str> {
    let rest = question.strip_prefix(IMAGE).unwrap_or(question);
    if rest.as_bytes().contains(&b'<') { rest.replace(IMAGE, "").into() } else { rest.into() }
}

/// The dataset's reference (calls, searches) of a prompt: -1 for both without a usable `tool_call`, -1 searches when
/// `parallel` cannot be read, 0 searches when it is empty (spec 2.4).
pub fn original_reference(metadata: &Value) -> (i64, i64) {
    let Some(calls) = field(metadata, "tool_call").and_then(int) else { return (-1, -1) };
    let searches = match field(metadata, "parallel") {
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
