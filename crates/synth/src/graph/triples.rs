//! A graph of named things, read from a file of triples. In: lines of subject, relation and object, apart by tabs or as JSON. Out: who is
//! linked with whom by what, in both directions; and every line that is no triple, with its number and the reason. It knows no question.

use std::collections::HashMap;
use std::path::Path;

use hypereyes_outside::files;
use hypereyes_outside::jsonl::Lines;
use serde::{Deserialize, Serialize};

use crate::SynthError;

/// Longest line that is read.
const MAX_LINE: usize = 64 << 10;
/// Longest name of a thing or relation, in bytes: it is to stand in a question.
const MAX_NAME: usize = 512;
/// Triples beyond which a graph does not fit into memory.
const MAX_TRIPLES: usize = 20_000_000;
/// Lines that are no triples beyond which the file is none of triples.
const MAX_REFUSED: usize = 1_000_000;
/// A file above this is none of triples.
const MAX_FILE: u64 = 64 << 30;

/// A thing of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(u32);

/// A step along a relation, from subject to object or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step {
    relation: u32,
    /// From object to subject.
    pub back: bool,
}

impl Step {
    /// The same the other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { back: !self.back, ..self }
    }
}

/// A step and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The step.
    pub step: Step,
    /// Where it leads.
    pub to: Node,
}

/// Things and their links.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    names: Vec<String>,
    relations: Vec<String>,
    /// Per thing, sorted.
    edges: Vec<Vec<Edge>>,
    aliases: Vec<Vec<String>>,
}

/// A line that is no triple.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// From 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// The graph.
    pub graph: Graph,
    /// Triples in it, those of spellings included.
    pub triples: usize,
    /// Triples that were there before.
    pub duplicates: usize,
    /// Lines that are none.
    pub refused: Vec<Refused>,
}

/// A line of JSON.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Named { subject: String, relation: String, object: String },
    Listed([String; 3]),
}

impl Graph {
    /// Reads a file; objects of the relation `alias` are other spellings of its subject.
    ///
    /// # Errors
    /// [`SynthError::File`] for a file that cannot be read, or has no triple.
    pub fn read(path: &Path, alias: &str) -> Result<Read, SynthError> {
        let fault = |reason: String| SynthError::File { path: path.to_owned(), reason };
        let file = files::open(path, MAX_FILE).map_err(|error| fault(error.to_string()))?;
        let read = Self::of(Lines::new(file, MAX_LINE), alias).map_err(fault)?;
        if read.triples == 0 {
            let first = read.refused.first().map_or_else(|| "it is empty".to_owned(), |one| format!("line {}: {}", one.line, one.reason));
            return Err(fault(format!("there is no triple: {first}")));
        }
        Ok(read)
    }

