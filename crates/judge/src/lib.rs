//! Who judges answers. In: a task's question and right answers, and what rollouts answered. Out: accuracies.
//!
//! Rule judges live in the scoring crate and never fail; [`model`] asks a language model and may give no verdict. A verdict
//! that is not there is a failure of the judge, which masks the rollout; it is never a wrong answer. Training and evaluation are judged
//! by the same code. It does not know what a reward is, nor who asks.

pub mod metrics;
pub mod model;
pub mod probe;
pub mod prompt;
pub mod reply;

use std::sync::Arc;

use futures::future::{self, BoxFuture};
use hypereyes_chassis::{BadInput, Findings};
use hypereyes_domain::{Accuracy, Failure, Task};
use hypereyes_scoring::{Few, Judge, JudgeKind, Tally, Verdict};
use serde::{Deserialize, Serialize};

pub use self::model::{ModelConfig, ModelJudge};
pub use self::probe::probe;

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
            Self::Model => None,
        }
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
