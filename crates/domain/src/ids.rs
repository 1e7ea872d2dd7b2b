//! Names of things. Every id is its own type, so that a task cannot be passed where a group is meant.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text as it is.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text_id! {
    /// One task: a question, its pictures and its answer. Unique within a task set.
    TaskId
}
text_id! {
    /// One leasing of a task, made by the learner: `<task>@<lease number>`. Submitting the same id twice counts once.
    GroupId
}
text_id! {
    /// One actor process as it named itself. Restarted actors take a new id, so a zombie is never mistaken for its heir.
    ActorId
}
text_id! {
    /// One entity of a world pack, such as `mx`.
    EntityId
}
text_id! {
    /// One teacher model, as its registry names it. Every response of the teacher service carries it.
    TeacherId
}
text_id! {
    /// A picture by the BLAKE3 hash (64 hex digits) of its encoded bytes. Pictures travel by this and are sent once.
    PictureId
}

/// The number of a published policy; version 0 is the policy that the run started from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PolicyVersion(pub u64);

impl PolicyVersion {
    /// How many versions `self` is ahead of `older`; 0 if it is not ahead.
    pub fn staleness_of(self, older: PolicyVersion) -> u64 {
        self.0.saturating_sub(older.0)
    }

    /// The version after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}
