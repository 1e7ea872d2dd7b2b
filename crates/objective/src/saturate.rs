//! Arithmetic that cannot leave the finite numbers. In: finite numbers. Out: finite numbers, exact inside the limits.
//!
//! The limits are chosen so that every product and sum of the objective stays below `f64::MAX`: a ratio (1e87) times an
//! advantage (1e100) times an importance weight (1e87) leaves 1e33 for adding up tokens.

/// Largest log ratio that is exponentiated; beyond it a ratio stays at exp(200), about 7e86.
pub const MAX_LOG_RATIO: f64 = 200.0;

/// Largest absolute difference of two log-probs that enters a mean or an advantage.
pub const MAX_GAP: f64 = 1e6;

/// Largest absolute reward or advantage.
pub const MAX_CREDIT: f64 = 1e100;

/// `left - right`, kept within ±[`MAX_GAP`].
pub fn gap(left: f64, right: f64) -> f64 {
    (left - right).clamp(-MAX_GAP, MAX_GAP)
}

/// `exp(log)`, constant beyond [`MAX_LOG_RATIO`]; the second value is its derivative, 0 where it is constant.
pub fn exp(log: f64) -> (f64, f64) {
    if log > MAX_LOG_RATIO {
        return (MAX_LOG_RATIO.exp(), 0.0);
    }
    let value = log.exp();
    (value, value)
}

/// A reward or advantage, kept within ±[`MAX_CREDIT`].
pub fn credit(value: f64) -> f64 {
    value.clamp(-MAX_CREDIT, MAX_CREDIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_inside_the_limits_are_exact() {
        assert_eq!(gap(-1.5, -2.25), 0.75);
        assert_eq!(exp(0.3), (0.3_f64.exp(), 0.3_f64.exp()));
        assert_eq!(credit(-0.5), -0.5);
    }

    #[test]
    fn values_outside_stay_finite() {
        assert_eq!(gap(f64::MAX, f64::MIN), MAX_GAP);
        assert_eq!(gap(f64::MIN, f64::MAX), -MAX_GAP);
        assert_eq!(exp(f64::MAX), (MAX_LOG_RATIO.exp(), 0.0));
        assert_eq!(exp(f64::MIN), (0.0, 0.0));
        assert_eq!(credit(f64::MAX), MAX_CREDIT);
    }
}
