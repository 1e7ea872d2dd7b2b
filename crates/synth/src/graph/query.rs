//! Questions on a graph, and whether they have one answer and no shortcut (docs/synthesis.md). In: a graph, an entity, constraints that
//! hold of it. Out: whether the question is a fair one, or the first reason why not. Pure: nobody is asked.
//!
//! A constraint is a path from the entity to a thing that is named. One constraint of several steps is a walk that is asked for as a
//! whole; several constraints hold together.

use super::triples::{Graph, Node, Step};

/// A path from the entity that is asked for to a thing that is named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraint {
    /// Steps, the entity's own first.
    pub path: Vec<Step>,
    /// What is named.
    pub end: Node,
}

/// Which entity is it of which all of this is true?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// The entity.
    pub target: Node,
    /// What is true of it.
    pub constraints: Vec<Constraint>,
}

/// Why a question is not asked; a label of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unfair {
    /// There is no such walk from here.
    NoWalk,
    /// A constraint is true of more entities than are looked at.
    TooCommon,
    /// It has several answers.
    Ambiguous,
    /// Some of the constraints have one answer already.
    Subset,
    /// One hop leads from what is named to the answer.
    OneHop,
    /// A part of a walk leads to the answer.
    Shorter,
    /// Without the beginning of a walk there is one answer already.
    NeedsNoEnd,
    /// The question says its answer.
    SaysAnswer,
    /// It was asked before.
    AskedBefore,
}

impl Unfair {
    /// The `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoWalk => "no_walk",
            Self::TooCommon => "too_common",
            Self::Ambiguous => "ambiguous",
            Self::Subset => "subset",
            Self::OneHop => "one_hop",
            Self::Shorter => "shorter_walk",
            Self::NeedsNoEnd => "needs_no_end",
            Self::SaysAnswer => "says_answer",
            Self::AskedBefore => "asked_before",
        }
    }
}

impl Constraint {
    /// Every entity of which it is true, sorted; `None` where there are, or on the way were, more than `most`.
    pub fn solutions(&self, graph: &Graph, most: usize) -> Option<Vec<Node>> {
        reached(graph, self.end, self.path.iter().rev().map(|step| step.reversed()), most)
    }

    /// Whether the path leads anywhere from an entity.
    fn leads_on(&self, graph: &Graph, from: Node) -> bool {
        fn on(graph: &Graph, from: Node, path: &[Step]) -> bool {
            match path.split_first() {
                None => true,
                Some((step, rest)) => graph.along(from, *step).iter().any(|edge| on(graph, edge.to, rest)),
            }
        }
        on(graph, from, &self.path)
    }
}

/// Where steps lead from a thing, sorted; `None` beyond `most` at any of them.
fn reached(graph: &Graph, from: Node, steps: impl Iterator<Item = Step>, most: usize) -> Option<Vec<Node>> {
    let mut at = vec![from];
    for step in steps {
        let mut next: Vec<Node> = vec![];
        for node in &at {
            next.extend(graph.along(*node, step).iter().map(|edge| edge.to));
            // What is reached twice is counted once, but not held twice for long.
            if next.len() > 2 * most {
                next.sort_unstable();
                next.dedup();
            }
            if next.len() > 2 * most {
                return None;
            }
        }
        next.sort_unstable();
        next.dedup();
        if next.len() > most {
            return None;
        }
        at = next;
    }
    Some(at)
}

/// What is in all of these; all things where there are none of these is not asked.
fn common<'a>(mut sets: impl Iterator<Item = &'a Vec<Node>>) -> Vec<Node> {
    let first = sets.next().cloned().unwrap_or_default();
    sets.fold(first, |common, set| common.into_iter().filter(|node| set.binary_search(node).is_ok()).collect())
}

