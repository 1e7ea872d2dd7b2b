//! Judges by the rules that benchmarks publish: exact match, token F1, the right option. In: question, prediction, right answers. Out: a
//! verdict. What words are, and which option a text names, is [`crate::squad`]'s and [`crate::choices`]' business.

use crate::choices::Choices;
use crate::judge::{Judge, Verdict};
use crate::metric::best_f1;
use crate::squad::{Words, words};
use crate::tally::Few;

/// Right when the words are the same as some answer's after SQuAD's normalisation: lower case, without punctuation and articles.
///
/// It is there to be comparable with published figures. It knows less than [`AliasJudge`]: to it `-5` is `5`, `3.5` is `35` and `C++` is
/// `C`, and `Köln` is not `Koln`, `5km` not `5 km`.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmJudge;

impl Judge for EmJudge {
    fn judge(&self, question: &str, prediction: &str, answers: &[String]) -> Verdict {
        self.judge_all(question, &[prediction], answers)[0]
    }

    fn judge_all(&self, _question: &str, predictions: &[&str], answers: &[String]) -> Few<Verdict> {
        let known = words_of(answers);
        let right = |prediction: &&str| {
            let said = words(prediction);
            Verdict::of(!said.is_empty() && known.contains(&said))
        };
        predictions.iter().map(right).collect()
    }
}

/// Least overlap of words with an answer at which [`TokenF1Judge`] calls a prediction right. Nobody publishes one: SQuAD and MMSearch
/// average the overlap itself. At this one every word of an answer of up to four words has to be there, and one word more may be said
/// beside an answer of two words or more; of an answer of five words or more, one may be another.
pub const TOKEN_F1_RIGHT: f64 = 0.8;
/// What rounding may take from an overlap: six words of seven and of eight are 0.8, and are computed as 0.7999999999999999.
const ROUNDING: f64 = 1e-12;

/// Right when the overlap of words with some answer is at least [`TOKEN_F1_RIGHT`].
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenF1Judge;

impl Judge for TokenF1Judge {
    fn judge(&self, question: &str, prediction: &str, answers: &[String]) -> Verdict {
        self.judge_all(question, &[prediction], answers)[0]
    }

    fn judge_all(&self, _question: &str, predictions: &[&str], answers: &[String]) -> Few<Verdict> {
        let known = words_of(answers);
        predictions.iter().map(|prediction| Verdict::of(best_f1(&words(prediction), &known) >= TOKEN_F1_RIGHT - ROUNDING)).collect()
    }
}

fn words_of(answers: &[String]) -> Vec<Words> {
    answers.iter().map(|answer| words(answer)).collect()
}

/// Right when the prediction names the option that an answer names: `B`, `(B)`, `B) text`, `option B`, `the answer is B`, or the option's
/// text as the question has it (`docs/judges.md` has the forms). Two different letters are no answer. An answer that names no option is
/// compared as [`EmJudge`] does; where its words stand in one option alone, that option is right as well.
#[derive(Clone, Copy, Debug, Default)]
pub struct OptionJudge;

impl Judge for OptionJudge {
    fn judge(&self, question: &str, prediction: &str, answers: &[String]) -> Verdict {
        self.judge_all(question, &[prediction], answers)[0]
    }

