//! A benchmark's own number for an answer. In: question, prediction, right answers. Out: 0 to 1. It asks nobody; what a benchmark reports
//! beside it is the judge's accuracy.

use serde::{Deserialize, Serialize};

use crate::judge::{AliasJudge, Judge, Verdict};
use crate::published::{EmJudge, OptionJudge};
use crate::squad::{Words, f1, words};

/// What the authors of a benchmark measure an answer by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Whether the judge calls it right: the verdict is the number, and an evaluation puts it there. Without a judge, [`Metric::value`]
    /// is that of the alias rule.
    #[default]
    Accuracy,
    /// Overlap of words with the best right answer, as the scripts of SQuAD and MMSearch have it.
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
        let share = |verdict: Verdict| f64::from(u8::from(verdict == Verdict::Correct));
        match self {
            Self::Accuracy => share(AliasJudge.judge(question, prediction, answers)),
            Self::TokenF1 => best_f1(&words(prediction), &answers.iter().map(|answer| words(answer)).collect::<Vec<_>>()),
            Self::Em => share(EmJudge.judge(question, prediction, answers)),
            Self::Option => share(OptionJudge.judge(question, prediction, answers)),
        }
    }
}

/// The best overlap of a prediction's words with some answer's.
pub(crate) fn best_f1(prediction: &[String], answers: &[Words]) -> f64 {
    answers.iter().map(|answer| f1(prediction, answer)).fold(0.0, f64::max)
}
