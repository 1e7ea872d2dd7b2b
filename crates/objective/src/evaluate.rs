//! The objective itself. In: sequences and options. Out: loss, gradients, advantages, metrics. It only puts the other
//! files together, in the order of docs/spec.md#distillation: compare within groups, zero what has no verdict, let the teacher
//! shape, clip, weigh, aggregate.

use serde::Serialize;

use crate::ObjectiveError;
use crate::advantage::{Advantages, group_advantages};
use crate::aggregate::Totals;
use crate::distill::{reverse_kl, shape};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::saturate::{credit, exp, gap};
use crate::sequence::{Credit, Sequence};

/// What the objective says of a batch or of a part of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Output {
    /// The loss; losses of parts add up.
    pub loss: f64,
    /// d loss / d new log-prob: one list per sequence, one entry per response token, 0 where nothing is trained.
    pub gradients: Vec<Vec<f64>>,
    /// One per sequence, before the teacher; 0 for invalid ones.
    pub sequence_advantages: Vec<f64>,
    /// The advantages that were used, as `gradients`; masked positions of valid sequences have one too.
    pub advantages: Vec<Vec<f64>>,
    /// What to watch.
    pub metrics: Metrics,
}

/// Evaluates a whole batch. Fails on options out of range, lists of unequal length and numbers that are not finite.
pub fn evaluate(sequences: &[Sequence], options: &Options) -> Result<Output, ObjectiveError> {
    evaluate_part(sequences, &Totals::of(sequences), options)
}

/// Evaluates a part of a batch whose counts are `totals`; outputs of the parts add up to that of the whole.
///
/// Sequences that carry a reward are compared with those of their group *in this part*: cut between groups, or give them
/// advantages from [`group_advantages`]. Fails as [`evaluate`] does, and when `totals` count less than `sequences`.
pub fn evaluate_part(sequences: &[Sequence], totals: &Totals, options: &Options) -> Result<Output, ObjectiveError> {
    options.check()?;
    sequences.iter().enumerate().try_for_each(|(index, sequence)| sequence.check(index))?;
    let part = Totals::of(sequences);
    if !totals.cover(&part) {
        return Err(ObjectiveError::Totals { totals: *totals, part });
    }
    let compared = compare(sequences, options)?;
    let mut output = Output {
        loss: 0.0,
        gradients: Vec::with_capacity(sequences.len()),
        sequence_advantages: sequence_advantages(sequences, &compared),
        advantages: Vec::with_capacity(sequences.len()),
        metrics: Metrics {
            groups: compared.groups,
            zero_variance_groups: compared.zero_variance_groups,
            small_groups: compared.small_groups,
            ..Metrics::of(&part)
        },
    };
    let mut teacher_distance = 0.0;
    for (index, sequence) in sequences.iter().enumerate() {
        let base = if options.opd_only { 0.0 } else { output.sequence_advantages[index] };
        let advantages: Vec<f64> = match sequence.lesson() {
            Some(teacher) => sequence.old.iter().zip(teacher).map(|(&old, &teacher)| shape(base, old, teacher, options.opd_coef)).collect(),
            None => vec![base; sequence.len()],
        };
        let weight = options.aggregation.weight(sequence.trained_tokens(), totals);
        let gradients = train(sequence, &advantages, weight, options, &mut output);
        teacher_distance += count_teaching(sequence, weight, &mut output.metrics);
        output.gradients.push(gradients);
        output.advantages.push(advantages);
    }
    let metrics = &mut output.metrics;
    metrics.opd_reverse_kl = (metrics.distilled_tokens > 0).then(|| teacher_distance / metrics.distilled_tokens as f64);
    Ok(output)
}

/// Compares the sequences that carry a reward; the values are in their order.
fn compare(sequences: &[Sequence], options: &Options) -> Result<Advantages, ObjectiveError> {
    let rewarded = sequences.iter().filter_map(|sequence| match sequence.credit {
        Credit::Reward(reward) => Some((sequence.group, reward.filter(|_| sequence.is_valid()))),
        Credit::Advantage(_) => None,
    });
    let (groups, rewards): (Vec<_>, Vec<_>) = rewarded.unzip();
    group_advantages(&groups, &rewards, options.normalisation)
}

/// One advantage per sequence, 0 for those without a verdict.
fn sequence_advantages(sequences: &[Sequence], compared: &Advantages) -> Vec<f64> {
    let mut compared = compared.values.iter();
    let of = |sequence: &Sequence| match sequence.credit {
        Credit::Reward(_) => *compared.next().expect("one advantage per reward was computed"),
        Credit::Advantage(value) if sequence.is_valid() => credit(value),
        Credit::Advantage(_) => 0.0,
    };
    sequences.iter().map(of).collect()
}

/// Adds the trained tokens of one sequence to loss and metrics; returns their gradients, 0 elsewhere.
fn train(sequence: &Sequence, advantages: &[f64], weight: f64, options: &Options, output: &mut Output) -> Vec<f64> {
    let mut gradients = vec![0.0; sequence.len()];
    if !sequence.is_valid() {
        output.metrics.invalid_sequences += 1;
        return gradients;
    }
    output.metrics.valid_sequences += 1;
    let metrics = &mut output.metrics;
    let clip = options.clip();
    for (at, gradient) in gradients.iter_mut().enumerate().filter(|(at, _)| sequence.mask[*at]) {
        let (new, old, rollout) = (sequence.new[at], sequence.old[at], sequence.rollout[at]);
        let token = clip.token_loss(advantages[at], gap(new, old));
        let importance = options.correction.weigh(gap(old, rollout));
        output.loss += weight * token.loss * importance.weight;
        *gradient = weight * token.slope * importance.weight;
        let share = |counts: bool| if counts { weight } else { 0.0 };
        metrics.pg_clipfrac += share(token.clipped);
        metrics.dual_clipfrac += share(token.dual_clipped);
        metrics.ppo_kl += weight * gap(old, new);
        metrics.ois += weight * token.ratio;
        metrics.tis += weight * importance.ratio;
        metrics.tis_clipfrac += share(importance.altered);
        metrics.tis_abs += weight * (importance.ratio - 1.0).abs();
        metrics.train_rollout_logprob_abs_diff += weight * gap(old, rollout).abs();
        metrics.train_rollout_prob_abs_diff += weight * (exp(old).0 - exp(rollout).0).abs();
    }
    gradients
}

/// Counts what the teacher did to one sequence; returns the sum of `old - teacher` over its trained tokens.
fn count_teaching(sequence: &Sequence, weight: f64, metrics: &mut Metrics) -> f64 {
    let Some(teacher) = sequence.lesson() else {
        metrics.untaught_sequences += usize::from(sequence.distill && sequence.is_valid());
        return 0.0;
    };
    let tokens = sequence.old.iter().zip(teacher).zip(&sequence.mask).filter(|(_, sampled)| **sampled);
    let distance: f64 = tokens.map(|((&old, &teacher), _)| reverse_kl(old, teacher)).sum();
    metrics.distilled_sequences += 1;
    metrics.distilled_tokens += sequence.trained_tokens();
    metrics.opd_reverse_kl_diluted += weight * distance;
    distance
}
