//! A finished group, as small as one can be.

use hypereyes_domain::{
    Accuracy, BonusBranch, DistilledGroup, Ending, PolicyVersion, RolloutGroup, RolloutSummary, Route, Score, ScoredGroup, TeacherLogprobs,
    TeacherVersion, Trajectory,
};
use hypereyes_learner::intake::Grant;

/// One rollout of one token, sampled by `version`, wrong and without a teacher's answer.
pub fn group(lease: &Grant, actor: &str, version: u64) -> DistilledGroup {
    let score = Score { accuracy: Accuracy::Unparsed, bonus: 0.0, branch: BonusBranch::None, reward: -0.5, route: Route::Distill };
    made(lease, actor, vec![rollout(version)], vec![score], vec![None])
}

/// A rollout of one token per reward; with `taught` a teacher has answered for the first.
pub fn rewarded(lease: &Grant, actor: &str, version: u64, rewards: &[f64], taught: bool) -> DistilledGroup {
    let score = |(at, reward): (usize, &f64)| {
        let (accuracy, route) = if taught && at == 0 { (Accuracy::Wrong, Route::Distill) } else { (Accuracy::Correct, Route::Reinforce) };
        Score { accuracy, bonus: 0.0, branch: BonusBranch::None, reward: *reward, route }
    };
    let answer = || TeacherLogprobs { teacher: TeacherVersion::new("t", 1), logprobs: vec![-0.1], top: vec![] };
    let teacher = (0..rewards.len()).map(|at| (taught && at == 0).then(answer)).collect();
    let rollouts = rewards.iter().map(|_| rollout(version)).collect();
    made(lease, actor, rollouts, rewards.iter().enumerate().map(score).collect(), teacher)
}

fn rollout(version: u64) -> Trajectory {
    Trajectory {
        prompt: vec![1],
        response: vec![2],
        mask: vec![true],
        logprobs: vec![-0.5],
        versions: vec![PolicyVersion(version)],
        pictures: vec![],
        summary: RolloutSummary { rounds: vec![], ending: Ending::NoAction, answer: None },
        spoken: None,
    }
}

fn made(
    lease: &Grant,
    actor: &str,
    rollouts: Vec<Trajectory>,
    scores: Vec<Score>,
    teacher: Vec<Option<TeacherLogprobs>>,
) -> DistilledGroup {
    let group = RolloutGroup { id: lease.group.clone(), task: lease.task.clone(), actor: actor.into(), rollouts };
    DistilledGroup::new(ScoredGroup::new(group, scores, None, 0).unwrap(), teacher).unwrap()
}
