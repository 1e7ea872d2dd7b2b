//! What to watch. In: what became of each token. Out: [`Metrics`] of a batch or of a part of it. It publishes nothing;
//! whoever trains does.

use serde::{Deserialize, Serialize};

use crate::aggregate::Totals;

/// Means and counts of one evaluation.
///
/// "Aggregate" means weighted as the loss is, over trained tokens ([`crate::Aggregation`]); aggregates of parts add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Aggregate of tokens whose clipped loss exceeds the plain one.
    pub pg_clipfrac: f64,
    /// Aggregate of tokens held by the dual bound.
    pub dual_clipfrac: f64,
    /// Aggregate of `old - new`: how far the update has moved the policy (estimator k1).
    pub ppo_kl: f64,
    /// Aggregate of `exp(new - old)`.
    pub ois: f64,
    /// Aggregate of `exp(old - rollout)` before any clamp.
    pub tis: f64,
    /// Aggregate of tokens outside the bounds of the correction.
    pub tis_clipfrac: f64,
    /// Aggregate of `|exp(old - rollout) - 1|`.
    pub tis_abs: f64,
    /// Aggregate of `|old - rollout|`: trainer and sampler drift apart when it rises.
    pub train_rollout_logprob_abs_diff: f64,
    /// Aggregate of `|exp(old) - exp(rollout)|`.
    pub train_rollout_prob_abs_diff: f64,
    /// Plain mean of `old - teacher` over the trained tokens of distilled sequences; `None` without any.
    pub opd_reverse_kl: Option<f64>,
    /// Aggregate of `old - teacher` with 0 for sequences that are not distilled, as the released code logs it.
    pub opd_reverse_kl_diluted: f64,
    /// Samples.
    pub sequences: usize,
    /// Samples with a verdict.
    pub valid_sequences: usize,
    /// Samples without: they are masked.
    pub invalid_sequences: usize,
    /// Valid samples with at least one trained token.
    pub active_sequences: usize,
    /// Trained tokens.
    pub trained_tokens: usize,
    /// Valid sequences that the teacher shaped.
    pub distilled_sequences: usize,
    /// Trained tokens of those.
    pub distilled_tokens: usize,
    /// Valid sequences that should have been distilled but have no teacher log-probs.
    pub untaught_sequences: usize,
    /// Distinct groups among sequences that came with a reward.
    pub groups: usize,
    /// Groups whose valid rewards are all equal (two or more).
    pub zero_variance_groups: usize,
    /// Groups with one valid reward or none.
    pub small_groups: usize,
}

impl Metrics {
    /// Counts of a part of a batch, before its tokens.
    pub(crate) fn of(part: &Totals) -> Self {
        Self { sequences: part.sequences, active_sequences: part.active, trained_tokens: part.tokens, ..Self::default() }
    }

    /// Multiplies the aggregates: batches whose shares add up to 1 are then added up to a mean over them. Counts stay, and so does
    /// what is a mean over tokens.
    pub fn scale(&mut self, share: f64) {
        for aggregate in [
            &mut self.pg_clipfrac,
            &mut self.dual_clipfrac,
            &mut self.ppo_kl,
            &mut self.ois,
            &mut self.tis,
            &mut self.tis_clipfrac,
            &mut self.tis_abs,
            &mut self.train_rollout_logprob_abs_diff,
            &mut self.train_rollout_prob_abs_diff,
            &mut self.opd_reverse_kl_diluted,
        ] {
            *aggregate *= share;
        }
    }

    /// Adds the metrics of another part of the same batch, evaluated with the same totals.
    pub fn absorb(&mut self, other: &Metrics) {
        self.opd_reverse_kl = mean_of((self.opd_reverse_kl, self.distilled_tokens), (other.opd_reverse_kl, other.distilled_tokens));
        for (mine, theirs) in [
            (&mut self.pg_clipfrac, other.pg_clipfrac),
            (&mut self.dual_clipfrac, other.dual_clipfrac),
            (&mut self.ppo_kl, other.ppo_kl),
            (&mut self.ois, other.ois),
            (&mut self.tis, other.tis),
            (&mut self.tis_clipfrac, other.tis_clipfrac),
            (&mut self.tis_abs, other.tis_abs),
            (&mut self.train_rollout_logprob_abs_diff, other.train_rollout_logprob_abs_diff),
            (&mut self.train_rollout_prob_abs_diff, other.train_rollout_prob_abs_diff),
            (&mut self.opd_reverse_kl_diluted, other.opd_reverse_kl_diluted),
        ] {
            *mine += theirs;
        }
        for (mine, theirs) in [
            (&mut self.sequences, other.sequences),
            (&mut self.valid_sequences, other.valid_sequences),
            (&mut self.invalid_sequences, other.invalid_sequences),
            (&mut self.active_sequences, other.active_sequences),
            (&mut self.trained_tokens, other.trained_tokens),
            (&mut self.distilled_sequences, other.distilled_sequences),
            (&mut self.distilled_tokens, other.distilled_tokens),
            (&mut self.untaught_sequences, other.untaught_sequences),
            (&mut self.groups, other.groups),
            (&mut self.zero_variance_groups, other.zero_variance_groups),
            (&mut self.small_groups, other.small_groups),
        ] {
            *mine += theirs;
        }
    }
}

/// The mean over both counts.
fn mean_of((left, left_count): (Option<f64>, usize), (right, right_count): (Option<f64>, usize)) -> Option<f64> {
    let sum = left.unwrap_or(0.0) * left_count as f64 + right.unwrap_or(0.0) * right_count as f64;
    left.or(right).map(|_| sum / (left_count + right_count).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teacher_distance_of_parts_is_weighted_by_their_tokens() {
        let mut left = Metrics { opd_reverse_kl: Some(1.0), distilled_tokens: 3, ..Metrics::default() };
        left.absorb(&Metrics::default());
        assert_eq!(left.opd_reverse_kl, Some(1.0));
        left.absorb(&Metrics { opd_reverse_kl: Some(5.0), distilled_tokens: 1, ..Metrics::default() });
        assert_eq!((left.opd_reverse_kl, left.distilled_tokens), (Some(2.0), 4));
    }
}
