//! One rollout.
//!
//! In: a trajectory as the engine sampled it, or its summary alone. Out: its message, and back. Token ids are not checked against a vocabulary,
//! which is not known here.

use hypereyes_domain::{Ending, Failure, RolloutSummary, Round, Trajectory};

use super::{Invalid, at_most, each, ids, packed, present};
use crate::limits::{MAX_ANSWER_BYTES, MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, MAX_ROUNDS};
use crate::v1;

impl From<Trajectory> for v1::Trajectory {
    fn from(rollout: Trajectory) -> Self {
        let (ending, failure) = ending_kind(rollout.summary.ending);
        Self {
            mask: Some(packed::pack(&rollout.mask)),
            versions: packed::runs(&rollout.versions),
            prompt: rollout.prompt,
            response: rollout.response,
            logprobs: rollout.logprobs,
            pictures: ids::texts(rollout.pictures),
            rounds: rollout.summary.rounds.into_iter().map(Into::into).collect(),
            ending: ending.into(),
            failure: failure.into(),
            answer: rollout.summary.answer,
        }
    }
}

impl TryFrom<v1::Trajectory> for Trajectory {
    type Error = Invalid;

    fn try_from(message: v1::Trajectory) -> Result<Self, Invalid> {
        at_most("prompt", message.prompt.len(), MAX_PROMPT_TOKENS)?;
        at_most("response", message.response.len(), MAX_RESPONSE_TOKENS)?;
        at_most("answer", message.answer.as_ref().map_or(0, String::len), MAX_ANSWER_BYTES)?;
        let tokens = message.response.len();
        let summary = RolloutSummary {
            ending: ending(message.ending(), message.failure())?,
            rounds: each("rounds", message.rounds, MAX_ROUNDS, Round::try_from)?,
            answer: message.answer,
        };
        summary.check().map_err(|error| Invalid::new(error.what, error.reason))?;
        let rollout = Self {
            mask: packed::unpack("mask", present("mask", message.mask)?, tokens)?,
            versions: packed::unroll("versions", &message.versions, tokens)?,
            prompt: message.prompt,
            response: message.response,
            logprobs: message.logprobs,
            pictures: ids::pictures("pictures", message.pictures)?,
            summary,
            spoken: None,
        };
        rollout.check().map_err(|error| Invalid::new("tokens", format!("do not fit together: {error}")))?;
        Ok(rollout)
    }
}

impl From<RolloutSummary> for v1::Trajectory {
    fn from(summary: RolloutSummary) -> Self {
        Trajectory::from(summary).into()
    }
}

/// Tokens that come along are checked like those of a trajectory, and left behind.
impl TryFrom<v1::Trajectory> for RolloutSummary {
    type Error = Invalid;

    fn try_from(message: v1::Trajectory) -> Result<Self, Invalid> {
        Ok(Trajectory::try_from(message)?.summary)
    }
}

fn ending_kind(ending: Ending) -> (v1::EndingKind, v1::FailureKind) {
    let kind = match ending {
        Ending::Answered => v1::EndingKind::Answered,
        Ending::NoAction => v1::EndingKind::NoAction,
        Ending::TurnLimit => v1::EndingKind::TurnLimit,
        Ending::TurnTruncated => v1::EndingKind::TurnTruncated,
        Ending::ContextFull => v1::EndingKind::ContextFull,
        Ending::Failed(failure) => return (v1::EndingKind::Failed, failure.into()),
    };
    (kind, v1::FailureKind::Unspecified)
}

