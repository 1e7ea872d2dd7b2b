//! Rollouts as the trainer reads them. In: taught groups and their pictures. Out: token sequences for the model, and what the
//! objective needs of each before any pass; a pass then makes it one of the objective's sequences.

use std::collections::HashMap;
use std::sync::Arc;

use hypereyes_domain::{DistilledGroup, PictureId, Route, TeacherLogprobs};
use hypereyes_objective::{Credit, Sequence};
use hypereyes_pictures::Patches;
use hypereyes_policy::Error;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::score::{self, Sample};

/// Pictures of a batch as patches.
pub type Pictures = HashMap<PictureId, Arc<Patches>>;

/// Whether the model can read a group.
///
/// # Errors
/// [`Error::Input`] that says which token or picture it cannot.
pub fn check(config: &ModelConfig, group: &DistilledGroup, pictures: &Pictures) -> Result<(), Error> {
    let (samples, _) = lay_out(std::slice::from_ref(group), pictures)?;
    let too_early = samples.iter().find(|sample| sample.asked.first() == Some(&0));
    if too_early.is_some() {
        return Err(Error::Input(format!("group {}: the first token of all has no log-prob", group.scored.group.id)));
    }
    score::lay_out(config, &samples).map(|_| ())
}

/// What the objective needs of a rollout and is known before any pass. Its lists have a value per sampled token.
pub(crate) struct Prepared<'a> {
    /// Number of its group in the batch.
    pub(crate) group: u64,
    /// `None` where there is no verdict: it trains nothing.
    pub(crate) reward: Option<f64>,
    /// Log-probs that the sampler recorded.
    sampled: Vec<f64>,
    /// Log-probs of the teacher, and the answer that they are from.
    teacher: Option<Vec<f64>>,
    pub(crate) lesson: Option<&'a TeacherLogprobs>,
    /// Whether the teacher is to shape it.
    distill: bool,
}

impl Prepared<'_> {
    pub(crate) fn trained_tokens(&self) -> usize {
        if self.reward.is_some() { self.sampled.len() } else { 0 }
    }

    /// With what a pass has found, and its advantage within its group.
    pub(crate) fn evaluated(&self, advantage: f64, new: Vec<f64>, old: Vec<f64>) -> Sequence {
        Sequence {
            group: self.group,
            credit: Credit::Advantage(advantage),
            valid: self.reward.is_some(),
            mask: vec![true; self.sampled.len()],
            new,
            old,
            rollout: self.sampled.clone(),
            teacher: self.teacher.clone(),
            distill: self.distill,
        }
    }
}

/// Token sequences for the trainer and, beside them, what the objective needs; only sampled tokens are listed.
pub(crate) fn lay_out<'a>(groups: &'a [DistilledGroup], pictures: &Pictures) -> Result<(Vec<Sample>, Vec<Prepared<'a>>), Error> {
    let (mut samples, mut prepared) = (vec![], vec![]);
    for (number, group) in groups.iter().enumerate() {
        let scored = &group.scored;
        for ((rollout, score), teacher) in scored.group.rollouts.iter().zip(&scored.scores).zip(&group.teacher) {
            let start = rollout.prompt.len();
            let at: Vec<usize> = rollout.mask.iter().enumerate().filter(|(_, sampled)| **sampled).map(|(at, _)| at).collect();
            let pick = |list: &[f32]| -> Vec<f64> { at.iter().map(|at| f64::from(list[*at])).collect() };
            let seen = rollout.pictures.iter().map(|id| pictures.get(id).cloned().ok_or(id)).collect::<Result<Vec<_>, _>>();
            samples.push(Sample {
                tokens: rollout.prompt.iter().chain(&rollout.response).copied().collect(),
                pictures: seen.map_err(|id| Error::Input(format!("group {}: picture {id} is not here", scored.group.id)))?,
                asked: at.iter().map(|at| start + at).collect(),
                trunk: 0,
            });
            prepared.push(Prepared {
                group: number as u64,
                reward: (score.route != Route::Skip).then_some(score.reward),
                sampled: pick(&rollout.logprobs),
                teacher: teacher.as_ref().map(|teacher| pick(&teacher.logprobs)),
                lesson: teacher.as_ref(),
                distill: score.route == Route::Distill,
            });
        }
    }
    Ok((samples, prepared))
}
