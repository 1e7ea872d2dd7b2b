//! Questions: drawn from a world, with exactly one right answer and no shortcut to it (docs/spec.md#synthesis).
//!
//! In: a world, a configuration, a random source. Out: a task with its picture and the puzzle behind its question, or the
//! reason why this draw is dropped. It knows no search and no agent.

use std::collections::BTreeMap;

use hypereyes_domain::{EntityId, Shown, Task, TaskId, TaskKind};
use hypereyes_pictures::Picture;
use hypereyes_world::{Layer, Relation, World};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::SynthError;
use crate::compose::compose;
use crate::config::SynthConfig;
use crate::seeds::mixed;

/// Which of the two disjoint sets is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Tasks to train on.
    Train,
    /// Tasks to measure with: other layers and other sets of shown entities.
    HeldOut,
}

impl Split {
    /// The prefix of task ids, and the label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::HeldOut => "held-out",
        }
    }
}

/// Why a draw was dropped; a label of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// Two of the entities look alike.
    LookAlikes,
    /// The set of entities belongs to the other split.
    OtherSplit,
    /// No relation singles out one of the entities.
    NoConstraint,
    /// A proper subset of the constraints already has one answer, or all of them have several.
    Shortcut,
    /// A policy answered it without tools.
    KnownByHeart,
    /// No explorer solved it within the budgets.
    Unsolved,
}

impl Dropped {
    /// The `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            Dropped::LookAlikes => "look_alikes",
            Dropped::OtherSplit => "other_split",
            Dropped::NoConstraint => "no_constraint",
            Dropped::Shortcut => "shortcut",
            Dropped::KnownByHeart => "known_by_heart",
            Dropped::Unsolved => "unsolved",
        }
    }
}

/// One constraint: this relation has this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// The relation's label.
    pub label: String,
    /// Its value.
    pub value: String,
}

/// What a question means: what an explorer works from, and no policy ever sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Puzzle {
    /// The shown entity with this fact is asked for.
    Select(Constraint),
    /// Another fact (by label) of the shown entity with this fact is asked for.
    Hop(Constraint, String),
    /// The entity with both facts is asked for.
    Both(Constraint, Constraint),
}

impl Puzzle {
    /// The question, in the words of the world where it has any.
    pub fn question(&self, world: &World) -> String {
        let of = |one: &Constraint, wording: fn(&Relation) -> Option<&String>| {
            let relation = world.relations().iter().find(|relation| relation.label == one.label);
            relation.and_then(wording).map(|wording| wording.replace("{value}", &one.value))
        };
        let clause = |one: &Constraint| of(one, |relation| relation.clause.as_ref());
        let usual = |one: &Constraint| format!("whose {} is {}", one.label, one.value);
        match self {
            Puzzle::Select(one) => {
                of(one, |relation| relation.question.as_ref()).unwrap_or_else(|| format!("Which one has {} {}?", one.label, one.value))
            }
            Puzzle::Hop(one, asked) => format!("What is the {asked} of the one {}?", clause(one).unwrap_or_else(|| usual(one))),
            Puzzle::Both(one, other) => match (clause(one), clause(other)) {
                (None, None) => {
                    format!("Which {} has {} {} and {} {}?", world.noun(), one.label, one.value, other.label, other.value)
                }
                (first, second) => {
                    let (first, second) = (first.unwrap_or_else(|| usual(one)), second.unwrap_or_else(|| usual(other)));
                    format!("Which {} is the one {first} and {second}?", world.noun())
                }
            },
        }
    }
}

/// A drawn task.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Without a reference yet.
    pub task: Task,
    /// Its picture; `None` for a textual task.
    pub picture: Option<Picture>,
    /// What its question means.
    pub puzzle: Puzzle,
}

/// Draws tasks of one world.
pub struct Drawer<'a> {
    world: &'a World,
    config: &'a SynthConfig,
    split: Split,
    relations: Vec<&'a Relation>,
}

impl<'a> Drawer<'a> {
    /// Fails when the world lacks a relation that the configuration names, or has too few that can be asked for.
    pub fn new(world: &'a World, config: &'a SynthConfig, split: Split) -> Result<Self, SynthError> {
        let wanted = |relation: &&Relation| relation.askable && (config.relations.is_empty() || config.relations.contains(&relation.label));
        let relations: Vec<&Relation> = world.relations().iter().filter(wanted).collect();
        if let Some(label) = config.relations.iter().find(|label| relations.iter().all(|relation| relation.label != **label)) {
            return Err(SynthError::World(format!("{label:?} is no relation of {} that questions may ask for", world.name())));
        }
        if relations.len() < 2 {
            return Err(SynthError::World(format!("{} relations can be asked for; questions need two", relations.len())));
        }
        if config.kinds.textual > 0.0 && relations.iter().filter(|relation| !relation.unique).count() < 2 {
            let message = "textual tasks need two askable relations whose values are shared; set kinds.textual to 0";
            return Err(SynthError::World(message.into()));
        }
        Ok(Self { world, config, split, relations })
    }

