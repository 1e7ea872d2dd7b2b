//! What is made, how much of it and how it is mixed. In: a configuration. Out: defaults and a check.

use hypereyes_dataset::MAX_TASKS;
use hypereyes_domain::TaskKind;
use serde::{Deserialize, Serialize};

use crate::SynthError;
use crate::compose::{Level, MAX_PICTURES, MIN_PICTURES};

/// Shares above this are slips: sums of them must stay numbers.
const MOST_SHARE: f64 = 1e9;
/// Prices of a million tokens above this are slips.
const MOST_USD: f64 = 1e6;
/// Budgets above this are slips.
const MOST_BUDGET: u64 = 1 << 24;

/// Everything that decides a data set, together with a world and a seed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct SynthConfig {
    /// Training tasks. Default 2000: about ten each for every pair of a small world's entities that a policy meets.
    pub tasks: usize,
    /// Held-out tasks. Default 200: the 95 % interval of an accuracy is then about 7 points wide on each side.
    pub held_out: usize,
    /// Shares of the kinds of question; only their proportions matter.
    pub kinds: KindMix,
    /// Fewest and most pictures of a mosaic, within 2..=6. Default [2, 6], as in the paper.
    pub pictures: [usize; 2],
    /// Width and height of a canvas in pixels. Default [192, 128]: 24 visual tokens, enough to tell six tiles apart.
    pub canvas: [u32; 2],
    /// How pictures are placed. Default `stitched`; `scattered` is harder.
    pub level: Level,
    /// Relations that questions ask about, by label. Default empty: all that the world has.
    pub relations: Vec<String>,
    /// Layers of training tasks. Default 1..=256: facts are re-dealt so often that only looking helps.
    pub layers: Layers,
    /// Layers of held-out tasks; disjoint from `layers`.
    pub held_out_layers: Layers,
    /// Share of the sets of shown entities that is kept for held-out tasks, 0.01..=0.9. Default 0.2.
    pub held_out_share: f64,
    /// Who demonstrates.
    pub explorer: ExplorerConfig,
    /// Largest turn budget of rejection sampling. Default 8 (docs/spec.md#synthesis).
    pub max_budget: u32,
    /// Trajectories per budget. Default 4 (docs/spec.md#synthesis).
    pub samples: usize,
    /// Draws after which a task is given up. Default 1000: some layers have few pairs of values that one entity alone has.
    pub max_attempts: usize,
    /// Seconds after which one task is given up that a scripted explorer solves. Default 120: a task takes milliseconds unless a search
    /// backend hangs.
    pub task_timeout_s: u64,
    /// Rejection sampling with a model that is served as explorer.
    pub served: ServedConfig,
    /// Textual tasks from a file of triples.
    pub graph: GraphConfig,
    /// Visual tasks from a folder of named pictures, written by a model.
    pub entities: EntitiesConfig,
}

impl Default for SynthConfig {
    fn default() -> Self {
        Self {
            tasks: 2000,
            held_out: 200,
            kinds: KindMix::default(),
            pictures: [MIN_PICTURES, MAX_PICTURES],
            canvas: [192, 128],
            level: Level::Stitched,
            relations: Vec::new(),
            layers: Layers { first: 1, count: 256 },
            held_out_layers: Layers { first: 1_000_001, count: 32 },
            held_out_share: 0.2,
            explorer: ExplorerConfig::default(),
            max_budget: 8,
            samples: 4,
            max_attempts: 1000,
            task_timeout_s: 120,
            served: ServedConfig::default(),
            graph: GraphConfig::default(),
            entities: EntitiesConfig::default(),
        }
    }
}

/// A served explorer (`synth --engine`, docs/synthesis.md).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ServedConfig {
    /// Tasks that are explored at the same time, at least 1. Default 16; `engine.max_sequences` bounds requests.
    pub concurrency: usize,
    /// How often a try is made again at once that failed for a reason outside, such as a server that is busy. Default 2; with 0 it is made
    /// again when the same command is started again.
    pub again: u32,
    /// Dollars for a million tokens that are sent to the model. Default 0: what is spent is told in tokens.
    pub prompt_usd: f64,
    /// Dollars for a million tokens that the model says. Default 0.
    pub completion_usd: f64,
}

