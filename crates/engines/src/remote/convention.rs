//! Which log-probs a server gives. In: log-probs of the likeliest token, asked for in three ways after several prompts. Out: whether they
//! are of the logits as they are, at the sampling temperature, or after the distribution was truncated; and whether that is what is trained
//! on. It asks nobody.

use hypereyes_domain::Sampling;

/// Another temperature than 1, as far from it as vLLM takes.
pub const WARM: f32 = 2.0;
/// Differences above this are no rounding, not even of bf16 in batches of different shapes.
const DIFFERENT: f32 = 0.1;
/// Where a temperature would change a log-prob by more than this, rounding cannot hide it.
const CLEAR: f32 = 0.15;
/// Prompts after which nothing changes until that is no coincidence: between likeliest tokens that are equally likely, nothing ever does.
const ENOUGH: usize = 3;
/// Log-probs nearer to 0 than this are of a probability of 1.
const CERTAIN: f32 = 1e-5;
/// Log-probs below this are of a probability below 1.
const DOUBTFUL: f32 = -1e-3;
/// Log-probs above this change too little with temperature to tell anything.
const SURE: f32 = -0.3;

/// Where in sampling a server's log-probs are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// Of the logits as they are, whatever the temperature: vLLM's `raw_logprobs`.
    Plain,
    /// At the temperature, before the distribution is truncated: SGLang's.
    Tempered,
    /// At the temperature, after the distribution was truncated: vLLM's `processed_logprobs`.
    Truncated,
    /// What was seen fits several.
    Unknown,
}

/// The likeliest token's log-prob after a prompt, at temperature 1 and at [`WARM`], each with a nucleus that holds nothing else; and the
/// log-prob of a token sampled at temperature 1 of the whole distribution.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// At temperature 1.
    pub plain: f32,
    /// At [`WARM`].
    pub tempered: f32,
    /// Of the whole distribution.
    pub whole: f32,
}

impl Convention {
    /// What can be told of what was seen after some prompts. One that changes with temperature is enough, and so is one that does not
    /// where it would have to; that others do not change, which they might not anyway, is believed of several.
    pub fn of(seen: &[Seen]) -> Self {
        if seen.iter().any(Seen::changes) {
            return Self::Tempered;
        }
        // They were certain only because everything else was cut off.
        if seen.iter().any(|seen| seen.plain > -CERTAIN && seen.whole < DOUBTFUL) {
            return Self::Truncated;
        }
        let doubtful = seen.iter().filter(|seen| seen.plain <= SURE).count();
        if doubtful >= ENOUGH || seen.iter().any(|seen| least_change(seen.plain) > CLEAR) { Self::Plain } else { Self::Unknown }
    }

    /// Whether the log-probs are those that are trained on: at the sampling temperature (1 when greedy), before the distribution is
    /// truncated.
    ///
    /// # Errors
    /// What they are instead, and what would do.
    pub fn gives(self, sampling: Sampling) -> Result<(), String> {
        let Sampling { temperature, top_k, top_p, min_p } = sampling;
        let greedy = temperature <= 0.0;
        let as_it_is = greedy || temperature == 1.0;
        let whole = greedy || (top_p >= 1.0 && top_k == 0 && min_p <= 0.0);
        match self {
            Self::Tempered => Ok(()),
            Self::Plain if as_it_is => Ok(()),
            Self::Truncated if whole => Ok(()),
            Self::Unknown if as_it_is && whole => Ok(()),
            Self::Plain => Err(format!(
                "gives log-probs before temperature, but temperature is {temperature}, at which they are trained: sample at temperature 1, or \
                 start a vLLM server with --logprobs-mode processed_logprobs and sample with top_p 1"
            )),
            Self::Truncated => Err(format!(
                "gives log-probs after truncation, but top_p is {top_p} and they are trained before: sample with top_p 1, or start a vLLM server \
                 with --logprobs-mode raw_logprobs and sample at temperature 1"
            )),
            Self::Unknown => Err(format!(
                "does not let see whether its log-probs are taken before or after temperature and top_p, which are {temperature} and {top_p}: \
                 sample at temperature 1 with top_p 1"
            )),
        }
    }
}

impl Seen {
    fn changes(&self) -> bool {
        (self.plain - self.tempered).abs() > DIFFERENT
    }
}

