//! Textual tasks from a graph of triples (docs/synthesis.md). In: a graph, settings, a seed. Out: questions with exactly one answer in the
//! graph and no shortcut to it, and how many draws were passed over, by reason. The same graph and the same seed give the same tasks.
//!
//! It knows no model: [`reword`] has one word questions that are made.

pub mod query;
pub mod reword;
pub mod triples;
pub mod walk;
pub mod wording;

use std::collections::{BTreeMap, HashSet};

use hypereyes_domain::{Metadata, Task, TaskId, TaskKind};
use metrics::counter;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

pub use self::query::{Constraint, Query, Unfair};
pub use self::triples::{Graph, Node, Read, Refused};
use crate::SynthError;
use crate::config::{GraphConfig, SynthConfig};
use crate::metrics::{DROPPED, MADE};
use crate::seeds;

/// Tasks, and what was passed over.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// The tasks, each with its question.
    pub tasks: Vec<(Task, Query)>,
    /// Draws passed over, by reason.
    pub passed_over: BTreeMap<&'static str, usize>,
}

/// Makes `config.tasks` tasks. `progress` is told how many there are.
///
/// # Errors
/// [`SynthError::GivenUp`] where the graph has no more fair questions than were made, with the reasons.
pub fn draw(graph: &Graph, config: &SynthConfig, seed: u64, mut progress: impl FnMut(usize)) -> Result<Drawn, SynthError> {
    config.check()?;
    let (mut drawn, mut asked) = (Drawn::default(), HashSet::new());
    for index in 0..config.tasks {
        let mut random = ChaCha8Rng::seed_from_u64(seeds::of_try(seed, "graph", 0, u32::try_from(index).unwrap_or(u32::MAX)));
        // Drawn once: questions that are hard to find must not change the mixture.
        let is_walk = random.random_bool(config.graph.walks);
        let mut reasons: BTreeMap<Unfair, usize> = BTreeMap::new();
        let found = (0..config.max_attempts).find_map(|_| {
            let one = fair(graph, &config.graph, is_walk, &mut random);
            let one = one.and_then(|one| if asked.insert(one.meaning()) { Ok(one) } else { Err(Unfair::AskedBefore) });
            one.map_err(|unfair| {
                counter!(DROPPED, "reason" => unfair.label()).increment(1);
                *reasons.entry(unfair).or_default() += 1;
            })
            .ok()
        });
        let Some(one) = found else {
            let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{} {count}", reason.label())).collect();
            return Err(SynthError::GivenUp { index, attempts: config.max_attempts, reasons: reasons.join(", ") });
        };
        reasons.into_iter().for_each(|(reason, count)| *drawn.passed_over.entry(reason.label()).or_default() += count);
        counter!(MADE, "split" => "train", "kind" => one.kind().to_string()).increment(1);
        drawn.tasks.push((one.task(graph, index), one.query));
        progress(index + 1);
    }
    Ok(drawn)
}

/// A question that may be asked.
struct Fair {
    query: Query,
    question: String,
    answers: Vec<String>,
}

fn fair(graph: &Graph, config: &GraphConfig, is_walk: bool, random: &mut ChaCha8Rng) -> Result<Fair, Unfair> {
    let [fewest, most] = if is_walk { config.hops } else { config.constraints };
    let count = random.random_range(fewest..=most);
    let drawn = if is_walk { walk::walk(graph, count, random) } else { walk::constraints(graph, count, config.reach, random) };
    let query = drawn.ok_or(Unfair::NoWalk)?;
    query.check(graph, config.most_solutions)?;
    let question = wording::question(graph, &query);
    let answers: Vec<String> =
        [graph.name(query.target).to_owned()].into_iter().chain(graph.aliases(query.target).iter().cloned()).collect();
    if wording::says_any(&question, &answers) {
        return Err(Unfair::SaysAnswer);
    }
    Ok(Fair { query, question, answers })
}

impl Fair {
    /// What is asked, in whatever order it is said.
    fn meaning(&self) -> (Node, Vec<Constraint>) {
        let mut constraints = self.query.constraints.clone();
        constraints.sort_unstable();
        (self.query.target, constraints)
    }

    fn kind(&self) -> TaskKind {
        match &self.query.constraints[..] {
            [one] => TaskKind::new(format!("walk_{}", one.path.len())),
            _ => TaskKind::TEXTUAL_CONSTRAINTS,
        }
    }

