//! The clipped loss of one token. In: advantage, log ratio and bounds. Out: the loss, its slope and what was clipped. It
//! does not know masks or importance weights.
//!
//! With ratio r = exp(new - old): `max(-A r, -A clip(r, 1 - low, 1 + high))`; where A < 0 and a dual bound c is given,
//! at most `-A c` (docs/spec.md#objective, #d13). A wider upper bound is "clip higher": unlikely tokens may grow.
//!
//! The slope is d loss / d new. At the bounds themselves the ratio still counts as inside, and at `r = c` as not yet
//! bounded: the slope there is `-A r`, one of the subgradients.

use crate::saturate;

/// Bounds of the ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// The ratio is clipped below `1 - low`, 0..=1.
    pub low: f64,
    /// The ratio is clipped above `1 + high`, at least 0.
    pub high: f64,
    /// Largest loss of a token with a negative advantage, in units of -A; above 1. `None`: unbounded.
    pub dual: Option<f64>,
}

/// The loss of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLoss {
    /// The loss.
    pub loss: f64,
    /// d loss / d new log-prob.
    pub slope: f64,
    /// exp(new - old).
    pub ratio: f64,
    /// Whether the clipped loss was strictly larger than the plain one.
    pub clipped: bool,
    /// Whether the dual bound was strictly smaller than both.
    pub dual_clipped: bool,
}

impl Clip {
    /// The loss of a token with `advantage` whose log-prob moved by `log_ratio` = new - old.
    pub fn token_loss(&self, advantage: f64, log_ratio: f64) -> TokenLoss {
        let (ratio, ratio_slope) = saturate::exp(log_ratio);
        let plain = -advantage * ratio;
        let bounded = -advantage * ratio.clamp(1.0 - self.low, 1.0 + self.high);
        let clipped = bounded > plain;
        // Where both are equal the ratio is inside the bounds, or A is 0 and so is the slope.
        let (loss, slope) = if clipped { (bounded, 0.0) } else { (plain, -advantage * ratio_slope) };
        match self.dual.map(|dual| -advantage * dual) {
            Some(ceiling) if advantage < 0.0 && ceiling < loss => {
                TokenLoss { loss: ceiling, slope: 0.0, ratio, clipped, dual_clipped: true }
            }
            _ => TokenLoss { loss, slope, ratio, clipped, dual_clipped: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Clip = Clip { low: 0.2, high: 0.28, dual: None };
    const DUAL: Clip = Clip { low: 0.2, high: 0.28, dual: Some(3.0) };

    #[test]
    fn ratios_inside_the_bounds_have_the_plain_slope() {
        for advantage in [-2.0, 0.5] {
            let token = PLAIN.token_loss(advantage, 0.1);
            assert_eq!((token.loss, token.slope, token.clipped), (-advantage * 0.1_f64.exp(), -advantage * 0.1_f64.exp(), false));
        }
    }

    #[test]
    fn good_tokens_stop_above_and_bad_tokens_stop_below() {
        let grown = PLAIN.token_loss(1.0, 1.3_f64.ln());
        assert_eq!((grown.loss, grown.slope, grown.clipped), (-1.28, 0.0, true));
        let shrunk = PLAIN.token_loss(-1.0, 0.7_f64.ln());
        assert_eq!((shrunk.loss, shrunk.slope, shrunk.clipped), (0.8, 0.0, true));
        assert!(PLAIN.token_loss(1.0, 0.7_f64.ln()).slope < 0.0, "a good token that shrank is pulled back");
        assert!(PLAIN.token_loss(-1.0, 1.3_f64.ln()).slope > 0.0, "a bad token that grew is pushed back");
    }

    #[test]
    fn dual_bound_stops_bad_tokens_that_grew_far() {
        let bounded = DUAL.token_loss(-2.0, 4.0_f64.ln());
        assert_eq!((bounded.loss, bounded.slope, bounded.dual_clipped, bounded.clipped), (6.0, 0.0, true, false));
        assert!((PLAIN.token_loss(-2.0, 4.0_f64.ln()).slope - 8.0).abs() < 1e-12);
        assert_eq!(DUAL.token_loss(2.0, 4.0_f64.ln()), PLAIN.token_loss(2.0, 4.0_f64.ln()));
    }

    #[test]
    fn kinks_keep_the_slope_of_the_ratio() {
        let sharp = Clip { low: 0.0, high: 0.0, dual: Some(1.0) };
        for advantage in [1.0, -1.0] {
            let token = sharp.token_loss(advantage, 0.0);
            assert_eq!((token.slope, token.clipped, token.dual_clipped), (-advantage, false, false));
        }
        assert_eq!(sharp.token_loss(0.0, 5.0).slope, 0.0);
    }

    #[test]
    fn runaway_ratios_stay_finite() {
        for log_ratio in [f64::MAX, f64::MIN, 1e4] {
            for advantage in [saturate::MAX_CREDIT, -saturate::MAX_CREDIT, 0.0] {
                let token = PLAIN.token_loss(advantage, log_ratio);
                assert!(token.loss.is_finite() && token.slope.is_finite(), "{token:?}");
            }
        }
    }
}