impl Default for ServedConfig {
    fn default() -> Self {
        Self { concurrency: 16, again: 2, prompt_usd: 0.0, completion_usd: 0.0 }
    }
}

impl ServedConfig {
    /// Dollars for a million tokens that are sent and that are said.
    pub fn prices(&self) -> [f64; 2] {
        [self.prompt_usd, self.completion_usd]
    }
}

/// Questions from triples (`synth --triples`, docs/synthesis.md).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct GraphConfig {
    /// Fewest and most steps of a walk that is asked for as a whole, within 2..=6. Default [2, 3].
    pub hops: [usize; 2],
    /// Fewest and most constraints that hold together, within 2..=6. Default [2, 3].
    pub constraints: [usize; 2],
    /// Most steps of one constraint, within 1..=3. Default 1: facts of the entity itself; 2 are facts of who it is related to.
    pub reach: usize,
    /// Share of questions that are walks; the others are constraints. Default 0.5.
    pub walks: f64,
    /// Entities that one constraint may leave. Default 10000: what is true of more says nothing.
    pub most_solutions: usize,
    /// Relation whose objects are other spellings of its subject: they are accepted as answers and never walked. Default `alias`.
    pub alias: String,
}

impl Default for GraphConfig {
    fn default() -> Self {
        Self { hops: [2, 3], constraints: [2, 3], reach: 1, walks: 0.5, most_solutions: 10_000, alias: "alias".into() }
    }
}

/// Questions that a model writes (`synth --entities`, docs/synthesis.md).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EntitiesConfig {
    /// Fewest and most constraints of a question, within 1..=6. Default [2, 3].
    pub constraints: [usize; 2],
    /// Share of questions that ask for an attribute of the entity and not for the entity itself. Default 0.5.
    pub attributes: f64,
    /// Characters of what is known of an entity that are shown to the model. Default 4000; what is longer is cut at a line.
    pub document_chars: usize,
    /// Replies that a question may take: one that is not of the form that was asked for is asked for again. Default 3.
    pub replies: u32,
    /// Tokens of a reply. Default 1024: more for a model that thinks first.
    pub max_tokens: u32,
    /// How often the model may try to answer by a shortcut; one right answer drops the question. Default 1.
    pub shortcut_tries: u32,
}

impl Default for EntitiesConfig {
    fn default() -> Self {
        Self { constraints: [2, 3], attributes: 0.5, document_chars: 4000, replies: 3, max_tokens: 1024, shortcut_tries: 1 }
    }
}

/// Shares of the kinds of question.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct KindMix {
    /// Which of the shown entities has this value? Default 0.55.
    pub visual_select: f64,
    /// What is another fact of the shown entity that has this value? Default 0.2.
    pub visual_hop: f64,
    /// Which entity has both values? Default 0.25.
    pub textual: f64,
}

impl Default for KindMix {
    fn default() -> Self {
        Self { visual_select: 0.55, visual_hop: 0.2, textual: 0.25 }
    }
}

impl KindMix {
    /// Each kind with its key in `synth` and its share.
    pub fn shares(&self) -> [(TaskKind, &'static str, f64); 3] {
        [
            (TaskKind::VISUAL_SELECT, "kinds.visual_select", self.visual_select),
            (TaskKind::VISUAL_HOP, "kinds.visual_hop", self.visual_hop),
            (TaskKind::TEXTUAL_CONSTRAINTS, "kinds.textual", self.textual),
        ]
    }
}

/// A run of counterfactual layers `first..first + count`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Layers {
    /// The first layer's seed; 0 is the world as it is.
    pub first: u64,
    /// How many, at least 1.
    pub count: u64,
}