/// By how much [`WARM`] changes the log-prob of a likeliest token at least, whatever the other tokens' are: by least where as few as possible
/// share what is left, none of them likelier than the likeliest.
fn least_change(logprob: f32) -> f32 {
    let likeliest = logprob.exp();
    let alike = (1.0 / likeliest).floor();
    let rest = (1.0 - alike * likeliest).max(0.0);
    let warm = |probability: f32| probability.powf(1.0 / WARM);
    logprob - (warm(likeliest) / (alike * warm(likeliest) + warm(rest))).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server of a convention shows of logits.
    fn shown(convention: Convention, logits: &[f32]) -> Seen {
        let logprob = |temperature: f32| {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = logits.iter().map(|logit| ((logit - most) / temperature).exp()).sum();
            -sum.ln()
        };
        match convention {
            Convention::Plain => Seen { plain: logprob(1.0), tempered: logprob(1.0), whole: logprob(1.0) },
            Convention::Truncated => Seen { plain: 0.0, tempered: 0.0, whole: logprob(1.0) },
            _ => Seen { plain: logprob(1.0), tempered: logprob(WARM), whole: logprob(1.0) },
        }
    }

    #[test]
    fn conventions_are_told_apart_by_what_changes() {
        let doubtful = [0.0, -0.4, -1.0, -2.0, -2.5];
        for convention in [Convention::Plain, Convention::Tempered, Convention::Truncated] {
            assert_eq!(Convention::of(&[shown(convention, &doubtful); 4]), convention);
        }
        let of = |plain, tempered, whole| Convention::of(&[Seen { plain, tempered, whole }]);
        assert_eq!(of(-0.7, -1.9, -1.2), Convention::Tempered);
        assert_eq!(of(0.0, -0.4, 0.0), Convention::Tempered, "certain at temperature 1 alone");
        assert_eq!(of(0.0, 0.0, -1.2), Convention::Truncated);
        assert_eq!(of(-0.2, -0.2, -0.2), Convention::Plain, "it would have had to change");
        assert_eq!(of(0.0, 0.0, 0.0), Convention::Unknown, "a model without doubt");
        assert_eq!(of(-0.01, -0.05, -0.01), Convention::Unknown, "one with little doubt");
        let sure = Seen { plain: 0.0, tempered: 0.0, whole: 0.0 };
        let one = Seen { tempered: -2.0, plain: -1.0, whole: -1.0 };
        assert_eq!(Convention::of(&[sure, sure, one, sure]), Convention::Tempered, "one that changes is enough");
    }

    #[test]
    fn tokens_that_are_equally_likely_tell_nothing() {
        // A policy that has become sure of itself: certain after some prompts, and undecided between two tokens after another.
        let sure = shown(Convention::Tempered, &[0.0, -40.0, -50.0]);
        let tie = shown(Convention::Tempered, &[0.0, -0.01, -40.0]);
        assert!((tie.plain - tie.tempered).abs() < 0.01 && tie.plain < SURE);
        assert_eq!(Convention::of(&[sure, tie, sure, sure]), Convention::Unknown);
        assert_eq!(Convention::of(&[sure, tie, tie, sure]), Convention::Unknown);
    }

    #[test]
    fn no_distribution_changes_less_with_temperature_than_is_counted_on() {
        let mut random = 1u64;
        let mut draw = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 40) as f32 / (1 << 24) as f32
        };
        for _ in 0..20_000 {
            let spread = 6.0 * draw();
            let logits: Vec<f32> = (0..2 + (draw() * 8.0) as usize).map(|_| spread * draw()).collect();
            let Seen { plain, tempered, .. } = shown(Convention::Tempered, &logits);
            let least = least_change(plain);
            assert!(plain - tempered >= least - 1e-4, "{logits:?} changes from {plain} to {tempered}, and not by {least}");
        }
    }

    #[test]
    fn only_what_is_trained_on_is_given() {
        let samplings = [Sampling::of(1.0, 1.0), Sampling::GREEDY, Sampling::of(0.8, 1.0), Sampling::of(1.0, 0.7), Sampling::of(0.8, 0.7)];
        let given = |convention: Convention| samplings.map(|sampling| convention.gives(sampling).is_ok());
        assert_eq!(given(Convention::Tempered), [true; 5]);
        assert_eq!(given(Convention::Plain), [true, true, false, true, false]);
        assert_eq!(given(Convention::Truncated), [true, true, true, false, false]);
        assert_eq!(given(Convention::Unknown), [true, true, false, false, false]);
        assert!(Convention::Plain.gives(Sampling::of(0.8, 1.0)).expect_err("before").contains("temperature is 0.8"));
    }
}
