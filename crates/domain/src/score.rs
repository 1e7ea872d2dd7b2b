//! What the reward service says of one rollout (docs/spec.md#reward, #distillation).

use serde::{Deserialize, Serialize};

use crate::Failure;

/// The verdict on an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accuracy {
    /// The judge says the answer is right: 1.
    Correct,
    /// The judge says it is wrong: 0.
    Wrong,
    /// The judge says that the answer declines to answer: 0, as wrong, and counted apart. Rules never say so.
    NotAttempted,
    /// No closed answer to judge: -0.5.
    Unparsed,
    /// No verdict, for a reason outside the policy. Out of every mean; the rollout is masked.
    Invalid(Failure),
}

impl Accuracy {
    /// The number used in the reward; `None` when there is no verdict.
    pub fn value(self) -> Option<f64> {
        match self {
            Accuracy::Correct => Some(1.0),
            Accuracy::Wrong | Accuracy::NotAttempted => Some(0.0),
            Accuracy::Unparsed => Some(-0.5),
            Accuracy::Invalid(_) => None,
        }
    }
}

/// Which rule of TRACE gave the bonus; a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BonusBranch {
    /// Correct, within the reference.
    Good,
    /// Correct, beyond the reference.
    Bad,
    /// Correct without a search, whatever the rounds: no efficiency credit.
    Guess,
    /// Wrong, with a number of rounds far from the reference.
    WrongOutside,
    /// Wrong, with a plausible number of rounds.
    WrongInside,
    /// Not judged for efficiency: no reference yet, unparsed, invalid, or TRACE is off.
    None,
}

impl BonusBranch {
    /// The label used in metrics and on the wire.
    pub fn label(self) -> &'static str {
        match self {
            BonusBranch::Good => "good",
            BonusBranch::Bad => "bad",
            BonusBranch::Guess => "guess",
            BonusBranch::WrongOutside => "wrong_outside",
            BonusBranch::WrongInside => "wrong_inside",
            BonusBranch::None => "none",
        }
    }
}

/// Where a scored rollout goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// A success: the reward alone trains it.
    Reinforce,
    /// The teacher's log-probs shape it as well: a failure of the policy, unless a reward service was told otherwise.
    Distill,
    /// No verdict: masked.
    Skip,
}

/// Score of one rollout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The verdict.
    pub accuracy: Accuracy,
    /// Efficiency bonus, -0.10..=0.20.
    pub bonus: f64,
    /// Which rule gave it.
    pub branch: BonusBranch,
    /// Accuracy plus bonus; -0.5 when unparsed; 0 when there is no verdict (then `route` is `Skip`).
    pub reward: f64,
    /// Where it goes next.
    pub route: Route,
}