impl Layers {
    /// True when no layer is in both.
    pub fn disjoint(&self, other: &Layers) -> bool {
        let end = |layers: &Layers| layers.first.saturating_add(layers.count);
        end(self) <= other.first || end(other) <= self.first
    }
}

/// The habits of the explorers that demonstrate. Shares need not sum to 1.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct ExplorerConfig {
    /// Share that looks at one thing per round. Default 0.55: most of a cold start is slow, so that reinforcement has something to gain.
    pub serial: f64,
    /// Share that looks at two things per round. Default 0.15.
    pub pairs: f64,
    /// Share that looks at everything at once. Default 0.30: enough to be found and reinforced.
    pub parallel: f64,
    /// Chance, for a parallel explorer, that a hop's second relation is asked together with the first. Default 0.5.
    pub wide: f64,
    /// Chance that a box is off by one grid step on one edge. Default 0.05.
    pub jitter: f64,
    /// Share that looks at half of the pictures only and answers from those. Default 0.45: a cold start that is often
    /// hasty knows how to look at everything and how not to, so reinforcement has something to choose from.
    pub hasty: f64,
    /// Chance that an explorer answers without reading on. Default 0: a lucky guess would be kept as a demonstration of
    /// saying what was never read, and as a reference that nobody can honestly meet.
    pub guess: f64,
}

impl Default for ExplorerConfig {
    fn default() -> Self {
        Self { serial: 0.55, pairs: 0.15, parallel: 0.30, wide: 0.5, jitter: 0.05, hasty: 0.45, guess: 0.0 }
    }
}

impl SynthConfig {
    /// Refuses what cannot be made, naming the key.
    pub fn check(&self) -> Result<(), SynthError> {
        let refuse = |key: &'static str, reason: String| Err(SynthError::Config { key, reason });
        let [fewest, most] = self.pictures;
        for (key, count) in [("tasks", self.tasks), ("held_out", self.held_out)] {
            if count > MAX_TASKS {
                return refuse(key, format!("{count} are too many: give at most {MAX_TASKS}"));
            }
        }
        if !(MIN_PICTURES..=most).contains(&fewest) || most > MAX_PICTURES {
            return refuse("pictures", format!("[{fewest}, {most}] is no range within {MIN_PICTURES}..={MAX_PICTURES}"));
        }
        if self.canvas.iter().any(|side| !(64..=4096).contains(side)) {
            return refuse("canvas", format!("{:?} has a side outside 64..=4096 pixels", self.canvas));
        }
        if self.layers.count == 0 {
            return refuse("layers.count", "0 layers hold no task: give at least 1".into());
        }
        if self.held_out_layers.count == 0 {
            return refuse("held_out_layers.count", "0 layers hold no task: give at least 1".into());
        }
        if !self.layers.disjoint(&self.held_out_layers) {
            let [train, held_out] = [self.layers, self.held_out_layers].map(|run| format!("(first {}, count {})", run.first, run.count));
            return refuse("held_out_layers", format!("{held_out} and layers {train} must be two disjoint runs of at least one layer"));
        }
        if !(0.01..=0.9).contains(&self.held_out_share) {
            return refuse("held_out_share", format!("{} is not within 0.01..=0.9", self.held_out_share));
        }
        let budgets = [
            ("max_budget", u64::from(self.max_budget)),
            ("samples", self.samples as u64),
            ("max_attempts", self.max_attempts as u64),
            ("task_timeout_s", self.task_timeout_s),
        ];
        if let Some((key, budget)) = budgets.iter().find(|(_, budget)| !(1..=MOST_BUDGET).contains(budget)) {
            return refuse(key, format!("{budget} is not within 1..={MOST_BUDGET}"));
        }
        self.check_made()?;
        let explorer = &self.explorer;
        let chances = [
            ("explorer.wide", explorer.wide),
            ("explorer.jitter", explorer.jitter),
            ("explorer.hasty", explorer.hasty),
            ("explorer.guess", explorer.guess),
        ];
        if let Some((key, chance)) = chances.iter().find(|(_, chance)| !(0.0..=1.0).contains(chance)) {
            return refuse(key, format!("{chance} is no chance within 0..=1"));
        }
        let kinds = self.kinds.shares().map(|(_, key, share)| (key, share));
        let habits = [("explorer.serial", explorer.serial), ("explorer.pairs", explorer.pairs), ("explorer.parallel", explorer.parallel)];
        for (table, shares) in [("kinds", kinds), ("explorer", habits)] {
            if let Some((key, share)) = shares.iter().find(|(_, share)| !(0.0..=MOST_SHARE).contains(share)) {
                return refuse(key, format!("{share} is no share: give a finite number of at least 0"));
            }
            if shares.iter().map(|(_, share)| share).sum::<f64>() <= 0.0 {
                return refuse(table, format!("{shares:?} are no shares: one must be positive"));
            }
        }
        Ok(())
    }
}