    fn of<R: std::io::Read>(mut lines: Lines<R>, alias: &str) -> Result<Read, String> {
        let (mut builder, mut read) = (Builder::default(), Read::default());
        while let Some(line) = lines.next_line().map_err(|error| error.to_string())? {
            let number = line.number;
            let triple = match line.bytes {
                Some(bytes) if bytes.trim_ascii().is_empty() => continue,
                Some(bytes) => triple(bytes),
                None => Err(format!("longer than {MAX_LINE} bytes")),
            };
            match triple {
                Ok(triple) => {
                    read.triples += 1;
                    if read.triples > MAX_TRIPLES {
                        return Err(format!("more than {MAX_TRIPLES} triples"));
                    }
                    builder.add(triple, alias);
                }
                Err(reason) if read.refused.len() >= MAX_REFUSED => {
                    return Err(format!("more than {MAX_REFUSED} lines are no triples; line {number}: {reason}"));
                }
                Err(reason) => read.refused.push(Refused { line: number, reason }),
            }
        }
        (read.graph, read.duplicates) = builder.done();
        read.triples -= read.duplicates;
        Ok(read)
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Every thing.
    pub fn nodes(&self) -> impl Iterator<Item = Node> {
        (0..self.names.len()).map(|at| Node(u32::try_from(at).unwrap_or(u32::MAX)))
    }

    /// The thing at a place of [`Graph::nodes`].
    pub fn node(&self, at: usize) -> Option<Node> {
        u32::try_from(at).ok().filter(|_| at < self.names.len()).map(Node)
    }

    /// What a thing is called.
    pub fn name(&self, node: Node) -> &str {
        &self.names[node.0 as usize]
    }

    /// Its other spellings.
    pub fn aliases(&self, node: Node) -> &[String] {
        &self.aliases[node.0 as usize]
    }

    /// What the relation of a step is called.
    pub fn relation(&self, step: Step) -> &str {
        &self.relations[step.relation as usize]
    }

    /// Every step from a thing, sorted.
    pub fn edges(&self, node: Node) -> &[Edge] {
        &self.edges[node.0 as usize]
    }

    /// Where one step leads from a thing.
    pub fn along(&self, node: Node, step: Step) -> &[Edge] {
        let edges = self.edges(node);
        let from = edges.partition_point(|edge| edge.step < step);
        &edges[from..from + edges[from..].partition_point(|edge| edge.step == step)]
    }

    /// Whether any relation links two things directly.
    pub fn are_linked(&self, one: Node, other: Node) -> bool {
        self.edges(one).iter().any(|edge| edge.to == other)
    }
}

/// Three names.
fn triple(line: &[u8]) -> Result<[String; 3], String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned())?;
    let text = text.strip_suffix('\r').unwrap_or(text);
    let written = if text.trim_start().starts_with(['{', '[']) {
        match serde_json::from_str(text) {
            Ok(Written::Named { subject, relation, object }) => [subject, relation, object],
            Ok(Written::Listed(listed)) => listed,
            Err(_) => {
                return Err("it is JSON, but no object with the texts subject, relation and object, and no list of three texts".into());
            }
        }
    } else {
        let columns: Vec<&str> = text.split('\t').collect();
        let [subject, relation, object] = columns[..] else {
            return Err(format!("it has {} columns apart by tabs; a triple has 3: subject, relation, object", columns.len()));
        };
        [subject, relation, object].map(str::to_owned)
    };
    let named = written.map(|name| name.trim().to_owned());
    for (what, name) in ["the subject", "the relation", "the object"].into_iter().zip(&named) {
        if name.is_empty() {
            return Err(format!("{what} is empty"));
        }
        if name.len() > MAX_NAME {
            return Err(format!("{what} has {} bytes; {MAX_NAME} fit into a question", name.len()));
        }
        if name.chars().any(char::is_control) {
            return Err(format!("{what} holds a control character"));
        }
    }
    if named[0] == named[2] {
        return Err("it says something of a thing and itself".into());
    }
    Ok(named)
}

/// A graph that is being read.
#[derive(Default)]
struct Builder {
    graph: Graph,
    nodes: HashMap<String, u32>,
    relations: HashMap<String, u32>,
    duplicates: usize,
}

impl Builder {
    fn add(&mut self, [subject, relation, object]: [String; 3], alias: &str) {
        let subject = self.node(subject);
        if relation == alias {
            let aliases = &mut self.graph.aliases[subject as usize];
            if aliases.contains(&object) {
                self.duplicates += 1;
            } else {
                aliases.push(object);
            }
            return;
        }
        let object = self.node(object);
        let next = self.relations.len() as u32;
        let relation = *self.relations.entry(relation.clone()).or_insert_with(|| {
            self.graph.relations.push(relation);
            next
        });
        let step = Step { relation, back: false };
        self.graph.edges[subject as usize].push(Edge { step, to: Node(object) });
        self.graph.edges[object as usize].push(Edge { step: step.reversed(), to: Node(subject) });
    }

    fn node(&mut self, name: String) -> u32 {
        let next = self.nodes.len() as u32;
        *self.nodes.entry(name).or_insert_with_key(|name| {
            self.graph.names.push(name.clone());
            self.graph.edges.push(vec![]);
            self.graph.aliases.push(vec![]);
            next
        })
    }

