//! Finite input never gives NaN or infinity, however absurd; and what cannot be trained is counted.

use hypereyes_objective::{Aggregation, Correction, Credit, Normalisation, Options, Sequence, evaluate};
use serde_json::Value;

/// A small generator (splitmix64), so that the batches are the same on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.next() % from.len() as u64).expect("an index")]
    }

    fn extremes(&mut self, count: usize) -> Vec<f64> {
        let values = [0.0, -0.0, -1.0, 1.0, -700.0, 710.0, -1e5, 1e16, f64::MAX, f64::MIN, f64::MIN_POSITIVE, -1e300];
        (0..count).map(|_| self.pick(&values)).collect()
    }
}

fn sequence(dice: &mut Dice) -> Sequence {
    let tokens = dice.pick(&[0, 1, 5]);
    let rewards = [None, Some(-99.0), Some(f64::MAX), Some(1e200), Some(0.0), Some(-0.5), Some(f64::MIN), Some(f64::NAN)];
    let credits = [Credit::Reward(dice.pick(&rewards)), Credit::Advantage(dice.pick(&[f64::MAX, f64::MIN, 0.0, 1.0]))];
    Sequence {
        group: dice.next() % 3,
        credit: dice.pick(&credits),
        valid: !dice.next().is_multiple_of(5),
        mask: (0..tokens).map(|_| !dice.next().is_multiple_of(3)).collect(),
        new: dice.extremes(tokens),
        old: dice.extremes(tokens),
        rollout: dice.extremes(tokens),
        teacher: (!dice.next().is_multiple_of(4)).then(|| dice.extremes(tokens)),
        distill: dice.next().is_multiple_of(2),
    }
}

/// serde_json writes NaN and infinity as null.
fn nulls(value: &Value) -> usize {
    match value {
        Value::Null => 1,
        Value::Array(values) => values.iter().map(nulls).sum(),
        Value::Object(entries) => entries.iter().filter(|(key, _)| *key != "opd_reverse_kl").map(|(_, value)| nulls(value)).sum(),
        _ => 0,
    }
}

#[test]
fn absurd_but_finite_batches_give_finite_results() {
    let mut dice = Dice(20);
    for _ in 0..5_000 {
        let length = dice.pick(&[0, 1, 4, 16]);
        let sequences: Vec<Sequence> = (0..length).map(|_| sequence(&mut dice)).collect();
        let bounds = dice.pick(&[(0.0, 2.0), (0.0, 0.0), (0.5, 1e6)]);
        let options = Options {
            normalisation: dice.pick(&[Normalisation::Std, Normalisation::Mean, Normalisation::LeaveOneOut]),
            clip_high: dice.pick(&[0.0, 0.28, 1e6]),
            dual_clip: dice.pick(&[None, Some(3.0), Some(1e6)]),
            correction: dice.pick(&[
                Correction::Off,
                Correction::Tis { low: bounds.0, high: bounds.1 },
                Correction::Icepop { low: bounds.0, high: bounds.1 },
            ]),
            aggregation: dice.pick(&[
                Aggregation::SampleMean,
                Aggregation::SeqMeanTokenMean,
                Aggregation::TokenMean,
                Aggregation::TokenSum,
                Aggregation::SeqMeanTokenSum,
            ]),
            opd_coef: dice.pick(&[0.0, 0.05, 1e6]),
            ..Options::default()
        };
        let output = evaluate(&sequences, &options).expect("finite input is accepted");
        let report = serde_json::to_value(&output).expect("plain data");
        assert_eq!(nulls(&report), 0, "{options:?} {sequences:?} {output:?}");
        assert!(output.metrics.opd_reverse_kl.is_none_or(f64::is_finite));
    }
}

fn plain(reward: Option<f64>) -> Sequence {
    Sequence {
        group: 0,
        credit: Credit::Reward(reward),
        valid: true,
        mask: vec![true; 2],
        new: vec![-1.0; 2],
        old: vec![-1.0; 2],
        rollout: vec![-1.0; 2],
        teacher: None,
        distill: false,
    }
}

#[test]
fn first_update_has_ratio_one_and_the_plain_policy_gradient() {
    let output = evaluate(&[plain(Some(1.0)), plain(Some(0.0))], &Options::default()).expect("sound");
    let advantage = 0.5 / (0.5_f64.sqrt() + 1e-6);
    assert!(output.loss.abs() < 1e-15, "opposite advantages cancel");
    for (sequence, sign) in output.gradients.iter().zip([-1.0, 1.0]) {
        assert!(sequence.iter().all(|gradient| (gradient - sign * advantage / 4.0).abs() < 1e-15), "{sequence:?}");
    }
    assert_eq!((output.metrics.ois, output.metrics.tis, output.metrics.pg_clipfrac, output.metrics.ppo_kl), (1.0, 1.0, 0.0, 0.0));
}

#[test]
fn everything_that_trains_nothing_is_counted() {
    let other = |group, sequence| Sequence { group, ..sequence };
    let sequences = [
        plain(Some(1.0)),
        plain(Some(1.0)),
        plain(None),
        Sequence { valid: false, ..plain(Some(0.0)) },
        other(1, Sequence { distill: true, ..plain(Some(0.0)) }),
        other(2, Sequence { mask: vec![false; 2], ..plain(Some(0.0)) }),
        other(2, Sequence { distill: true, teacher: Some(vec![-3.0, -2.0]), ..plain(Some(1.0)) }),
    ];
    let metrics = evaluate(&sequences, &Options::default()).expect("sound").metrics;
    assert_eq!((metrics.sequences, metrics.valid_sequences, metrics.invalid_sequences, metrics.active_sequences), (7, 5, 2, 4));
    assert_eq!((metrics.groups, metrics.zero_variance_groups, metrics.small_groups), (3, 1, 1));
    assert_eq!((metrics.distilled_sequences, metrics.distilled_tokens, metrics.untaught_sequences), (1, 2, 1));
    assert_eq!((metrics.trained_tokens, metrics.opd_reverse_kl), (8, Some(1.5)));
}

#[test]
fn masked_samples_do_not_make_the_others_louder() {
    let pair = [plain(Some(1.0)), plain(Some(0.0))];
    let padded = [plain(Some(1.0)), plain(Some(0.0)), plain(None), plain(None)];
    let gradient = |sequences: &[Sequence]| evaluate(sequences, &Options::default()).expect("sound").gradients[0][0];
    assert!((gradient(&pair) - 2.0 * gradient(&padded)).abs() < 1e-15, "a lost sample keeps its place in the denominator");
}

#[test]
fn only_the_teacher_speaks_when_asked() {
    let taught = Sequence { distill: true, teacher: Some(vec![-2.0, -0.5]), ..plain(Some(0.0)) };
    let options = Options { opd_only: true, ..Options::default() };
    let output = evaluate(&[plain(Some(1.0)), taught], &options).expect("sound");
    assert_eq!(output.gradients[0], [0.0, 0.0]);
    assert!(output.gradients[1][0] > 0.0 && output.gradients[1][1] < 0.0);
}
