//! The released reward of a group, end to end (docs/spec.md#reward). In: responses with labels and metadata. Out: a score
//! and a distillation branch each.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bonus::{BonusInput, BonusRollout, group_bonus};
use super::json::{Py, loads};
use super::python::{int, strip, text, truthy};
use super::transcript::outcome;
use crate::judge::{Judge, Verdict};

const IMAGE: &str = "<image>";

/// One sample of a group. What is missing is what the released code takes for it: an empty response, no label, no metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Decoded response, special tokens kept, observations included; null is an empty one.
    #[serde(default, deserialize_with = "nullable")]
    pub response: String,
    /// `{"ground_truth": ..}` or a text, possibly within answer tags.
    #[serde(default)]
    pub label: Value,
    /// question, type, tool_call, parallel, index.
    #[serde(default)]
    pub metadata: Value,
}

fn nullable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Sample {
    /// What of a sample ends the released code's run with an exception, if anything does: such a sample has no score.
    pub fn refused(&self) -> Option<String> {
        let metadata = &self.metadata;
        if !metadata.is_object() && truthy(metadata) {
            return Some(format!("\"metadata\" is {}; give an object", kind(metadata)));
        }
        let calls = field(metadata, "tool_call").filter(|calls| !calls.is_null());
        if let Some(calls) = calls.filter(|calls| int(calls).is_none()) {
            return Some(format!("\"tool_call\" is {calls}; give a whole number or null"));
        }
        [("question", field(metadata, "question")), ("label", Some(truth(&self.label)))]
            .into_iter()
            .find(|(_, value)| value.is_some_and(|value| value.is_array() || value.is_object()))
            .map(|(key, value)| format!("{key:?} is {}; give a text", kind(value.unwrap_or(&Value::Null))))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
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
    // A sample without a type is of this one; a type that is null is another.
    if field(&sample.metadata, "type").is_some_and(|kind| kind != "only_acc") {
        return -0.5;
    }
    let truth = plain(truth(&sample.label));
    let question = field(&sample.metadata, "question").map(plain).unwrap_or_default();
    match judge.judge(strip(&unpictured(&question)), &untagged(answer), &[untagged(&truth).into()]) {
        Verdict::Correct => 1.0,
        Verdict::Wrong | Verdict::NotAttempted => 0.0,
    }
}

/// The right answer that a label holds; null when it is empty or false.
fn truth(label: &Value) -> &Value {
    let truth = if label.is_object() { field(label, "ground_truth").unwrap_or(&Value::Null) } else { label };
    if truthy(truth) { truth } else { &Value::Null }
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

/// The dataset's reference (calls, searches) of a prompt: -1 for both without a `tool_call`, -1 searches when `parallel` cannot
/// be read or the calls are negative, 0 searches when it is missing or an empty list (docs/spec.md#reference).
pub fn original_reference(metadata: &Value) -> (i64, i64) {
    let Some(calls) = field(metadata, "tool_call").and_then(int) else { return (-1, -1) };
    let searches = match field(metadata, "parallel") {
        _ if calls < 0 => None,
        None => Some(0),
        // Text is JSON; an empty text is none.
        Some(Value::String(json)) => loads(json).as_ref().and_then(summed),
        // Of anything else a list is made, which null, numbers and truth values refuse.
        Some(list @ (Value::Array(_) | Value::Object(_))) => summed(&list.into()),
        Some(_) => None,
    };
    (calls, searches.unwrap_or(-1))
}

/// `int(sum(list))`, of what is false 0; `None` where Python would raise.
fn summed(list: &Py) -> Option<i64> {
    let items = match list {
        Py::Null | Py::Bool(false) => return Some(0),
        Py::Int(number) => return (number.trim_start_matches('-') == "0").then_some(0),
        Py::Float(number) => return (*number == 0.0).then_some(0),
        Py::Text(text) => return text.is_empty().then_some(0),
        Py::Dict(entries) => return entries.is_empty().then_some(0),
        Py::Bool(true) => return None,
        Py::List(items) => items,
    };
    // Whole numbers are summed exactly, and as floats from the first fraction on.
    let (mut whole, mut fraction) = (0_i64, None::<f64>);
    for item in items {
        let number = match item {
            Py::Bool(value) => f64::from(u8::from(*value)),
            Py::Int(number) => number.parse().ok()?,
            Py::Float(number) => *number,
            _ => return None,
        };
        match (&mut fraction, item) {
            (None, Py::Float(_)) => fraction = Some(whole as f64 + number),
            (None, _) => whole = whole.saturating_add(number as i64),
            (Some(sum), _) => *sum += number,
        }
    }
    match fraction {
        None => Some(whole),
        Some(sum) => sum.is_finite().then_some(sum.trunc() as i64),
    }
}

#[cfg(test)]
mod tests {
    use super::{Sample, original_reference, reward_func};
    use crate::ContainsJudge;
    use serde_json::{Value, json};

    fn scores(samples: Value) -> Vec<f64> {
        let samples: Vec<Sample> = serde_json::from_value(samples).expect("samples");
        reward_func(&samples, &ContainsJudge).iter().map(|score| score.score).collect()
    }

    #[test]
    fn what_a_sample_leaves_out_is_what_the_released_code_takes_for_it() {
        let answer = "<answer>Paris</answer>";
        for (sample, want) in [
            (json!({"response": answer, "label": "Paris", "metadata": {"question": "q"}}), 1.0),
            (json!({"response": answer, "label": "Paris", "metadata": {}}), 1.0),
            (json!({"response": answer, "label": "Paris", "metadata": null}), 1.0),
            (json!({"response": answer, "label": "Paris"}), 1.0),
            (json!({"response": answer, "label": {"ground_truth": "Paris"}, "metadata": {"type": "only_acc"}}), 1.0),
            (json!({"response": answer, "label": "Paris", "metadata": {"type": null}}), -0.5),
            (json!({"response": answer, "label": "Paris", "metadata": {"type": "only_acc_v2"}}), -0.5),
            (json!({"response": answer, "label": "Paris", "metadata": {"type": ["only_acc"]}}), -0.5),
            (json!({"response": null, "label": "Paris", "metadata": {}}), -0.5),
            (json!({"response": "", "label": "Paris", "metadata": {}}), -0.5),
            (json!({"label": "Paris", "metadata": {}}), -0.5),
            // A wrong guess without a reference: fewer calls than any is more than minus one.
            (json!({"response": answer, "label": null, "metadata": {}}), -0.1),
            (json!({"response": answer, "label": {}, "metadata": {}}), -0.1),
            (json!({"response": answer, "label": false, "metadata": {}}), -0.1),
            (json!({"response": "<answer>7</answer>", "label": 7, "metadata": {}}), 1.0),
        ] {
            assert_eq!(scores(json!([sample, sample])), [want, want], "{sample}");
        }
    }

    #[test]
    fn what_ends_the_released_run_is_refused() {
        for (sample, names) in [
            (json!({"response": "", "metadata": "{}"}), "metadata"),
            (json!({"response": "", "metadata": [1]}), "metadata"),
            (json!({"response": "", "metadata": {"tool_call": "two"}}), "tool_call"),
            (json!({"response": "", "metadata": {"tool_call": [2]}}), "tool_call"),
            (json!({"response": "", "metadata": {"question": ["q"]}}), "question"),
            (json!({"response": "", "label": ["Paris"]}), "label"),
        ] {
            let read: Sample = serde_json::from_value(sample.clone()).expect("a sample");
            assert!(read.refused().is_some_and(|why| why.contains(names)), "{sample}: {:?}", read.refused());
        }
        let sound: Sample = serde_json::from_value(json!({"metadata": {"tool_call": null, "index": [1]}})).expect("a sample");
        assert_eq!(sound.refused(), None);
    }

    #[test]
    fn references_are_read_as_the_dataset_writes_them() {
        for (metadata, expected) in [
            (json!({"tool_call": 2, "parallel": "[2, 1]"}), (2, 3)),
            (json!({"tool_call": 2, "parallel": [2, 1]}), (2, 3)),
            (json!({"tool_call": 2, "parallel": "[]"}), (2, 0)),
            // The released reader reads the text as JSON, and an empty one is none.
            (json!({"tool_call": 2, "parallel": ""}), (2, -1)),
            (json!({"tool_call": 2, "parallel": null}), (2, -1)),
            (json!({"tool_call": 2, "parallel": 3}), (2, -1)),
            (json!({"tool_call": 2, "parallel": {}}), (2, 0)),
            (json!({"tool_call": 2, "parallel": "null"}), (2, 0)),
            (json!({"tool_call": 2, "parallel": "0"}), (2, 0)),
            (json!({"tool_call": 2, "parallel": "3"}), (2, -1)),
            (json!({"tool_call": 2, "parallel": "[1.5, 1.5]"}), (2, 3)),
            (json!({"tool_call": 2, "parallel": [1.5, true, 1]}), (2, 3)),
            (json!({"tool_call": 2, "parallel": "[NaN]"}), (2, -1)),
            (json!({"tool_call": 2, "parallel": "[2,]"}), (2, -1)),
            (json!({"tool_call": 2, "parallel": [[2]]}), (2, -1)),
            (json!({"tool_call": true, "parallel": [2]}), (1, 2)),
            (json!({"tool_call": " 2 ", "parallel": [2]}), (2, 2)),
            (json!({"tool_call": -3, "parallel": [2]}), (-3, -1)),
            (json!([]), (-1, -1)),
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
