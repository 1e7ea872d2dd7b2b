//! One rollout's data: tokens as the engine sampled them, and the course that it took (spec section 1.6).

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

/// How a rollout went: all that its reward depends on. It is apart from the tokens because whoever scores has no use for them:
/// on the wire they are a hundred times as many bytes, and in memory they would lie between one course and the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Executed rounds in order.
    pub rounds: Vec<Round>,
    /// How it ended.
    pub ending: Ending,
    /// What the policy answered, trimmed; `None` without a closed `<answer>`.
    pub answer: Option<String>,
}

impl Course {
    /// The same without what was called: what it cost and what came of it.
    pub fn without_calls(&self) -> Self {
        let rounds = self.rounds.iter().map(|round| Round { call: None, ..*round }).collect();
        Self { rounds, ending: self.ending, answer: self.answer.clone() }
    }

    /// Number of tool rounds.
    #[inline]
    pub fn round_count(&self) -> u32 {
        u32::try_from(self.rounds.len()).unwrap_or(u32::MAX)
    }

    /// Searches over all rounds.
    #[inline]
    pub fn searches(&self) -> u32 {
        self.searched().0
    }

    /// Searches over all rounds, and whether every one of them failed for a reason outside the policy: such a rollout says nothing
    /// about the policy (spec section 6, recommendation).
    #[inline]
    pub fn searched(&self) -> (u32, bool) {
        // The first few are summed whether they are there or not: how many there are is what a processor guesses wrong.
        const FEW: usize = 6;
        static NONE: Round = Round { call: None, searches: 0, failed_searches: 0 };
        let both = |(searches, failed), round: &Round| (searches + round.searches, failed + round.failed_searches);
        let few = (0..FEW).fold((0, 0), |sums, at| both(sums, self.rounds.get(at).unwrap_or(&NONE)));
        let (searches, failed) = self.rounds.iter().skip(FEW).fold(few, both);
        (searches, failed > 0 && failed == searches)
    }
}

impl AsRef<Course> for Course {
    fn as_ref(&self) -> &Course {
        self
    }
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
    /// How it went. Written, its parts stand beside the tokens, so that a course can be read from where a trajectory was recorded.
    #[serde(flatten)]
    pub course: Course,
}

/// A rollout of which nothing but its course is known.
impl From<Course> for Trajectory {
    fn from(course: Course) -> Self {
        Self { prompt: vec![], response: vec![], mask: vec![], logprobs: vec![], versions: vec![], pictures: vec![], course }
    }
}

impl AsRef<Course> for Trajectory {
    fn as_ref(&self) -> &Course {
        &self.course
    }
}

impl Trajectory {
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
