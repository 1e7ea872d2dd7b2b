//! Random walks, of which questions are made (docs/synthesis.md). In: a graph, a random source. Out: a question that may be unfair: who
//! draws, does not look. A walk never comes back to where it was.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::query::{Constraint, Query};
use super::triples::{Edge, Graph, Node, Step};

/// How often a beginning is drawn that leads nowhere.
const BEGINNINGS: usize = 32;

/// A walk of so many steps from subject to object, asked for as a whole: its beginning is named, its end is the answer.
pub fn walk(graph: &Graph, hops: usize, random: &mut ChaCha8Rng) -> Option<Query> {
    let forwards = |edge: &&Edge| !edge.step.back;
    let beginning = beginning(graph, random, |node| graph.edges(node).iter().any(|edge| forwards(&edge)))?;
    let (steps, end) = wander(graph, beginning, &[], hops, forwards, random)?;
    let path = steps.iter().rev().map(|step| step.reversed()).collect();
    Some(Query { target: end, constraints: vec![Constraint { path, end: beginning }] })
}

/// So many walks of up to `reach` steps from one entity: what each leads to is named, the entity is the answer.
pub fn constraints(graph: &Graph, count: usize, reach: usize, random: &mut ChaCha8Rng) -> Option<Query> {
    let target = beginning(graph, random, |node| graph.edges(node).len() >= count)?;
    let mut first: Vec<Edge> = graph.edges(target).to_vec();
    first.shuffle(random);
    let mut constraints: Vec<Constraint> = vec![];
    for edge in first {
        let more = random.random_range(1..=reach.max(1)) - 1;
        let steps = if more == 0 { Some((vec![], edge.to)) } else { wander(graph, edge.to, &[target], more, |_| true, random) };
        // One that leads no further ends here.
        let (steps, end) = steps.unwrap_or((vec![], edge.to));
        let path: Vec<Step> = [edge.step].into_iter().chain(steps).collect();
        if constraints.iter().all(|other| other.end != end && other.path != path) {
            constraints.push(Constraint { path, end });
        }
        if constraints.len() == count {
            return Some(Query { target, constraints });
        }
    }
    None
}

fn beginning(graph: &Graph, random: &mut ChaCha8Rng, fits: impl Fn(Node) -> bool) -> Option<Node> {
    (0..BEGINNINGS).filter_map(|_| graph.node(random.random_range(0..graph.len().max(1)))).find(|node| fits(*node))
}

/// So many steps from a thing, over things that were not met before and are none of `others`.
fn wander(
    graph: &Graph,
    from: Node,
    others: &[Node],
    steps: usize,
    may: impl Fn(&&Edge) -> bool,
    random: &mut ChaCha8Rng,
) -> Option<(Vec<Step>, Node)> {
    let (mut met, mut at, mut walked): (Vec<Node>, Node, Vec<Step>) = ([others, &[from]].concat(), from, vec![]);
    for _ in 0..steps {
        let open: Vec<&Edge> = graph.edges(at).iter().filter(|edge| may(edge) && !met.contains(&edge.to)).collect();
        let edge = open.choose(random)?;
        walked.push(edge.step);
        met.push(edge.to);
        at = edge.to;
    }
    Some((walked, at))
}
