//! What a batch looks like before any training. In: its groups, the policy's version. Out: the numbers of a step that need no pass.

use hypereyes_domain::{Accuracy, DistilledGroup, PolicyVersion, Route};
use hypereyes_run::Step;
use hypereyes_scoring::cas;

/// What a batch looks like before any training.
pub(crate) fn describe(groups: &[DistilledGroup], version: PolicyVersion) -> Step {
    let rollouts: Vec<_> = groups.iter().flat_map(|group| group.scored.group.rollouts.iter().zip(&group.scored.scores)).collect();
    let n = rollouts.len().max(1) as f64;
    let mean = |of: &dyn Fn(&(&hypereyes_domain::Trajectory, &hypereyes_domain::Score)) -> f64| rollouts.iter().map(of).sum::<f64>() / n;
    let judged: Vec<_> = rollouts.iter().filter(|(_, score)| score.route != Route::Skip).collect();
    let of_judged = |value: f64| (!judged.is_empty()).then(|| value / judged.len() as f64);
    let right = judged.iter().filter(|(_, score)| score.accuracy == Accuracy::Correct).count();
    let references: Vec<_> = groups.iter().filter_map(|group| group.scored.reference).collect();
    let of_references = |sum: u64| (!references.is_empty()).then(|| sum as f64 / references.len() as f64);
    let lag: Vec<u64> = rollouts.iter().filter_map(|(rollout, _)| rollout.oldest_version()).map(|old| version.staleness_of(old)).collect();
    let accuracy = of_judged(right as f64);
    let (rounds, kilotokens) =
        (mean(&|(rollout, _)| f64::from(rollout.summary.round_count())), mean(&|(rollout, _)| rollout.tokens() as f64) / 1000.0);
    Step {
        reward: of_judged(judged.iter().map(|(_, score)| score.reward).sum()),
        accuracy,
        rounds: Some(rounds),
        searches: Some(mean(&|(rollout, _)| f64::from(rollout.summary.searches()))),
        kilotokens: Some(kilotokens),
        cas: accuracy.map(|accuracy| cas(accuracy, kilotokens, rounds)),
        reference_rounds: of_references(references.iter().map(|reference| u64::from(reference.rounds)).sum()),
        reference_searches: of_references(references.iter().map(|reference| u64::from(reference.searches)).sum()),
        staleness: Some(lag.iter().map(|lag| *lag as f64).sum::<f64>() / lag.len().max(1) as f64),
        staleness_max: Some(lag.iter().copied().max().unwrap_or(0)),
        tokens: Some(rollouts.iter().map(|(rollout, _)| rollout.tokens() as u64).sum()),
        ..Step::default()
    }
}