impl SynthConfig {
    /// The tables of tasks that are made of files, and of served models.
    fn check_made(&self) -> Result<(), SynthError> {
        let refuse = |key: &'static str, reason: String| Err(SynthError::Config { key, reason });
        let Self { served, graph, entities, .. } = self;
        let counts = [
            ("served.concurrency", served.concurrency as u64, 1..=4096),
            ("served.again", u64::from(served.again), 0..=1000),
            ("graph.reach", graph.reach as u64, 1..=3),
            ("graph.most_solutions", graph.most_solutions as u64, 2..=MOST_BUDGET),
            ("entities.document_chars", entities.document_chars as u64, 1..=1_000_000),
            ("entities.replies", u64::from(entities.replies), 1..=100),
            ("entities.max_tokens", u64::from(entities.max_tokens), 1..=1_000_000),
            ("entities.shortcut_tries", u64::from(entities.shortcut_tries), 1..=100),
        ];
        if let Some((key, count, range)) = counts.into_iter().find(|(_, count, range)| !range.contains(count)) {
            return refuse(key, format!("{count} is not within {}..={}", range.start(), range.end()));
        }
        let ranges = [
            ("graph.hops", graph.hops, 2..=6),
            ("graph.constraints", graph.constraints, 2..=6),
            ("entities.constraints", entities.constraints, 1..=6),
        ];
        for (key, [fewest, most], range) in ranges {
            if fewest > most || !range.contains(&fewest) || !range.contains(&most) {
                return refuse(key, format!("[{fewest}, {most}] is no range within {}..={}", range.start(), range.end()));
            }
        }
        let shares = [("graph.walks", graph.walks), ("entities.attributes", entities.attributes)];
        if let Some((key, share)) = shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return refuse(key, format!("{share} is no share within 0..=1"));
        }
        let prices = [("served.prompt_usd", served.prompt_usd), ("served.completion_usd", served.completion_usd)];
        if let Some((key, usd)) = prices.into_iter().find(|(_, usd)| !(0.0..=MOST_USD).contains(usd)) {
            return refuse(key, format!("{usd} is no price of a million tokens: give dollars within 0..={MOST_USD}"));
        }
        if graph.alias.trim().is_empty() {
            return refuse("graph.alias", "is empty: name a relation, such as alias; one that the file does not have does no harm".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_overlapping_layers_are_not() {
        SynthConfig::default().check().expect("defaults");
        let wrong = SynthConfig { held_out_layers: Layers { first: 256, count: 1 }, ..SynthConfig::default() };
        assert!(wrong.check().expect_err("layer 256 is in both").to_string().contains("held_out_layers"));
        let wrong = SynthConfig { pictures: [2, 7], ..SynthConfig::default() };
        assert!(wrong.check().expect_err("7 pictures").to_string().contains("pictures"));
        let wrong = SynthConfig { kinds: KindMix { visual_select: 0.0, visual_hop: 0.0, textual: 0.0 }, ..SynthConfig::default() };
        assert!(wrong.check().expect_err("no kind").to_string().contains("kinds"));
    }
}
