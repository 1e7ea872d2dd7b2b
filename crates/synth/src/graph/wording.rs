//! Questions on a graph in words. In: a graph and a question. Out: a sentence that says every constraint and nothing else; and whether it
//! gives its answer away. Pure: a model may word it better (`crate::graph::reword`), and need not.

use super::query::{Constraint, Query};
use super::triples::{Graph, Node, Step};

/// The question.
pub fn question(graph: &Graph, query: &Query) -> String {
    match &query.constraints[..] {
        [one] if one.path.iter().all(|step| step.back) => format!("What is {}?", chain(graph, one)),
        constraints => {
            let all: Vec<String> = constraints.iter().map(|one| clause(graph, &one.path, one.end)).collect();
            format!("What is the one {}?", listed(&all))
        }
    }
}

/// The walk from its beginning: `the capital of the country of Ann`.
fn chain(graph: &Graph, one: &Constraint) -> String {
    let steps: Vec<String> = one.path.iter().map(|step| format!("the {} of ", label(graph, *step))).collect();
    format!("{}{}", steps.concat(), graph.name(one.end))
}

/// What a path says of whoever it begins at: `whose currency is peso`, `that is the mother of one whose home is Bonn`.
fn clause(graph: &Graph, path: &[Step], end: Node) -> String {
    let Some((step, rest)) = path.split_first() else { return graph.name(end).to_owned() };
    let (label, name) = (label(graph, *step), graph.name(end));
    match (step.back, rest.is_empty()) {
        (false, true) => format!("whose {label} is {name}"),
        (true, true) => format!("that is the {label} of {name}"),
        (false, false) => format!("whose {label} is one {}", clause(graph, rest, end)),
        (true, false) => format!("that is the {label} of one {}", clause(graph, rest, end)),
    }
}

/// A relation as a sentence spells it: data sets write `place_of_birth` and `placeOfBirth`.
fn label(graph: &Graph, step: Step) -> String {
    spelt(graph.relation(step))
}

fn spelt(relation: &str) -> String {
    // What comes before the last slash or hash is an address.
    let name = relation.rsplit(['/', '#']).next().filter(|name| !name.is_empty() && relation.contains("://")).unwrap_or(relation);
    let mut words = String::with_capacity(name.len() + 4);
    let mut before = ' ';
    for letter in name.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
            words.extend(letter.to_lowercase());
        } else {
            words.push(if letter == '_' { ' ' } else { letter });
        }
        before = letter;
    }
    words.trim().to_owned()
}

fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Whether a question says one of its answers. Letter case does not hide one; a word within a longer one is none.
pub fn says_any(question: &str, answers: &[String]) -> bool {
    let question = question.to_lowercase();
    answers.iter().map(|answer| answer.trim().to_lowercase()).filter(|answer| !answer.is_empty()).any(|answer| says(&question, &answer))
}

fn says(question: &str, answer: &str) -> bool {
    let apart = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric());
    question
        .match_indices(answer)
        .any(|(at, found)| apart(question[..at].chars().next_back()) && apart(question[at + found.len()..].chars().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_of_data_sets_become_words() {
        for (relation, words) in [
            ("capital", "capital"),
            ("place_of_birth", "place of birth"),
            ("placeOfBirth", "place of birth"),
            ("http://dbpedia.org/ontology/birthPlace", "birth place"),
            ("GDP", "GDP"),
            ("member of / part of", "member of / part of"),
        ] {
            assert_eq!(spelt(relation), words);
        }
    }

    #[test]
    fn an_answer_is_found_as_a_word() {
        let says = |question: &str, answer: &str| says_any(question, &[answer.to_owned()]);
        assert!(says("Who won the Tour de France?", "france") && says("Is it FRANCE?", "France"));
        assert!(!says("Who is Francesca?", "France") && !says("Who?", " ") && !says("Who?", "Peru"));
        assert!(says_any("Is it México?", &["Mexico".into(), "México".into()]));
    }
}
