//! What a model that judges replied. In: a chat completion. Out: a verdict, or why it is none.
//!
//! The verdict is asked for in one form ([`crate::prompts`]) and read in that form alone. Where it is a line, that is the last one,
//! `VERDICT: CORRECT`, or the whole reply is one of the words, or `{"verdict": "CORRECT"}`. Letter case and markup around a line do not
//! matter, and thoughts are no part of the reply. Whatever else is said is no verdict: a guess would be one in favour of the policy or
//! against it.

use hypereyes_openai::{Completion, Finish};
use hypereyes_scoring::Verdict;
use serde_json::Value;

/// Why a reply is no verdict; the label under which it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoVerdict {
    /// It is no chat completion with one text.
    Malformed,
    /// It was cut at its token limit, or within a thought.
    Truncated,
    /// The server withheld it.
    Withheld,
    /// It says something else.
    Other,
    /// It says both, or denies what it says.
    Contradiction,
}

impl NoVerdict {
    /// The label used in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::Withheld => "withheld",
            Self::Other => "no_verdict",
            Self::Contradiction => "contradiction",
        }
    }
}

/// Words for verdicts.
pub type Words = &'static [(&'static str, Verdict)];
/// Right or not.
pub const TWO: Words = &[("correct", Verdict::Correct), ("incorrect", Verdict::Wrong)];
/// The same, and declined.
pub const THREE: Words = &[("correct", Verdict::Correct), ("incorrect", Verdict::Wrong), ("not_attempted", Verdict::NotAttempted)];

/// Reads a chat completion; `read` reads what was said.
///
/// # Errors
/// Why it is no verdict.
pub fn of_completion(completion: &Completion, read: impl FnOnce(&str) -> Result<Verdict, NoVerdict>) -> Result<Verdict, NoVerdict> {
    match (completion.finish, &completion.refusal, &completion.text) {
        (Finish::Length, ..) => Err(NoVerdict::Truncated),
        (Finish::Withheld, ..) | (_, Some(_), _) => Err(NoVerdict::Withheld),
        (Finish::Done, None, Some(said)) => read(said),
        (Finish::Done, None, None) => Err(NoVerdict::Malformed),
    }
}

/// Reads a verdict that is the whole reply.
///
/// # Errors
/// Why it is none.
pub fn in_word(said: &str, words: Words) -> Result<Verdict, NoVerdict> {
    word(bare(without_thoughts(said)?), words).ok_or(NoVerdict::Other)
}

/// Reads a verdict on the last line of a reply, or in whole of it.
///
/// # Errors
/// Why it is none.
pub fn in_line(said: &str, words: Words) -> Result<Verdict, NoVerdict> {
    let said = without_thoughts(said)?.trim();
    if let Some(verdict) = of_json(said, words) {
        return verdict;
    }
    if let Some(verdict) = word(bare(said), words) {
        return Ok(verdict);
    }
    let (reasons, last) = said.rsplit_once('\n').unwrap_or(("", said));
    let Some(verdict) = line(last, words) else { return Err(NoVerdict::Other) };
    let reasons = reasons.to_lowercase();
    // What leads to a verdict must not give another one, nor deny that the answer is right and then say that it is.
    let other = match verdict {
        Verdict::Correct => denies(&reasons),
        Verdict::Wrong | Verdict::NotAttempted => false,
    };
    if reasons.contains("verdict") || other { Err(NoVerdict::Contradiction) } else { Ok(verdict) }
}

/// What follows the thoughts. They may begin in the prompt, so that only their end is in the reply; without an end all of it
/// is thought.
pub(crate) fn without_thoughts(said: &str) -> Result<&str, NoVerdict> {
    const THOUGHTS: [(&str, &str); 5] = [
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
        ("<|channel|>analysis", "<|channel|>final<|message|>"),
    ];
    let mut rest = said;
    for (open, close) in THOUGHTS {
        if let Some(at) = rest.rfind(close) {
            rest = &rest[at + close.len()..];
        }
        if rest.contains(open) {
            return Err(NoVerdict::Truncated);
        }
    }
    Ok(rest)
}

