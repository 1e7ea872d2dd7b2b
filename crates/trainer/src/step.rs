//! One optimiser step: taught groups in, a gradient step and what it measured out.
//!
//! Rewards become group advantages over the whole batch. The batch is then cut into minibatches of whole groups, and each makes
//! one optimiser update: micro-batch by micro-batch, the objective turns log-probs into derivatives (`hypereyes-objective`) and
//! the trainer back-propagates them. The old policy of the ratio is the one before the first update, for every minibatch: with one
//! update it is the policy whose forward pass is being differentiated, so that the ratio is 1 and only its derivative counts; with
//! several the ratio moves, and clipping bounds how far. The distance to the policy that sampled is corrected by truncated
//! importance weights.

use std::ops::Range;
use std::time::Instant;

use hypereyes_collective::RankInfo;
use hypereyes_domain::{DistilledGroup, PolicyVersion};
use hypereyes_objective::{self as objective, Options, Sequence, Totals};
use hypereyes_policy::Error;
use hypereyes_policy::frozen::ScoreOptions;
use hypereyes_policy::score::{self, Sample};
use hypereyes_run::Step;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::measured::describe;
use crate::prepared::{Pictures, Prepared, lay_out};
use crate::taught::Sums;
use crate::trainer::Trainer;

/// How batches are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOptions {
    /// The objective.
    pub objective: Options,
    /// Temperature at which log-probs are taken: the one that rollouts are sampled at.
    pub temperature: f64,
    /// Optimiser updates that a batch makes, each on a part of it; at least 1. A batch of fewer groups makes one per group.
    pub updates_per_batch: usize,
}

impl Default for StepOptions {
    /// The default objective at temperature 1, one update per batch.
    fn default() -> Self {
        Self { objective: Options::default(), temperature: 1.0, updates_per_batch: 1 }
    }
}

/// What a rank measured in its part of a batch.
#[derive(Default, Serialize, Deserialize)]
struct Part {
    loss: f64,
    metrics: objective::Metrics,
    taught: Sums,
}

/// Trains on a batch; `version` is the policy's before the step. Every rank calls it with the same batch and passes over its
/// own part of each minibatch: whole runs of neighbours, so that siblings share their pictures. What is measured is of the whole
/// batch on rank 0, and of this rank's part elsewhere; where there are several minibatches, means are over them.
///
/// # Errors
/// [`TrainError`] when a sample, a reward or another rank is broken. Told to stop, it breaks off before the first update or not
/// at all.
pub fn train(
    trainer: &mut Trainer,
    groups: &[DistilledGroup],
    pictures: &Pictures,
    options: &StepOptions,
    lr: f64,
    version: PolicyVersion,
) -> Result<Step, TrainError> {
    let began = Instant::now();
    let (samples, prepared) = lay_out(groups, pictures)?;
    let owners: Vec<u64> = prepared.iter().map(|rollout| rollout.group).collect();
    let rewards: Vec<Option<f64>> = prepared.iter().map(|rollout| rollout.reward).collect();
    let invalid = |error: objective::ObjectiveError| TrainError::from(Error::Input(error.to_string()));
    let advantages = objective::group_advantages(&owners, &rewards, options.objective.normalisation).map_err(invalid)?;
    let minibatches = minibatches(groups, options.updates_per_batch);
    let place = trainer.place();
    let parts: Vec<Range<usize>> = minibatches.iter().map(|whole| part_of(&samples, whole, place)).collect();
    let mut own = Part::default();
    compare(trainer, &samples, &prepared, parts.iter().cloned().flatten(), &mut own.taught)?;
    // The first minibatch is passed over by the policy before the step anyway: that pass says both old and new.
    let mut old: Vec<Option<Vec<f64>>> = vec![None; samples.len()];
    for part in &parts[1..] {
        let logprobs = trainer.logprobs(&samples[part.clone()], options.temperature)?;
        part.clone().zip(logprobs).for_each(|(at, logprobs)| old[at] = Some(wide(&logprobs)));
    }
    let share = 1.0 / minibatches.len() as f64;
    let mut grad_norm = 0.0;
    for (number, (whole, part)) in minibatches.iter().zip(&parts).enumerate() {
        // What one update has changed is not to be left without the others.
        trainer.set_interruptible(number == 0);
        let totals = Totals::of_counts(prepared[whole.clone()].iter().map(Prepared::trained_tokens));
        let mut failure = None;
        trainer.accumulate(&samples[part.clone()], options.temperature, |run, logprobs| {
            let at = part.start + run.start..part.start + run.end;
            let evaluated = |(at, logprobs): (usize, &Vec<f32>)| {
                let new = wide(logprobs);
                let old = old[at].clone().unwrap_or_else(|| new.clone());
                prepared[at].evaluated(advantages.values[at], new, old)
            };
            let sequences: Vec<Sequence> = at.clone().zip(logprobs).map(evaluated).collect();
            for (sequence, rollout) in sequences.iter().zip(&prepared[at]) {
                if let (Some(teacher), Some(said)) = (rollout.lesson, &sequence.teacher) {
                    own.taught.add(teacher, &sequence.old, said);
                }
            }
            match objective::evaluate_part(&sequences, &totals, &options.objective) {
                Ok(mut output) => {
                    output.metrics.scale(share);
                    own.loss += share * output.loss;
                    own.metrics.absorb(&output.metrics);
                    output.gradients.into_iter().map(|list| list.into_iter().map(|value| value as f32).collect()).collect()
                }
                Err(error) => {
                    failure.get_or_insert(error);
                    logprobs.iter().map(|list| vec![0.0; list.len()]).collect()
                }
            }
        })?;
        if let Some(error) = failure {
            return Err(invalid(error));
        }
        let norm = trainer.step(lr)?;
        if !norm.is_finite() {
            metrics::counter!(crate::metrics::STEPS_SKIPPED).increment(1);
        }
        grad_norm += share * norm;
    }
    trainer.set_interruptible(true);
    let Part { loss, metrics: sums, taught } = together(trainer, own, version)?;
    let mut measured = describe(groups, version);
    measured.zero_variance_groups = Some((advantages.zero_variance_groups + advantages.small_groups) as u64);
    let n = prepared.len() as f64;
    measured.updates = Some(minibatches.len() as u64);
    measured.loss = Some(loss);
    measured.grad_norm = Some(grad_norm);
    measured.lr = Some(lr);
    measured.opd_reverse_kl = sums.opd_reverse_kl;
    measured.distilled = Some(sums.distilled_sequences as f64 / n);
    measured.untaught = Some(sums.untaught_sequences as f64 / n);
    measured.distilled_tokens = Some(sums.distilled_tokens as f64 / sums.trained_tokens.max(1) as f64);
    measured.teachers = taught.means();
    for (teacher, means) in &measured.teachers {
        metrics::gauge!(crate::metrics::TEACHER_KL, "teacher" => teacher.clone()).set(means.reverse_kl.unwrap_or(f64::NAN));
        metrics::counter!(crate::metrics::TEACHER_TOKENS, "teacher" => teacher.clone()).increment(means.tokens);
        if let Some(overlap) = means.top_overlap {
            metrics::gauge!(crate::metrics::TEACHER_OVERLAP, "teacher" => teacher.clone()).set(overlap);
        }
    }
    metrics::counter!(crate::metrics::UNTAUGHT).increment(sums.untaught_sequences as u64);
    measured.clip_fraction = Some(sums.pg_clipfrac);
    measured.dual_clip_fraction = Some(sums.dual_clipfrac);
    measured.ppo_kl = Some(sums.ppo_kl);
    measured.tis_mean = Some(sums.tis);
    measured.train_rollout_logprob_abs_diff = Some(sums.train_rollout_logprob_abs_diff);
    let seconds = began.elapsed().as_secs_f64();
    measured.step_seconds = Some(seconds);
    measured.tokens_per_second = measured.tokens.map(|tokens| tokens as f64 / seconds.max(1e-9));
    metrics::gauge!(crate::metrics::STEP_SECONDS).set(seconds);
    metrics::counter!(crate::metrics::GROUPS_TRAINED).increment(groups.len() as u64);
    Ok(measured)
}

