//! What an explorer does next. In: what its last turn found. Out: the text of a turn, without the end token.
//!
//! It looks (image search), reads (text search), hops if asked to, and answers. It knows no tokens.

use std::collections::VecDeque;
use std::sync::Arc;

use hypereyes_domain::{Area, Found};
use hypereyes_environment::BoxUnits;
use hypereyes_world::document::Fact;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::Plan;
use super::reading::{read_facts, read_names};
use crate::compose::GRID;
use crate::tasks::{Constraint, Puzzle};

/// What an explorer says when it found nobody. Never right, so rejection sampling drops it.
const NOBODY: &str = "unknown";

/// One try's state.
pub(crate) struct Mind {
    plan: Arc<Plan>,
    random: ChaCha8Rng,
    guesses: bool,
    /// Boxes not looked at yet.
    boxes: VecDeque<Area>,
    /// Rounds of queries not asked yet; `None` until looking is done.
    rounds: Option<VecDeque<Vec<String>>>,
    hopped: bool,
    /// What the last turn was about.
    asked: Asked,
    names: Vec<String>,
    facts: Vec<Fact>,
}

enum Asked {
    Nothing,
    Boxes,
    Queries,
}

impl Mind {
    pub(crate) fn new(plan: Arc<Plan>, mut random: ChaCha8Rng) -> Self {
        let habit = plan.habit;
        let mut boxes = VecDeque::new();
        for area in plan.areas.iter().take(habit.looks_at(plan.areas.len())) {
            boxes.push_back(if random.random_bool(habit.jitter) { off_by_one(*area, &mut random) } else { *area });
        }
        let guesses = random.random_bool(habit.guess);
        Self { plan, random, guesses, boxes, rounds: None, hopped: false, asked: Asked::Nothing, names: Vec::new(), facts: Vec::new() }
    }

    /// Reads what the last turn brought and says the next one.
    pub(crate) fn turn(&mut self, found: &[Found]) -> String {
        match self.asked {
            Asked::Nothing => {}
            Asked::Boxes => {
                for name in read_names(found) {
                    if !self.names.contains(&name) {
                        self.names.push(name);
                    }
                }
            }
            Asked::Queries => self.facts.extend(read_facts(found)),
        }
        self.look().or_else(|| self.read()).or_else(|| self.hop()).unwrap_or_else(|| self.answer())
    }

    fn look(&mut self) -> Option<String> {
        let count = self.boxes.len().min(self.plan.habit.width);
        let areas: Vec<Area> = self.boxes.drain(..count).collect();
        (!areas.is_empty()).then(|| {
            self.asked = Asked::Boxes;
            image_call(&areas, self.plan.boxes)
        })
    }

    fn read(&mut self) -> Option<String> {
        if self.guesses {
            return None;
        }
        if self.rounds.is_none() {
            self.rounds = Some(self.queries());
        }
        let queries = self.rounds.as_mut().and_then(VecDeque::pop_front)?;
        self.asked = Asked::Queries;
        Some(text_call(&queries))
    }

    /// All queries that the names call for, in rounds of the habit's width.
    fn queries(&self) -> VecDeque<Vec<String>> {
        let habit = self.plan.habit;
        let about = |labels: &[&str]| {
            let queries: Vec<String> =
                self.names.iter().flat_map(|name| labels.iter().map(move |label| format!("{name} {label}"))).collect();
            queries.chunks(habit.width).map(<[String]>::to_vec).collect()
        };
        match &self.plan.puzzle {
            Puzzle::Select(one) => about(&[&one.label]),
            Puzzle::Hop(one, asked) if habit.wide => about(&[&one.label, asked]),
            Puzzle::Hop(one, _) => about(&[&one.label]),
            Puzzle::Both(one, other) => {
                let together = vec![format!("{} {}", one.value, other.value)];
                let alone = [one.value.clone(), other.value.clone()];
                let before = if habit.width == super::Habit::ALL { &[][..] } else { &alone[..] };
                before.chunks(habit.width).map(<[String]>::to_vec).chain([together]).collect()
            }
        }
    }

