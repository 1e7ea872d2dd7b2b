//! On-policy distillation: the teacher's word on failed rollouts, as part of the advantage. In: an advantage and two
//! log-probs. Out: the shaped advantage and the reverse-KL estimate. It does not know which rollouts failed.
//!
//! `A_t -= coefficient * (log p_old - log p_teacher)`: a *penalty* where the policy is surer than the teacher
//! (docs/spec.md#distillation, #d10). It is constant in the gradient, so clipping and importance weights apply to it as to any advantage.
//! Masked positions are shaped too; the mask keeps them out of the loss. Only the reverse direction exists: the forward variant of the
//! released code rewards leaving the teacher (docs/spec.md#d11).

use crate::saturate::{credit, gap};

/// One-sample estimate of KL(policy || teacher) at one token: `log p_old - log p_teacher`, positive where the policy is surer.
pub fn reverse_kl(old: f64, teacher: f64) -> f64 {
    gap(old, teacher)
}

/// The advantage of a distilled token.
pub fn shape(advantage: f64, old: f64, teacher: f64, coefficient: f64) -> f64 {
    credit(advantage - coefficient * reverse_kl(old, teacher))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_the_teacher_likes_better_gain() {
        assert_eq!(shape(-1.0, -3.0, -1.0, 0.05), -0.9);
        assert_eq!(shape(-1.0, -1.0, -3.0, 0.05), -1.1);
        assert_eq!(shape(-1.0, -1.0, -1.0, 0.05), -1.0);
    }

    #[test]
    fn reverse_kl_is_positive_where_the_policy_is_surer() {
        assert_eq!(reverse_kl(-1.0, -3.0), 2.0);
    }
}
