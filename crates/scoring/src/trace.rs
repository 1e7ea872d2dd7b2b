//! TRACE: what efficiency is worth within a group (docs/spec.md#trace, #d5, #d6). In: a reference and, per rollout,
//! accuracy and cost. Out: a bonus per rollout and the rule that gave it.
//!
//! Who searched nothing is a guess, however many rounds that took. A round without a search costs a round and is worth none: it
//! makes a success dearer, and brings no wrong answer into the band of plausible rounds. The released code knows neither rule.
//!
//! It does not know how accuracy was judged nor where the reference comes from.

use hypereyes_domain::{Accuracy, BonusBranch, Reference, Spent};
use serde::{Deserialize, Serialize};
use smallvec::smallvec;
use thiserror::Error;

use crate::tally::Few;

/// The constants of TRACE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Off: every bonus is 0 and the reward is the accuracy alone. Default true.
    pub enabled: bool,
    /// Bonus `[least, most]` of a success within the reference. Default `[0.05, 0.20]` (docs/spec.md#trace).
    pub good: [f64; 2],
    /// Bonus `[least, most]` of a success beyond the reference. Default `[-0.10, -0.02]` (docs/spec.md#trace).
    pub bad: [f64; 2],
    /// Bonus of a wrong answer that searched in fewer than `t` rounds or took more than `trunc(gamma * t)`. Default -0.10
    /// (docs/spec.md#trace).
    pub wrong_penalty: f64,
    /// Width of the band of plausible rounds of a wrong answer, at least 1. Default 1.5 (docs/spec.md#trace).
    pub gamma: f64,
    /// Bonus of a wrong answer inside the band. Default 0 as in the released code; the paper's figure suggests a small
    /// encouragement such as 0.05 (docs/spec.md#d6).
    pub wrong_in_band_bonus: f64,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self { enabled: true, good: [0.05, 0.20], bad: [-0.10, -0.02], wrong_penalty: -0.10, gamma: 1.5, wrong_in_band_bonus: 0.0 }
    }
}

/// A TRACE configuration that would not reward what it means to.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("trace.{key} is {value}: {fix}")]
pub struct InvalidTrace {
    /// The key.
    pub key: &'static str,
    /// What it was set to.
    pub value: String,
    /// What would be right.
    pub fix: &'static str,
}

impl TraceConfig {
    /// Checks that numbers are finite, bands ordered and gamma at least 1.
    pub fn check(&self) -> Result<(), InvalidTrace> {
        for (key, band) in [("good", self.good), ("bad", self.bad)] {
            if !(band[0].is_finite() && band[1].is_finite() && band[0] <= band[1]) {
                return Err(InvalidTrace { key, value: format!("{band:?}"), fix: "give [least, most], both finite" });
            }
        }
        for (key, value) in [("wrong_penalty", self.wrong_penalty), ("wrong_in_band_bonus", self.wrong_in_band_bonus)] {
            if !value.is_finite() {
                return Err(InvalidTrace { key, value: value.to_string(), fix: "give a finite number" });
            }
        }
        if !(self.gamma.is_finite() && self.gamma >= 1.0) {
            return Err(InvalidTrace { key: "gamma", value: self.gamma.to_string(), fix: "give a number of at least 1" });
        }
        Ok(())
    }
}

/// One bonus per rollout, given as accuracy and cost. Without a reference, or with TRACE off, every bonus is 0 and every branch
/// `None` (docs/spec.md#d5).
pub fn bonuses(config: &TraceConfig, reference: Option<Reference>, rollouts: &[(Accuracy, Spent)]) -> Few<(f64, BonusBranch)> {
    let reference = match reference {
        Some(reference) if config.enabled => reference,
        _ => return smallvec![(0.0, BonusBranch::None); rollouts.len()],
    };
    // Siblings come in every kind and no order, so that a processor guesses every second jump wrong that depends on the kind: what
    // can be looked up is not decided, and who does not belong to a set is overwritten by who comes next.
    let most_plausible = (config.gamma * f64::from(reference.rounds)) as u32;
    let room = || -> Few<(u64, usize)> { smallvec![(0, 0); rollouts.len()] };
    let (mut good, mut bad) = (room(), room());
    let ((good, bad), (mut goods, mut bads)) = ((&mut good[..], &mut bad[..]), (0, 0));
    let mut given = Few::new();
    for (at, (accuracy, spent)) in rollouts.iter().enumerate() {
        // The rounds of who searched nothing are none.
        let something = u32::from(spent.searches != 0);
        let (rounds, searched, searches) = (spent.rounds * something, spent.searched * something, spent.searches);
        let within = (rounds <= reference.rounds) & (searches <= reference.searches);
        let outside = (searched < reference.rounds) | (rounds > most_plausible);
        let (branch, alone) = match accuracy {
            Accuracy::Correct => (RIGHT[usize::from(within) + 2 * usize::from(rounds == 0)], 0.0),
            Accuracy::Wrong | Accuracy::NotAttempted => {
                (WRONG[usize::from(outside)], [config.wrong_in_band_bonus, config.wrong_penalty][usize::from(outside)])
            }
            Accuracy::Unparsed | Accuracy::Invalid(_) => (BonusBranch::None, 0.0),
        };
        let member = (u64::from(rounds) << 32 | u64::from(searches), at);
        (good[goods], bad[bads]) = (member, member);
        goods += usize::from(branch == BonusBranch::Good);
        bads += usize::from(branch == BonusBranch::Bad);
        given.push((alone, branch));
    }
    rank(&mut good[..goods], config.good, |at, bonus| given[at].0 = bonus);
    rank(&mut bad[..bads], config.bad, |at, bonus| given[at].0 = bonus);
    given
}

