//! A task, answers to it, and what a model says of them in the form of each prompt.

use std::collections::BTreeMap;

use hypereyes_domain::{Accuracy, Ending, Failure, RolloutSummary, Round, Task};
use hypereyes_judge::{ModelConfig, ModelJudge, PromptKind, accuracies};
use hypereyes_scoring::{Tally, Verdict};
use metrics_util::debugging::{DebugValue, Snapshotter};
use serde_json::json;

use crate::support::Server;

/// No verdict.
pub const FAILED: Accuracy = Accuracy::Invalid(Failure::Judge);

pub fn config(server: &Server) -> ModelConfig {
    ModelConfig {
        url: server.url.clone(),
        model: "judge".into(),
        attempt_timeout_ms: 10_000,
        deadline_ms: 30_000,
        ..ModelConfig::default()
    }
}

pub fn task() -> Task {
    let row = json!({"id": "t", "kind": "visual_select", "question": "Which city?", "answers": ["Paris"]});
    serde_json::from_value(row).expect("a task")
}

pub fn group(answers: &[&str]) -> Vec<RolloutSummary> {
    let rounds = vec![Round::counted(1, 0)];
    let summary = |answer: &&str| RolloutSummary { rounds: rounds.clone(), ending: Ending::Answered, answer: Some((*answer).to_owned()) };
    answers.iter().map(summary).collect()
}

pub async fn judged(config: &ModelConfig, answers: &[&str]) -> Vec<Accuracy> {
    accuracies(&ModelJudge::new(config).unwrap(), &task(), &Tally::of(&group(answers))).await.into_vec()
}

/// Counters of one name since the last look, by the value of their label.
pub fn counted(snapshotter: &Snapshotter, name: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let (true, DebugValue::Counter(count)) = (key.key().name() == name, value) {
            let label = key.key().labels().next().map(|label| label.value().to_owned()).unwrap_or_default();
            *found.entry(label).or_default() += count;
        }
    }
    found.retain(|_, count| *count > 0);
    found
}

/// A reply in the form that a prompt asks for.
pub fn says(kind: PromptKind, verdict: Verdict) -> String {
    let right = verdict == Verdict::Correct;
    match (kind, verdict) {
        (PromptKind::SimpleQa, Verdict::NotAttempted) => "VERDICT: NOT_ATTEMPTED".into(),
        (PromptKind::Plain | PromptKind::SimpleQa, _) => format!("VERDICT: {}", if right { "CORRECT" } else { "INCORRECT" }),
        (PromptKind::HyperEyes, _) => if right { "Correct" } else { "Incorrect" }.into(),
        (PromptKind::Hle, _) => json!({
            "extracted_final_answer": "Paris",
            "reasoning": "They are compared.",
            "correct": if right { "yes" } else { "no" },
            "confidence": 90,
        })
        .to_string(),
    }
}
