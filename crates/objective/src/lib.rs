//! The policy-gradient objective as a pure function.
//!
//! In: per-token log-probs of the current, the pre-update and the sampling policy and of the teacher, masks, rewards and
//! groups ([`Sequence`]), and [`Options`]. Out: the loss, d loss / d new log-prob of every token, the advantages that
//! were used, and metrics ([`Output`]). The learner back-propagates `sum(gradient * new log-prob)` and nothing else.
//!
//! Everything is `f64`, exact to rounding, and total: finite input never gives NaN or infinity, because exponents and
//! rewards saturate far outside any sensible range ([`saturate`]). Sources: docs/spec.md#normalisation, #distillation, #objective.
//!
//! This crate knows no tensors, no model, no wire format and no clock.

pub mod advantage;
pub mod aggregate;
pub mod cases;
pub mod clip;
pub mod distill;
pub mod evaluate;
pub mod importance;
pub mod metrics;
pub mod options;
pub mod saturate;
pub mod sequence;

pub use advantage::{Advantages, Normalisation, group_advantages};
pub use aggregate::{Aggregation, Totals};
pub use cases::evaluate_case;
pub use clip::Clip;
pub use evaluate::{Output, evaluate, evaluate_part};
pub use importance::Correction;
pub use metrics::Metrics;
pub use options::Options;
pub use sequence::{Credit, Sequence};

/// Why an objective could not be evaluated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ObjectiveError {
    /// An option is outside its range.
    #[error("objective option `{key}` is {value}, but must be {range}")]
    Option {
        /// The key of [`Options`].
        key: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
    /// A per-token list does not fit its sequence's mask.
    #[error("sequence {sequence}: {got} values in `{list}` for {want} tokens in `mask`; give one per response token")]
    Length {
        /// Index among the given sequences.
        sequence: usize,
        /// Which list.
        list: &'static str,
        /// Its length.
        got: usize,
        /// Length of the mask.
        want: usize,
    },
    /// A number is NaN or infinite.
    #[error("sequence {sequence}: `{list}` holds {value} at token {token}; mark the sequence as invalid with finite placeholders instead")]
    NotFinite {
        /// Index among the given sequences.
        sequence: usize,
        /// Which list, or `advantage`.
        list: &'static str,
        /// Response position; 0 for `advantage`.
        token: usize,
        /// The value.
        value: f64,
    },
    /// The totals count less than the part that they are the totals of.
    #[error("totals {totals:?} are smaller than those of the given sequences, {part:?}; sum them over all parts")]
    Totals {
        /// What was given.
        totals: Totals,
        /// What the sequences add up to.
        part: Totals,
    },
    /// Rewards and group ids are not equally many.
    #[error("{rewards} rewards for {groups} group ids; give one of each per sequence")]
    Groups {
        /// Number of rewards.
        rewards: usize,
        /// Number of group ids.
        groups: usize,
    },
}
