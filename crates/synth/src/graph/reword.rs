//! A question of a graph in better words. In: the question as the template has it, and a model. Out: another sentence that names the same
//! things, or why the template's stays. What is asked was settled before: the model only words it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::query::Query;
use super::triples::Graph;
use super::wording::says_any;
use crate::author::{Author, Unanswered, Wrote};

/// Longest question, in letters.
const MAX_QUESTION: usize = 1000;

const SYSTEM: &str = "You word questions. You are given a question in stiff words and the names in it. Say the same in one plain, fluent \
                      English question. Keep every name exactly as it is spelt, keep every condition, add nothing, and do not answer it. \
                      Reply with JSON and nothing else: {\"question\": \"..\"}";

/// The form of a reply.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    question: String,
}

/// Asks for other words.
///
/// # Errors
/// As [`Author::ask`].
pub async fn reword(
    author: &Author,
    graph: &Graph,
    query: &Query,
    question: &str,
    answers: &[String],
    seed: u64,
) -> Result<Wrote<String>, Unanswered> {
    let names: Vec<&str> = query.constraints.iter().map(|one| graph.name(one.end)).collect();
    let user = json!({"question": question, "names": names}).to_string();
    author.ask("reword", &json!({"question": question}), SYSTEM, &user, seed, |reply| accept(reply, &names, answers)).await
}

/// Whether a reply says as much as was asked.
fn accept(reply: Value, names: &[&str], answers: &[String]) -> Result<String, &'static str> {
    let Reply { question } = serde_json::from_value(reply).map_err(|_| "it is no object with a question alone")?;
    let question = question.trim();
    if question.is_empty() || question.chars().count() > MAX_QUESTION {
        return Err("the question is empty or too long");
    }
    if !names.iter().all(|name| question.contains(name)) {
        return Err("it leaves out a name");
    }
    if says_any(question, answers) {
        return Err("it says the answer");
    }
    Ok(question.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_name_the_same_things() {
        let said = |reply: Value| accept(reply, &["peso", "America"], &["Mexico".into()]);
        assert_eq!(said(json!({"question": " Who in America pays in peso? "})), Ok("Who in America pays in peso?".into()));
        assert_eq!(said(json!({"question": "Who in America pays in pesos?"})), Ok("Who in America pays in pesos?".into()), "inflected");
        assert_eq!(said(json!({"question": "Who pays in peso?"})), Err("it leaves out a name"));
        assert_eq!(said(json!({"question": "Is Mexico of America with peso?"})), Err("it says the answer"));
        assert_eq!(said(json!({"question": ""})), Err("the question is empty or too long"));
        for other in [json!({"question": 7}), json!({"question": "peso America", "answer": "Mexico"}), json!("peso America"), json!([])] {
            assert_eq!(said(other), Err("it is no object with a question alone"));
        }
    }
}
