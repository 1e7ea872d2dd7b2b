//! The gradient against finite differences, and negative controls: what must change the gradient does change it. The
//! batches are those of the golden vectors (origin noted in the file).

use hypereyes_objective::cases::Case;
use hypereyes_objective::{
    Aggregation, Correction, Credit, Normalisation, Options, Output, Sequence, Totals, evaluate, evaluate_part, group_advantages,
};
use serde::Deserialize;
use serde_json::Value;

fn batches() -> Vec<(Vec<Sequence>, Options)> {
    let vectors: Value = serde_json::from_str(include_str!("../data/policy_gradient_vectors.json")).expect("the vectors are JSON");
    let read = |case: &Value| {
        let case = Case::deserialize(case).expect("a case");
        (case.sequences().expect("sound"), case.objective_options().expect("sound"))
    };
    vectors["cases"].as_array().expect("a list").iter().map(read).collect()
}

fn run(sequences: &[Sequence], options: &Options) -> Output {
    evaluate(sequences, options).expect("sound")
}

fn largest_change(left: &Output, right: &Output) -> f64 {
    let pairs = left.gradients.iter().flatten().zip(right.gradients.iter().flatten());
    pairs.map(|(left, right)| (left - right).abs()).fold(0.0, f64::max)
}

/// Every batch with every other way to correct, aggregate and compare as well.
fn variants(options: Options) -> Vec<Options> {
    vec![
        options,
        Options { correction: Correction::Icepop { low: 0.7, high: 1.6 }, ..options },
        Options { normalisation: Normalisation::LeaveOneOut, aggregation: Aggregation::SeqMeanTokenMean, ..options },
        Options { aggregation: Aggregation::SeqMeanTokenSumNorm { horizon: 32.0 }, dual_clip: Some(1.4), ..options },
        Options { aggregation: Aggregation::TokenSum, opd_only: true, ..options },
    ]
}

#[test]
fn gradient_is_that_of_finite_differences() {
    let step = 1e-5;
    let (mut compared, mut sloped) = (0, 0);
    for (mut sequences, options) in batches() {
        for options in variants(options) {
            let gradients = run(&sequences, &options).gradients;
            let kinks = [1.0 - options.clip_low, 1.0 + options.clip_high, options.dual_clip.unwrap_or(f64::INFINITY)];
            for index in 0..sequences.len() {
                for at in 0..sequences[index].len() {
                    let new = sequences[index].new[at];
                    let ratio = (new - sequences[index].old[at]).exp();
                    if kinks.iter().any(|kink| (ratio - kink).abs() < 1e-3) {
                        continue;
                    }
                    let mut loss_at = |value| {
                        sequences[index].new[at] = value;
                        run(&sequences, &options).loss
                    };
                    let slope = (loss_at(new + step) - loss_at(new - step)) / (2.0 * step);
                    loss_at(new);
                    let got = gradients[index][at];
                    assert!((got - slope).abs() <= 1e-8 * (1.0 + slope.abs()), "sequence {index} token {at}: {got}, differences {slope}");
                    compared += 1;
                    sloped += usize::from(got != 0.0);
                }
            }
        }
    }
    assert!(compared > 10_000 && sloped > compared / 4, "{compared} compared, {sloped} with a slope");
}

#[test]
fn masked_and_invalid_tokens_have_no_gradient_whatever_they_say() {
    for (sequences, options) in batches() {
        let before = run(&sequences, &options);
        let mut noisy = sequences.clone();
        for sequence in &mut noisy {
            let valid = sequence.is_valid();
            for at in (0..sequence.len()).filter(|at| !(valid && sequence.mask[*at])).collect::<Vec<_>>() {
                (sequence.new[at], sequence.old[at], sequence.rollout[at]) = (-7.0, 3.0, 300.0);
            }
        }
        let after = run(&noisy, &options);
        assert_eq!((before.loss, &before.gradients, &before.metrics), (after.loss, &after.gradients, &after.metrics));
    }
}

#[test]
fn swapping_the_teacher_changes_the_gradient() {
    for (sequences, options) in batches().into_iter().filter(|(_, options)| options.opd_coef > 0.0) {
        let mut swapped = sequences.clone();
        for sequence in &mut swapped {
            sequence.teacher.as_mut().expect("the vectors have one").iter_mut().for_each(|value| *value -= 1.5);
        }
        assert!(largest_change(&run(&sequences, &options), &run(&swapped, &options)) > 1e-4);
        let without = Options { opd_coef: 0.0, ..options };
        assert_eq!(largest_change(&run(&sequences, &without), &run(&swapped, &without)), 0.0);
    }
}

#[test]
fn teacher_pulls_distilled_sequences_only_and_towards_itself() {
    for (sequences, options) in batches().into_iter().filter(|(_, options)| options.opd_coef > 0.0) {
        let (with, without) = (run(&sequences, &options), run(&sequences, &Options { opd_coef: 0.0, ..options }));
        for (index, sequence) in sequences.iter().enumerate() {
            for at in 0..sequence.len() {
                let pull = with.advantages[index][at] - without.advantages[index][at];
                let teacher = sequence.teacher.as_ref().expect("the vectors have one")[at];
                let want = if sequence.distill && sequence.is_valid() { options.opd_coef * (teacher - sequence.old[at]) } else { 0.0 };
                assert!((pull - want).abs() < 1e-12);
            }
        }
    }
}

