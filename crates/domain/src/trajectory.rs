//! One rollout's data: tokens as the engine sampled them, and the summary that it took (docs/spec.md#tokens).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Call, Failure, Findings, PictureId, PolicyVersion, text};

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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// What was called; `None` when the call was executed as an error observation (unknown tool, bad arguments). In a place of its
    /// own: whoever adds up costs reads rounds and no calls.
    pub call: Option<Box<Call>>,
    /// Searches that ran (docs/spec.md#d1); a crop that failed did not run.
    pub searches: u32,
    /// Searches that failed for a reason outside the policy; at most `searches`.
    pub failed_searches: u32,
    /// What everything that the call asked for found, in its order; of a refused call, what it was told. Local records have it; empty
    /// where it was not recorded, and where it came over the wire.
    #[serde(default, skip_serializing_if = "none_found")]
    pub found: Findings,
}

fn none_found(found: &Findings) -> bool {
    found.is_empty()
}

impl Round {
    /// So many searches, of which so many failed: what a reward needs to know.
    pub const fn counted(searches: u32, failed_searches: u32) -> Self {
        Self { call: None, searches, failed_searches, found: Findings::NONE }
    }
}

/// How a rollout went: all that its reward depends on. It is apart from the tokens because whoever scores has no use for them:
/// on the wire they are a hundred times as many bytes, and in memory they would lie between one summary and the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutSummary {
    /// Executed rounds in order.
    pub rounds: Vec<Round>,
    /// How it ended.
    pub ending: Ending,
    /// What the policy answered, trimmed; `None` without a closed `<answer>`. A number is read as its text.
    #[serde(default, deserialize_with = "text::optional")]
    pub answer: Option<String>,
}

impl RolloutSummary {
    /// The same without what was called and found: what it cost and what came of it.
    pub fn without_calls(&self) -> Self {
        let rounds = self.rounds.iter().map(|round| Round::counted(round.searches, round.failed_searches)).collect();
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
        self.spent().searches
    }

    /// What its rounds cost. Sums stop at the largest number there is; [`RolloutSummary::check`] refuses who would get there.
    #[inline]
    pub fn spent(&self) -> Spent {
        // The first few are summed whether they are there or not: how many there are is what a processor guesses wrong.
        const FEW: usize = 6;
        static NONE: Round = Round::counted(0, 0);
        let add = |sum: Spent, round: &Round| Spent {
            searched: sum.searched + u32::from(round.searches != 0),
            searches: sum.searches.saturating_add(round.searches),
            failed: sum.failed.saturating_add(round.failed_searches),
            ..sum
        };
        let none = Spent { rounds: self.round_count(), ..Spent::default() };
        let few = (0..FEW).fold(none, |sum, at| add(sum, self.rounds.get(at).unwrap_or(&NONE)));
        self.rounds.iter().skip(FEW).fold(few, add)
    }

    /// Refuses counts that contradict each other: more searches failed than ran, other searches ran than the call asks for, more than
    /// can be counted, an answer of an episode that ended without one, or the reverse.
    ///
    /// # Errors
    /// [`InvalidSummary`], which names the field.
    pub fn check(&self) -> Result<(), InvalidSummary> {
        let invalid = |what: String, reason: String| Err(InvalidSummary { what, reason });
        let mut sum = 0u32;
        for (at, round) in self.rounds.iter().enumerate() {
            let Round { call, searches, failed_searches, .. } = round;
            if failed_searches > searches {
                return invalid(format!("rounds[{at}].failed_searches"), format!("is {failed_searches}, but {searches} searches ran"));
            }
            if let Some(call) = call.as_deref().filter(|call| !call.fits(*searches)) {
                let asked = call.searches;
                return invalid(format!("rounds[{at}].searches"), format!("is {searches}, but its call stands for {asked}"));
            }
            match sum.checked_add(*searches) {
                Some(more) => sum = more,
                None => return invalid("rounds".into(), "have more searches together than can be counted".into()),
            }
        }
        match (self.ending, &self.answer) {
            (Ending::Answered, None) => invalid("answer".into(), "is missing, but the ending is answered".into()),
            (Ending::NoAction | Ending::TurnLimit, Some(_)) => {
                invalid("answer".into(), format!("is there, but the ending is {}", self.ending.label()))
            }
            _ => Ok(()),
        }
    }
}