/// What stands in a fence, where all of it does.
pub(crate) fn without_fence(said: &str) -> &str {
    let said = said.trim();
    let fenced = said.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    fenced.map_or(said, |inner| inner.strip_prefix("json").unwrap_or(inner)).trim()
}

/// `{"verdict": "CORRECT"}` and nothing else, in a fence or not; nothing when the text is no object.
fn of_json(said: &str, words: Words) -> Option<Result<Verdict, NoVerdict>> {
    let json = without_fence(said);
    let object = serde_json::from_str::<Value>(json).ok().filter(Value::is_object)?;
    // A key that comes twice may say both.
    let once = json.matches("verdict").count() == 1 && object.as_object().is_some_and(|object| object.len() == 1);
    Some(object["verdict"].as_str().filter(|_| once).and_then(|said| word(said, words)).ok_or(NoVerdict::Other))
}

/// `VERDICT: CORRECT`, markup aside.
fn line(text: &str, words: Words) -> Option<Verdict> {
    let (name, verdict) = bare(text).split_once([':', '：'])?;
    if !bare(name).eq_ignore_ascii_case("verdict") {
        return None;
    }
    word(bare(verdict), words)
}

/// One of the words; where it is of two, any sign may join them.
fn word(text: &str, words: Words) -> Option<Verdict> {
    let joined = text.replace([' ', '-'], "_");
    words.iter().find(|(word, _)| joined.eq_ignore_ascii_case(word)).map(|(_, verdict)| *verdict)
}

/// Without markup in front, and without markup and a full stop behind. A question mark, a stroke through the word or a sign
/// of negation is no markup.
fn bare(text: &str) -> &str {
    let markup =
        |letter: char| letter.is_whitespace() || matches!(letter, '*' | '_' | '`' | '"' | '\'' | '#' | '>' | '(' | ')' | '[' | ']');
    text.trim_start_matches(markup).trim_end_matches(|letter| markup(letter) || matches!(letter, '.' | '!' | '。'))
}

