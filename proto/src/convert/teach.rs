//! Questions to the teacher and its answers.
//!
//! In: rollouts to be scored under the teacher. Out: [`ScoreSequence`]s as messages, and back; answers checked against
//! the sequences that were asked about.

use hypereyes_domain::{PictureId, TeacherLogprobs, Trajectory};

use super::{Invalid, at_most, each, ids, packed, present};
use crate::limits::{MAX_GROUP_SIZE, MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS};
use crate::v1;

/// A sequence whose response tokens the teacher scores.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreSequence {
    /// Prompt token ids.
    pub prompt: Vec<u32>,
    /// Response token ids.
    pub response: Vec<u32>,
    /// One entry per response token: true where a log-prob is wanted.
    pub mask: Vec<bool>,
    /// Pictures in the order of their appearance in prompt and response.
    pub pictures: Vec<PictureId>,
}

impl From<&Trajectory> for ScoreSequence {
    fn from(rollout: &Trajectory) -> Self {
        Self {
            prompt: rollout.prompt.clone(),
            response: rollout.response.clone(),
            mask: rollout.mask.clone(),
            pictures: rollout.pictures.clone(),
        }
    }
}

impl From<ScoreSequence> for v1::TokenSequence {
    fn from(sequence: ScoreSequence) -> Self {
        Self {
            mask: Some(packed::pack(&sequence.mask)),
            prompt: sequence.prompt,
            response: sequence.response,
            pictures: ids::texts(sequence.pictures),
        }
    }
}

impl TryFrom<v1::TokenSequence> for ScoreSequence {
    type Error = Invalid;

    fn try_from(message: v1::TokenSequence) -> Result<Self, Invalid> {
        at_most("prompt", message.prompt.len(), MAX_PROMPT_TOKENS)?;
        at_most("response", message.response.len(), MAX_RESPONSE_TOKENS)?;
        Ok(Self {
            mask: packed::unpack("mask", present("mask", message.mask)?, message.response.len())?,
            prompt: message.prompt,
            response: message.response,
            pictures: ids::pictures("pictures", message.pictures)?,
        })
    }
}

/// The answers to `asked`, in order; every log-prob is finite, at most 0 (within rounding), and 0 where the mask is false.
///
/// # Errors
/// [`Invalid`] when an answer does not fit its sequence.
pub fn teacher_answers(asked: &[ScoreSequence], reply: v1::ScoreTokensReply) -> Result<Vec<TeacherLogprobs>, Invalid> {
    let teacher = ids::teacher("teacher_id", reply.teacher_id)?;
    if reply.sequences.len() != asked.len() {
        return Err(Invalid::new("sequences", format!("has {} answers to {} questions", reply.sequences.len(), asked.len())));
    }
    let answers = each("sequences", reply.sequences, MAX_GROUP_SIZE, Ok)?;
    let check = |(index, (asked, answer)): (usize, (&ScoreSequence, v1::SequenceLogprobs))| {
        let invalid = |reason: String| Invalid::new(format!("sequences[{index}].logprobs"), reason);
        if answer.logprobs.len() != asked.response.len() {
            return Err(invalid(format!("has {} entries for {} response tokens", answer.logprobs.len(), asked.response.len())));
        }
        let sound = |(&wanted, &value): (&bool, &f32)| if wanted { value.is_finite() && value <= 1e-3 } else { value == 0.0 };
        if let Some(at) = asked.mask.iter().zip(&answer.logprobs).position(|pair| !sound(pair)) {
            return Err(invalid(format!("has {} at position {at} (wanted: {})", answer.logprobs[at], asked.mask[at])));
        }
        Ok(TeacherLogprobs { teacher: teacher.clone(), logprobs: answer.logprobs })
    };
    asked.iter().zip(answers).enumerate().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::samples;

    #[test]
    fn sequences_survive_the_wire() {
        let sequence = ScoreSequence::from(&samples::trajectory());
        assert_eq!(ScoreSequence::try_from(v1::TokenSequence::from(sequence.clone())), Ok(sequence));
    }

    #[test]
    fn answers_are_held_against_the_questions() {
        let rollout = samples::trajectory();
        let asked = [ScoreSequence::from(&rollout)];
        let reply =
            |logprobs: Vec<f32>| v1::ScoreTokensReply { teacher_id: "t-1".into(), sequences: vec![v1::SequenceLogprobs { logprobs }] };
        let answers = teacher_answers(&asked, reply(rollout.logprobs.clone())).expect("it fits");
        assert_eq!(answers, [TeacherLogprobs { teacher: "t-1".into(), logprobs: rollout.logprobs.clone() }]);
        let mut positive = rollout.logprobs.clone();
        positive[0] = 0.5;
        let unmasked = vec![-0.1; rollout.logprobs.len()];
        for bad in [vec![], positive, unmasked, vec![f32::NEG_INFINITY; rollout.logprobs.len()]] {
            assert_eq!(teacher_answers(&asked, reply(bad)).expect_err("it does not fit").what, "sequences[0].logprobs");
        }
        assert_eq!(teacher_answers(&[], reply(vec![])).expect_err("nobody asked").what, "sequences");
    }
}
