//! The knobs of the objective. In: a configuration. Out: checked bounds. The defaults are the paper's recipe
//! (docs/spec.md#distillation, #objective).

use serde::{Deserialize, Serialize};

use crate::ObjectiveError;
use crate::advantage::Normalisation;
use crate::aggregate::{Aggregation, MAX_HORIZON};
use crate::clip::Clip;
use crate::importance::Correction;

/// Largest bound or coefficient that is believed; anything above is a slip.
const MAX_OPTION: f64 = 1e6;

/// Options of [`crate::evaluate()`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Default `std`: GRPO as released. `mean` is Dr. GRPO, `leave_one_out` is RLOO.
    pub normalisation: Normalisation,
    /// Default 0.2, 0..=1: the ratio counts at least `1 - clip_low`.
    pub clip_low: f64,
    /// Default 0.28, 0..=1e6: the ratio counts at most `1 + clip_high`; wider than below so that rare tokens can grow.
    pub clip_high: f64,
    /// Default off; 1..=1e6 otherwise: bound of the loss of bad tokens, in units of -A. The recipe names 3, the released
    /// code never applies it (docs/spec.md#d13).
    pub dual_clip: Option<f64>,
    /// Default TIS with 0..=2: weight of a token by how much trainer and sampler disagree on it.
    pub correction: Correction,
    /// Default `sample_mean`: as the released code.
    pub aggregation: Aggregation,
    /// Default 0.05, 0..=1e6: strength of the teacher on distilled sequences; 0 turns it off.
    pub opd_coef: f64,
    /// Default false: true drops the reward's advantage, leaving the teacher as the only signal (of distilled sequences;
    /// the others then train nothing).
    pub opd_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            normalisation: Normalisation::Std,
            clip_low: 0.2,
            clip_high: 0.28,
            dual_clip: None,
            correction: Correction::default(),
            aggregation: Aggregation::SampleMean,
            opd_coef: 0.05,
            opd_only: false,
        }
    }
}

impl Options {
    /// Checks every range; NaN is in none.
    pub fn check(&self) -> Result<(), ObjectiveError> {
        let within = |key, value: f64, low: f64, high: f64, range| {
            if (low..=high).contains(&value) { Ok(()) } else { Err(ObjectiveError::Option { key, value, range }) }
        };
        within("clip_low", self.clip_low, 0.0, 1.0, "0 to 1")?;
        within("clip_high", self.clip_high, 0.0, MAX_OPTION, "0 to 1e6")?;
        within("opd_coef", self.opd_coef, 0.0, MAX_OPTION, "0 to 1e6")?;
        if let Some(dual) = self.dual_clip {
            within("dual_clip", dual, 1.0, MAX_OPTION, "1 to 1e6; leave it out to turn it off")?;
        }
        if let Some((low, high)) = self.correction.bounds() {
            within("correction.low", low, 0.0, MAX_OPTION, "0 to 1e6")?;
            within("correction.high", high, low, MAX_OPTION, "`low` to 1e6")?;
        }
        if let Aggregation::SeqMeanTokenSumNorm { horizon } = self.aggregation {
            within("aggregation.horizon", horizon, 1.0, MAX_HORIZON, "1 to 1e9")?;
        }
        Ok(())
    }

    /// The bounds of the ratio.
    pub fn clip(&self) -> Clip {
        Clip { low: self.clip_low, high: self.clip_high, dual: self.dual_clip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_recipe_and_pass_the_check() {
        let options: Options = serde_json::from_str("{}").expect("all keys have defaults");
        assert_eq!(options, Options::default());
        assert_eq!((options.clip_low, options.clip_high, options.dual_clip, options.opd_coef), (0.2, 0.28, None, 0.05));
        assert_eq!(options.correction, Correction::Tis { low: 0.0, high: 2.0 });
        options.check().expect("sound");
    }

    #[test]
    fn values_outside_their_range_are_refused_by_name() {
        let sound = Options::default();
        for (key, options) in [
            ("clip_low", Options { clip_low: 1.5, ..sound }),
            ("clip_high", Options { clip_high: f64::NAN, ..sound }),
            ("dual_clip", Options { dual_clip: Some(0.5), ..sound }),
            ("opd_coef", Options { opd_coef: -0.05, ..sound }),
            ("correction.high", Options { correction: Correction::Icepop { low: 2.0, high: 1.0 }, ..sound }),
            ("aggregation.horizon", Options { aggregation: Aggregation::SeqMeanTokenSumNorm { horizon: 0.0 }, ..sound }),
        ] {
            assert!(matches!(options.check(), Err(ObjectiveError::Option { key: named, .. }) if named == key), "{key}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_str::<Options>(r#"{"eps_clip_c": 3.0}"#).is_err());
    }
}
