//! What is made, how much of it and how it is mixed. In: a configuration. Out: defaults and a check.

use hypereyes_dataset::MAX_TASKS;
use serde::{Deserialize, Serialize};

use crate::SynthError;
use crate::compose::{Level, MAX_PICTURES, MIN_PICTURES};

/// Shares above this are slips: sums of them must stay numbers.
const MOST_SHARE: f64 = 1e9;
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
    /// Seconds after which one task is given up. Default 120: a task takes milliseconds unless a search backend hangs.
    pub task_timeout_s: u64,
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
        }
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
        let kinds = &self.kinds;
        let kinds =
            [("kinds.visual_select", kinds.visual_select), ("kinds.visual_hop", kinds.visual_hop), ("kinds.textual", kinds.textual)];
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