    fn hop(&mut self) -> Option<String> {
        let Puzzle::Hop(one, asked) = &self.plan.puzzle else { return None };
        if self.guesses || self.hopped || self.plan.habit.wide {
            return None;
        }
        // The choice is said before it is used: a query that has to choose and to ask at once is learned last.
        let holder = self.holder(one)?;
        self.hopped = true;
        self.asked = Asked::Queries;
        Some(format!("<reason>{}: {holder}</reason>{}", one.value, text_call(&[format!("{holder} {asked}")])))
    }

    fn answer(&mut self) -> String {
        let puzzle = self.plan.puzzle.clone();
        let (Puzzle::Select(one) | Puzzle::Hop(one, _) | Puzzle::Both(one, _)) = &puzzle;
        let holder = match &puzzle {
            Puzzle::Both(one, other) => {
                self.facts.iter().map(|fact| &fact.name).find(|name| self.has(name, one) && self.has(name, other)).cloned()
            }
            Puzzle::Select(one) | Puzzle::Hop(one, _) => self.holder(one),
        };
        let holder = holder.or_else(|| self.names.choose(&mut self.random).cloned()).unwrap_or_else(|| NOBODY.into());
        let answer = match &puzzle {
            Puzzle::Hop(_, asked) => self.value(&holder, asked).unwrap_or_else(|| NOBODY.into()),
            Puzzle::Select(_) | Puzzle::Both(..) => holder.clone(),
        };
        format!("<reason>{}: {holder}</reason><answer>{answer}</answer>", one.value)
    }

    /// The entity seen on the picture that has the fact.
    fn holder(&self, one: &Constraint) -> Option<String> {
        self.names.iter().find(|name| self.has(name, one)).cloned()
    }

    fn has(&self, name: &str, one: &Constraint) -> bool {
        self.facts
            .iter()
            .any(|fact| fact.name == name && fact.value == one.value && fact.label.as_ref().is_none_or(|label| *label == one.label))
    }

    fn value(&self, name: &str, label: &str) -> Option<String> {
        self.facts.iter().find(|fact| fact.name == name && fact.label.as_deref() == Some(label)).map(|fact| fact.value.clone())
    }
}

/// A box with one edge moved by one grid step, staying on the picture.
fn off_by_one(area: Area, random: &mut ChaCha8Rng) -> Area {
    let mut edges = <[f64; 4]>::from(area).map(|edge| (edge * f64::from(GRID)).round() as i32);
    let at = random.random_range(0..4);
    edges[at] = (edges[at] + if random.random_bool(0.5) { 1 } else { -1 }).clamp(0, i32::from(GRID));
    Area::from(edges.map(|step| f64::from(step) / f64::from(GRID)))
}