impl Query {
    /// Whether there is one answer, and nothing less than the question gives it. Constraints that are true of more than `most` are not
    /// looked at.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check(&self, graph: &Graph, most: usize) -> Result<(), Unfair> {
        let solutions =
            self.constraints.iter().map(|one| one.solutions(graph, most)).collect::<Option<Vec<_>>>().ok_or(Unfair::TooCommon)?;
        if common(solutions.iter()) != [self.target] {
            return Err(Unfair::Ambiguous);
        }
        let without = |at: usize| solutions.iter().enumerate().filter(move |(other, _)| *other != at).map(|(_, set)| set);
        let several = self.constraints.len() > 1;
        // Whatever subset has one answer, so has the larger one that lacks a single constraint.
        if several && (0..solutions.len()).any(|at| common(without(at)).len() == 1) {
            return Err(Unfair::Subset);
        }
        for constraint in &self.constraints {
            let Constraint { path, end } = constraint;
            if path.len() > 1 {
                if graph.are_linked(*end, self.target) {
                    return Err(Unfair::OneHop);
                }
                let part = |steps: usize| reached(graph, *end, path.iter().rev().take(steps).map(|step| step.reversed()), most);
                if (1..path.len()).any(|steps| part(steps).is_none_or(|nodes| nodes.contains(&self.target))) {
                    return Err(Unfair::Shorter);
                }
            }
            // Beside others a relation alone is no shortcut: that most things lack it says more of the graph than of them.
            if !several && graph.nodes().filter(|node| constraint.leads_on(graph, *node)).take(2).count() == 1 {
                return Err(Unfair::NeedsNoEnd);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::triples::tests::graph;
    use super::*;

    fn node(graph: &Graph, name: &str) -> Node {
        graph.nodes().find(|node| graph.name(*node) == name).expect(name)
    }

    /// `path` are names of relations, `-` before those that are gone back.
    fn constraint(graph: &Graph, path: &[&str], end: &str) -> Constraint {
        let step = |name: &&str| {
            let (back, name) = name.strip_prefix('-').map_or((false, *name), |name| (true, name));
            let all = graph.nodes().flat_map(|node| graph.edges(node)).map(|edge| edge.step);
            all.into_iter().find(|step| step.back == back && graph.relation(*step) == name).expect(name)
        };
        Constraint { path: path.iter().map(step).collect(), end: node(graph, end) }
    }

    fn check(graph: &Graph, target: &str, constraints: &[(&[&str], &str)]) -> Result<(), Unfair> {
        let constraints = constraints.iter().map(|(path, end)| constraint(graph, path, end)).collect();
        Query { target: node(graph, target), constraints }.check(graph, 100)
    }

    #[test]
    fn constraints_that_hold_together_are_all_needed() {
        let graph = graph(
            "Mexico\tcurrency\tpeso\nChile\tcurrency\tpeso\nMexico\tcontinent\tAmerica\nPeru\tcontinent\tAmerica\nPeru\tcurrency\tsol\n\
             Bolivia\tcontinent\tAmerica\nBolivia\tcurrency\tboliviano\n",
        );
        let both: &[(&[&str], &str)] = &[(&["currency"], "peso"), (&["continent"], "America")];
        assert_eq!(check(&graph, "Mexico", both), Ok(()));
        assert_eq!(check(&graph, "Chile", both), Err(Unfair::Ambiguous), "it is not the answer");
        assert_eq!(check(&graph, "Mexico", &both[..1]), Err(Unfair::Ambiguous), "Chile has it, too");
        assert_eq!(check(&graph, "Peru", &[(&["currency"], "sol"), (&["continent"], "America")]), Err(Unfair::Subset));
    }

    #[test]
    fn walks_need_every_step_and_their_beginning() {
        let walk = "Ann\tmother\tBea\nBea\tborn in\tBonn\nEve\tmother\tFay\nFay\tborn in\tRome\n";
        let asked: &[(&[&str], &str)] = &[(&["-born in", "-mother"], "Ann")];
        assert_eq!(check(&graph(walk), "Bonn", asked), Ok(()));
        let linked = format!("{walk}Ann\tlives in\tBonn\n");
        assert_eq!(check(&graph(&linked), "Bonn", asked), Err(Unfair::OneHop));
        let twice = format!("{walk}Ann\tmother\tFay\n");
        assert_eq!(check(&graph(&twice), "Bonn", asked), Err(Unfair::Ambiguous));
        let only = "Ann\tmother\tBea\nBea\tborn in\tBonn\n";
        assert_eq!(check(&graph(only), "Bonn", asked), Err(Unfair::NeedsNoEnd), "there is one place where anybody's mother was born");
        // Two steps lead to the place as well as three do.
        let round = "A\tnext\tB\nB\tnext\tC\nC\tnext\tD\nB\tnext\tD\nX\tnext\tY\nY\tnext\tZ\nZ\tnext\tW\n";
        assert_eq!(check(&graph(round), "D", &[(&["-next", "-next", "-next"], "A")]), Err(Unfair::Shorter));
    }

    #[test]
    fn a_constraint_that_most_things_have_is_not_looked_at() {
        let text: String = (0..50).map(|at| format!("e{at}\tis a\tthing\n")).collect();
        let graph = graph(&text);
        let is_a = constraint(&graph, &["is a"], "thing");
        assert_eq!((is_a.solutions(&graph, 49), is_a.solutions(&graph, 50).map(|all| all.len())), (None, Some(50)));
    }
}
