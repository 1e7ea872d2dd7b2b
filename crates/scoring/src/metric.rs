//! A benchmark's own number for an answer. In: question, prediction, right answers. Out: 0 to 1. It asks nobody; what a benchmark reports
//! beside it is the judge's accuracy.

use serde::{Deserialize, Serialize};

use crate::judge::{Judge, JudgeKind, Verdict};

/// What the authors of a benchmark measure an answer by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Whether the judge calls it right: the verdict is the number, and an evaluation puts it there. Without a judge, [`Metric::value`]
    /// is that of the alias rule.
    #[default]
    Accuracy,
    /// Overlap of words with the best right answer, as SQuAD's script and MMSearch's have it.
    TokenF1,
    /// The same words as some right answer after SQuAD's normalisation.
    Em,
    /// The right option of several.
    Option,
}

impl Metric {
    /// Its name in settings, tables and results.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::TokenF1 => "token_f1",
            Self::Em => "em",
            Self::Option => "option",
        }
    }

    /// What a prediction is worth, 0 to 1: the best over `answers`. A blank prediction is worth nothing, a blank answer matches nothing.
    pub fn value(self, question: &str, prediction: &str, answers: &[String]) -> f64 {
        // Those that differ from it are to come.
        let rule = match self {
            Self::Accuracy | Self::TokenF1 | Self::Em | Self::Option => JudgeKind::Alias,
        };
        f64::from(u8::from(rule.judge(question, prediction, answers) == Verdict::Correct))
    }
}