/// Branches of a right answer: beyond the reference or within it, the same of a guess.
const RIGHT: [BonusBranch; 4] = [BonusBranch::Bad, BonusBranch::Good, BonusBranch::Guess, BonusBranch::Guess];
/// Branches of a wrong answer: with a plausible number of rounds or without.
const WRONG: [BonusBranch; 2] = [BonusBranch::WrongInside, BonusBranch::WrongOutside];

/// Gives the members of a set, (key, place), their bonus by dense rank: the cheapest gets the top of `[low, high]`, the
/// dearest the bottom, ties share; one distinct key gets the top. Rounded to 4 decimals (docs/spec.md#trace).
pub(crate) fn rank<K: Ord>(members: &mut [(K, usize)], [low, high]: [f64; 2], mut give: impl FnMut(usize, f64)) {
    members.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let distinct = || members.chunk_by(|left, right| left.0 == right.0);
    let count = distinct().count();
    for (rank, ties) in distinct().enumerate() {
        let bonus = if count == 1 { high } else { round4(high - (high - low) * rank as f64 / (count - 1) as f64) };
        ties.iter().for_each(|(_, at)| give(*at, bonus));
    }
}

/// The double nearest to `value` rounded to 4 decimals. Formatting rounds the exact binary value (half to even on exact
/// ties), which scaling by 10000 would not.
pub(crate) fn round4(value: f64) -> f64 {
    let scaled = value * 1e4;
    let nearest = (scaled + 0.5_f64.copysign(scaled)) as i64 as f64;
    // Scaling moves a value by far less than the distance that is kept from ties, so that away from them both ways round to the
    // same number, and a whole number below 2^53 divided by 10000 is the double that its decimal would parse to.
    if ((scaled - nearest).abs() - 0.5).abs() > 1e-6 && scaled.abs() < 1e15 {
        return (nearest / 1e4).copysign(value);
    }
    format!("{value:.4}").parse().expect("a formatted float parses")
}

