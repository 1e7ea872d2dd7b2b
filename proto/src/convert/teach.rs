//! Questions to the teacher and its answers.
//!
//! In: questions and answers. Out: their messages, and back; answers checked against the sequences that were asked about.

use hypereyes_domain::{Answer, Question, ScoreSequence, TeacherVersion};

use super::{Invalid, at_most, each, ids, packed, present};
use crate::limits::{LEAST_TAUGHT, MAX_GROUP_SIZE, MAX_PROMPT_TOKENS, MAX_RESPONSE_TOKENS, MAX_TOP};
use crate::v1;

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

impl From<Question> for v1::ScoreTokensRequest {
    fn from(question: Question) -> Self {
        Self {
            group_id: question.group.as_str().to_owned(),
            sequences: question.sequences.into_iter().map(Into::into).collect(),
            teacher_id: question.teacher.map(|id| id.as_str().to_owned()),
            epoch: question.revision,
            temperature: Some(question.temperature),
            top_k: question.top as u32,
        }
    }
}

impl TryFrom<v1::ScoreTokensRequest> for Question {
    type Error = Invalid;

    fn try_from(request: v1::ScoreTokensRequest) -> Result<Self, Invalid> {
        let temperature = request.temperature.unwrap_or(1.0);
        if !(temperature > 0.0 && temperature <= 100.0) {
            return Err(Invalid::new("temperature", format!("is {temperature}; above 0 and up to 100 are taken")));
        }
        at_most("top_k", request.top_k as usize, MAX_TOP)?;
        Ok(Self {
            group: ids::group("group_id", request.group_id)?,
            sequences: each("sequences", request.sequences, MAX_GROUP_SIZE, ScoreSequence::try_from)?,
            teacher: request.teacher_id.map(|id| ids::teacher("teacher_id", id)).transpose()?,
            revision: request.epoch,
            temperature,
            top: request.top_k as usize,
        })
    }
}

impl From<(TeacherVersion, Vec<Answer>)> for v1::ScoreTokensReply {
    fn from((teacher, answers): (TeacherVersion, Vec<Answer>)) -> Self {
        let sequence = |answer: Answer| {
            let (top_ids, top_logprobs) = answer.top.into_iter().unzip();
            v1::SequenceLogprobs { logprobs: answer.logprobs, top_ids, top_logprobs }
        };
        Self { teacher_id: teacher.id.as_str().to_owned(), epoch: teacher.revision, sequences: answers.into_iter().map(sequence).collect() }
    }
}

/// A reply held against the sequences that were asked about: every log-prob is finite, at most 0 (within rounding) and, of the tokens
/// that were asked about, at least [`LEAST_TAUGHT`]; and as many came as were wanted.
///
/// # Errors
/// [`Invalid`] when an answer does not fit its sequence.
pub fn answered(asked: &[ScoreSequence], top: usize, reply: v1::ScoreTokensReply) -> Result<(TeacherVersion, Vec<Answer>), Invalid> {
    let teacher = TeacherVersion { id: ids::teacher("teacher_id", reply.teacher_id)?, revision: reply.epoch };
    if reply.sequences.len() != asked.len() {
        return Err(Invalid::new("sequences", format!("has {} answers to {} questions", reply.sequences.len(), asked.len())));
    }
    let check = |(index, (asked, answer)): (usize, (&ScoreSequence, v1::SequenceLogprobs))| {
        let invalid = |what: &str, reason: String| Invalid::new(format!("sequences[{index}].{what}"), reason);
        let wanted = asked.mask.iter().filter(|wanted| **wanted).count();
        if answer.logprobs.len() != wanted {
            return Err(invalid("logprobs", format!("has {} entries for {wanted} tokens asked about", answer.logprobs.len())));
        }
        if answer.top_ids.len() != wanted * top || answer.top_logprobs.len() != wanted * top {
            let (ids, logprobs) = (answer.top_ids.len(), answer.top_logprobs.len());
            return Err(invalid("top_ids", format!("has {ids} entries and {logprobs} log-probs for {top} at each of {wanted} tokens")));
        }
        let sound = |value: &f32| value.is_finite() && *value <= 1e-3;
        if let Some(at) = answer.logprobs.iter().chain(&answer.top_logprobs).position(|value| !sound(value)) {
            return Err(invalid("logprobs", format!("has something at place {at} that is no log-prob")));
        }
        // A learner takes no group with such a value: better no signal than no group.
        if let Some(at) = answer.logprobs.iter().position(|value| *value < LEAST_TAUGHT) {
            return Err(invalid("logprobs", format!("has something at place {at} that is below {LEAST_TAUGHT}")));
        }
        Ok(Answer { logprobs: answer.logprobs, top: answer.top_ids.into_iter().zip(answer.top_logprobs).collect() })
    };
    let answers = asked.iter().zip(reply.sequences).enumerate().map(check).collect::<Result<_, _>>()?;
    Ok((teacher, answers))
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::TeacherLogprobs;

    use super::*;
    use crate::convert::samples;

    #[test]
    fn questions_survive_the_wire() {
        let question = Question {
            teacher: Some("t".into()),
            revision: Some(4),
            top: 2,
            ..Question::new("t@1".into(), vec![ScoreSequence::from(&samples::trajectory())])
        };
        assert_eq!(Question::try_from(v1::ScoreTokensRequest::from(question.clone())), Ok(question.clone()));
        let hot = v1::ScoreTokensRequest { temperature: Some(0.0), ..question.clone().into() };
        assert_eq!(Question::try_from(hot).expect_err("no such temperature").what, "temperature");
        let wide = v1::ScoreTokensRequest { top_k: 65, ..question.into() };
        assert_eq!(Question::try_from(wide).expect_err("too many").what, "top_k");
    }

    #[test]
    fn answers_are_held_against_the_questions() {
        let rollout = samples::trajectory();
        let asked = [ScoreSequence::from(&rollout)];
        let own: Vec<f32> = rollout.mask.iter().zip(&rollout.logprobs).filter(|(wanted, _)| **wanted).map(|(_, value)| *value).collect();
        let version = TeacherVersion::new("t-1", 2);
        let reply = |logprobs: Vec<f32>| v1::ScoreTokensReply::from((version.clone(), vec![Answer { logprobs, top: vec![] }]));
        let (teacher, mut answers) = answered(&asked, 0, reply(own.clone())).expect("it fits");
        let spread = answers.remove(0).spread(&rollout.mask, teacher);
        assert_eq!(spread, TeacherLogprobs { teacher: version.clone(), logprobs: rollout.logprobs.clone(), top: vec![] });
        let mut positive = own.clone();
        positive[0] = 0.5;
        for bad in [vec![], positive, vec![f32::NEG_INFINITY; own.len()], vec![f32::MIN; own.len()]] {
            assert_eq!(answered(&asked, 0, reply(bad)).expect_err("it does not fit").what, "sequences[0].logprobs");
        }
        assert_eq!(answered(&asked, 1, reply(own)).expect_err("no likeliest tokens").what, "sequences[0].top_ids");
        assert_eq!(answered(&[], 0, reply(vec![])).expect_err("nobody asked").what, "sequences");
    }
}