    /// Makes sure that every kind which is asked for can be drawn at all, as often as a task would be tried.
    ///
    /// # Errors
    /// [`SynthError::Config`] that names the kind's share.
    pub fn check_kinds(&self) -> Result<(), SynthError> {
        let attempts = self.config.max_attempts;
        for (kind, key, share) in self.config.kinds.shares().into_iter().filter(|(.., share)| *share > 0.0) {
            let mut random = ChaCha8Rng::seed_from_u64(0);
            let mut reasons: BTreeMap<Dropped, usize> = BTreeMap::new();
            let is_drawn = (0..attempts).any(|at| match self.draw(TaskId::new("check"), &kind, self.layer(at, attempts), &mut random) {
                Ok(_) => true,
                Err(dropped) => {
                    *reasons.entry(dropped).or_default() += 1;
                    false
                }
            });
            if !is_drawn {
                let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{} {count}", reason.label())).collect();
                let reason = format!(
                    "{share} asks for {kind} questions, of which {attempts} draws of world {:?} gave none ({}): set synth.{key} = 0",
                    self.world.name(),
                    reasons.join(", ")
                );
                return Err(SynthError::Config { key, reason });
            }
        }
        Ok(())
    }

    /// The kind of the next task, by the configured shares.
    pub fn kind(&self, random: &mut ChaCha8Rng) -> TaskKind {
        let mix = &self.config.kinds;
        let at = random.random_range(0.0..mix.visual_select + mix.visual_hop + mix.textual);
        match at {
            at if at < mix.visual_select => TaskKind::VISUAL_SELECT,
            at if at < mix.visual_select + mix.visual_hop => TaskKind::VISUAL_HOP,
            _ => TaskKind::TEXTUAL_CONSTRAINTS,
        }
    }

    /// The layer of task `index` of `of`. Neighbours share one, so that its index is built once and is still at hand.
    pub fn layer(&self, index: usize, of: usize) -> u64 {
        let layers = match self.split {
            Split::Train => self.config.layers,
            Split::HeldOut => self.config.held_out_layers,
        };
        let step = index as u128 * u128::from(layers.count) / of.max(1) as u128;
        layers.first + u64::try_from(step).unwrap_or(0).min(layers.count - 1)
    }

    /// One draw of a task of one of the [`TaskKind::SYNTHETIC`] kinds in a layer.
    pub fn draw(&self, id: TaskId, kind: &TaskKind, layer: u64, random: &mut ChaCha8Rng) -> Result<Draft, Dropped> {
        let layer = self.world.layer(layer);
        if *kind == TaskKind::TEXTUAL_CONSTRAINTS {
            self.textual(id, &layer, random)
        } else {
            self.visual(id, kind.clone(), &layer, random)
        }
    }

    fn visual(&self, id: TaskId, kind: TaskKind, layer: &Layer, random: &mut ChaCha8Rng) -> Result<Draft, Dropped> {
        let shown = self.entities(random)?;
        let value = |entity: &EntityId, relation: &Relation| layer.fact(entity, &relation.key).unwrap_or_default().to_owned();
        let mut relations = self.relations.clone();
        relations.shuffle(random);
        // Each relation in random order; the first one by which somebody stands alone is used.
        let (relation, target) = relations
            .iter()
            .find_map(|relation| {
                let alone = |one: &&EntityId| shown.iter().filter(|other| value(other, relation) == value(one, relation)).count() == 1;
                let alone: Vec<&EntityId> = shown.iter().filter(alone).collect();
                alone.choose(random).map(|target| (*relation, (*target).clone()))
            })
            .ok_or(Dropped::NoConstraint)?;
        let constraint = Constraint { label: relation.label.clone(), value: value(&target, relation) };
        let (puzzle, answers) = if kind == TaskKind::VISUAL_HOP {
            let others: Vec<&&Relation> = self.relations.iter().filter(|other| other.key != relation.key).collect();
            let asked = others.choose(random).ok_or(Dropped::NoConstraint)?;
            (Puzzle::Hop(constraint, asked.label.clone()), vec![value(&target, asked)])
        } else {
            (Puzzle::Select(constraint), names(layer, &target))
        };
        let pictures: Vec<_> = shown.iter().filter_map(|entity| self.world.picture(entity).cloned()).collect();
        let [width, height] = self.config.canvas;
        let mosaic = compose(&pictures, self.config.level, (width, height), random).ok_or(Dropped::NoConstraint)?;
        let shown = shown.into_iter().zip(mosaic.areas).map(|(entity, area)| Shown { entity, area }).collect();
        // A canvas within the configured limits always encodes; if it ever does not, the draw is lost and counted.
        let picture = Picture::from_image(mosaic.image).map_err(|_| Dropped::NoConstraint)?;
        let task = self.task(id, kind, &puzzle, answers, layer, Some(&picture), shown);
        Ok(Draft { task, picture: Some(picture), puzzle })
    }

