//! Which log-probs a server gives. In: log-probs of the likeliest token, asked for in three ways. Out: whether they are of the logits as
//! they are, at the sampling temperature, or after the distribution was truncated; and whether that is what is trained on. It asks nobody.

use hypereyes_domain::Sampling;

/// Differences above this are no rounding, not even of bf16 in batches of different shapes.
const DIFFERENT: f32 = 0.1;
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

/// The likeliest token's log-prob, at temperature 1 and at another one, each with a nucleus that holds nothing else; and the log-prob of a
/// token sampled at temperature 1 of the whole distribution.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// At temperature 1.
    pub plain: f32,
    /// At another temperature.
    pub tempered: f32,
    /// Of the whole distribution.
    pub whole: f32,
}

impl Convention {
    /// What can be told of what was seen after one prompt.
    pub fn of(Seen { plain, tempered, whole }: Seen) -> Self {
        if (plain - tempered).abs() > DIFFERENT {
            return Self::Tempered;
        }
        if plain > -CERTAIN && whole < DOUBTFUL {
            // It was certain only because everything else was cut off.
            return Self::Truncated;
        }
        if plain > SURE { Self::Unknown } else { Self::Plain }
    }

    /// With what is told after another prompt: one that changes with temperature is enough.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Tempered | Self::Truncated, _) | (_, Self::Unknown) => self,
            (_, other) => other,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conventions_are_told_apart_by_what_changes() {
        let of = |plain, tempered, whole| Convention::of(Seen { plain, tempered, whole });
        assert_eq!(of(-0.7, -0.7, -1.2), Convention::Plain);
        assert_eq!(of(-0.7, -1.9, -1.2), Convention::Tempered);
        assert_eq!(of(0.0, -0.4, 0.0), Convention::Tempered, "certain at temperature 1 alone");
        assert_eq!(of(0.0, 0.0, -1.2), Convention::Truncated);
        assert_eq!(of(0.0, 0.0, 0.0), Convention::Unknown, "a model without doubt");
        assert_eq!(of(-0.01, -0.05, -0.01), Convention::Unknown, "one with little doubt");
        let all = [Convention::Unknown, Convention::Plain, Convention::Tempered, Convention::Unknown];
        assert_eq!(all.into_iter().reduce(Convention::and), Some(Convention::Tempered));
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
