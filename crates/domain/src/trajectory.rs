//! One rollout's data: tokens as the engine sampled them, and what happened between them (spec section 1.6).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Call, Failure, PictureId, PolicyVersion};

/// How an episode ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The policy gave an answer.
    Answered,
    /// A turn held neither an answer nor a call that could be read.
    NoAction,
    /// The turn limit was reached.
    TurnLimit,
    /// One turn ran to its token limit.
    TurnTruncated,
    /// The context was full.
    ContextFull,
    /// Not the policy's doing; the trajectory is masked.
    Failed(Failure),
}

impl Ending {
    /// The label used in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Ending::Answered => "answered",
            Ending::NoAction => "no_action",
            Ending::TurnLimit => "turn_limit",
            Ending::TurnTruncated => "turn_truncated",
            Ending::ContextFull => "context_full",
            Ending::Failed(failure) => failure.label(),
        }
    }
}

/// One executed tool round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// What was called; `None` when the call was executed as an error observation (unknown tool, bad arguments). In a place of its
    /// own: whoever adds up costs reads rounds and no calls.
    pub call: Option<Box<Call>>,
    /// Searches that ran (resolution D1); a crop that failed did not run.
    pub searches: u32,
    /// Searches that failed for a reason outside the policy.
    pub failed_searches: u32,
}

/// One rollout. Token ids, masks, log-probs and versions have one entry per *response* token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// Prompt token ids.
    pub prompt: Vec<u32>,
    /// Response token ids: A1 O1 A2 O2 ... Ak (agent turns with their end token, observations between).
    pub response: Vec<u32>,
    /// True where the policy sampled the token.
    pub mask: Vec<bool>,
    /// Log-prob of each sampled token under the sampling policy at the sampling temperature (before top-p); 0.0 where
    /// `mask` is false.
    pub logprobs: Vec<f32>,
    /// Policy version that sampled each token; on observation tokens, the version of the turn before.
    pub versions: Vec<PolicyVersion>,
    /// Pictures whose tokens appear in prompt and response, in order of appearance.
    pub pictures: Vec<PictureId>,
    /// Executed rounds in order.
    pub rounds: Vec<Round>,
    /// How it ended.
    pub ending: Ending,
    /// What the policy answered, trimmed; `None` without a closed `<answer>`.
    pub answer: Option<String>,
}

impl Trajectory {
    /// What a reward depends on, and nothing else: how it went and what it cost.
    pub fn without_tokens(rounds: Vec<Round>, ending: Ending, answer: Option<String>) -> Self {
        let (prompt, response, mask, logprobs, versions, pictures) = (vec![], vec![], vec![], vec![], vec![], vec![]);
        Self { prompt, response, mask, logprobs, versions, pictures, rounds, ending, answer }
    }

    /// Number of tool rounds.
    #[inline]
    pub fn round_count(&self) -> u32 {
        u32::try_from(self.rounds.len()).unwrap_or(u32::MAX)
    }

    /// Searches over all rounds.
    #[inline]
    pub fn searches(&self) -> u32 {
        self.rounds.iter().map(|round| round.searches).sum()
    }

    /// Prompt and response tokens.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.response.len()
    }

    /// Tokens that the policy sampled.
    pub fn sampled_tokens(&self) -> usize {
        self.mask.iter().filter(|sampled| **sampled).count()
    }

    /// The oldest version that sampled one of its tokens; staleness is bounded on it.
    pub fn oldest_version(&self) -> Option<PolicyVersion> {
        self.versions.iter().min().copied()
    }

    /// True when every search of the trajectory failed for a reason outside the policy: such a rollout says nothing
    /// about the policy (spec section 6, recommendation).
    #[inline]
    pub fn searches_all_failed(&self) -> bool {
        let failed = || self.rounds.iter().map(|round| round.failed_searches);
        failed().any(|failed| failed > 0) && failed().sum::<u32>() == self.searches()
    }

    /// Checks lengths and that unsampled tokens carry no log-prob.
    pub fn check(&self) -> Result<(), InvalidTrajectory> {
        let want = self.response.len();
        for (what, got) in [("mask", self.mask.len()), ("logprobs", self.logprobs.len()), ("versions", self.versions.len())] {
            if got != want {
                return Err(InvalidTrajectory::Length { what, got, want });
            }
        }
        for (at, (&sampled, &logprob)) in self.mask.iter().zip(&self.logprobs).enumerate() {
            let sound = if sampled { logprob.is_finite() && logprob <= 1e-3 } else { logprob == 0.0 };
            if !sound {
                return Err(InvalidTrajectory::Logprob { at, logprob, sampled });
            }
        }
        Ok(())
    }
}

/// What makes a trajectory unusable.
#[derive(Clone, Debug, PartialEq)]
pub enum InvalidTrajectory {
    /// A per-token list has the wrong length.
    Length {
        /// Which list.
        what: &'static str,
        /// Its length.
        got: usize,
        /// Response tokens.
        want: usize,
    },
    /// A log-prob that cannot be one.
    Logprob {
        /// Response position.
        at: usize,
        /// The value.
        logprob: f32,
        /// Whether the policy sampled that token.
        sampled: bool,
    },
}

impl fmt::Display for InvalidTrajectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { what, got, want } => write!(f, "{what} has {got} entries for {want} response tokens"),
            Self::Logprob { at, logprob, sampled } => {
                write!(f, "log-prob {logprob} at response position {at} (sampled: {sampled})")
            }
        }
    }
}

impl std::error::Error for InvalidTrajectory {}