    fn done(mut self) -> (Graph, usize) {
        let mut ends = 0;
        for edges in &mut self.graph.edges {
            let before = edges.len();
            edges.sort_unstable();
            edges.dedup();
            edges.shrink_to_fit();
            ends += before - edges.len();
        }
        // Every triple has two ends.
        (self.graph, self.duplicates + ends / 2)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn graph(text: &str) -> Graph {
        read(text).graph
    }

    fn read(text: &str) -> Read {
        Graph::of(Lines::new(text.as_bytes(), MAX_LINE), "alias").expect("memory")
    }

    fn links(graph: &Graph) -> Vec<(String, String, bool, String)> {
        let of = |node: Node| {
            graph.edges(node).iter().map(move |edge| {
                (graph.name(node).to_owned(), graph.relation(edge.step).to_owned(), edge.step.back, graph.name(edge.to).to_owned())
            })
        };
        graph.nodes().flat_map(of).collect()
    }

    #[test]
    fn tabs_and_json_say_the_same() {
        let tabs = "Mexico\tcurrency\tpeso\r\n\nPeru \tcurrency\tsol\nMexico\tcurrency\tpeso\nMexico\talias\tMéxico\n";
        let json = "{\"subject\":\"Mexico\",\"relation\":\"currency\",\"object\":\"peso\"}\n[\"Peru\",\"currency\",\"sol\"]\n\
                    {\"object\":\"peso\",\"subject\":\"Mexico\",\"relation\":\"currency\",\"source\":7}\n[\"Mexico\",\"alias\",\"México\"]";
        let (one, other) = (read(tabs), read(json));
        assert_eq!(links(&one.graph), links(&other.graph));
        assert_eq!((one.triples, one.duplicates, one.refused.len()), (3, 1, 0));
        assert_eq!((other.triples, other.duplicates, other.refused.len()), (3, 1, 0));
        let mexico = one.graph.nodes().next().expect("the first");
        assert_eq!((one.graph.name(mexico), one.graph.aliases(mexico)), ("Mexico", &["México".to_owned()][..]));
        assert_eq!(links(&one.graph)[0], ("Mexico".into(), "currency".into(), false, "peso".into()));
        assert!(links(&one.graph).contains(&("peso".into(), "currency".into(), true, "Mexico".into())));
        let step = one.graph.edges(mexico)[0].step;
        assert_eq!(one.graph.along(mexico, step).len(), 1);
        assert!(one.graph.along(mexico, step.reversed()).is_empty());
    }

    #[test]
    fn every_line_that_is_no_triple_is_named() {
        let long = "x".repeat(600);
        let text = format!(
            "a\tb\n\tb\tc\na\tb\tc\td\na\tb\ta\n{long}\tb\tc\n{{\"subject\":\"a\"}}\na\tb\u{1}\tc\na\tb\tc\n{}\n",
            "y".repeat(70_000)
        );
        let read = read(&text);
        assert_eq!(read.triples, 1);
        let said: Vec<(u64, &str)> = read.refused.iter().map(|one| (one.line, one.reason.as_str())).collect();
        assert_eq!(said.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 9]);
        for (at, part) in ["2 columns", "the subject is empty", "4 columns", "itself", "600 bytes", "is JSON", "control", "longer than"]
            .into_iter()
            .enumerate()
        {
            assert!(said[at].1.contains(part), "{:?}", said[at]);
        }
        let many = "a\n".repeat(MAX_REFUSED + 1);
        let error = Graph::of(Lines::new(many.as_bytes(), MAX_LINE), "alias").expect_err("no end of them");
        assert!(error.contains("are no triples; line 1000001: it has 1 columns"), "{error}");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("t.tsv");
        std::fs::write(&path, "a\tb\n").expect("written");
        let error = Graph::read(&path, "alias").expect_err("no triple").to_string();
        assert!(error.contains("t.tsv") && error.contains("line 1: it has 2 columns"), "{error}");
    }
}
