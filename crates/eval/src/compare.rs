//! Two evaluations of the same tasks, rollout by rollout. In: the items of both. Out: how much the second differs from the first, how
//! sure that is, and which answers flipped. Pure: the same items give the same numbers.
//!
//! Differences are the second's mean less the first's, over rollouts on which both have a verdict. Their intervals are by the paired
//! bootstrap: tasks are drawn again, each with its rollouts of both.

use std::collections::{BTreeMap, HashMap};
use std::ops::Add;

use hypereyes_domain::{Accuracy, TaskKind};
use serde::{Deserialize, Serialize};

use crate::bootstrap::{self, DRAWS};
use crate::flips::{mcnemar, sign_flips};
use crate::item::{Item, Key};
use crate::sums::{Sums, by_task};

/// Draws of all comparisons begin here: the same folders give the same numbers.
const SEED: u64 = 0;

/// How two evaluations differ. Field order is the order of the JSON keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Rollouts on which both have a verdict.
    pub items: usize,
    /// Accuracy of the second less that of the first.
    pub difference: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
    /// How likely flips as uneven as these are by chance.
    pub p: f64,
    /// Answers that became right, or wrong.
    pub flipped: Flipped,
    /// Tasks of those rollouts.
    pub tasks: usize,
    /// How `p` is computed: `mcnemar_exact`, or `sign_flip_by_task` where tasks have several rollouts.
    pub test: String,
    /// Of accuracy, rounds, searches, kilotokens and CAS: both means, the difference, its interval.
    pub differences: BTreeMap<String, Difference>,
    /// The same of the accuracy, by the kind of task.
    pub per_category: BTreeMap<String, Category>,
    /// Rollouts that the first alone has a verdict on.
    pub only_first: Vec<String>,
    /// Rollouts that the second alone has a verdict on.
    pub only_second: Vec<String>,
}

/// Answers that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flipped {
    /// Wrong in the first, right in the second.
    pub gained: usize,
    /// Right in the first, wrong in the second.
    pub lost: usize,
    /// Which were gained: the task's id, with `#` and the sample where there are several.
    pub gained_ids: Vec<String>,
    /// Which were lost.
    pub lost_ids: Vec<String>,
}

/// One number of both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The first's mean.
    pub first: f64,
    /// The second's.
    pub second: f64,
    /// The second's less the first's.
    pub difference: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
}

/// One kind of task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Category {
    /// Rollouts on which both have a verdict.
    pub items: usize,
    /// Their accuracy.
    #[serde(flatten)]
    pub accuracy: Difference,
    /// Answers that became right.
    pub gained: usize,
    /// Answers that became wrong.
    pub lost: usize,
}

/// A rollout of both.
type Pair<'a> = (&'a Item, &'a Item);

/// Sums of both.
#[derive(Clone, Copy, Debug, Default)]
struct Both(Sums, Sums);

impl Add for Both {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0, self.1 + other.1)
    }
}

/// What is compared.
const NAMES: [&str; 5] = ["accuracy", "rounds", "searches", "kilotokens", "cas"];

fn numbers(sums: &Sums) -> [f64; 5] {
    [sums.accuracy(), sums.mean_rounds(), sums.mean_searches(), sums.mean_kilotokens(), sums.cas()]
}

/// Compares two evaluations, the order of whose items is the order of their tasks. Rollouts without tools are left out.
pub fn compare(first: &[Item], second: &[Item]) -> Comparison {
    let verdicts = |items: &[Item]| items.iter().filter(|item| item.is_finished() && !item.closed_book).cloned().collect::<Vec<_>>();
    let (first, second) = (verdicts(first), verdicts(second));
    let of_second: HashMap<Key, &Item> = second.iter().map(|item| (item.key(), item)).collect();
    let of_first: HashMap<Key, &Item> = first.iter().map(|item| (item.key(), item)).collect();
    let pairs: Vec<Pair<'_>> = first.iter().filter_map(|item| Some((item, *of_second.get(&item.key())?))).collect();
    let has_samples = first.iter().chain(&second).any(|item| item.sample > 0);
    let named = |item: &Item| if has_samples { format!("{}#{}", item.task, item.sample) } else { item.task.to_string() };
    let alone = |items: &[Item], others: &HashMap<Key, &Item>| {
        items.iter().filter(|item| !others.contains_key(&item.key())).map(named).collect::<Vec<_>>()
    };
    let became = |right: bool| pairs.iter().filter(|pair| flip(pair) == Some(right)).map(|(item, _)| named(item)).collect::<Vec<_>>();
    let (gained_ids, lost_ids) = (became(true), became(false));
    let tasks = sums_of(&pairs);
    let all = differences(&tasks, DRAWS, SEED);
    // McNemar's pairs are independent: one of each task.
    let (p, test) = if tasks.len() < pairs.len() {
        let gains: Vec<f64> = tasks.iter().map(|Both(a, b)| b.right - a.right).collect();
        (sign_flips(&gains, DRAWS, SEED), "sign_flip_by_task")
    } else {
        (mcnemar(gained_ids.len() as u64, lost_ids.len() as u64), "mcnemar_exact")
    };
    Comparison {
        items: pairs.len(),
        difference: all[0].difference,
        interval: all[0].interval,
        p,
        tasks: tasks.len(),
        test: test.to_owned(),
        differences: NAMES.into_iter().map(str::to_owned).zip(all).collect(),
        per_category: categories(&pairs),
        only_first: alone(&first, &of_second),
        only_second: alone(&second, &of_first),
        flipped: Flipped { gained: gained_ids.len(), lost: lost_ids.len(), gained_ids, lost_ids },
    }
}

