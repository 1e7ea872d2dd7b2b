//! A task, answers to it, and what a model says of them in the form of each prompt.

use hypereyes_domain::{Accuracy, Ending, Failure, RolloutSummary, Round, Task, TaskKind};
use hypereyes_judge::{ModelConfig, ModelJudge, PromptKind, accuracies};
use hypereyes_scoring::{Tally, Verdict};
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
    Task {
        id: "t".into(),
        kind: TaskKind::VISUAL_SELECT,
        question: "Which city?".into(),
        answers: vec!["Paris".into()],
        pictures: vec![],
        layer: None,
        metadata: Default::default(),
        shown: vec![],
        reference: None,
    }
}

pub fn group(answers: &[&str]) -> Vec<RolloutSummary> {
    let rounds = vec![Round::counted(1, 0)];
    let summary = |answer: &&str| RolloutSummary { rounds: rounds.clone(), ending: Ending::Answered, answer: Some((*answer).to_owned()) };
    answers.iter().map(summary).collect()
}

pub async fn judged(config: &ModelConfig, answers: &[&str]) -> Vec<Accuracy> {
    accuracies(&ModelJudge::new(config).unwrap(), &task(), &Tally::of(&group(answers))).await.into_vec()
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
