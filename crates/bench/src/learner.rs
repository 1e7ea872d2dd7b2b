//! The learner alone: how fast finished groups come in when whoever makes them answers at once, and what a step costs as the
//! batch grows.
//!
//! In: a model, the size of a batch. Out: one row for the intake (the message as it comes over the wire is read, checked,
//! admitted and drained), and one per multiple of the batch, from the groups to the new weights.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hypereyes_domain::{
    Accuracy, BonusBranch, DistilledGroup, Ending, PolicyVersion, Receipt, RolloutGroup, RolloutSummary, Route, Score, ScoredGroup, TaskId,
    TeacherLogprobs, TeacherVersion, Trajectory,
};
use hypereyes_learner::intake::{Answer, Bounds, Intake};
use hypereyes_objective::Options;
use hypereyes_policy::checkpoint::HostWeights;
use hypereyes_policy::config::ModelConfig;
use hypereyes_proto::orders::Order;
use hypereyes_run::ledger::Ledger;
use hypereyes_trainer::{OptimConfig, Pictures, Placement, StepOptions, Trainer, step};
use serde_json::{Map, Value};

use super::{median, tokens};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Where, and tokens of one pass.
    pub placement: Placement,
    /// Groups of the smallest batch.
    pub groups: usize,
    /// Rollouts per group.
    pub group_size: usize,
    /// Tokens of a rollout, a quarter of them the prompt.
    pub length: usize,
    /// Groups that go through the intake.
    pub intake: usize,
    /// Runs, of which the median counts.
    pub repeats: usize,
}

/// Batches, as multiples of the smallest.
const MULTIPLES: [usize; 5] = [1, 2, 4, 8, 16];

/// Measures the intake, then steps.
pub fn measure(model: &ModelConfig, weights: &HostWeights, load: Load, seed: u64) -> Result<Vec<Map<String, Value>>> {
    let mut rows = vec![intake(model, load, seed)?];
    let mut trainer = Trainer::new(model.clone(), weights.clone(), OptimConfig::default(), load.placement)?;
    let options = StepOptions { objective: Options { opd_coef: 0.2, ..Options::default() }, ..StepOptions::default() };
    for multiple in MULTIPLES {
        let groups: Vec<DistilledGroup> = (0..load.groups * multiple)
            .map(|number| group(model, load, seed, number, "a", &format!("g{number}"), "t"))
            .collect::<Result<_>>()?;
        let mut once = || -> Result<(f64, f64)> {
            let began = Instant::now();
            let measured = step::train(&mut trainer, &groups, &Pictures::new(), &options, 1e-5, PolicyVersion(0))?;
            Ok((began.elapsed().as_secs_f64(), measured.tokens.unwrap_or(0) as f64))
        };
        once()?;
        let runs = (0..load.repeats).map(|_| once()).collect::<Result<Vec<_>>>()?;
        let (seconds, tokens) = (median(runs.iter().map(|run| run.0).collect()), runs[0].1);
        let mut row = Map::new();
        row.insert("what".into(), "step".into());
        row.insert("batch".into(), multiple.into());
        row.insert("groups".into(), groups.len().into());
        row.insert("tokens".into(), tokens.into());
        row.insert("step_s".into(), seconds.into());
        row.insert("microseconds_per_token".into(), (seconds * 1e6 / tokens).into());
        row.insert("tokens_per_s".into(), (tokens / seconds).into());
        rows.push(row);
    }
    Ok(rows)
}