/// Everybody's parts added up, on rank 0; elsewhere this rank's.
fn together(trainer: &mut Trainer, own: Part, version: PolicyVersion) -> Result<Part, TrainError> {
    if trainer.place().world == 1 {
        return Ok(own);
    }
    let told = serde_json::to_vec(&own).expect("plain numbers");
    let parts = trainer.ranks().gather(version.0, told)?;
    if parts.is_empty() {
        return Ok(own);
    }
    let mut whole = Part::default();
    for (rank, part) in parts.iter().enumerate() {
        let part: Part = serde_json::from_slice(part).map_err(|error| Error::Input(format!("rank {rank} reports nonsense: {error}")))?;
        whole.loss += part.loss;
        whole.metrics.absorb(&part.metrics);
        whole.taught.absorb(&part.taught);
    }
    Ok(whole)
}

/// Rollouts of a rank whose likeliest tokens are compared with the teacher's in one step: enough for a mean, few enough not to be
/// felt.
const COMPARED: usize = 4;

/// How much of the teachers' choice the policy shares, before it is trained; `own` are this rank's rollouts.
fn compare(
    trainer: &Trainer,
    samples: &[Sample],
    prepared: &[Prepared<'_>],
    own: impl Iterator<Item = usize>,
    sums: &mut Sums,
) -> Result<(), TrainError> {
    let named = own.filter_map(|at| Some((&samples[at], prepared[at].lesson?)));
    for (sample, teacher) in named.filter(|(_, teacher)| !teacher.top.is_empty()).take(COMPARED) {
        let tokens = sample.asked.len();
        let said = trainer
            .runner()
            .score(std::slice::from_ref(sample), ScoreOptions { temperature: 1.0, top: teacher.top.len() / tokens.max(1) })?;
        let policy: Vec<u32> = said.iter().flat_map(|said| said.top.iter().map(|(id, _)| *id)).collect();
        sums.compare(teacher, &policy, tokens);
    }
    Ok(())
}

/// The rollouts of each minibatch: whole groups in the batch's order, in `updates` runs whose numbers of groups differ by at most
/// one; a run per group where there are fewer groups.
fn minibatches(groups: &[DistilledGroup], updates: usize) -> Vec<Range<usize>> {
    let count = updates.clamp(1, groups.len().max(1));
    let sizes: Vec<usize> = groups.iter().map(|group| group.scored.group.rollouts.len()).collect();
    let start = |number: usize| sizes[..number * sizes.len() / count].iter().sum::<usize>();
    (0..count).map(|number| start(number)..start(number + 1)).collect()
}

/// A rank's rollouts of a minibatch.
fn part_of(samples: &[Sample], whole: &Range<usize>, place: RankInfo) -> Range<usize> {
    let lengths: Vec<usize> = samples[whole.clone()].iter().map(|sample| sample.tokens.len()).collect();
    let own = score::even_runs(&lengths, usize::MAX, place.world).get(place.rank).cloned().unwrap_or(0..0);
    whole.start + own.start..whole.start + own.end
}

fn wide(logprobs: &[f32]) -> Vec<f64> {
    logprobs.iter().map(|value| f64::from(*value)).collect()
}