    /// Entities to show: different to the eye, and a set that belongs to this split.
    fn entities(&self, random: &mut ChaCha8Rng) -> Result<Vec<EntityId>, Dropped> {
        let [fewest, most] = self.config.pictures;
        let count = random.random_range(fewest..=most);
        let chosen: Vec<EntityId> = self.world.entities().choose_multiple(random, count).map(|entity| entity.id.clone()).collect();
        let pairs = chosen.iter().enumerate().flat_map(|(at, one)| chosen[..at].iter().map(move |other| (one, other)));
        if pairs.into_iter().any(|(one, other)| self.world.alike(one, other)) {
            return Err(Dropped::LookAlikes);
        }
        if is_held_out(&chosen, self.config.held_out_share) != (self.split == Split::HeldOut) {
            return Err(Dropped::OtherSplit);
        }
        Ok(chosen)
    }

    /// A walk from a target over two of its facts; both are needed, and together they suffice.
    fn textual(&self, id: TaskId, layer: &Layer, random: &mut ChaCha8Rng) -> Result<Draft, Dropped> {
        let target = self.world.entities().choose(random).map(|entity| entity.id.clone()).ok_or(Dropped::NoConstraint)?;
        let shared: Vec<&Relation> = self.relations.iter().copied().filter(|relation| !relation.unique).collect();
        let walk: Vec<&Relation> = shared.choose_multiple(random, 2).copied().collect();
        let [first, second] = walk[..] else { return Err(Dropped::NoConstraint) };
        let value = |relation: &Relation| layer.fact(&target, &relation.key).unwrap_or_default().to_owned();
        let (one, other) = (layer.with_fact(&first.key, &value(first)), layer.with_fact(&second.key, &value(second)));
        let both = one.iter().filter(|entity| other.contains(entity)).count();
        if one.len() < 2 || other.len() < 2 || both != 1 || value(first) == value(second) {
            return Err(Dropped::Shortcut);
        }
        let constraint = |relation: &Relation| Constraint { label: relation.label.clone(), value: value(relation) };
        let puzzle = Puzzle::Both(constraint(first), constraint(second));
        let task = self.task(id, TaskKind::TEXTUAL_CONSTRAINTS, &puzzle, names(layer, &target), layer, None, vec![]);
        Ok(Draft { task, picture: None, puzzle })
    }

    fn task(
        &self,
        id: TaskId,
        kind: TaskKind,
        puzzle: &Puzzle,
        answers: Vec<String>,
        layer: &Layer,
        picture: Option<&Picture>,
        shown: Vec<Shown>,
    ) -> Task {
        let pictures = picture.map(|picture| picture.id.clone()).into_iter().collect();
        let question = puzzle.question(self.world);
        let layer = Some(layer.seed()).filter(|seed| *seed != 0);
        Task { id, kind, question, answers, pictures, layer, shown, reference: None, metadata: Default::default() }
    }
}

/// The name of an entity, then its aliases.
fn names(layer: &Layer, entity: &EntityId) -> Vec<String> {
    layer.name(entity).map(str::to_owned).into_iter().chain(layer.aliases(entity).iter().cloned()).collect()
}

/// Which split a set of shown entities belongs to: a property of the set alone, so that two runs with different seeds, and
/// tasks made at the same time, never disagree. Order does not matter.
pub fn is_held_out(entities: &[EntityId], share: f64) -> bool {
    let mut ids: Vec<&str> = entities.iter().map(EntityId::as_str).collect();
    ids.sort_unstable();
    let hash = mixed(ids.iter().flat_map(|id| id.bytes().chain([b','])));
    ((hash >> 11) as f64) / ((1u64 << 53) as f64) < share
}