fn intake(model: &ModelConfig, load: Load, seed: u64) -> Result<Map<String, Value>> {
    let bounds = Bounds {
        groups_per_step: load.groups,
        max_staleness: 2,
        lease: Duration::from_secs(60),
        deterministic: false,
        ..Bounds::default()
    };
    let tasks = (0..load.intake).map(|number| TaskId::new(format!("t{number}"))).collect();
    let mut intake = Intake::new(bounds, tasks, seed, 0, None, PolicyVersion(0), Ledger::nowhere());
    let (mut spent, mut done, mut bytes) = (0.0, 0, 0);
    while done < load.intake {
        let Answer::Lease(lease) = intake.lease(&"a".into(), Instant::now()) else { anyhow::bail!("the intake gives no lease") };
        let group = group(model, load, seed, done, "a", lease.group.as_str(), lease.task.as_str())?;
        // What comes over the wire; making it is the actor's cost.
        let message = Order::Step { lr: 0.0, version: PolicyVersion(0), groups: vec![group], pictures: vec![] }.into_bytes();
        bytes += message.len();
        let began = Instant::now();
        let Order::Step { mut groups, .. } = Order::from_bytes(&message)? else { anyhow::bail!("an order was read as another") };
        let receipt = intake.submit(groups.pop().context("the group is gone")?, Instant::now());
        anyhow::ensure!(receipt == Receipt::Accepted, "the intake says {receipt:?}");
        if let Some(batch) = intake.take_batch() {
            intake.trained(&batch, PolicyVersion(0), 0);
        }
        spent += began.elapsed().as_secs_f64();
        done += 1;
    }
    let mut row = Map::new();
    row.insert("what".into(), "intake".into());
    row.insert("groups".into(), done.into());
    row.insert("groups_per_s".into(), (done as f64 / spent).into());
    row.insert("bytes_per_group".into(), (bytes / done.max(1)).into());
    Ok(row)
}

/// A group of which every third rollout failed and was taught.
fn group(model: &ModelConfig, load: Load, seed: u64, number: usize, actor: &str, id: &str, task: &str) -> Result<DistilledGroup> {
    let (prompt, response) = ((load.length / 4).max(1), (load.length - load.length / 4).max(1));
    let of = |sibling: usize, count: usize| tokens(count, model, seed + (number * load.group_size + sibling) as u64);
    let (mut rollouts, mut scores, mut teacher) = (vec![], vec![], vec![]);
    for sibling in 0..load.group_size {
        rollouts.push(Trajectory {
            prompt: of(0, prompt),
            response: of(sibling, response),
            mask: (0..response).map(|at| at % 4 != 3).collect(),
            logprobs: (0..response).map(|at| if at % 4 != 3 { -3.0 } else { 0.0 }).collect(),
            versions: vec![PolicyVersion(0); response],
            pictures: vec![],
            summary: RolloutSummary { rounds: vec![], ending: Ending::NoAction, answer: None },
            spoken: None,
        });
        let failed = sibling % 3 == 0;
        let (accuracy, reward, route) =
            if failed { (Accuracy::Wrong, 0.0, Route::Distill) } else { (Accuracy::Correct, 1.0, Route::Reinforce) };
        scores.push(Score { accuracy, bonus: 0.0, branch: BonusBranch::None, reward, route });
        let logprobs = rollouts[sibling].logprobs.iter().map(|value| value * 0.8).collect();
        teacher.push(failed.then(|| TeacherLogprobs { teacher: TeacherVersion::new("t", 1), logprobs, top: vec![] }));
    }
    let group = RolloutGroup { id: id.into(), task: task.into(), actor: actor.into(), rollouts };
    let scored = ScoredGroup::new(group, scores, None, 0).map_err(|error| anyhow::anyhow!(error.to_string()))?;
    DistilledGroup::new(scored, teacher).map_err(|error| anyhow::anyhow!(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;
    use hypereyes_policy::device::Device;

    #[test]
    fn every_multiple_of_a_batch_has_a_row() {
        let model = Size::Tiny.model();
        let weights = hypereyes_policy::init::fresh(&model, &Default::default(), 1);
        let placement = Placement { device: Device::Cpu, micro_tokens: 256 };
        let load = Load { placement, groups: 1, group_size: 2, length: 12, intake: 5, repeats: 1 };
        let rows = measure(&model, &weights, load, 3).expect("it runs");
        assert_eq!(rows.len(), 1 + MULTIPLES.len());
        assert!(rows[0]["groups_per_s"].as_f64().is_some_and(|rate| rate > 0.0));
        assert_eq!(rows[5]["tokens"].as_f64(), Some(16.0 * 24.0));
    }
}