#[cfg(test)]
mod tests {
    #[test]
    fn rounding_is_that_of_the_decimal_digits() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(3);
        let ties = (-3000..3000).map(|at| f64::from(at) / 20_000.0);
        let some = (0..20_000).map(|_| random.random_range(-2.0..2.0));
        for value in ties.chain(some).chain([0.0, -0.0, 1e14, 0.99995, 0.1 + 0.2]).collect::<Vec<f64>>() {
            let digits: f64 = format!("{value:.4}").parse().expect("digits");
            assert_eq!(super::round4(value), digits, "{value}");
        }
    }

    use super::*;
    use hypereyes_domain::Failure;

    const REFERENCE: Option<Reference> = Some(Reference { rounds: 2, searches: 4 });

    /// Rounds that all searched.
    fn spent(rounds: u32, searches: u32) -> Spent {
        Spent { rounds, searched: rounds, searches, failed: 0 }
    }

    /// The same with rounds more that searched nothing.
    fn and_idle(spent: Spent, rounds: u32) -> Spent {
        Spent { rounds: spent.rounds + rounds, ..spent }
    }

    #[test]
    fn cheaper_successes_earn_more() {
        let group = [(1, 1), (1, 1), (2, 4), (2, 5), (3, 3), (3, 3)].map(|(rounds, searches)| (Accuracy::Correct, spent(rounds, searches)));
        let got: Vec<f64> = bonuses(&TraceConfig::default(), REFERENCE, &group).into_iter().map(|(bonus, _)| bonus).collect();
        assert_eq!(got, [0.20, 0.20, 0.05, -0.02, -0.10, -0.10]);
    }

    #[test]
    fn wrong_answers_are_penalised_outside_the_band_only() {
        let group = [0, 1, 2, 3, 4].map(|rounds| (Accuracy::Wrong, spent(rounds, rounds)));
        let encouraged = TraceConfig { wrong_in_band_bonus: 0.05, ..TraceConfig::default() };
        let got: Vec<f64> = bonuses(&encouraged, REFERENCE, &group).into_iter().map(|(bonus, _)| bonus).collect();
        assert_eq!(got, [-0.1, -0.1, 0.05, 0.05, -0.1]);
    }

    #[test]
    fn guesses_and_masked_rollouts_get_nothing() {
        let invalid = Accuracy::Invalid(Failure::Judge);
        let group = [(Accuracy::Correct, spent(0, 0)), (Accuracy::Unparsed, spent(9, 9)), (invalid, spent(1, 1))];
        let branches = bonuses(&TraceConfig::default(), REFERENCE, &group);
        assert_eq!(branches[..], [(0.0, BonusBranch::Guess), (0.0, BonusBranch::None), (0.0, BonusBranch::None)]);
    }

    #[test]
    fn who_searched_nothing_is_a_guess_in_any_number_of_rounds() {
        let encouraged = TraceConfig { wrong_in_band_bonus: 0.05, ..TraceConfig::default() };
        for rounds in 0..9 {
            let nothing = and_idle(spent(0, 0), rounds);
            let group = [(Accuracy::Correct, nothing), (Accuracy::Wrong, nothing), (Accuracy::Correct, spent(2, 4))];
            let got = bonuses(&encouraged, REFERENCE, &group);
            assert_eq!(got[..], [(0.0, BonusBranch::Guess), (-0.1, BonusBranch::WrongOutside), (0.2, BonusBranch::Good)], "{rounds}");
        }
    }

    #[test]
    fn a_wrong_answer_is_not_brought_into_the_band_by_rounds_that_searched_nothing() {
        let one = spent(1, 3);
        let group = [0, 1, 2].map(|idle| (Accuracy::Wrong, and_idle(one, idle)));
        let branches = bonuses(&TraceConfig::default(), REFERENCE, &group);
        assert!(branches.iter().all(|given| *given == (-0.1, BonusBranch::WrongOutside)), "{branches:?}");
    }

    /// In any group, whatever the siblings did.
    #[test]
    fn a_round_that_searched_nothing_never_pays() {
        use rand::{Rng, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(11);
        let config = TraceConfig { wrong_in_band_bonus: 0.05, ..TraceConfig::default() };
        for _ in 0..20_000 {
            let reference = Some(Reference { rounds: random.random_range(1..5), searches: random.random_range(1..9) });
            let mut group: Vec<(Accuracy, Spent)> = (0..random.random_range(1..9))
                .map(|_| {
                    let accuracy = [Accuracy::Correct, Accuracy::Correct, Accuracy::Wrong, Accuracy::Unparsed][random.random_range(0..4)];
                    let searched = random.random_range(0..5u32);
                    let searches = searched * random.random_range(1..4);
                    (accuracy, and_idle(Spent { rounds: searched, searched, searches, failed: 0 }, random.random_range(0..3)))
                })
                .collect();
            let before = bonuses(&config, reference, &group);
            let at = random.random_range(0..group.len());
            group[at].1 = and_idle(group[at].1, random.random_range(1..4));
            let after = bonuses(&config, reference, &group);
            assert!(after[at].0 <= before[at].0, "{reference:?} {group:?} at {at}: {} became {}", before[at].0, after[at].0);
        }
    }

    #[test]
    fn no_reference_and_trace_off_mean_no_bonus() {
        let group = [(Accuracy::Correct, spent(1, 1)), (Accuracy::Wrong, spent(9, 9))];
        let off = TraceConfig { enabled: false, ..TraceConfig::default() };
        assert_eq!(bonuses(&TraceConfig::default(), None, &group)[..], [(0.0, BonusBranch::None); 2]);
        assert_eq!(bonuses(&off, REFERENCE, &group)[..], [(0.0, BonusBranch::None); 2]);
    }

    #[test]
    fn nonsense_constants_are_refused() {
        assert!(TraceConfig::default().check().is_ok());
        assert!(TraceConfig { good: [0.2, 0.1], ..TraceConfig::default() }.check().is_err());
        assert!(TraceConfig { gamma: 0.5, ..TraceConfig::default() }.check().is_err());
        assert!(TraceConfig { wrong_penalty: f64::NAN, ..TraceConfig::default() }.check().is_err());
    }
}
