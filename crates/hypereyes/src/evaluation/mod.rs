//! An evaluation as `hypereyes eval` makes it: rollout by rollout, in memory or in a folder that outlives the process.
//!
//! In: settings, a policy that is loaded, tasks. Out: a summary, and in the folder everything that it was made of. The same tasks and the
//! same seeds give the same rollouts, however often it was cut on the way.

pub mod loaded;
pub mod settings;
pub mod store;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use hypereyes_chassis::atomic;
use hypereyes_eval::itemised::{Halted, Measure};
use hypereyes_eval::{Cost, InMemory, Item, Itemised, Items, SoFar, Spent, Summary, TaskSet};
use hypereyes_rollout::Player;
use hypereyes_run::{EvaluationFolder, Played, write_played};

use self::store::Store;
use crate::config::Config;
use crate::progress::Bar;

/// What is measured, with what.
pub struct Evaluation<'a> {
    /// All settings.
    pub config: &'a Config,
    /// The policy.
    pub player: &'a dyn Player,
    /// The tasks.
    pub set: &'a TaskSet,
    /// The benchmark's own metric.
    pub metric: Option<&'a Measure>,
    /// What no search costs.
    pub nothing: Spent,
    /// Why no more may be asked, if so.
    pub halted: &'a Halted,
    /// A file for the rollouts, one JSON line each.
    pub rollouts: Option<&'a Path>,
}

/// What it came to.
pub struct Outcome {
    /// The numbers.
    pub summary: Summary,
    /// What everything cost, in all runs.
    pub cost: Cost,
}

impl Evaluation<'_> {
    /// Measures in memory: what is cut is lost.
    ///
    /// # Errors
    /// As [`Evaluation::kept`].
    pub async fn unkept(&self) -> Result<Outcome> {
        let memory = InMemory::new(self.rollouts.is_some());
        let (with_tools, without) = self.items(&memory, "").await?;
        let cost = with_tools.iter().chain(&without).fold(Cost::default(), |cost, item| cost.and(item));
        if let Some(path) = self.rollouts {
            let order: std::collections::HashMap<_, _> = with_tools.iter().enumerate().map(|(at, item)| (item.key(), at)).collect();
            let mut kept = memory.into_kept();
            kept.sort_by_key(|kept| order.get(&kept.item.key()).copied());
            let played = kept.into_iter().filter_map(|kept| {
                let (task, trajectory) = kept.rollout?;
                Some(Played { task, sample: kept.item.sample, trajectory, accuracy: kept.item.verdict })
            });
            write_played(path, &played.collect::<Vec<_>>())?;
        }
        self.outcome(&with_tools, &without, cost)
    }

    /// Measures in a folder, from where it was cut.
    ///
    /// # Errors
    /// [`hypereyes_chassis::BadInput`] when the judge's settings cannot be used; a rollout that cannot be kept; a search budget that is
    /// spent; when no rollout has a verdict, with or without tools.
    pub async fn kept(&self, store: Store, folder: &EvaluationFolder) -> Result<Outcome> {
        let again = format!("; what was finished is in {}: the same command goes on", folder.root().display());
        let (with_tools, without) = self.items(&store, &again).await?;
        let cost = store.cost();
        store.settle(&with_tools)?;
        if let Some(path) = self.rollouts {
            let copied = File::open(folder.rollouts()).and_then(|mut all| atomic::replace(path, |out| io::copy(&mut all, out).map(drop)));
            copied.with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.outcome(&with_tools, &without, cost)
    }

    /// Every rollout, with tools and without. Where it cannot go on, `again` says what becomes of what there is.
    async fn items(&self, items: &dyn Items, again: &str) -> Result<(Vec<Item>, Vec<Item>)> {
        let Config { reward_service, eval, sampling, .. } = self.config;
        let judge = reward_service.judge.build(&reward_service.judge_model)?;
        let itemised = Itemised {
            player: self.player,
            judge: &*judge,
            set: self.set,
            config: eval,
            sampling: sampling.eval.sampling(),
            metric: self.metric,
            nothing: self.nothing,
            halted: self.halted,
            items,
        };
        let bar = Bar::new("eval", "rollouts");
        let with_tools = itemised.run(false, |now| bar.at(now.done, now.of, &told(&now))).await;
        let without = match &with_tools {
            Ok(_) => itemised.run(true, |now| bar.at(now.done, now.of, "without tools")).await,
            Err(_) => Ok(vec![]),
        };
        bar.done();
        let ended = |why: String| anyhow!("{why}{again}");
        Ok((with_tools.map_err(ended)?, without.map_err(ended)?))
    }

    fn outcome(&self, with_tools: &[Item], without: &[Item], cost: Cost) -> Result<Outcome> {
        // Nothing measured is no accuracy of zero.
        for (how, items) in [("with tools", with_tools), ("without tools", without)] {
            let unjudged = items.iter().filter(|item| item.waits_for_verdict()).count();
            anyhow::ensure!(
                items.iter().any(Item::is_finished),
                "no rollout was measured {how}: {} rollouts of {} tasks were left out, {unjudged} answers have no verdict; the warnings say why",
                items.len(),
                self.set.tasks.len(),
            );
        }
        let eval = &self.config.eval;
        Ok(Outcome { summary: Summary::new(self.set.tasks.len(), eval.samples, with_tools, without, eval.seed), cost })
    }
}

/// How far it has come: right so far, and what it cost; where nobody knows the money, the tokens.
fn told(now: &SoFar) -> String {
    let right = (now.judged > 0).then(|| format!("right {:.0} %", 100.0 * now.right as f64 / now.judged as f64));
    let before = (now.before > 0).then(|| format!("{} of before", now.before));
    let cost = match (now.spent.requests, now.spent.usd) {
        (Some(requests), Some(usd)) => format!("{requests} requests, ${usd:.2}"),
        (Some(requests), None) => format!("{requests} requests"),
        (None, _) => format!("{:.1} ktokens", now.tokens as f64 / 1000.0),
    };
    [before, right, Some(cost)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Writes the report in its three forms.
///
/// # Errors
/// Those of the file system.
pub fn write_report(folder: &EvaluationFolder, json: &impl serde::Serialize, markdown: &str, csv: &str) -> Result<PathBuf> {
    hypereyes_run::write_json(&folder.report("json"), json)?;
    for (ending, text) in [("csv", csv), ("md", markdown)] {
        let path = folder.report(ending);
        atomic::write(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(folder.report("md"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_known() {
        let now = SoFar { done: 5, of: 10, judged: 4, right: 1, tokens: 12_345, ..SoFar::default() };
        assert_eq!(told(&now), "right 25 %, 12.3 ktokens");
        let paid = SoFar { before: 2, spent: Spent { requests: Some(7), usd: Some(0.036) }, ..now };
        assert_eq!(told(&paid), "2 of before, right 25 %, 7 requests, $0.04");
        let unpriced = SoFar { judged: 0, spent: Spent { requests: Some(7), usd: None }, ..now };
        assert_eq!(told(&unpriced), "7 requests");
    }
}
