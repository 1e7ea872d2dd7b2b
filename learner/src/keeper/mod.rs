//! The reward service, as the learner needs it: it keeps the TRACE references. In: what is known of them, the end of an epoch. Out:
//! all references. Whatever call is made of, a service that is away for a moment is waited for.

pub mod service;

pub use service::{KeptReferences, ReferenceKeeper};
