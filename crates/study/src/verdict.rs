//! What the lines say of a claim. In: a comparison, the lines. Out: held, not held or undecided, with the estimate, its interval and the
//! seeds that it would take. The same lines give the same verdict.
//!
//! A comparison with a part of a quantity is of the ratio (the geometric mean over seeds), one with a quantity and so much is of the
//! difference, one with a number of the value. Of each seed both sides are of the same tasks. It is held when the whole 95 % interval
//! ([`crate::spread`]) is on the side that is claimed, not held when all of it is on the other.

use std::collections::BTreeMap;

use hypereyes_eval::sums::Sums;
use hypereyes_scoring::Interval;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::claim::{Claim, Comparison, Metric, Quantity, Sense, Side};
use crate::line::{Line, Lines};
use crate::plan::{Plan, START};
use crate::spread::Spread;

/// Draws of the tasks of a seed: their variance is then known to a tenth.
const DRAWS: usize = 400;

/// What is known of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ruling {
    /// The interval is wholly on the side that is claimed.
    #[serde(rename = "held")]
    Held,
    /// It is wholly on the other.
    #[serde(rename = "not held")]
    NotHeld,
    /// It is on both, or there are fewer than two seeds.
    #[serde(rename = "undecided")]
    Undecided,
}

impl Ruling {
    /// As tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::NotHeld => "not held",
            Self::Undecided => "undecided",
        }
    }
}

/// What is compared, in words and numbers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// What the estimate is of, such as `rounds(trace) / rounds(accuracy)`.
    pub of: String,
    /// What is claimed of it, such as `<= 0.8`.
    pub claimed: String,
    /// On this comparison alone.
    pub verdict: Ruling,
    /// None without a seed.
    pub estimate: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// Seeds that both sides have.
    pub seeds: usize,
    /// Seeds in all that would decide it, if more spread as these do; none where it is decided, or where a hundred would not do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds_needed: Option<usize>,
}

/// A claim and what is known of it. Estimate and interval are those of its first comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// As it was written.
    pub claim: String,
    /// Held when all comparisons are, not held when one is not.
    pub verdict: Ruling,
    /// None without a seed.
    pub estimate: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<[f64; 2]>,
    /// Every comparison.
    pub parts: Vec<Part>,
}

/// What the lines say of a claim.
pub fn verdict(plan: &Plan, lines: &Lines, claim: &Claim) -> Verdict {
    let parts: Vec<Part> = claim.comparisons.iter().map(|comparison| part(plan, lines, comparison)).collect();
    let has = |ruling: Ruling| parts.iter().any(|part| part.verdict == ruling);
    let verdict = match (has(Ruling::NotHeld), has(Ruling::Undecided)) {
        (true, _) => Ruling::NotHeld,
        (_, true) => Ruling::Undecided,
        _ => Ruling::Held,
    };
    let (estimate, interval) = parts.first().map_or((None, None), |first| (first.estimate, first.interval));
    Verdict { claim: claim.text.clone(), verdict, estimate, interval, parts }
}

fn part(plan: &Plan, lines: &Lines, comparison: &Comparison) -> Part {
    let Comparison { left, sense, right } = comparison;
    let (other, is_ratio, bound, of) = match right {
        Side::Number(bound) => (None, false, *bound, left.to_string()),
        Side::Times(factor, other) => (Some(other), true, *factor, format!("{left} / {other}")),
        Side::Plus(other, more) => (Some(other), false, *more, format!("{left} - {other}")),
    };
    let spread = spread(plan, lines, left, other, is_ratio);
    // Ratios are averaged as logarithms, so that a ratio and its inverse say the same.
    let outward = |value: f64| if is_ratio { value.exp() } else { value };
    let within = if is_ratio { bound.ln() } else { bound };
    let interval = spread.as_ref().map(Spread::interval);
    let verdict = match (&interval, &spread) {
        (Some(interval), Some(spread)) if spread.seeds > 1 => ruled(*sense, interval, within),
        _ => Ruling::Undecided,
    };
    let open = spread.as_ref().filter(|_| verdict == Ruling::Undecided);
    Part {
        of,
        claimed: format!("{} {bound}", if *sense == Sense::AtMost { "<=" } else { ">=" }),
        verdict,
        estimate: spread.as_ref().map(|spread| outward(spread.mean)),
        interval: interval.map(|interval| [outward(interval.low), outward(interval.high)]),
        seeds: spread.as_ref().map_or(0, |spread| spread.seeds),
        seeds_needed: open.and_then(|spread| spread.seeds_to_decide(within)),
    }
}

fn ruled(sense: Sense, interval: &Interval, bound: f64) -> Ruling {
    let (held, not_held) = match sense {
        Sense::AtMost => (interval.high <= bound, interval.low > bound),
        Sense::AtLeast => (interval.low >= bound, interval.high < bound),
    };
    match (held, not_held) {
        (true, _) => Ruling::Held,
        (_, true) => Ruling::NotHeld,
        _ => Ruling::Undecided,
    }
}

