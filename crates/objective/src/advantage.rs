//! How much better than its siblings a rollout is. In: rewards and group ids. Out: one advantage per rollout, and what
//! became of the groups. It does not know tokens.
//!
//! A reward at or below -99, a missing one or a NaN is no verdict (docs/spec.md#normalisation): it is left out of its group's mean
//! and deviation and its advantage is 0. A group with one verdict or none compares nothing: all its advantages are 0.
//! Groups are told apart by id and never by position, so a batch of odd size cannot mix prompts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ObjectiveError;
use crate::saturate::credit;

/// Rewards at or below this are no verdict.
pub const INVALID_REWARD: f64 = -99.0;

/// Added to the standard deviation.
pub const EPSILON: f64 = 1e-6;

/// What a reward is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalisation {
    /// GRPO: `(r - mean) / (std + 1e-6)`, std with n-1.
    #[default]
    Std,
    /// Dr. GRPO: `r - mean`; easy and hard prompts weigh by how much their rewards differ.
    Mean,
    /// RLOO: `r - mean of the others`, which is `n/(n-1) * (r - mean)`; an unbiased baseline.
    LeaveOneOut,
}

/// Advantages of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Advantages {
    /// One per reward, 0 where there is no verdict.
    pub values: Vec<f64>,
    /// Whether the reward was a verdict.
    pub valid: Vec<bool>,
    /// Distinct group ids.
    pub groups: usize,
    /// Groups of two or more equal rewards: they teach nothing by reward.
    pub zero_variance_groups: usize,
    /// Groups with one verdict or none.
    pub small_groups: usize,
}

/// Whether a raw reward is a verdict.
pub fn is_valid_reward(reward: Option<f64>) -> bool {
    reward.is_some_and(|reward| reward.is_finite() && reward > INVALID_REWARD)
}

/// Advantages of `rewards[i]` within the group `groups[i]`; fails only if the two lists differ in length.
pub fn group_advantages(groups: &[u64], rewards: &[Option<f64>], normalisation: Normalisation) -> Result<Advantages, ObjectiveError> {
    if groups.len() != rewards.len() {
        return Err(ObjectiveError::Groups { rewards: rewards.len(), groups: groups.len() });
    }
    let mut members: BTreeMap<u64, Vec<(usize, f64)>> = BTreeMap::new();
    for (index, (&group, &reward)) in groups.iter().zip(rewards).enumerate() {
        let members = members.entry(group).or_default();
        members.extend(reward.filter(|_| is_valid_reward(reward)).map(|reward| (index, credit(reward))));
    }
    let mut advantages = Advantages {
        values: vec![0.0; rewards.len()],
        valid: rewards.iter().map(|reward| is_valid_reward(*reward)).collect(),
        groups: members.len(),
        ..Advantages::default()
    };
    for members in members.values() {
        match members.as_slice() {
            [] | [_] => advantages.small_groups += 1,
            // Rounding would leave a deviation of 1e-16 to divide by.
            [(_, first), rest @ ..] if rest.iter().all(|(_, reward)| reward == first) => advantages.zero_variance_groups += 1,
            members => {
                let centred = centre(members, normalisation);
                members.iter().zip(centred).for_each(|((index, _), value)| advantages.values[*index] = credit(value));
            }
        }
    }
    Ok(advantages)
}

/// Compares two or more rewards; one value per member in order.
fn centre(members: &[(usize, f64)], normalisation: Normalisation) -> Vec<f64> {
    let count = members.len() as f64;
    let mean = members.iter().map(|(_, reward)| reward).sum::<f64>() / count;
    let differences = members.iter().map(|(_, reward)| reward - mean);
    let scale = match normalisation {
        Normalisation::Std => {
            let variance = differences.clone().map(|difference| difference * difference).sum::<f64>() / (count - 1.0);
            1.0 / (variance.sqrt() + EPSILON)
        }
        Normalisation::Mean => 1.0,
        Normalisation::LeaveOneOut => count / (count - 1.0),
    };
    differences.map(|difference| difference * scale).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_group(rewards: &[Option<f64>], normalisation: Normalisation) -> Advantages {
        group_advantages(&vec![7; rewards.len()], rewards, normalisation).expect("equally long")
    }

    #[test]
    fn three_ways_to_compare_agree_with_their_formulas() {
        let rewards = [Some(1.0), Some(0.0), Some(0.0), Some(3.0)];
        let std = one_group(&rewards, Normalisation::Std).values;
        let deviation = 2.0_f64.sqrt() + 1e-6;
        for (got, want) in std.iter().zip([0.0, -1.0, -1.0, 2.0]) {
            assert!((got - want / deviation).abs() < 1e-12, "{got} {want}");
        }
        assert_eq!(one_group(&rewards, Normalisation::Mean).values, [0.0, -1.0, -1.0, 2.0]);
        let others = [1.0 - 1.0, 0.0 - 4.0 / 3.0, 0.0 - 4.0 / 3.0, 3.0 - 1.0 / 3.0];
        for (got, want) in one_group(&rewards, Normalisation::LeaveOneOut).values.iter().zip(others) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
    }

    #[test]
    fn missing_verdicts_do_not_move_their_siblings() {
        let alone = one_group(&[Some(1.0), Some(0.0)], Normalisation::Std);
        for invalid in [None, Some(-99.0), Some(-100.0), Some(f64::NAN), Some(f64::INFINITY)] {
            let with = one_group(&[Some(1.0), invalid, Some(0.0)], Normalisation::Std);
            assert_eq!(with.values, [alone.values[0], 0.0, alone.values[1]]);
            assert_eq!(with.valid, [true, false, true]);
        }
    }

    #[test]
    fn groups_without_a_comparison_are_zero_and_counted() {
        let advantages = group_advantages(
            &[1, 1, 2, 2, 3, 4, 4],
            &[Some(0.98), Some(0.98), Some(1.0), None, None, Some(1.0), Some(0.0)],
            Normalisation::Std,
        )
        .expect("equally long");
        assert_eq!(advantages.values[..5], [0.0; 5]);
        assert!(advantages.values[5] > 0.7);
        assert_eq!((advantages.groups, advantages.zero_variance_groups, advantages.small_groups), (4, 1, 2));
    }

    #[test]
    fn groups_are_told_apart_by_id_and_not_by_place() {
        let rewards = [Some(1.0), Some(5.0), Some(0.0), Some(9.0)];
        let mixed = group_advantages(&[1, 2, 1, 2], &rewards, Normalisation::Mean).expect("equally long");
        assert_eq!(mixed.values, [0.5, -2.0, -0.5, 2.0]);
        assert!(group_advantages(&[1], &rewards, Normalisation::Mean).is_err());
    }

    #[test]
    fn enormous_rewards_stay_finite() {
        for normalisation in [Normalisation::Std, Normalisation::Mean, Normalisation::LeaveOneOut] {
            let values = one_group(&[Some(f64::MAX), Some(f64::MAX), Some(0.0)], normalisation).values;
            assert!(values.iter().all(|value| value.is_finite()), "{values:?}");
        }
    }
}