/// Whether a text, in lower case, has a word that denies. It errs on the side of seeing one: what it stops is asked again.
fn denies(text: &str) -> bool {
    const WORDS: [&str; 34] = [
        "not",
        "no",
        "non",
        "nor",
        "never",
        "none",
        "neither",
        "cannot",
        "without",
        "incorrect",
        "incorrectly",
        "wrong",
        "wrongly",
        "false",
        "untrue",
        "inaccurate",
        "invalid",
        "mistaken",
        "mistake",
        "error",
        "partially",
        "partly",
        "half",
        "almost",
        "nearly",
        "but",
        "however",
        "although",
        "instead",
        "different",
        "differs",
        "contradicts",
        "fails",
        "isnt",
    ];
    let words = text.split(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '\'' | '’'));
    let denial = |word: &str| {
        let plain: String = word.chars().filter(|letter| letter.is_alphanumeric()).collect();
        WORDS.contains(&plain.as_str()) || word.ends_with("n't") || word.ends_with("n’t")
    };
    words.into_iter().any(denial) || text.contains(['不', '错', '否', '非', '¬', '✗', '❌', '✘', '~'])
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::json;

    use super::*;

    fn of_text(said: &str) -> Result<Verdict, NoVerdict> {
        in_line(said, TWO)
    }

    #[test]
    fn one_word_or_one_line_is_a_verdict_whatever_markup_surrounds_it() {
        for said in [
            "Correct",
            " correct.\n",
            "**Correct**",
            "CORRECT!",
            "`Correct`",
            "\"Correct\"",
            "VERDICT: CORRECT",
            "Verdict: correct.",
            "**VERDICT: CORRECT**",
            "**Verdict:** Correct",
            "> VERDICT: CORRECT",
            "### Verdict: CORRECT",
            "VERDICT：CORRECT",
            "Both name the capital of France.\n\nVERDICT: CORRECT",
            "{\"verdict\": \"CORRECT\"}",
            "```json\n{\"verdict\": \"correct\"}\n```",
            "<think>It is not Rome, so not wrong. VERDICT: INCORRECT?</think>Correct",
            "a thought\n</think>\n\nVERDICT: CORRECT",
        ] {
            assert_eq!(of_text(said), Ok(Verdict::Correct), "{said:?}");
        }
        for said in [
            "Incorrect",
            "**INCORRECT**",
            "incorrect.",
            "VERDICT: INCORRECT",
            "The right answer is Paris. This is not correct.\nVERDICT: INCORRECT",
            "{\"verdict\": \"incorrect\"}",
            "<think>correct</think> Incorrect",
        ] {
            assert_eq!(of_text(said), Ok(Verdict::Wrong), "{said:?}");
        }
    }

    #[test]
    fn whatever_else_is_said_is_no_verdict() {
        for (said, why) in [
            ("Not correct", NoVerdict::Other),
            ("The answer is not correct.", NoVerdict::Other),
            ("It isn't correct", NoVerdict::Other),
            ("Partially correct", NoVerdict::Other),
            ("Correctness: 0", NoVerdict::Other),
            ("Correct: no", NoVerdict::Other),
            ("Correct?", NoVerdict::Other),
            ("~~Correct~~", NoVerdict::Other),
            ("!Correct", NoVerdict::Other),
            ("(in)correct", NoVerdict::Other),
            ("In-correct", NoVerdict::Other),
            ("in\u{200b}correct", NoVerdict::Other),
            ("Correct or Incorrect", NoVerdict::Other),
            ("Correct\nIncorrect", NoVerdict::Other),
            ("The correct answer is Paris, but the given answer is Rome.", NoVerdict::Other),
            ("I cannot say", NoVerdict::Other),
            ("", NoVerdict::Other),
            ("VERDICT: NOT CORRECT", NoVerdict::Other),
            ("VERDICT: CORRECT or INCORRECT", NoVerdict::Other),
            ("VERDICT: CORRECT, I think not", NoVerdict::Other),
            ("VERDICT: INCORRECT\nVERDICT: CORRECT", NoVerdict::Contradiction),
            ("VERDICT: CORRECT\nVERDICT: INCORRECT", NoVerdict::Contradiction),
            ("It says \"VERDICT: CORRECT\".\nVERDICT: CORRECT", NoVerdict::Contradiction),
            ("That is not right.\nVERDICT: CORRECT", NoVerdict::Contradiction),
            ("{\"verdict\": \"correct\", \"sure\": false}", NoVerdict::Other),
            ("{\"verdict\": \"incorrect\", \"verdict\": \"correct\"}", NoVerdict::Other),
            ("{\"verdict\": true}", NoVerdict::Other),
            ("<think>It is right.", NoVerdict::Truncated),
            ("<think>a</think><think>VERDICT: CORRECT", NoVerdict::Truncated),
        ] {
            assert_eq!(of_text(said), Err(why), "{said:?}");
        }
    }

    #[test]
    fn a_completion_is_read_with_how_it_ended() {
        let read = |choice: Value| {
            let body = json!({"choices": [choice]}).to_string();
            of_completion(&Completion::read(body.as_bytes()).expect("a completion"), of_text)
        };
        let said = |content: Value, end: &str| json!({"message": {"content": content}, "finish_reason": end});
        assert_eq!(read(said(json!("Correct"), "stop")), Ok(Verdict::Correct));
        assert_eq!(read(json!({"message": {"content": "Correct"}})), Ok(Verdict::Correct));
        assert_eq!(read(said(json!([{"type": "text", "text": "Cor"}, {"type": "text", "text": "rect"}]), "stop")), Ok(Verdict::Correct));
        assert_eq!(read(said(json!("Correct"), "length")), Err(NoVerdict::Truncated));
        assert_eq!(read(said(json!("Correct"), "content_filter")), Err(NoVerdict::Withheld));
        assert_eq!(read(json!({"message": {"content": "Correct", "refusal": "no"}})), Err(NoVerdict::Withheld));
        assert_eq!(read(json!({"message": {"content": null, "reasoning_content": "Correct"}})), Err(NoVerdict::Malformed));
        assert_eq!(read(json!({"message": {"content": "Incorrect", "reasoning_content": "Correct"}})), Ok(Verdict::Wrong));
    }

    #[test]
    fn a_third_word_is_read_where_it_is_asked_for() {
        for said in [
            "NOT_ATTEMPTED",
            "Not attempted.",
            "**not-attempted**",
            "He does not know.\nVERDICT: NOT_ATTEMPTED",
            "{\"verdict\": \"not_attempted\"}",
        ] {
            assert_eq!((in_line(said, THREE), of_text(said)), (Ok(Verdict::NotAttempted), Err(NoVerdict::Other)), "{said}");
        }
        for (said, why) in [
            ("VERDICT: NOT", NoVerdict::Other),
            ("attempted", NoVerdict::Other),
            ("VERDICT: NOT_ATTEMPTED or INCORRECT", NoVerdict::Other),
            ("VERDICT: INCORRECT\nVERDICT: NOT_ATTEMPTED", NoVerdict::Contradiction),
        ] {
            assert_eq!(in_line(said, THREE), Err(why), "{said}");
        }
        assert_eq!(in_line("VERDICT: INCORRECT", THREE), Ok(Verdict::Wrong));
    }

    #[test]
    fn a_word_alone_has_nothing_beside_it() {
        for said in ["Correct", "**correct**.", "<think>Incorrect?</think>Correct"] {
            assert_eq!(in_word(said, TWO), Ok(Verdict::Correct), "{said}");
        }
        assert_eq!(in_word("Incorrect", TWO), Ok(Verdict::Wrong));
        for said in [
            "VERDICT: CORRECT",
            "It is correct",
            "Correct\nIncorrect",
            "Correct, incorrect",
            "{\"verdict\": \"correct\"}",
            "",
            "Not attempted",
        ] {
            assert_eq!(in_word(said, TWO), Err(NoVerdict::Other), "{said}");
        }
        assert_eq!(in_word("<think>Correct", TWO), Err(NoVerdict::Truncated));
    }

    /// Texts that deny, mutated: no panic, and none of them is CORRECT. A mutation may only take what is denied, not the
    /// denial, so the denial is put in after it.
    #[test]
    fn no_text_that_denies_is_a_verdict_for_the_policy() {
        const SAID: [&str; 16] = [
            "Correct",
            "correct",
            "VERDICT: CORRECT",
            "verdict: correct",
            "\n",
            " ",
            ".",
            "**",
            "`",
            "\"",
            ":",
            "The answer",
            "is",
            "<think>",
            "</think>",
            "{\"verdict\": \"CORRECT\"}",
        ];
        const DENIALS: [&str; 12] =
            ["not ", "isn't ", "not", "n't ", "in", "In", "IN", "un", "partially ", "never ", "no, ", "incorrect\n"];
        let rounds: u32 = std::env::var("HYPEREYES_FUZZ").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20_000);
        let (mut random, mut verdicts) = (StdRng::seed_from_u64(5), 0);
        for _ in 0..rounds {
            let mut said: String = (0..random.random_range(1..7)).map(|_| SAID[random.random_range(0..SAID.len())]).collect();
            for _ in 0..random.random_range(0..3) {
                let at = said.char_indices().map(|(at, _)| at).nth(random.random_range(0..said.chars().count())).unwrap_or(0);
                said.insert(at, char::from(random.random_range(0x20..0x7f_u8)));
            }
            verdicts += u32::from(of_text(&said).is_ok());
            // The denial right before each of what would be said for the policy, behind the last thought.
            let denial = DENIALS[random.random_range(0..DENIALS.len())];
            let lower = said.to_ascii_lowercase();
            let places: Vec<usize> = lower.match_indices("correct").map(|(at, _)| at).collect();
            let mut denied = said.clone();
            for at in places.into_iter().rev() {
                denied.insert_str(at, denial);
            }
            let read = of_text(&denied);
            assert_ne!(read, Ok(Verdict::Correct), "{denied:?}");
        }
        assert!(verdicts > 0, "some were verdicts before they were denied");
        println!("{rounds} mutated replies, {verdicts} of them verdicts before the denial");
    }
}
