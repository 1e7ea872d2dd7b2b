//! What is asked of a teacher, and what it answers.
//!
//! In: rollouts to be scored. Out: plain questions and answers. Which model answers, and where it computes, is not known here.

use crate::{GroupId, PictureId, TeacherId, TeacherLogprobs, TeacherVersion, Trajectory};

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

/// What somebody wants to know of a teacher.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The group that the sequences belong to; it keeps to one model.
    pub group: GroupId,
    /// The sequences, as many as a group may have rollouts.
    pub sequences: Vec<ScoreSequence>,
    /// The model that must answer, by name.
    pub teacher: Option<TeacherId>,
    /// The promotion that must answer.
    pub revision: Option<u64>,
    /// Logits are divided by it; above 0.
    pub temperature: f32,
    /// The likeliest tokens to name at each place; few.
    pub top: usize,
}

impl Question {
    /// What distillation asks: log-probs at temperature 1, of whichever model the group keeps to.
    pub fn new(group: GroupId, sequences: Vec<ScoreSequence>) -> Self {
        Self { group, sequences, teacher: None, revision: None, temperature: 1.0, top: 0 }
    }
}

/// A teacher's log-probs of one sequence, for those of its response tokens whose mask is true.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// \[S\] Log-probs.
    pub logprobs: Vec<f32>,
    /// \[S * top\] The likeliest tokens at each, the likeliest first, with their log-probs.
    pub top: Vec<(u32, f32)>,
}

impl Answer {
    /// The answer as a rollout carries it: one log-prob per response token.
    pub fn spread(self, mask: &[bool], teacher: TeacherVersion) -> TeacherLogprobs {
        let mut own = self.logprobs.into_iter();
        let logprobs = mask.iter().map(|wanted| if *wanted { own.next().unwrap_or(0.0) } else { 0.0 }).collect();
        TeacherLogprobs { teacher, logprobs, top: self.top.into_iter().map(|(id, _)| id).collect() }
    }
}
