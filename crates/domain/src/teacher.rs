//! Teachers: who gave a log-prob, and what a registry says of its models.
//!
//! A registry promotes one model after another; every promotion has a number, its revision. A [`TeacherVersion`] therefore names
//! one set of weights for ever, even where a name is used again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::TeacherId;

/// A model under the promotion that made it answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TeacherVersion {
    /// The model's name.
    pub id: TeacherId,
    /// Number of the promotion; 0 where the model was asked for by name.
    #[serde(rename = "epoch")]
    pub revision: u64,
}

impl TeacherVersion {
    /// A version.
    pub fn new(id: impl Into<TeacherId>, revision: u64) -> Self {
        Self { id: id.into(), revision }
    }
}

impl fmt::Display for TeacherVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.id, self.revision)
    }
}

/// Teacher log-probs of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherLogprobs {
    /// Who gave them.
    pub teacher: TeacherVersion,
    /// One entry per response token at temperature 1; 0.0 where the rollout's mask is false.
    pub logprobs: Vec<f32>,
    /// The teacher's most likely tokens at every sampled token, equally many for each, the likeliest first; empty where nobody
    /// asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<u32>,
}

/// What is known of a model once it has been verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// BLAKE3 over the names and contents of its files, hex; empty for a model behind somebody else's server.
    pub digest: String,
    /// BLAKE3 over the meaning of its token ids, hex.
    pub vocabulary: String,
    /// Its parameters; 0 where unknown.
    pub parameters: u64,
    /// Bytes that its weights take in this service's memory.
    pub bytes: u64,
    /// Whether another picture made another log-prob when it was verified.
    pub sighted: bool,
}

/// Where a model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Being read and verified.
    Loading,
    /// Loaded, not active.
    Ready,
    /// Answers calls that name no model.
    Active,
    /// Finishes its last groups.
    Retiring,
    /// Unloaded.
    Retired,
    /// Could not be loaded; why.
    Failed(String),
}

impl ModelState {
    /// One word for tables and labels.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
            Self::Failed(_) => "failed",
        }
    }
}

/// A model as a registry lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name.
    pub id: TeacherId,
    /// Where it came from.
    pub source: String,
    /// Where it stands.
    pub state: ModelState,
    /// What is known of it; `None` until it is verified.
    pub card: Option<ModelCard>,
    /// Calls under way.
    pub in_flight: u64,
    /// Groups that keep to it.
    pub pinned: u64,
}

/// One line of a registry's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// Its number, from 1.
    #[serde(rename = "epoch")]
    pub revision: u64,
    /// The model that became active.
    pub id: TeacherId,
    /// The one before.
    pub previous: Option<TeacherId>,
    /// Seconds since 1970, by this machine's clock.
    pub at: u64,
}

/// What a registry holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// In the order of loading.
    pub models: Vec<ModelInfo>,
    /// The oldest first; a long history is cut at its beginning.
    pub history: Vec<Promotion>,
}

impl Roster {
    /// The version that answers now.
    pub fn active(&self) -> Option<TeacherVersion> {
        self.history.last().map(|last| TeacherVersion { id: last.id.clone(), revision: last.revision })
    }
}