/// What the rounds of a summary cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Executed rounds.
    pub rounds: u32,
    /// Rounds in which at least one search ran.
    pub searched: u32,
    /// Searches over all rounds.
    pub searches: u32,
    /// Searches that failed for a reason outside the policy.
    pub failed: u32,
}

impl Spent {
    /// Whether every search failed for a reason outside the policy: such a rollout says nothing about the policy
    /// (docs/spec.md#search-services).
    #[inline]
    pub fn all_failed(self) -> bool {
        self.failed > 0 && self.failed == self.searches
    }
}

/// A summary whose parts contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSummary {
    /// Which field, such as `rounds[2].failed_searches`.
    pub what: String,
    /// What is wrong with it: a sentence of which the field is the subject.
    pub reason: String,
}

impl fmt::Display for InvalidSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.reason)
    }
}

impl std::error::Error for InvalidSummary {}

impl AsRef<RolloutSummary> for RolloutSummary {
    fn as_ref(&self) -> &RolloutSummary {
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
    /// How it went. Written, its parts stand beside the tokens, so that a summary can be read from where a trajectory was recorded.
    #[serde(flatten)]
    pub summary: RolloutSummary,
    /// Of a policy that speaks text and whose tokens nobody knows: what it said. The lists of tokens are then empty. In local records
    /// only: such a rollout is measured and never trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoken: Option<Box<Spoken>>,
}

/// What a policy said that speaks text, and the tokens that its server counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken {
    /// Its turns in order.
    pub turns: Vec<String>,
    /// Tokens of the whole episode, each counted once: prompt, turns with their thoughts, observations.
    pub tokens: u64,
    /// Prompt tokens over all requests, as a server bills them: every turn sends all before it again.
    pub prompt_tokens: u64,
    /// Sampled tokens over all requests.
    pub completion_tokens: u64,
    /// Of those, thoughts that the server says that it had and does not get again: prompts are shorter by them.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

impl Spoken {
    /// Counts a request of `prompt` tokens that was answered with `completion` tokens, of which `reasoning` are not sent again.
    pub fn count(&mut self, prompt: u64, completion: u64, reasoning: u64) {
        // Where the server does not tell thoughts apart, a prompt that became shorter shows that some were left out.
        self.tokens = self.tokens.max(prompt.saturating_add(self.reasoning_tokens)).saturating_add(completion);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(reasoning);
        self.prompt_tokens = self.prompt_tokens.saturating_add(prompt);
        self.completion_tokens = self.completion_tokens.saturating_add(completion);
    }
}

/// A rollout of which nothing but its summary is known.
impl From<RolloutSummary> for Trajectory {
    fn from(summary: RolloutSummary) -> Self {
        Self { prompt: vec![], response: vec![], mask: vec![], logprobs: vec![], versions: vec![], pictures: vec![], summary, spoken: None }
    }
}

impl AsRef<RolloutSummary> for Trajectory {
    fn as_ref(&self) -> &RolloutSummary {
        &self.summary
    }
}

impl Trajectory {
    /// Prompt and response tokens.
    pub fn tokens(&self) -> usize {
        match &self.spoken {
            Some(spoken) => usize::try_from(spoken.tokens).unwrap_or(usize::MAX),
            None => self.prompt.len() + self.response.len(),
        }
    }

    /// Tokens that the policy sampled and that are known.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(searches: &[(u32, u32)]) -> RolloutSummary {
        let rounds = searches.iter().map(|&(searches, failed_searches)| Round::counted(searches, failed_searches)).collect();
        RolloutSummary { rounds, ending: Ending::Answered, answer: Some("a".into()) }
    }