/// Seeds that are asked for of both sides.
fn seeds(plan: &Plan, left: &Quantity, other: Option<&Quantity>) -> Vec<u64> {
    let of = |arm: &str| {
        let arm = if arm == START { &plan.base } else { arm };
        plan.arm(arm).map_or(&[][..], |arm| &arm.seeds)
    };
    let theirs = other.map(|other| of(&other.arm));
    of(&left.arm).iter().copied().filter(|seed| theirs.is_none_or(|theirs| theirs.contains(seed))).collect()
}

/// The line that a quantity is in, and whether it is of the time before training.
fn found<'a>(plan: &Plan, lines: &'a Lines, arm: &str, seed: u64) -> Option<(&'a Line, bool)> {
    let before = arm == START;
    lines.get(if before { &plan.base } else { arm }, seed).map(|line| (line, before))
}

/// What is compared at one seed, and the variance that its tasks leave of it; `None` where a line is not there yet, where the sides were
/// measured on other tasks, or where nothing is to be compared.
fn at_seed(plan: &Plan, lines: &Lines, seed: u64, left: &Quantity, other: Option<&Quantity>, is_ratio: bool) -> Option<(f64, f64)> {
    let of = |quantity: &Quantity| {
        let (line, before) = found(plan, lines, &quantity.arm, seed)?;
        Some((line, line.sums(before, quantity.kind.as_ref())))
    };
    let (line, ours) = of(left)?;
    let theirs = match other {
        Some(other) => {
            let (its_line, theirs) = of(other)?;
            (its_line.tasks == line.tasks).then_some(theirs)?
        }
        None => vec![Some(Sums::default()); ours.len()],
    };
    // The same tasks on both sides; of other kinds there is nothing to pair, and each side is drawn with its own tasks of the whole set.
    let same_kind = other.is_none_or(|other| other.kind == left.kind);
    let pairs: Vec<(Sums, Sums)> = ours
        .into_iter()
        .zip(theirs)
        .filter_map(
            |(one, other)| if same_kind { Some((one?, other?)) } else { Some((one.unwrap_or_default(), other.unwrap_or_default())) },
        )
        .collect();
    let value = |pairs: (Sums, Sums)| compared(left.metric, pairs, other.is_some(), is_ratio);
    let total = |drawn: &mut dyn Iterator<Item = (Sums, Sums)>| {
        drawn.fold((Sums::default(), Sums::default()), |(ours, theirs), (one, other)| (ours + one, theirs + other))
    };
    let estimate = value(total(&mut pairs.iter().copied()))?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let drawn: Vec<f64> =
        (0..DRAWS).filter_map(|_| value(total(&mut (0..pairs.len()).map(|_| pairs[random.random_range(0..pairs.len())])))).collect();
    let mean = drawn.iter().sum::<f64>() / drawn.len().max(1) as f64;
    let variance = drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / drawn.len().max(1) as f64;
    Some((estimate, variance))
}

fn compared(metric: Metric, (ours, theirs): (Sums, Sums), has_other: bool, is_ratio: bool) -> Option<f64> {
    if ours.rollouts <= 0.0 || (has_other && theirs.rollouts <= 0.0) {
        return None;
    }
    let (ours, theirs) = (metric.of(&ours), if has_other { metric.of(&theirs) } else { 0.0 });
    let value = if is_ratio { (ours / theirs).ln() } else { ours - theirs };
    value.is_finite().then_some(value)
}

/// A quantity over the seeds of its arm; or how it differs from another over the seeds that both have, as a difference or as the logarithm
/// of the ratio. `None` without a seed.
pub fn spread(plan: &Plan, lines: &Lines, ours: &Quantity, theirs: Option<&Quantity>, is_ratio: bool) -> Option<Spread> {
    let values = seeds(plan, ours, theirs).into_iter().filter_map(|seed| at_seed(plan, lines, seed, ours, theirs, is_ratio));
    Spread::of(&values.collect::<Vec<_>>())
}

