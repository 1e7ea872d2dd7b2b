//! Correction for a sampler that is not quite the trained policy. In: the log ratio of a token. Out: its weight. It does
//! not know losses; the weight is constant in the gradient.
//!
//! rho = exp(old - rollout) is 1 when trainer and sampler agree (docs/spec.md#objective).

use serde::{Deserialize, Serialize};

use crate::saturate;

/// How rho becomes a weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Correction {
    /// All weights are 1.
    Off,
    /// Truncated importance sampling: rho clamped to `low..=high`.
    Tis {
        /// At least 0.
        low: f64,
        /// At least `low`.
        high: f64,
    },
    /// IcePop: rho inside `low..=high`, 0 outside, so that tokens on which the two disagree are not trained. The mask, and
    /// so every denominator, stays as it is.
    Icepop {
        /// At least 0.
        low: f64,
        /// At least `low`.
        high: f64,
    },
}

impl Default for Correction {
    /// The paper's recipe: TIS with 0..=2.
    fn default() -> Self {
        Self::Tis { low: 0.0, high: 2.0 }
    }
}

/// The weight of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// rho as it is.
    pub ratio: f64,
    /// What the token's loss is multiplied with.
    pub weight: f64,
    /// Whether rho lay outside the bounds; false when the correction is off.
    pub altered: bool,
}

impl Correction {
    /// The weight of a token with `log_ratio` = old - rollout.
    pub fn weigh(&self, log_ratio: f64) -> Weight {
        let (ratio, _) = saturate::exp(log_ratio);
        let Some((low, high)) = self.bounds() else { return Weight { ratio, weight: 1.0, altered: false } };
        let altered = !(low..=high).contains(&ratio);
        let weight = match self {
            Correction::Icepop { .. } if altered => 0.0,
            _ => ratio.max(low).min(high),
        };
        Weight { ratio, weight, altered }
    }

    /// Low and high bound; `None` when off.
    pub fn bounds(&self) -> Option<(f64, f64)> {
        match *self {
            Correction::Off => None,
            Correction::Tis { low, high } | Correction::Icepop { low, high } => Some((low, high)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tis_clamps_and_icepop_drops() {
        let tis = Correction::Tis { low: 0.5, high: 2.0 };
        let icepop = Correction::Icepop { low: 0.5, high: 2.0 };
        for (rho, clamped, dropped, altered) in [(0.25_f64, 0.5, 0.0, true), (1.5, 1.5, 1.5, false), (8.0, 2.0, 0.0, true)] {
            for (correction, want) in [(tis, clamped), (icepop, dropped)] {
                let got = correction.weigh(rho.ln());
                assert!((got.weight - want).abs() < 1e-12 && (got.ratio - rho).abs() < 1e-12, "{got:?}");
                assert_eq!(got.altered, altered);
            }
        }
    }

    #[test]
    fn bounds_are_inside() {
        let correction = Correction::Icepop { low: 1.0, high: 1.0 };
        assert_eq!(correction.weigh(0.0), Weight { ratio: 1.0, weight: 1.0, altered: false });
    }

    #[test]
    fn without_correction_the_ratio_is_still_reported() {
        assert_eq!(Correction::Off.weigh(0.5), Weight { ratio: 0.5_f64.exp(), weight: 1.0, altered: false });
    }

    #[test]
    fn configuration_names_the_kind() {
        let read: Correction = serde_json::from_str(r#"{"kind": "icepop", "low": 0.5, "high": 2.0}"#).expect("known");
        assert_eq!(read, Correction::Icepop { low: 0.5, high: 2.0 });
        assert!(serde_json::from_str::<Correction>(r#"{"kind": "tis", "low": 0.5, "high": 2.0, "hihg": 1}"#).is_err());
    }
}