    #[test]
    fn rounds_that_searched_nothing_cost_a_round_and_are_told_apart() {
        let eight = summary(&[(1, 0), (0, 0), (2, 1), (0, 0), (1, 0), (0, 0), (3, 0), (0, 0)]);
        assert_eq!(eight.spent(), Spent { rounds: 8, searched: 4, searches: 7, failed: 1 });
        assert_eq!(summary(&[]).spent(), Spent::default());
        assert!(summary(&[(2, 2), (1, 1)]).spent().all_failed() && !summary(&[(0, 0)]).spent().all_failed());
    }

    #[test]
    fn tokens_of_a_dialogue_that_is_sent_again_and_again_count_once() {
        let mut spoken = Spoken::default();
        // The second request has the prompt, the turn of 20 tokens and an observation of 30; the third lacks a thought of 10.
        [(100, 20), (150, 20), (170, 5)].into_iter().for_each(|(prompt, completion)| spoken.count(prompt, completion, 0));
        assert_eq!((spoken.tokens, spoken.prompt_tokens, spoken.completion_tokens), (175, 420, 45));
        // A server that tells thoughts apart: 2,000 tokens of one are not in the next prompt, and count.
        let mut thoughtful = Spoken::default();
        [(500, 2050, 2000), (3550, 50, 0)]
            .into_iter()
            .for_each(|(prompt, completion, thought)| thoughtful.count(prompt, completion, thought));
        assert_eq!(thoughtful.tokens, 500 + 2050 + 3000 + 50);
        let silent = Trajectory::from(summary(&[]));
        let text = serde_json::to_string(&silent).expect("plain data");
        assert!(!text.contains("spoken") && silent.tokens() == 0, "{text}");
        let trajectory = Trajectory { spoken: Some(Box::new(spoken)), ..silent };
        assert_eq!((trajectory.tokens(), trajectory.sampled_tokens(), trajectory.check()), (175, 0, Ok(())));
        let text = serde_json::to_string(&trajectory).expect("plain data");
        assert_eq!(serde_json::from_str::<Trajectory>(&text).expect("reads back"), trajectory);
    }

    #[test]
    fn counts_that_contradict_each_other_are_refused_by_name() {
        let says = |summary: &RolloutSummary| summary.check().expect_err("it contradicts itself").to_string();
        assert_eq!(summary(&[(2, 1), (0, 0)]).check(), Ok(()));
        assert_eq!(says(&summary(&[(1, 0), (1, 2)])), "rounds[1].failed_searches is 2, but 1 searches ran");
        let wrapping = summary(&[(u32::MAX, 0), (1, 0)]);
        assert_eq!(says(&wrapping), "rounds have more searches together than can be counted");
        assert_eq!(wrapping.searches(), u32::MAX, "nothing wraps");
        let called = |call: Call, searches| {
            let mut one = summary(&[(searches, 0)]);
            one.rounds[0].call = Some(Box::new(call));
            one.check().is_ok()
        };
        let queries = Call::text_search(&["a", "b"]);
        assert_eq!([0, 1, 2, 3].map(|searches| called(queries.clone(), searches)), [false, false, true, false]);
        let areas = Call::image_search("img_0", &[crate::Area::WHOLE; 2]);
        assert_eq!([0, 1, 2, 3].map(|searches| called(areas.clone(), searches)), [true, true, true, false]);
        let ended =
            |ending, answer: Option<&str>| RolloutSummary { ending, answer: answer.map(Into::into), ..summary(&[]) }.check().is_ok();
        assert!(!ended(Ending::Answered, None) && ended(Ending::Answered, Some("")));
        assert!(!ended(Ending::NoAction, Some("a")) && !ended(Ending::TurnLimit, Some("a")) && ended(Ending::TurnLimit, None));
        assert!(ended(Ending::TurnTruncated, Some("a")) && ended(Ending::ContextFull, Some("a")), "an answer closed before the cut stands");
    }
}
