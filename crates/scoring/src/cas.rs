//! The cost-aware score of an evaluation (docs/spec.md#cas). In: accuracy and mean costs. Out: one number.

/// CAS = accuracy² · 100 / (kilotokens + 2 · rounds + 1).
///
/// `accuracy` is a fraction 0..=1, `kilotokens` the mean tokens of an episode in thousands, `rounds` the mean number of
/// sequential tool rounds; both costs are at least 0.
pub fn cas(accuracy: f64, kilotokens: f64, rounds: f64) -> f64 {
    accuracy * accuracy * 100.0 / (kilotokens + 2.0 * rounds + 1.0)
}

#[cfg(test)]
mod tests {
    use super::cas;

    #[test]
    fn the_published_check_value_holds() {
        assert!((cas(0.467, 20.0, 3.1) - 0.8018).abs() < 5e-5);
    }

    #[test]
    fn a_free_perfect_agent_scores_a_hundred() {
        assert_eq!(cas(1.0, 0.0, 0.0), 100.0);
    }
}
