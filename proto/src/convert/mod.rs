//! Between domain types and messages.
//!
//! In: domain types (`From`, cannot fail) or messages of a peer (`TryFrom`, trusts nothing). Out: the other. A domain
//! value that comes out of here is within [`limits`](crate::limits), its lists fit together and its numbers are finite.

pub mod ids;

mod call;
mod group;
mod lease;
mod model;
mod packed;
mod score;
mod task;
mod teach;
mod trajectory;

#[cfg(test)]
pub(crate) mod samples;

pub use score::{join, scored_reply};
pub use teach::answered;

/// A message that does not mean anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {reason}")]
pub struct Invalid {
    /// Which field, such as `rollouts[3].mask`.
    pub what: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Invalid {
    /// `what` is the field, `reason` a sentence of which it is the subject.
    pub fn new(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { what: what.into(), reason: reason.into() }
    }

    /// The same, seen from the message that holds the field.
    pub(crate) fn within(self, outer: impl std::fmt::Display) -> Self {
        Self { what: format!("{outer}.{}", self.what), reason: self.reason }
    }
}

impl From<Invalid> for tonic::Status {
    /// The peer sent nonsense: its process is broken, not its policy.
    fn from(invalid: Invalid) -> Self {
        tonic::Status::invalid_argument(invalid.to_string())
    }
}

/// Rejects a list or a text that is longer than allowed.
pub(crate) fn at_most(what: &str, length: usize, limit: usize) -> Result<(), Invalid> {
    if length > limit {
        return Err(Invalid::new(what, format!("is too long: {length}, limit {limit}")));
    }
    Ok(())
}

/// Converts a bounded list and names the element that failed.
pub(crate) fn each<M, T>(what: &str, list: Vec<M>, limit: usize, convert: impl Fn(M) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
    at_most(what, list.len(), limit)?;
    let convert = |(index, item)| convert(item).map_err(|invalid| invalid.within(format_args!("{what}[{index}]")));
    list.into_iter().enumerate().map(convert).collect()
}

/// Rejects an absent message.
pub(crate) fn present<T>(what: &str, field: Option<T>) -> Result<T, Invalid> {
    field.ok_or_else(|| Invalid::new(what, "is missing"))
}

/// Rejects NaN and infinities.
pub(crate) fn finite(what: &str, value: f64) -> Result<f64, Invalid> {
    if value.is_finite() { Ok(value) } else { Err(Invalid::new(what, format!("is {value}"))) }
}