fn ending(kind: v1::EndingKind, failure: v1::FailureKind) -> Result<Ending, Invalid> {
    match kind {
        v1::EndingKind::Answered => Ok(Ending::Answered),
        v1::EndingKind::NoAction => Ok(Ending::NoAction),
        v1::EndingKind::TurnLimit => Ok(Ending::TurnLimit),
        v1::EndingKind::TurnTruncated => Ok(Ending::TurnTruncated),
        v1::EndingKind::ContextFull => Ok(Ending::ContextFull),
        v1::EndingKind::Failed => Failure::try_from(failure).map(Ending::Failed),
        v1::EndingKind::Unspecified => Err(Invalid::new("ending", "is not said, or is of a kind not known here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::samples;

    #[test]
    fn trajectories_survive_the_wire_bit_by_bit() {
        let endings = [
            Ending::Answered,
            Ending::NoAction,
            Ending::TurnLimit,
            Ending::TurnTruncated,
            Ending::ContextFull,
            Ending::Failed(Failure::Tool),
            Ending::Failed(Failure::Cancelled),
        ];
        for ending in endings {
            let answer = samples::trajectory().summary.answer.filter(|_| !matches!(ending, Ending::NoAction | Ending::TurnLimit));
            let summary = RolloutSummary { ending, answer, ..samples::trajectory().summary };
            let rollout = Trajectory { summary, ..samples::trajectory() };
            assert_eq!(Trajectory::try_from(v1::Trajectory::from(rollout.clone())), Ok(rollout));
        }
    }

    #[test]
    fn an_empty_answer_is_not_no_answer() {
        for (ending, answer) in [(Ending::NoAction, None), (Ending::Answered, Some(String::new()))] {
            let summary = RolloutSummary { ending, answer, ..samples::trajectory().summary };
            let rollout = Trajectory { summary, ..samples::trajectory() };
            assert_eq!(Trajectory::try_from(v1::Trajectory::from(rollout.clone())), Ok(rollout));
        }
    }

    #[test]
    fn a_course_travels_without_tokens_and_is_read_from_a_message_with_them() {
        let summary = samples::trajectory().summary;
        let alone = v1::Trajectory::from(summary.clone());
        assert!(alone.prompt.is_empty() && alone.response.is_empty() && alone.logprobs.is_empty());
        for message in [alone, samples::trajectory().into()] {
            assert_eq!(RolloutSummary::try_from(message).as_ref(), Ok(&summary));
        }
    }

    #[test]
    fn broken_trajectories_are_rejected_by_name() {
        let good = v1::Trajectory::from(samples::trajectory());
        let cases: [(&str, v1::Trajectory); 8] = [
            ("prompt", v1::Trajectory { prompt: vec![0; MAX_PROMPT_TOKENS + 1], ..good.clone() }),
            ("response", v1::Trajectory { response: vec![0; MAX_RESPONSE_TOKENS + 1], ..good.clone() }),
            ("mask", v1::Trajectory { mask: None, ..good.clone() }),
            ("mask", v1::Trajectory { response: vec![1, 2], ..good.clone() }),
            ("versions", v1::Trajectory { versions: vec![], ..good.clone() }),
            ("ending", v1::Trajectory { ending: 0, ..good.clone() }),
            ("failure", v1::Trajectory { ending: v1::EndingKind::Failed.into(), ..good.clone() }),
            ("tokens", v1::Trajectory { logprobs: vec![f32::NAN; good.logprobs.len()], ..good.clone() }),
        ];
        for (what, rollout) in cases {
            assert_eq!(Trajectory::try_from(rollout).expect_err(what).what, what);
        }
    }

    #[test]
    fn counts_that_contradict_each_other_are_rejected_by_name() {
        let good = v1::Trajectory::from(samples::trajectory());
        let round = |searches, failed_searches| v1::Round { call: None, searches, failed_searches };
        let called = |searches| v1::Round { searches, ..good.rounds[0].clone() };
        let cases = [
            ("rounds[1].failed_searches", v1::Trajectory { rounds: vec![round(1, 0), round(1, 2)], ..good.clone() }),
            ("rounds[0].searches", v1::Trajectory { rounds: vec![called(2)], ..good.clone() }),
            ("rounds[0].searches", v1::Trajectory { rounds: vec![round(u32::MAX, 0), round(1, 0)], ..good.clone() }),
            ("answer", v1::Trajectory { answer: None, ..good.clone() }),
            ("answer", v1::Trajectory { ending: v1::EndingKind::NoAction.into(), ..good.clone() }),
            ("answer", v1::Trajectory { ending: v1::EndingKind::TurnLimit.into(), ..good.clone() }),
        ];
        for (what, rollout) in cases {
            let error = RolloutSummary::try_from(rollout.clone()).expect_err(what).what;
            assert!(error == what || error.starts_with(what.split('.').next().expect("a field")), "{error} for {what}");
            assert!(Trajectory::try_from(rollout).is_err());
        }
    }

    #[test]
    fn log_probs_on_unsampled_tokens_are_rejected() {
        let mut message = v1::Trajectory::from(samples::trajectory());
        let unsampled = samples::trajectory().mask.iter().position(|sampled| !sampled).expect("the sample has observations");
        message.logprobs[unsampled] = -0.5;
        assert!(Trajectory::try_from(message).is_err());
    }
}
