//! Is a prediction right? In: question, prediction, the task's right answers. Out: a verdict.
//!
//! These judges are rules: they never fail and need no model. A judge that asks a model is slower and can give no
//! verdict at all; it belongs outside this crate and hands its accuracies to [`crate::score_tally`].

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::normalise::{Form, normalise};
use crate::published::{EmJudge, OptionJudge, TokenF1Judge};
use crate::tally::Few;

/// What a judge says of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Right.
    Correct,
    /// Not right.
    Wrong,
    /// The prediction declines to answer: not right, and told apart from wrong. Rules never say so; some prompts of a model do.
    NotAttempted,
}

impl Verdict {
    pub(crate) fn of(correct: bool) -> Self {
        if correct { Verdict::Correct } else { Verdict::Wrong }
    }
}

/// Judges answers by a rule.
pub trait Judge: Send + Sync {
    /// Judges `prediction` against every entry of `answers`; one match suffices. Blank answers match nothing.
    fn judge(&self, question: &str, prediction: &str, answers: &[String]) -> Verdict;

    /// Judges several predictions of one task; a judge that looks at the answers first does so once.
    fn judge_all(&self, question: &str, predictions: &[&str], answers: &[String]) -> Few<Verdict> {
        predictions.iter().map(|prediction| self.judge(question, prediction, answers)).collect()
    }
}

/// Right when the text is the same, blanks around it aside.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExactJudge;

impl Judge for ExactJudge {
    fn judge(&self, _question: &str, prediction: &str, answers: &[String]) -> Verdict {
        let prediction = prediction.trim();
        Verdict::of(!prediction.is_empty() && answers.iter().any(|answer| answer.trim() == prediction))
    }
}

/// Right when some alias is the same after normalisation: letter case, accents of Latin and Greek letters, vowels of Hebrew and
/// Arabic, articles, punctuation, blanks, what cannot be seen, digit grouping ("1,000" is "1000") and the blank before a unit ("5km"
/// is "5 km") do not count.
/// Signs do where they tell answers apart: "-5", ".5", "10^6", "A+". `docs/judges.md` has the rule, `tests/data/spellings.jsonl`
/// the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct AliasJudge;

impl Judge for AliasJudge {
    fn judge(&self, question: &str, prediction: &str, answers: &[String]) -> Verdict {
        self.judge_all(question, &[prediction], answers)[0]
    }

    fn judge_all(&self, _question: &str, predictions: &[&str], answers: &[String]) -> Few<Verdict> {
        // The forms of the right answers one behind the other, and behind them that of the prediction being judged.
        let mut forms = Form::new();
        let mut put = |answer: &String| {
            let from = forms.len();
            normalise(answer, &mut forms);
            from..forms.len()
        };
        let known: Few<Range<usize>> = answers.iter().map(&mut put).collect();
        let end = forms.len();
        let right = |prediction: &&str| {
            forms.truncate(end);
            normalise(prediction, &mut forms);
            let form = &forms[end..];
            Verdict::of(!form.is_empty() && known.iter().any(|known| forms[known.clone()] == *form))
        };
        predictions.iter().map(right).collect()
    }
}

/// Right when the prediction contains an alias, letter case aside. Lenient (a prediction that names everything is
/// right); meant for the golden vectors and for verbose policies.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContainsJudge;

impl Judge for ContainsJudge {
    fn judge(&self, _question: &str, prediction: &str, answers: &[String]) -> Verdict {
        Verdict::of(answers.iter().map(|answer| answer.trim()).any(|answer| !answer.is_empty() && contains(prediction, answer)))
    }
}

/// Whether a text holds a part, letter case aside. A short one in ASCII, as most are, needs no memory for it.
fn contains(text: &str, part: &str) -> bool {
    if part.len() <= 64 && part.is_ascii() && text.is_ascii() {
        let mut places = text.as_bytes().windows(part.len());
        return places.any(|place| place.eq_ignore_ascii_case(part.as_bytes()));
    }
    text.to_lowercase().contains(&part.to_lowercase())
}

/// The judge by its name in a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JudgeKind {
    /// [`ExactJudge`].
    Exact,
    /// [`AliasJudge`]; the default, because tasks carry aliases and policies vary case and articles.
    #[default]
    Alias,
    /// [`ContainsJudge`].
    Contains,
    /// [`EmJudge`].
    Em,
    /// [`TokenF1Judge`].
    TokenF1,
    /// [`OptionJudge`].
    Option,
}

impl JudgeKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Exact, Self::Alias, Self::Contains, Self::Em, Self::TokenF1, Self::Option];

    /// The label used in metrics, and the name in settings.
    pub fn label(self) -> &'static str {
        match self {
            JudgeKind::Exact => "exact",
            JudgeKind::Alias => "alias",
            JudgeKind::Contains => "contains",
            JudgeKind::Em => "em",
            JudgeKind::TokenF1 => "token_f1",
            JudgeKind::Option => "option",
        }
    }

    fn rule(self) -> &'static dyn Judge {
        match self {
            JudgeKind::Exact => &ExactJudge,
            JudgeKind::Alias => &AliasJudge,
            JudgeKind::Contains => &ContainsJudge,
            JudgeKind::Em => &EmJudge,
            JudgeKind::TokenF1 => &TokenF1Judge,
            JudgeKind::Option => &OptionJudge,
        }
    }
}

impl Judge for JudgeKind {
    fn judge(&self, question: &str, prediction: &str, answers: &[String]) -> Verdict {
        self.rule().judge(question, prediction, answers)
    }

    fn judge_all(&self, question: &str, predictions: &[&str], answers: &[String]) -> Few<Verdict> {
        self.rule().judge_all(question, predictions, answers)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn right(judge: JudgeKind, prediction: &str, answers: &[&str]) -> bool {
        let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
        judge.judge("Which?", prediction, &answers) == Verdict::Correct
    }

    #[test]
    fn any_alias_makes_it_right() {
        assert!(right(JudgeKind::Alias, "the Côte d’Ivoire.", &["Ivory Coast", "Cote d'Ivoire"]));
        assert!(!right(JudgeKind::Alias, "Ghana", &["Ivory Coast", "Cote d'Ivoire"]));
        assert!(!right(JudgeKind::Alias, "Ivory Coast and Ghana", &["Ivory Coast"]));
    }

    #[test]
    fn exact_means_exact() {
        assert!(right(JudgeKind::Exact, " Paris\n", &["Paris"]));
        assert!(!right(JudgeKind::Exact, "paris", &["Paris"]));
    }

    #[test]
    fn containment_ignores_case_only() {
        assert!(right(JudgeKind::Contains, "It is PARIS, France", &["paris"]));
        assert!(!right(JudgeKind::Contains, "Par is", &["Paris"]));
    }

    #[test]
    fn blank_answers_match_nothing() {
        for judge in JudgeKind::ALL {
            let answers = ["Paris".to_owned(), "the City of Light".to_owned()];
            let predictions = ["Paris", "paris!", "city of light", "Rome", ""];
            let one_by_one: Few<Verdict> = predictions.iter().map(|prediction| judge.judge("?", prediction, &answers)).collect();
            assert_eq!(judge.judge_all("?", &predictions, &answers), one_by_one);
            assert!(!right(judge, "Paris", &["", "  "]));
            assert!(!right(judge, "", &["", "Paris"]));
            assert!(!right(judge, "Paris", &[]));
        }
    }

    #[test]
    fn names_in_settings_are_labels() {
        for judge in JudgeKind::ALL {
            assert_eq!(serde_json::to_value(judge).expect("a name"), judge.label());
        }
    }
}
