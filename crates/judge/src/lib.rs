//! Who judges answers. In: a task's question and right answers, and what rollouts answered. Out: accuracies.
//!
//! Rule judges live in the scoring crate and never fail; [`model`] asks a language model and may give no verdict. A verdict
//! that is not there is a failure of the judge, which masks the rollout; it is never a wrong answer. Training and evaluation are judged
//! by the same code. It does not know what a reward is, nor who asks.

pub mod about;
pub mod config;
pub mod kept;
pub mod metrics;
pub mod model;
pub mod probe;
pub mod prompts;
pub mod quote;
pub mod reply;
pub mod votes;

use std::sync::Arc;

use futures::future::{self, BoxFuture};
use hypereyes_chassis::{BadInput, Findings};
use hypereyes_domain::{Accuracy, Failure, Task};
use hypereyes_scoring::{Few, Judge, JudgeKind, Tally, Verdict};
use serde::{Deserialize, Serialize};

pub use self::about::{JudgeAbout, ModelAbout};
pub use self::config::ModelConfig;
pub use self::model::ModelJudge;
pub use self::probe::probe;
pub use self::prompts::PromptKind;

/// Which judge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeChoice {
    /// The same text.
    Exact,
    /// The same after normalisation, any alias; the default, because tasks carry aliases and policies vary case and articles.
    #[default]
    Alias,
    /// The prediction contains an alias.
    Contains,
    /// The same words after SQuAD's normalisation, any right answer.
    Em,
    /// Words that overlap enough with a right answer's.
    TokenF1,
    /// The option of a question that lists some.
    Option,
    /// A language model says so, in training and in evaluation.
    Model,
}

impl JudgeChoice {
    /// Its name in settings and results.
    pub fn label(self) -> &'static str {
        self.rule().map_or("model", JudgeKind::label)
    }

    /// The rule, unless a model is asked.
    pub fn rule(self) -> Option<JudgeKind> {
        match self {
            Self::Exact => Some(JudgeKind::Exact),
            Self::Alias => Some(JudgeKind::Alias),
            Self::Contains => Some(JudgeKind::Contains),
            Self::Em => Some(JudgeKind::Em),
            Self::TokenF1 => Some(JudgeKind::TokenF1),
            Self::Option => Some(JudgeKind::Option),
            Self::Model => None,
        }
    }

    /// What its verdicts depend on.
    pub fn about(self, model: &ModelConfig) -> JudgeAbout {
        JudgeAbout { judge: self.label().to_owned(), model: self.rule().is_none().then(|| model.about()) }
    }

    /// The judge.
    ///
    /// # Errors
    /// [`BadInput`] when a model is to be asked and its settings cannot be used.
    pub fn build(self, model: &ModelConfig) -> Result<Arc<dyn Verdicts>, BadInput> {
        Ok(match self.rule() {
            Some(rule) => Arc::new(rule),
            None => Arc::new(ModelJudge::new(model)?),
        })
    }

    /// What is wrong with the settings of this judge; nobody is called. Keys are named from the table that holds `judge_model`.
    pub fn findings(self, model: &ModelConfig) -> Findings {
        let mut found = Findings::default();
        found.told("", self.build(model).map(drop));
        if self.rule().is_none() {
            found.under("judge_model", model.findings());
        }
        found
    }
}

/// Gives verdicts, sooner or later.
pub trait Verdicts: Send + Sync + std::fmt::Debug {
    /// Judges the predictions of one task, one entry each; nothing where the judge failed.
    fn verdicts<'a>(&'a self, question: &'a str, predictions: &'a [&'a str], answers: &'a [String]) -> BoxFuture<'a, Vec<Option<Verdict>>>;

    /// The label used in metrics and logs.
    fn label(&self) -> &'static str;
}

impl Verdicts for JudgeKind {
    fn verdicts<'a>(&'a self, question: &'a str, predictions: &'a [&'a str], answers: &'a [String]) -> BoxFuture<'a, Vec<Option<Verdict>>> {
        Box::pin(future::ready(self.judge_all(question, predictions, answers).into_iter().map(Some).collect()))
    }

    fn label(&self) -> &'static str {
        (*self).label()
    }
}

/// The accuracy of every rollout. Answers that are the same are judged once, all of them at the same time.
pub async fn accuracies(judge: &dyn Verdicts, task: &Task, tally: &Tally<'_>) -> Few<Accuracy> {
    let verdicts = judge.verdicts(&task.question, tally.to_judge(), &task.answers).await;
    tally.accuracies(|at| verdicts.get(at).copied().flatten().map_or(Accuracy::Invalid(Failure::Judge), Accuracy::from))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_rule_can_be_chosen_by_its_label() {
        let chosen: Vec<Option<JudgeKind>> = JudgeKind::ALL
            .iter()
            .map(|kind| serde_json::from_value::<JudgeChoice>(kind.label().into()).expect("a choice").rule())
            .collect();
        assert_eq!(chosen, JudgeKind::ALL.map(Some));
        assert_eq!(serde_json::from_value::<JudgeChoice>("model".into()).expect("a choice").label(), "model");
    }

    #[test]
    fn what_verdicts_depend_on_can_be_kept_and_compared() {
        let model = ModelConfig { url: "http://secret/v1".into(), model: "m".into(), prompt: PromptKind::Hle, ..ModelConfig::default() };
        let kept = |choice: JudgeChoice, model: &ModelConfig| serde_json::to_value(choice.about(model)).expect("JSON");
        assert_eq!(kept(JudgeChoice::TokenF1, &model), json!({"judge": "token_f1"}));
        let Value::Object(about) = kept(JudgeChoice::Model, &model) else { panic!("no object") };
        let hash = about["model"]["prompt_hash"].as_str().expect("a hash");
        assert_eq!(hash.len(), 64);
        let want = json!({"model": "m", "prompt": "hle", "prompt_hash": hash, "temperature": 0.0, "max_tokens": 1024, "votes": 1});
        assert_eq!((&about["judge"], &about["model"]), (&json!("model"), &want));
        let read: JudgeAbout = serde_json::from_value(Value::Object(about)).expect("reads back");
        assert_eq!(read, JudgeChoice::Model.about(&model));
        assert_ne!(read, JudgeChoice::Model.about(&ModelConfig { prompt: PromptKind::Plain, ..model }));
    }
}