#[test]
fn flipping_a_mask_changes_the_gradient() {
    let mut idle = 0;
    for (sequences, options) in batches() {
        let before = run(&sequences, &options);
        let trained = (0..sequences.len())
            .flat_map(|index| (0..sequences[index].len()).map(move |at| (index, at)))
            .find(|(index, at)| before.gradients[*index][*at] != 0.0);
        let Some((index, at)) = trained else {
            idle += 1;
            continue;
        };
        let mut flipped = sequences.clone();
        flipped[index].mask[at] = false;
        let after = run(&flipped, &options);
        assert_eq!(after.gradients[index][at], 0.0);
        assert!(largest_change(&before, &after) > 0.0);
    }
    assert!(idle <= 2, "{idle} batches of equal rewards and no teacher train nothing");
}

#[test]
fn dropping_the_dual_clip_changes_the_gradient_of_runaway_tokens() {
    let mut changed = 0;
    for (mut sequences, options) in batches() {
        let with = Options { dual_clip: Some(3.0), correction: Correction::Off, ..options };
        let without = Options { dual_clip: None, ..with };
        for sequence in &mut sequences {
            sequence.new.iter_mut().zip(&sequence.old).for_each(|(new, old)| *new = old + 1.5);
        }
        let (held, free) = (run(&sequences, &with), run(&sequences, &without));
        assert_eq!(free.metrics.dual_clipfrac, 0.0);
        for (index, sequence) in sequences.iter().enumerate().filter(|(_, sequence)| sequence.is_valid()) {
            for at in (0..sequence.len()).filter(|at| sequence.mask[*at]) {
                let bad = held.advantages[index][at] < 0.0;
                assert_eq!(held.gradients[index][at], 0.0, "good tokens are clipped above, bad ones by the dual bound");
                assert_eq!(free.gradients[index][at] > 0.0, bad);
                changed += usize::from(bad);
            }
        }
    }
    assert!(changed > 100, "{changed}");
}

#[test]
fn shifting_a_group_boundary_changes_the_gradient() {
    let mut shifted_batches = 0;
    for (sequences, options) in batches().into_iter().filter(|(sequences, _)| sequences.iter().any(|sequence| sequence.group > 0)) {
        let mut shifted = sequences.clone();
        let size = sequences.iter().filter(|sequence| sequence.group == 0).count();
        let last = sequences.len() - 1;
        shifted.iter_mut().enumerate().for_each(|(index, sequence)| sequence.group = ((index + 1).min(last) / size) as u64);
        let (before, after) = (run(&sequences, &options), run(&shifted, &options));
        let moved = sequences.iter().zip(&shifted).any(|(before, after)| before.group != after.group && before.is_valid());
        assert_eq!(largest_change(&before, &after) > 1e-6, moved, "only a verdict changes the group that it moves to");
        shifted_batches += 1;
        let mut renamed = sequences.clone();
        renamed.iter_mut().for_each(|sequence| sequence.group = 1000 - sequence.group);
        assert_eq!(run(&renamed, &options), before, "names of groups do not matter");
    }
    assert!(shifted_batches > 20, "{shifted_batches}");
}

#[test]
fn parts_add_up_to_the_whole() {
    for (sequences, options) in batches() {
        for options in variants(options) {
            let whole = run(&sequences, &options);
            let totals = Totals::of(&sequences);
            let groups: Vec<u64> = sequences.iter().map(|sequence| sequence.group).collect();
            let rewards: Vec<Option<f64>> = sequences
                .iter()
                .map(|sequence| match sequence.credit {
                    Credit::Reward(reward) => reward,
                    Credit::Advantage(_) => None,
                })
                .collect();
            let advantages = group_advantages(&groups, &rewards, options.normalisation).expect("equally long");
            let (mut loss, mut gradients) = (0.0, Vec::new());
            let mut metrics = hypereyes_objective::Metrics::default();
            for (index, sequence) in sequences.iter().enumerate() {
                let alone =
                    Sequence { credit: Credit::Advantage(advantages.values[index]), valid: advantages.valid[index], ..sequence.clone() };
                let part = evaluate_part(&[alone], &totals, &options).expect("sound");
                loss += part.loss;
                gradients.extend(part.gradients);
                metrics.absorb(&part.metrics);
            }
            assert!((loss - whole.loss).abs() < 1e-12);
            assert_eq!(gradients, whole.gradients);
            assert!((metrics.tis - whole.metrics.tis).abs() < 1e-9 && (metrics.ppo_kl - whole.metrics.ppo_kl).abs() < 1e-9);
            assert_eq!(metrics.valid_sequences, whole.metrics.valid_sequences);
            let (got, want) = (metrics.opd_reverse_kl.unwrap_or(0.0), whole.metrics.opd_reverse_kl.unwrap_or(0.0));
            assert!((got - want).abs() < 1e-12);
        }
    }
}

#[test]
fn totals_smaller_than_the_part_are_refused() {
    let (sequences, options) = batches().swap_remove(0);
    assert!(evaluate_part(&sequences, &Totals::default(), &options).is_err());
}