/// What makes lines bad to compare: arms that were measured on other tasks at the same seed, of which nothing is said, and arms that
/// name one start policy and began with several.
pub fn apart(plan: &Plan, lines: &Lines) -> Vec<String> {
    let mut apart = vec![];
    let mut starts: BTreeMap<Option<&String>, &Line> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.start.is_some()) {
        let Some(arm) = plan.arm(&line.arm) else { continue };
        let first = *starts.entry(arm.policy.as_ref()).or_insert(line);
        if first.start != line.start {
            let of = |line: &Line| format!("{} with seed {}", line.arm, line.seed);
            apart.push(format!("{} and {} began with other weights of the same policy", of(first), of(line)));
        }
    }
    for base in lines.iter().filter(|line| line.arm == plan.base) {
        for other in lines.iter().filter(|line| line.seed == base.seed && line.tasks != base.tasks && plan.arm(&line.arm).is_some()) {
            apart.push(format!(
                "{} and {} were measured on other tasks with seed {}: they are not compared",
                other.arm, base.arm, base.seed
            ));
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::tests::{line, plan};

    /// Three seeds in which `trace` takes so many rounds of four.
    fn lines(plan: &Plan, rounds: [u32; 3]) -> Lines {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, mut lines) = (folder.path().join("s"), Lines::default());
        for (seed, rounds) in (1..).zip(rounds) {
            for (arm, rounds) in [("plain", 4), ("trace", rounds)] {
                let after: Vec<(u8, u32)> = (0..40).map(|at| (u8::from(at % 4 != 0), rounds)).collect();
                lines.add(&path, plan, line(plan, arm, seed, &[(1, 8); 40], &after)).expect("written");
            }
        }
        lines
    }

    fn of(plan: &Plan, lines: &Lines, claim: &str) -> Verdict {
        verdict(plan, lines, &claim.parse().expect("sound"))
    }

    #[test]
    fn a_ratio_that_is_always_the_same_is_decided() {
        let plan = plan();
        let lines = lines(&plan, [2, 2, 2]);
        let held = of(&plan, &lines, "rounds(trace) <= 0.8 x rounds(plain)");
        assert_eq!((held.verdict, held.parts[0].of.as_str()), (Ruling::Held, "rounds(trace) / rounds(plain)"));
        assert!((held.estimate.expect("three seeds") - 0.5).abs() < 1e-12, "{held:?}");
        assert_eq!(of(&plan, &lines, "rounds(trace) <= 0.4 x rounds(plain)").verdict, Ruling::NotHeld);
        assert_eq!(of(&plan, &lines, "rounds(trace) <= 0.3 x rounds(start)").verdict, Ruling::Held);
        assert_eq!(of(&plan, &lines, "rounds(trace) >= rounds(plain) - 2").verdict, Ruling::Held);
        assert_eq!(of(&plan, &lines, "rounds(trace) <= 2.5").verdict, Ruling::Held);
        let both = of(&plan, &lines, "rounds(trace) <= 0.8 x rounds(plain) and accuracy(trace) >= accuracy(plain) + 1 points");
        assert_eq!((both.verdict, both.parts[1].verdict), (Ruling::NotHeld, Ruling::NotHeld));
    }

    #[test]
    fn seeds_that_differ_leave_it_open_and_say_how_many_would_not() {
        let plan = plan();
        let open = of(&plan, &lines(&plan, [2, 3, 4]), "rounds(trace) <= 0.8 x rounds(plain)");
        assert_eq!(open.verdict, Ruling::Undecided);
        let [low, high] = open.interval.expect("an interval");
        assert!(low < 0.8 && high > 0.8 && open.parts[0].seeds == 3, "{open:?}");
        assert!(open.parts[0].seeds_needed.is_some_and(|seeds| seeds > 3), "{open:?}");
    }

    #[test]
    fn one_seed_decides_nothing_and_none_says_nothing() {
        let plan = plan();
        let all = lines(&plan, [2, 2, 2]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut one = Lines::default();
        for line in all.iter().filter(|line| line.seed == 1) {
            one.add(&folder.path().join("s"), &plan, line.clone()).expect("written");
        }
        let single = of(&plan, &one, "rounds(trace) <= 0.8 x rounds(plain)");
        assert_eq!((single.verdict, single.parts[0].seeds), (Ruling::Undecided, 1));
        assert!((single.estimate.expect("one") - 0.5).abs() < 1e-12);
        let none = of(&plan, &Lines::default(), "rounds(trace) <= 0.8 x rounds(plain)");
        assert_eq!((none.verdict, none.estimate, none.interval), (Ruling::Undecided, None, None));
    }

    #[test]
    fn arms_on_other_tasks_are_not_compared() {
        let plan = plan();
        let all = lines(&plan, [2, 2, 2]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut other = Lines::default();
        for line in all.iter() {
            let tasks = if line.arm == "trace" { "others".to_owned() } else { line.tasks.clone() };
            other.add(&folder.path().join("s"), &plan, Line { tasks, ..line.clone() }).expect("written");
        }
        assert_eq!(of(&plan, &other, "rounds(trace) <= 0.8 x rounds(plain)").parts[0].seeds, 0);
        assert_eq!(apart(&plan, &other).len(), 3);
        let mut moved = Lines::default();
        for line in all.iter() {
            let start = Some(if line.seed == 2 { "two" } else { "one" }.to_owned());
            moved.add(&folder.path().join("t"), &plan, Line { start, ..line.clone() }).expect("written");
        }
        let said = apart(&plan, &moved);
        assert!(said.len() == 2 && said[0].contains("plain with seed 1 and plain with seed 2 began with other weights"), "{said:?}");
    }
}