/// Whether an answer became right (true) or wrong (false); none where it stayed.
fn flip((first, second): &Pair<'_>) -> Option<bool> {
    let is_right = |item: &Item| item.verdict == Accuracy::Correct;
    (is_right(first) != is_right(second)).then(|| is_right(second))
}

/// Sums of both, a task at a time.
fn sums_of(pairs: &[Pair<'_>]) -> Vec<Both> {
    let others: HashMap<Key, &Item> = pairs.iter().map(|(item, other)| (item.key(), *other)).collect();
    let of_task = |items: &Vec<&Item>| {
        let both = items.iter().map(|item| Both(Sums::of(item), others.get(&item.key()).map_or(Sums::default(), |other| Sums::of(other))));
        both.fold(Both::default(), Add::add)
    };
    by_task(pairs.iter().map(|(item, _)| *item)).iter().map(of_task).collect()
}

/// Every number of both; the interval of nothing is 0.
fn differences(tasks: &[Both], draws: usize, seed: u64) -> [Difference; 5] {
    let less = |Both(first, second): Both| {
        let (first, second) = (numbers(&first), numbers(&second));
        std::array::from_fn(|at| second[at] - first[at])
    };
    let total = tasks.iter().copied().fold(Both::default(), Add::add);
    let (first, second, apart) = (numbers(&total.0), numbers(&total.1), less(total));
    let intervals = bootstrap::intervals::<_, 5>(tasks, draws, seed, less);
    std::array::from_fn(|at| Difference {
        first: first[at],
        second: second[at],
        difference: apart[at],
        interval: intervals.map_or([0.0; 2], |intervals| [intervals[at].low, intervals[at].high]),
    })
}

fn categories(pairs: &[Pair<'_>]) -> BTreeMap<String, Category> {
    let mut kinds: BTreeMap<&TaskKind, Vec<Pair<'_>>> = BTreeMap::new();
    for pair in pairs {
        kinds.entry(&pair.0.kind).or_default().push(*pair);
    }
    let category = |pairs: Vec<Pair<'_>>| Category {
        items: pairs.len(),
        accuracy: differences(&sums_of(&pairs), DRAWS, SEED)[0],
        gained: pairs.iter().filter(|pair| flip(pair) == Some(true)).count(),
        lost: pairs.iter().filter(|pair| flip(pair) == Some(false)).count(),
    };
    kinds.into_iter().map(|(kind, pairs)| (kind.to_string(), category(pairs))).collect()
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::Failure;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::item::tests::item;

    const RIGHT: Accuracy = Accuracy::Correct;
    const WRONG: Accuracy = Accuracy::Wrong;

    #[test]
    fn pairs_are_of_the_same_rollout_and_flips_are_named() {
        let first = [
            item("a", 0, "x", WRONG, 4, 400),
            item("b", 0, "x", RIGHT, 4, 400),
            item("c", 0, "y", RIGHT, 4, 400),
            item("d", 0, "y", Accuracy::Unparsed, 4, 400),
            item("e", 0, "y", Accuracy::Invalid(Failure::Tool), 4, 400),
            item("f", 0, "y", RIGHT, 4, 400),
        ];
        let second = [
            item("d", 0, "y", RIGHT, 1, 200),
            item("c", 0, "y", WRONG, 1, 200),
            item("b", 0, "x", RIGHT, 1, 200),
            item("a", 0, "x", RIGHT, 1, 200),
            item("e", 0, "y", RIGHT, 1, 200),
            Item { closed_book: true, ..item("f", 0, "y", RIGHT, 1, 200) },
        ];
        let compared = compare(&first, &second);
        assert_eq!((compared.items, compared.tasks, compared.difference), (4, 4, 0.25));
        assert_eq!(compared.flipped.gained_ids, ["a", "d"]);
        assert_eq!((compared.flipped.lost, &compared.flipped.lost_ids[..]), (1, &["c".to_owned()][..]));
        assert_eq!((&compared.only_first[..], &compared.only_second[..]), (&["f".to_owned()][..], &["e".to_owned()][..]));
        assert_eq!((compared.p, compared.test.as_str()), (1.0, "mcnemar_exact"));
        let rounds = compared.differences["rounds"];
        assert_eq!((rounds.first, rounds.second, rounds.difference, rounds.interval), (4.0, 1.0, -3.0, [-3.0, -3.0]));
        let x = &compared.per_category["x"];
        assert_eq!((x.items, x.gained, x.lost, x.accuracy.first, x.accuracy.second), (2, 1, 0, 0.5, 1.0));
        assert_eq!(compare(&first, &second), compared, "the same items, the same numbers");
        let back = compare(&second, &first);
        assert_eq!((back.difference, back.flipped.gained, back.flipped.lost), (-0.25, 1, 2));
    }

    #[test]
    fn json_begins_with_what_scripts_rely_on() {
        let text = serde_json::to_string(&compare(&[], &[])).expect("numbers");
        assert!(text.starts_with(r#"{"items":0,"difference":0.0,"interval":[0.0,0.0],"p":1.0,"flipped":{"gained":0,"lost":0,"#), "{text}");
    }

    #[test]
    fn several_samples_are_tested_by_task() {
        let samples = |verdict: fn(u32) -> Accuracy| -> Vec<Item> {
            (0..10).flat_map(|task| (0..4).map(move |sample| item(&format!("t{task}"), sample, "x", verdict(sample), 1, 100))).collect()
        };
        let compared = compare(&samples(|sample| if sample < 2 { RIGHT } else { WRONG }), &samples(|_| RIGHT));
        assert_eq!((compared.items, compared.tasks, compared.difference), (40, 10, 0.5));
        assert_eq!((compared.test.as_str(), compared.flipped.gained_ids[0].as_str()), ("sign_flip_by_task", "t0#2"));
        // All ten tasks gain the same: two of 1024 ways of signs are as far from 0.
        assert!((compared.p - 2.0 / 1024.0).abs() < 0.0015, "{}", compared.p);
        // Of whom one side has a single rollout each, there is one pair each, and the exact test holds.
        let first: Vec<Item> = samples(|_| WRONG).into_iter().filter(|item| item.sample == 0).collect();
        let compared = compare(&first, &samples(|_| RIGHT));
        assert_eq!((compared.items, compared.test.as_str(), compared.p), (10, "mcnemar_exact", 2.0 / 1024.0));
        assert_eq!((compared.flipped.gained_ids[0].as_str(), compared.only_second.len()), ("t0#0", 30));
    }

    /// Two policies on tasks of any difficulty: of what the first gets wrong, the second gets 15 in 100 right, and it takes half the
    /// rounds.
    fn simulated(tasks: usize, seed: u64) -> Vec<Both> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let rolled = |chance: f64, most: u32, random: &mut ChaCha8Rng| {
            let (right, rounds) = (random.random::<f64>() < chance, random.random_range(1..=most));
            Sums { rollouts: 1.0, right: f64::from(right), rounds: f64::from(rounds), searches: 0.0, kilotokens: 0.5 * f64::from(rounds) }
        };
        let mut task = || {
            let easy: f64 = random.random();
            let first = rolled(easy, 7, &mut random);
            Both(first, rolled(easy + 0.15 * (1.0 - easy), 3, &mut random))
        };
        (0..tasks).map(|_| task()).collect()
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let truth = [0.075, -2.0];
        let mut held = [0; 2];
        for seed in 0..1000 {
            let [accuracy, rounds, ..] = differences(&simulated(150, seed), 1000, seed);
            for (held, (one, truth)) in held.iter_mut().zip([accuracy, rounds].iter().zip(truth)) {
                *held += usize::from(one.interval[0] <= truth && truth <= one.interval[1]);
            }
        }
        println!("accuracy and rounds: {held:?} of 1000 intervals hold the truth");
        assert!(held.iter().all(|held| (930..=970).contains(held)), "{held:?} of 1000");
    }
}