fn image_call(areas: &[Area], (units, size): (BoxUnits, (u32, u32))) -> String {
    let boxes: Vec<String> = areas.iter().map(|area| units.write(*area, size)).collect();
    format!(r#"<tool_call>{{"name":"image_search","arguments":{{"image_id":"img_0","area":[{}]}}}}</tool_call>"#, boxes.join(","))
}

fn text_call(queries: &[String]) -> String {
    // Names and values are data: a quote in one must not end the JSON text.
    let queries: Vec<String> = queries.iter().map(|query| serde_json::Value::from(query.as_str()).to_string()).collect();
    format!(r#"<tool_call>{{"name":"text_search","arguments":{{"input":[{}]}}}}</tool_call>"#, queries.join(","))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::Habit;
    use super::super::reading::tests::found;
    use super::*;

    fn seen() -> Vec<Found> {
        vec![found("img_1", &[("Mexico", "")]), found("img_2", &[("Peru", "")])]
    }

    fn facts() -> Vec<Found> {
        vec![found("1", &[("currency", "peso is Mexico's currency")]), found("2", &[("currency", "sol is Peru's currency")])]
    }

    fn mind(puzzle: Puzzle, width: usize, wide: bool) -> Mind {
        let areas =
            if matches!(puzzle, Puzzle::Both(..)) { vec![] } else { vec![[0.0, 0.0, 0.5, 1.0].into(), [0.5, 0.0, 1.0, 1.0].into()] };
        let habit = Habit { width, wide, jitter: 0.0, hasty: false, guess: 0.0 };
        Mind::new(Arc::new(Plan { puzzle, areas, habit, boxes: (BoxUnits::Ratio, (192, 128)) }), ChaCha8Rng::seed_from_u64(1))
    }

    fn constraint(label: &str, value: &str) -> Constraint {
        Constraint { label: label.into(), value: value.into() }
    }

    #[test]
    fn a_parallel_explorer_looks_reads_and_answers() {
        let mut mind = mind(Puzzle::Select(constraint("currency", "peso")), Habit::ALL, false);
        let look = r#"<tool_call>{"name":"image_search","arguments":{"image_id":"img_0","area":[[0.00,0.00,0.50,1.00],[0.50,0.00,1.00,1.00]]}}</tool_call>"#;
        assert_eq!(mind.turn(&[]), look);
        let read = r#"<tool_call>{"name":"text_search","arguments":{"input":["Mexico currency","Peru currency"]}}</tool_call>"#;
        assert_eq!(mind.turn(&seen()), read);
        assert_eq!(mind.turn(&facts()), "<reason>peso: Mexico</reason><answer>Mexico</answer>");
    }

    #[test]
    fn a_serial_explorer_takes_one_thing_per_round() {
        let mut mind = mind(Puzzle::Select(constraint("currency", "sol")), 1, false);
        let turns: Vec<String> = [vec![], seen(), vec![], facts(), vec![]].iter().map(|round| mind.turn(round)).collect();
        assert!(turns[0].contains("[[0.00,0.00,0.50,1.00]]") && turns[1].contains("[[0.50,0.00,1.00,1.00]]"), "{turns:?}");
        assert!(turns[2].contains(r#"["Mexico currency"]"#) && turns[3].contains(r#"["Peru currency"]"#), "{turns:?}");
        assert_eq!(turns[4], "<reason>sol: Peru</reason><answer>Peru</answer>");
    }

    #[test]
    fn a_hop_asks_once_more_unless_it_asked_widely() {
        let puzzle = Puzzle::Hop(constraint("currency", "peso"), "capital".into());
        let mut hop = mind(puzzle.clone(), Habit::ALL, false);
        hop.turn(&[]);
        hop.turn(&seen());
        let asks = r#"<reason>peso: Mexico</reason><tool_call>{"name":"text_search","arguments":{"input":["Mexico capital"]}}</tool_call>"#;
        assert_eq!(hop.turn(&facts()), asks);
        let capital = [found("1", &[("capital", "Lima is Mexico's capital")])];
        assert_eq!(hop.turn(&capital), "<reason>peso: Mexico</reason><answer>Lima</answer>");
        let mut wide = mind(puzzle, Habit::ALL, true);
        wide.turn(&[]);
        assert!(wide.turn(&seen()).contains(r#"["Mexico currency","Mexico capital","Peru currency","Peru capital"]"#));
    }

    #[test]
    fn constraints_are_searched_alone_first_or_together_at_once() {
        let puzzle = Puzzle::Both(constraint("currency", "peso"), constraint("continent", "Asia"));
        assert!(mind(puzzle.clone(), Habit::ALL, false).turn(&[]).contains(r#"["peso Asia"]"#));
        let mut serial = mind(puzzle, 1, false);
        assert!(
            serial.turn(&[]).contains(r#"["peso"]"#)
                && serial.turn(&[]).contains(r#"["Asia"]"#)
                && serial.turn(&[]).contains(r#"["peso Asia"]"#)
        );
        let profile = [found("1", &[("profile", "Rome, Asia, peso, Thai are Mexico's facts")])];
        assert_eq!(serial.turn(&profile), "<reason>peso: Mexico</reason><answer>Mexico</answer>");
    }
}