    fn task(&self, graph: &Graph, index: usize) -> Task {
        let step = |step: &triples::Step| json!({"relation": graph.relation(*step), "back": step.back});
        let constraint = |one: &Constraint| json!({"path": one.path.iter().map(step).collect::<Vec<_>>(), "end": graph.name(one.end)});
        let constraints: Vec<_> = self.query.constraints.iter().map(constraint).collect();
        Task {
            id: TaskId::new(format!("graph-{index:06}")),
            kind: self.kind(),
            question: self.question.clone(),
            answers: self.answers.clone(),
            pictures: vec![],
            layer: None,
            shown: vec![],
            reference: None,
            metadata: Metadata::from_iter([("constraints".to_owned(), constraints.into())]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::triples::tests::graph;
    use super::*;

    /// A random graph as text: `things` things, `facts` facts over few relations, so that many questions are unfair in every way.
    fn random_text(things: usize, relations: usize, facts: usize, seed: u64) -> String {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut fact = || {
            let [one, other] = [0, 1].map(|_| random.random_range(0..things));
            (one != other).then(|| format!("thing {one}\trel{}\tthing {other}\n", random.random_range(0..relations)))
        };
        (0..facts).filter_map(|_| fact()).collect()
    }

    type Fact<'a> = (&'a str, &'a str, &'a str);

    /// Who is true of a constraint, by looking at all facts: steps are relations, and whether they go back.
    fn holders<'a>(facts: &BTreeSet<Fact<'a>>, path: &[(String, bool)], end: &str) -> BTreeSet<&'a str> {
        let Some(((relation, back), rest)) = path.split_first() else {
            return facts.iter().flat_map(|(s, _, o)| [*s, *o]).filter(|name| *name == end).collect();
        };
        let next = holders(facts, rest, end);
        let of = |(s, r, o): &Fact<'a>| match back {
            false => (r == relation && next.contains(o)).then_some(*s),
            true => (r == relation && next.contains(s)).then_some(*o),
        };
        facts.iter().filter_map(of).collect()
    }

    #[test]
    fn every_question_has_one_answer_and_every_subset_of_its_constraints_several() {
        let mut kinds = BTreeMap::<String, usize>::new();
        for seed in 0..20 {
            let text = random_text(40, 4, 160, seed);
            let facts: BTreeSet<Fact<'_>> = text
                .lines()
                .map(|line| {
                    let parts: Vec<&str> = line.split('\t').collect();
                    (parts[0], parts[1], parts[2])
                })
                .collect();
            let config = SynthConfig {
                tasks: 12,
                graph: GraphConfig { reach: 2, constraints: [2, 3], ..GraphConfig::default() },
                ..SynthConfig::default()
            };
            let graph = graph(&text);
            let drawn = draw(&graph, &config, seed, |_| {}).expect("there are enough");
            for (task, query) in &drawn.tasks {
                *kinds.entry(task.kind.to_string()).or_default() += 1;
                let of = |one: &Constraint| {
                    let path: Vec<(String, bool)> = one.path.iter().map(|step| (graph.relation(*step).to_owned(), step.back)).collect();
                    holders(&facts, &path, graph.name(one.end))
                };
                let sets: Vec<BTreeSet<&str>> = query.constraints.iter().map(of).collect();
                // Every subset that is not empty, by its bits.
                for subset in 1..1_u32 << sets.len() {
                    let chosen = sets.iter().enumerate().filter(|(at, _)| subset >> at & 1 == 1).map(|(_, set)| set.clone());
                    let common = chosen.reduce(|one, other| one.intersection(&other).copied().collect()).expect("not empty");
                    let whole = subset + 1 == 1 << sets.len();
                    assert_eq!(common.len() == 1, whole, "{} by {subset:b} of {}", task.question, query.constraints.len());
                    assert!(common.contains(task.answer()), "{}", task.question);
                }
                for one in query.constraints.iter().filter(|one| one.path.len() > 1) {
                    let linked = |(s, _, o): &Fact<'_>| [(*s, *o), (*o, *s)].contains(&(graph.name(one.end), task.answer()));
                    assert!(!facts.iter().any(linked), "one hop answers {}", task.question);
                }
                for one in &query.constraints {
                    assert!(task.question.contains(graph.name(one.end)), "{}", task.question);
                }
                assert!(!wording::says_any(&task.question, &task.answers));
            }
            let again = draw(&graph, &config, seed, |_| {}).expect("there are enough");
            assert!(again.tasks == drawn.tasks && again.passed_over == drawn.passed_over, "one seed, one set");
            let questions: HashSet<&str> = drawn.tasks.iter().map(|(task, _)| task.question.as_str()).collect();
            assert_eq!(questions.len(), 12, "each is asked once");
        }
        assert!(["walk_2", "walk_3", "textual_constraints"].iter().all(|kind| kinds[*kind] >= 10), "{kinds:?}");
    }

    #[test]
    fn questions_read_as_they_mean() {
        let text = "Ann\tmother\tBea\nBea\tborn in\tBonn\nEve\tmother\tFay\nFay\tborn in\tRome\n";
        let config =
            SynthConfig { tasks: 2, graph: GraphConfig { walks: 1.0, hops: [2, 2], ..GraphConfig::default() }, ..SynthConfig::default() };
        let drawn = draw(&graph(text), &config, 1, |_| {}).expect("two walks");
        let mut said: Vec<(&str, &str)> = drawn.tasks.iter().map(|(task, _)| (task.question.as_str(), task.answer())).collect();
        said.sort_unstable();
        assert_eq!(said, [("What is the born in of the mother of Ann?", "Bonn"), ("What is the born in of the mother of Eve?", "Rome")]);
        assert_eq!(
            drawn.tasks[0].0.metadata["constraints"][0]["path"],
            json!([{"relation": "born in", "back": true}, {"relation": "mother", "back": true}])
        );
        let text = "Mexico\tcurrency\tpeso\nChile\tcurrency\tpeso\nMexico\tcontinent\tAmerica\nPeru\tcontinent\tAmerica\nPeru\tcurrency\tsol\nMexico\talias\tMéxico\n";
        let config = SynthConfig {
            tasks: 1,
            graph: GraphConfig { walks: 0.0, constraints: [2, 2], ..GraphConfig::default() },
            ..SynthConfig::default()
        };
        let drawn = draw(&graph(text), &config, 3, |_| {}).expect("one question");
        let task = &drawn.tasks[0].0;
        assert!(
            [
                "What is the one whose currency is peso and whose continent is America?",
                "What is the one whose continent is America and whose currency is peso?"
            ]
            .contains(&task.question.as_str()),
            "{}",
            task.question
        );
        assert_eq!(task.answers, ["Mexico", "México"]);
        let more = SynthConfig { tasks: 5, max_attempts: 50, ..config };
        let error = draw(&graph(text), &more, 3, |_| {}).expect_err("there are no five").to_string();
        assert!(error.contains("given up after 50 draws") && error.contains("asked_before"), "{error}");
    }
}
