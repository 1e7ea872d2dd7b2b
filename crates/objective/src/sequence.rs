//! What the objective reads of one rollout. In: the learner's numbers. Out: a checked [`Sequence`]. It does not know
//! what the tokens are.

use serde::{Deserialize, Serialize};

use crate::ObjectiveError;
use crate::advantage::is_valid_reward;

/// What a sequence is worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credit {
    /// The raw reward, compared within the sequence's group. `None` and anything at or below -99 mean that there is no
    /// verdict: the sequence is masked and its siblings are compared without it (docs/spec.md#normalisation).
    Reward(Option<f64>),
    /// An advantage that was computed before, on a group that is not all here. It is used as it is.
    Advantage(f64),
}

/// One rollout. The lists have one entry per *response* token, observation tokens included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sequence {
    /// Sequences with the same number are rollouts of one prompt, wherever they lie in the batch.
    pub group: u64,
    /// Reward or advantage.
    pub credit: Credit,
    /// False masks the whole sequence, as a missing reward does; it still counts as a sample of the batch.
    pub valid: bool,
    /// True where the policy sampled the token.
    pub mask: Vec<bool>,
    /// log-prob under the policy that is being updated; the gradient is with respect to these.
    pub new: Vec<f64>,
    /// log-prob under the policy before the update, from the same code as `new`.
    pub old: Vec<f64>,
    /// log-prob that the sampler recorded; any finite number where `mask` is false.
    pub rollout: Vec<f64>,
    /// log-prob under the teacher; `None` when it gave no answer, which turns distillation off for this sequence.
    pub teacher: Option<Vec<f64>>,
    /// Whether the teacher shapes this sequence: true for failures of the policy (docs/spec.md#d9).
    pub distill: bool,
}

impl Sequence {
    /// Number of response tokens.
    pub fn len(&self) -> usize {
        self.mask.len()
    }

    /// True without any response token.
    pub fn is_empty(&self) -> bool {
        self.mask.is_empty()
    }

    /// Whether the sequence takes part in training at all.
    pub fn is_valid(&self) -> bool {
        self.valid && self.reward_is_valid()
    }

    /// Tokens that are trained: those of the mask, none when the sequence is invalid.
    pub fn trained_tokens(&self) -> usize {
        if self.is_valid() { self.mask.iter().filter(|sampled| **sampled).count() } else { 0 }
    }

    /// The teacher's log-probs, where they shape this sequence.
    pub fn lesson(&self) -> Option<&[f64]> {
        if self.distill && self.is_valid() { self.teacher.as_deref() } else { None }
    }

    /// Checks that the lists are equally long and finite; `index` names the sequence in the error.
    pub fn check(&self, index: usize) -> Result<(), ObjectiveError> {
        let lists =
            [("new", Some(&self.new)), ("old", Some(&self.old)), ("rollout", Some(&self.rollout)), ("teacher", self.teacher.as_ref())];
        for (list, values) in lists.into_iter().filter_map(|(list, values)| Some((list, values?))) {
            if values.len() != self.len() {
                return Err(ObjectiveError::Length { sequence: index, list, got: values.len(), want: self.len() });
            }
            if let Some(token) = values.iter().position(|value| !value.is_finite()) {
                return Err(ObjectiveError::NotFinite { sequence: index, list, token, value: values[token] });
            }
        }
        match self.credit {
            Credit::Advantage(value) if !value.is_finite() => {
                Err(ObjectiveError::NotFinite { sequence: index, list: "advantage", token: 0, value })
            }
            _ => Ok(()),
        }
    }

    fn reward_is_valid(&self) -> bool {
        match self.credit {
            Credit::Reward(reward) => is_valid_reward(reward),
            Credit::Advantage(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence() -> Sequence {
        Sequence {
            group: 0,
            credit: Credit::Reward(Some(1.0)),
            valid: true,
            mask: vec![true, false],
            new: vec![-1.0, -1.0],
            old: vec![-1.0, -1.0],
            rollout: vec![-1.0, 0.0],
            teacher: Some(vec![-2.0, 0.0]),
            distill: true,
        }
    }

    #[test]
    fn sequences_without_a_verdict_train_nothing_and_learn_nothing_from_the_teacher() {
        assert_eq!((sequence().trained_tokens(), sequence().lesson().is_some()), (1, true));
        for broken in [
            Sequence { credit: Credit::Reward(None), ..sequence() },
            Sequence { credit: Credit::Reward(Some(-100.0)), ..sequence() },
            Sequence { valid: false, ..sequence() },
        ] {
            assert_eq!((broken.trained_tokens(), broken.lesson()), (0, None));
        }
    }

    #[test]
    fn broken_lists_are_named() {
        let short = Sequence { teacher: Some(vec![-1.0]), ..sequence() };
        assert_eq!(short.check(3), Err(ObjectiveError::Length { sequence: 3, list: "teacher", got: 1, want: 2 }));
        let infinite = Sequence { old: vec![-1.0, f64::NEG_INFINITY], ..sequence() };
        assert!(matches!(infinite.check(0), Err(ObjectiveError::NotFinite { list: "old", token: 1, .. })));
        let nan = Sequence { credit: Credit::Advantage(f64::NAN), ..sequence() };
        assert!(matches!(nan.check(0), Err(ObjectiveError::NotFinite { list: "advantage", .. })));
    }
}