    fn judge_all(&self, question: &str, predictions: &[&str], answers: &[String]) -> Few<Verdict> {
        let choices = Choices::of(question);
        let (mut letters, mut texts) = (vec![], vec![]);
        for answer in answers {
            match choices.answer(answer) {
                Some(letter) => letters.push(letter),
                None => {
                    let said = words(answer);
                    letters.extend(choices.holding(&said));
                    texts.push(said);
                }
            }
        }
        let right = |prediction: &&str| {
            let named = choices.named(prediction).filter(|_| !letters.is_empty());
            let said = words(prediction);
            Verdict::of(named.is_some_and(|letter| letters.contains(&letter)) || !said.is_empty() && texts.contains(&said))
        };
        predictions.iter().map(right).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::JudgeKind;
    use crate::judge::tests::right;

    #[test]
    fn the_same_words_are_right_whatever_stands_between_them() {
        assert!(right(JudgeKind::Em, "the Eiffel Tower!", &["Big Ben", "Eiffel Tower"]));
        assert!(right(JudgeKind::Em, "北京 大学", &["北京大学。"]));
        assert!(!right(JudgeKind::Em, "Tower Eiffel", &["Eiffel Tower"]), "their order counts");
        assert!(!right(JudgeKind::Em, "the", &["A"]), "nothing is not nothing");
        // What the alias rule tells apart, and what it takes for one.
        for (prediction, answer, em, alias) in
            [("-5", "5", true, false), ("3.5", "35", true, false), ("Koln", "Köln", false, true), ("5km", "5 km", false, true)]
        {
            assert_eq!(
                (right(JudgeKind::Em, prediction, &[answer]), right(JudgeKind::Alias, prediction, &[answer])),
                (em, alias),
                "{prediction}"
            );
        }
    }

    #[test]
    fn overlap_is_right_from_a_threshold_on() {
        assert!(right(JudgeKind::TokenF1, "President Emmanuel Macron", &["Macron, Emmanuel"]), "one word more: 0.8");
        assert!(!right(JudgeKind::TokenF1, "Macron", &["Emmanuel Macron"]), "one word less: 2/3");
        assert!(!right(JudgeKind::TokenF1, "Paris France", &["Paris"]), "one word more beside one: 2/3");
        assert!(!right(JudgeKind::TokenF1, "Louis XV of France", &["Louis XIV of France"]), "another of four: 3/4");
        assert!(right(JudgeKind::TokenF1, "b c d e f", &["b c d e g"]), "another of five: 4/5");
        assert!(right(JudgeKind::TokenF1, "b c d e f g h", &["b c d e f g i j"]), "six of seven and of eight: 0.8, whatever rounding says");
        assert!(!right(JudgeKind::TokenF1, "b c d e f g h", &["b c d e f g i j k"]), "six of seven and of nine: 3/4");
    }

    #[test]
    fn options_are_compared_by_letter_and_texts_by_their_words() {
        let question = "Which?\nA. Paris\nB. London\nC. Rome";
        let right = |prediction: &str, answers: &[&str]| {
            let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
            JudgeKind::Option.judge(question, prediction, &answers) == Verdict::Correct
        };
        for (answer, prediction) in [("B", "London"), ("London", "B"), ("B. London", "The answer is (B)."), ("b", "option B")] {
            assert!(right(prediction, &[answer]), "{prediction} for {answer}");
            assert!(!right("A", &[answer]) && !right("A or B", &[answer]) && !right("Paris", &[answer]), "{answer}");
        }
        assert!(right("C", &["B", "Rome"]), "any of several");
        assert!(right("the Thames", &["Thames"]) && !right("B", &["Thames"]), "an answer that is no option");
    }

    /// As in four rows of LiveVQA, whose answers are shorter than the option that they mean.
    #[test]
    fn an_answer_that_stands_in_one_option_alone_means_it() {
        let question = "When?\nA. April 27, 2024 at 9:30 AM\nB. March 2024 at 7:00 AM\nC. To win in April\nD. 2024";
        let right =
            |prediction: &str, answer: &str| JudgeKind::Option.judge(question, prediction, &[answer.to_owned()]) == Verdict::Correct;
        for said in ["B", "March 2024 at 7:00 AM", "March 2024", "in March 2024"] {
            assert_eq!(right(said, "March 2024"), said != "in March 2024", "{said}");
        }
        assert!(right("C", "win in April") && !right("A", "win in April"));
        assert!(!right("A", "April") && !right("C", "April") && right("April", "April"), "it stands in two");
        assert!(!right("B", "March 7"), "its words stand apart");
        assert!(right("D", "2024") && !right("B", "2024"), "the option that it is goes before those that it stands in");
    }

    #[test]
    fn an_answer_of_no_question_with_options_is_no_option_because_of_its_initials() {
        assert!(right(JudgeKind::Option, "A. Smith", &["A. Smith"]) && !right(JudgeKind::Option, "A. Jones", &["A. Smith"]));
        assert!(right(JudgeKind::Option, "The answer is B.", &["B"]) && !right(JudgeKind::Option, "The answer is C.", &["B"]));
    }
}
