//! Groups that would teach nothing, and how many of them a step may pass over. In: a finished group, the objective. Out: whether
//! training it could move any weight. It decides nothing else: the intake drops such groups and leases other tasks instead
//! (the dynamic sampling of DAPO, arXiv 2503.14476).

use hypereyes_domain::{DistilledGroup, Route};
use hypereyes_objective::{Options, group_advantages};

/// Which groups are passed over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Skips {
    /// Groups that one step passes over at most; what teaches nothing beyond that is trained with the rest.
    pub most: usize,
    /// What groups are trained with.
    pub objective: Options,
}

impl Skips {
    /// Whether every gradient of a group would be 0: its rewards have no spread (they are all equal, or at most one rollout was
    /// judged), and no rollout is shaped by a teacher.
    pub fn teaches_nothing(&self, group: &DistilledGroup) -> bool {
        let scores = &group.scored.scores;
        let shaped = |(score, teacher): (&hypereyes_domain::Score, &Option<_>)| score.route == Route::Distill && teacher.is_some();
        if self.objective.opd_coef != 0.0 && scores.iter().zip(&group.teacher).any(shaped) {
            return false;
        }
        if self.objective.opd_only {
            return true;
        }
        let rewards: Vec<Option<f64>> = scores.iter().map(|score| (score.route != Route::Skip).then_some(score.reward)).collect();
        // A group that cannot be compared at all is refused where it is trained.
        group_advantages(&vec![0; rewards.len()], &rewards, self.objective.normalisation)
            .is_ok_and(|compared| compared.zero_variance_groups + compared.small_groups > 0)
    }
}
