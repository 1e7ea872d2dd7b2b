//! What a group must be for this run to train on it. In: a group that came over the wire and fits together in itself, and the sizes
//! of pictures. Out: nothing, or the sentence that says why it is refused. One that passes can be trained: every token is the
//! policy's, every picture has its places, every number is one that an honest actor can send. Pure: it knows no lease and no file.

use hypereyes_domain::{DistilledGroup, Ending, PictureId, TeacherLogprobs, Trajectory};
use hypereyes_pictures::Processor;
use hypereyes_policy::config::ModelConfig;
use hypereyes_proto::limits::{LEAST_TAUGHT, MAX_ROUNDS, MAX_SEARCHES_PER_CALL};

/// Least log-prob of a token that was sampled: nobody draws what has a chance of e^-100.
const LEAST_SAMPLED: f32 = -100.0;
/// Most above 0 that rounding makes of a log-prob.
const ABOVE_ZERO: f32 = 1e-3;
/// Slack of rewards, which are sums of decimals.
const SLACK: f64 = 1e-6;

/// What the run knows of its groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// Rollouts of a group.
    pub group_size: usize,
    /// Tokens of the policy.
    pub vocabulary: usize,
    /// The token that stands where a picture is; a policy never samples it.
    pub placeholder: u32,
    /// Longest rollout in tokens, prompt included.
    pub max_context: usize,
    /// Least and greatest reward.
    pub rewards: [f64; 2],
    /// How many tokens a picture has.
    pub processor: Processor,
}

impl Admission {
    /// For the groups of a run.
    pub fn new(config: &crate::Config, model: &ModelConfig, processor: Processor) -> Self {
        Self {
            group_size: config.group_size as usize,
            vocabulary: model.text.vocab_size,
            placeholder: model.image_token_id,
            max_context: config.max_context_tokens,
            rewards: config.reward_range,
            processor,
        }
    }

    /// Everything but pictures.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self, group: &DistilledGroup) -> Result<(), String> {
        group.check().map_err(|error| error.reason)?;
        let rollouts = &group.scored.group.rollouts;
        if rollouts.len() != self.group_size {
            return Err(format!("{} rollouts, but the lease asks for {}", rollouts.len(), self.group_size));
        }
        // What failed outside of the policy is masked whole, and a search engine's bad minute shall not be held against a task.
        let teaches = |rollout: &Trajectory| rollout.sampled_tokens() > 0 || matches!(rollout.summary.ending, Ending::Failed(_));
        if !rollouts.iter().any(teaches) {
            return Err("no rollout has a token that the policy sampled".into());
        }
        let [least, most] = self.rewards;
        for (at, score) in group.scored.scores.iter().enumerate() {
            if !(least - SLACK..=most + SLACK).contains(&score.reward) || !score.bonus.is_finite() {
                return Err(format!("rollout {at} has reward {}, outside of reward_range {least}..={most}", score.reward));
            }
        }
        if let Some(reference) = group.scored.reference
            && (reference.rounds as usize > MAX_ROUNDS || reference.searches as usize > MAX_ROUNDS * MAX_SEARCHES_PER_CALL)
        {
            return Err(format!("a reference of {} rounds and {} searches is none", reference.rounds, reference.searches));
        }
        for (at, (rollout, teacher)) in rollouts.iter().zip(&group.teacher).enumerate() {
            self.check_tokens(rollout).map_err(|reason| format!("rollout {at}: {reason}"))?;
            if let Some(teacher) = teacher {
                self.check_teacher(teacher).map_err(|reason| format!("rollout {at}: {reason}"))?;
            }
        }
        Ok(())
    }

    fn check_tokens(&self, rollout: &Trajectory) -> Result<(), String> {
        if rollout.prompt.is_empty() {
            return Err("no prompt comes before the first sampled token".into());
        }
        if rollout.tokens() > self.max_context {
            return Err(format!("{} tokens, but max_context_tokens is {}", rollout.tokens(), self.max_context));
        }
        let outside = |token: &u32| *token as usize >= self.vocabulary;
        if let Some((at, token)) = rollout.prompt.iter().chain(&rollout.response).enumerate().find(|(_, token)| outside(token)) {
            return Err(format!("token {token} at {at} is outside the vocabulary of {}", self.vocabulary));
        }
        for (at, token) in rollout.response.iter().enumerate() {
            if rollout.mask[at] && *token == self.placeholder {
                return Err(format!("the sampled token at response position {at} is a picture's placeholder"));
            }
            if rollout.mask[at] && !(LEAST_SAMPLED..=ABOVE_ZERO).contains(&rollout.logprobs[at]) {
                return Err(format!("log-prob {} at response position {at} is of no token that was sampled", rollout.logprobs[at]));
            }
        }
        if let Some(at) = rollout.versions.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(format!(
                "versions go back from {} to {} at response position {}",
                rollout.versions[at],
                rollout.versions[at + 1],
                at + 1
            ));
        }
        for (at, round) in rollout.summary.rounds.iter().enumerate() {
            if round.failed_searches > round.searches {
                return Err(format!("round {at} has {} failed of {} searches", round.failed_searches, round.searches));
            }
        }
        Ok(())
    }

    fn check_teacher(&self, teacher: &TeacherLogprobs) -> Result<(), String> {
        if let Some(at) = teacher.logprobs.iter().position(|value| !(LEAST_TAUGHT..=ABOVE_ZERO).contains(value)) {
            return Err(format!("the teacher's log-prob {} at response position {at} is none", teacher.logprobs[at]));
        }
        if let Some(token) = teacher.top.iter().find(|token| **token as usize >= self.vocabulary) {
            return Err(format!("the teacher's likeliest token {token} is outside the vocabulary of {}", self.vocabulary));
        }
        Ok(())
    }

    /// Whether every picture of every rollout stands where its placeholders are, as many as its size asks for, and no placeholder is
    /// without one.
    ///
    /// # Errors
    /// Why it is refused, or what `size_of` says.
    pub fn check_pictures<E: From<String>>(
        &self,
        group: &DistilledGroup,
        mut size_of: impl FnMut(&PictureId) -> Result<(u32, u32), E>,
    ) -> Result<(), E> {
        for (number, rollout) in group.scored.group.rollouts.iter().enumerate() {
            let refuse = |reason: String| E::from(format!("rollout {number}: {reason}"));
            let mut pictures = rollout.pictures.iter();
            // Places still to come of the picture under way.
            let mut open = 0;
            for (at, token) in rollout.prompt.iter().chain(&rollout.response).enumerate() {
                if *token != self.placeholder {
                    if open > 0 {
                        return Err(refuse(format!("the token at {at} cuts a picture's places short by {open}")));
                    }
                    continue;
                }
                if open == 0 {
                    let id = pictures.next().ok_or_else(|| refuse(format!("the placeholder at {at} has no picture")))?;
                    let (width, height) = size_of(id)?;
                    open = self.places(width, height);
                }
                open -= 1;
            }
            let left = pictures.count();
            if open > 0 || left > 0 {
                return Err(refuse(format!("{} places are missing and {left} pictures have none", open)));
            }
        }
        Ok(())
    }

    /// Tokens of a picture of this size; at least one.
    pub fn places(&self, width: u32, height: u32) -> usize {
        let (high, wide) = self.processor.smart_resize(height as usize, width as usize);
        self.processor.tokens((high / self.processor.patch, wide / self.processor.patch)).max(1)
    }
}
