//! What a folder of a family's models says, in a table of functions: the one thing that is asked of a family before there is a model.
//!
//! In: `config.json`, names of tensors, tensors as files have them. Out: a config, parameters by name, tensors as the modules hold
//! them. Not known here: files.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::checkpoint::{HostTensor, HostWeights, StoredDtype};
use crate::config::ModelConfig;

/// How models of a family are published.
pub(crate) struct Published {
    /// Values of `model_type` in `config.json` that mean this family.
    pub model_types: &'static [&'static str],
    /// Reads `config.json`; the error names the key that is wrong, or that asks for what the family's modules do not compute.
    pub read: fn(&Value) -> Result<ModelConfig, String>,
    /// The `config.json` that transformers 5 reads, for weights stored as given.
    pub write: fn(&ModelConfig, StoredDtype) -> Value,
    /// How many values the parameters have. A config may ask for more than there is memory: nothing is made.
    pub size: fn(&ModelConfig) -> u128,
    /// The names of all parameters, which are the module paths.
    pub parameters: fn(&ModelConfig) -> BTreeSet<String>,
    /// The name of the head; in a tied model another name of the table of embeddings.
    pub head: &'static str,
    /// The name of the table of embeddings.
    pub embeddings: &'static str,
    /// What the names of the vision tower's parameters begin with.
    pub tower: &'static str,
    /// Parts of the model that are numbered.
    pub numbered: fn(&ModelConfig) -> Vec<Numbered>,
    /// The names that a name of a file may stand for, best first.
    pub spellings: fn(&str) -> Vec<String>,
    /// One projection of one expert by its name, where files keep apart what is one of the parameters.
    pub expert: fn(&BTreeSet<String>, &str) -> Option<ExpertPart>,
    /// Tensors as the modules hold them, of those that files have under parameters' names and of experts that were kept apart;
    /// the error names the tensor that contradicts the config.
    pub ours: fn(&ModelConfig, HostWeights, ExpertsApart) -> Result<HostWeights, String>,
    /// Names of parameters that are written with the last two of their three dimensions swapped.
    pub turned: fn(&ModelConfig) -> BTreeSet<String>,
}

/// One projection of one expert: layer, projection, expert.
pub(crate) type ExpertPart = (usize, &'static str, usize);

/// Projections of experts that a file keeps apart.
pub(crate) type ExpertsApart = BTreeMap<ExpertPart, HostTensor>;

/// Parts of a model whose names begin with `stem` and a number.
pub(crate) struct Numbered {
    /// What comes before the number.
    pub stem: &'static str,
    /// How many the model has.
    pub count: usize,
    /// The key of `config.json` that says so.
    pub key: &'static str,
}
