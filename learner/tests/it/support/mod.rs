//! A finished group, as small as one can be.

use hypereyes_domain::{
    Accuracy, BonusBranch, Course, Ending, PolicyVersion, RolloutGroup, Route, Score, ScoredGroup, TaughtGroup, Trajectory,
};
use hypereyes_learner::intake::Grant;

/// One rollout of one token, sampled by `version`.
pub fn group(lease: &Grant, actor: &str, version: u64) -> TaughtGroup {
    let rollout = Trajectory {
        prompt: vec![1],
        response: vec![2],
        mask: vec![true],
        logprobs: vec![-0.5],
        versions: vec![PolicyVersion(version)],
        pictures: vec![],
        course: Course { rounds: vec![], ending: Ending::NoAction, answer: None },
    };
    let score = Score { accuracy: Accuracy::Unparsed, bonus: 0.0, branch: BonusBranch::None, reward: -0.5, route: Route::Distill };
    let group = RolloutGroup { id: lease.group.clone(), task: lease.task.clone(), actor: actor.into(), rollouts: vec![rollout] };
    TaughtGroup::new(ScoredGroup::new(group, vec![score], None, 0).unwrap(), vec![None]).unwrap()
}
