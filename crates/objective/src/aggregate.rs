//! How token values become one number. In: counts. Out: the factor of each trained token, the same for the loss, its
//! gradient and every metric. It does not know the values.
//!
//! A sum of `weight * value` over trained tokens is the aggregate, so a batch may be evaluated in parts that add up, as
//! long as the [`Totals`] are those of the whole batch.

use serde::{Deserialize, Serialize};

use crate::sequence::Sequence;

/// Largest horizon that is believed.
pub const MAX_HORIZON: f64 = 1e9;

/// Denominators. n is the number of trained tokens of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Aggregation {
    /// Mean over all samples of the mean over tokens; masked and invalid samples count as samples with value 0, so that
    /// losing a sample does not make the others louder. The released code.
    #[default]
    SampleMean,
    /// As `sample_mean`, but over sequences with a trained token only, and with `n + 1e-8` below. verl's `seq-mean-token-mean`.
    SeqMeanTokenMean,
    /// Mean over all trained tokens; long sequences weigh more.
    TokenMean,
    /// Sum over all trained tokens.
    TokenSum,
    /// Mean over sequences with a trained token of the sum over tokens. verl's `seq-mean-token-sum`.
    SeqMeanTokenSum,
    /// Dr. GRPO: sum over all trained tokens, divided by all samples and by a constant instead of a length. Masked and invalid
    /// samples count as in `sample_mean`: the paper's mean is over its G outputs, and TRL's `dr_grpo` divides by the batch.
    SeqMeanTokenSumNorm {
        /// Tokens, 1..=1e9; usually the largest response length.
        horizon: f64,
    },
}

/// Counts over a whole batch, whatever part of it is at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Samples, invalid ones included: the global batch size.
    pub sequences: usize,
    /// Valid sequences with at least one trained token.
    pub active: usize,
    /// Trained tokens.
    pub tokens: usize,
}

impl Totals {
    /// Counts `sequences`.
    pub fn of(sequences: &[Sequence]) -> Self {
        Self::of_counts(sequences.iter().map(Sequence::trained_tokens))
    }

    /// Of sequences with these numbers of trained tokens.
    pub fn of_counts(counts: impl Iterator<Item = usize>) -> Self {
        counts.fold(Self::default(), |totals, count| Self {
            sequences: totals.sequences + 1,
            active: totals.active + usize::from(count > 0),
            tokens: totals.tokens + count,
        })
    }

    /// Adds those of another part of the batch.
    pub fn absorb(&mut self, other: &Totals) {
        self.sequences += other.sequences;
        self.active += other.active;
        self.tokens += other.tokens;
    }

    /// Whether `part` may be a part of these.
    pub fn cover(&self, part: &Totals) -> bool {
        self.sequences >= part.sequences && self.active >= part.active && self.tokens >= part.tokens
    }
}

impl Aggregation {
    /// The factor of each of the `tokens` trained tokens of one sequence; finite and not negative.
    pub fn weight(&self, tokens: usize, totals: &Totals) -> f64 {
        let length = tokens as f64;
        let samples = totals.sequences.max(1) as f64;
        let active = totals.active.max(1) as f64;
        match *self {
            Aggregation::SampleMean => 1.0 / (length.max(1.0) * samples),
            Aggregation::SeqMeanTokenMean => 1.0 / ((length + 1e-8) * active),
            Aggregation::TokenMean => 1.0 / totals.tokens.max(1) as f64,
            Aggregation::TokenSum => 1.0,
            Aggregation::SeqMeanTokenSum => 1.0 / active,
            Aggregation::SeqMeanTokenSumNorm { horizon } => 1.0 / (samples * horizon),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aggregates ones over sequences of 4, 1 and 0 trained tokens.
    fn of_ones(aggregation: Aggregation) -> f64 {
        let totals = Totals { sequences: 3, active: 2, tokens: 5 };
        [4, 1, 0].into_iter().map(|tokens| tokens as f64 * aggregation.weight(tokens, &totals)).sum()
    }

    #[test]
    fn ones_aggregate_to_what_the_name_says() {
        for (aggregation, want) in [
            (Aggregation::SampleMean, 2.0 / 3.0),
            (Aggregation::SeqMeanTokenMean, 1.0),
            (Aggregation::TokenMean, 1.0),
            (Aggregation::TokenSum, 5.0),
            (Aggregation::SeqMeanTokenSum, 2.5),
            (Aggregation::SeqMeanTokenSumNorm { horizon: 10.0 }, 5.0 / 30.0),
        ] {
            assert!((of_ones(aggregation) - want).abs() < 1e-7, "{aggregation:?}: {}", of_ones(aggregation));
        }
    }

    #[test]
    fn empty_batches_have_finite_weights() {
        for aggregation in [Aggregation::SampleMean, Aggregation::SeqMeanTokenMean, Aggregation::TokenMean, Aggregation::SeqMeanTokenSum] {
            assert!(aggregation.weight(0, &Totals::default()).is_finite());
        }
    }

    /// What a sample that trains nothing does to the tokens of the others: with a mean over samples, nothing.
    #[test]
    fn a_masked_sibling_is_a_sample_where_the_mean_is_over_samples() {
        let (whole, masked) = (Totals { sequences: 4, active: 4, tokens: 8 }, Totals { sequences: 4, active: 2, tokens: 4 });
        for (aggregation, louder) in [
            (Aggregation::SampleMean, 1.0),
            (Aggregation::SeqMeanTokenSumNorm { horizon: 4.0 }, 1.0),
            (Aggregation::TokenSum, 1.0),
            (Aggregation::SeqMeanTokenMean, 2.0),
            (Aggregation::SeqMeanTokenSum, 2.0),
            (Aggregation::TokenMean, 2.0),
        ] {
            assert_eq!(aggregation.weight(2, &masked), louder * aggregation.weight(2, &whole), "{aggregation:?}");
        }
        let none = Totals { sequences: 4, ..Totals::default() };
        assert_eq!(Aggregation::SeqMeanTokenSumNorm { horizon: 4.0 }.weight(0, &none), 1.0 / 16.0);
    }

    #[test]
    fn configuration_uses_the_common_names() {
        let read = |text: &str| serde_json::from_str::<Aggregation>(text).expect("known");
        assert_eq!(read("\"sample_mean\""), Aggregation::SampleMean);
        assert_eq!(read("\"seq_mean_token_sum\""), Aggregation::SeqMeanTokenSum);
        assert_eq!(read(r#"{"seq_mean_token_sum_norm": {"horizon": 4096}}"#), Aggregation::SeqMeanTokenSumNorm { horizon: 4096.0 });
    }
}
