//! The released group bonus (docs/spec.md#trace), missing references included (-1). In: reference and rollouts as plain numbers.
//! Out: one bonus per rollout.

use serde::{Deserialize, Serialize};

use crate::tally::Few;
use crate::trace::{TraceConfig, rank};

/// One rollout: accuracy, calls, searches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BonusRollout {
    /// -0.5 unparsed, at most 0 wrong, above 0 correct.
    pub acc_reward: f64,
    /// Tool calls (t).
    pub count: i64,
    /// Searches (s).
    pub total: i64,
}

/// A group and its reference; -1 in the reference means missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BonusInput {
    /// Reference calls.
    pub sft_tc: i64,
    /// Reference searches.
    pub sft_total_search: i64,
    /// The group.
    pub rollouts: Vec<BonusRollout>,
}

/// One bonus per rollout, with the released constants.
pub fn group_bonus(input: &BonusInput) -> Vec<f64> {
    let config = TraceConfig::default();
    let (calls, searches) = (input.sft_tc, input.sft_total_search);
    let outside = |count: i64| count < calls || count as f64 > (config.gamma * calls as f64).trunc();
    let (mut good, mut bad): (Few<_>, Few<_>) = (Few::new(), Few::new());
    let alone = |(at, rollout): (usize, &BonusRollout)| {
        if rollout.acc_reward > 0.0 && rollout.count != 0 {
            let set = if rollout.count <= calls && rollout.total <= searches { &mut good } else { &mut bad };
            set.push(((rollout.count, rollout.total), at));
        }
        let wrong = rollout.acc_reward > -0.5 && rollout.acc_reward <= 0.0;
        if wrong && outside(rollout.count) { config.wrong_penalty } else { 0.0 }
    };
    let mut given: Vec<f64> = input.rollouts.iter().enumerate().map(alone).collect();
    rank(&mut good, config.good, |at, bonus| given[at] = bonus);
    rank(&mut bad, config.bad, |at, bonus| given[at] = bonus);
    given
}
