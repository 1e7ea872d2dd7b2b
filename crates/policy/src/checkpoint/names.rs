//! What the tensors of files are to a model.
//!
//! In: a config, and a name of a file. Out: the parameter that it is, or that it is none, and whether that is harmless. Which
//! parameters a model has and what else they are called is its family's; what adapters, quantised weights and biases are called is
//! alike everywhere.

use std::collections::BTreeSet;

use crate::config::ModelConfig;
use crate::models::{ExpertPart, Numbered, Published};

/// The names of a model's parameters.
pub(crate) struct Names {
    family: &'static Published,
    ours: BTreeSet<String>,
    numbered: Vec<Numbered>,
    tied: bool,
}

/// What a name of a file is to the model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A parameter, by its own name (the head of a tied model included).
    Ours(String),
    /// One projection of one expert, where a file keeps experts apart.
    Expert(ExpertPart),
    /// Nothing that the model knows.
    Beside,
    /// Nothing that the model knows, but it would change what the model computes: why it is refused.
    Contradicts(String),
}

impl Names {
    /// All parameters of the model that `config` describes.
    pub(crate) fn of(config: &ModelConfig) -> Self {
        let family = config.family.published();
        let (ours, numbered) = ((family.parameters)(config), (family.numbered)(config));
        Self { family, ours, numbered, tied: config.tie_word_embeddings }
    }

    /// Every parameter's name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &String> {
        self.ours.iter()
    }

    /// Whether a parameter has this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.ours.contains(name)
    }

    /// Whether a parameter is the head.
    pub(super) fn is_head(&self, ours: &str) -> bool {
        ours == self.family.head
    }

    /// The two names of a tied table: as embeddings, which is the parameter's, and as the head.
    pub(super) fn tied(&self) -> Option<[&'static str; 2]> {
        self.tied.then_some([self.family.embeddings, self.family.head])
    }

    /// What a file's name is.
    pub(crate) fn meaning(&self, name: &str) -> Meaning {
        let spellings = (self.family.spellings)(name);
        let known = |name: &String| self.ours.contains(name) || (self.tied && self.is_head(name));
        if let Some(ours) = spellings.iter().find(|name| known(name)) {
            return Meaning::Ours(ours.clone());
        }
        if let Some(part) = spellings.iter().find_map(|name| (self.family.expert)(&self.ours, name)) {
            return Meaning::Expert(part);
        }
        match spellings.iter().find_map(|spelling| self.contradiction(spelling)) {
            Some(why) => Meaning::Contradicts(why),
            None => Meaning::Beside,
        }
    }

    /// Why a tensor cannot be passed over, if it cannot: the config leaves out a part of the model that the file holds, or the
    /// weights are not what is in the tensors of that name alone.
    fn contradiction(&self, name: &str) -> Option<String> {
        for Numbered { stem, count, key } in &self.numbered {
            let number = name.strip_prefix(stem).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            if number.is_some_and(|number| number >= *count) {
                return Some(format!(
                    "belongs to part {} of {}; config.json says {count} ({key})",
                    number? + 1,
                    stem.trim_end_matches('.')
                ));
            }
        }
        if name.contains(".lora_") || name.contains(".base_layer.") {
            return Some("is of an adapter that is not merged; merge it into the weights first".into());
        }
        let (module, last) = name.rsplit_once('.')?;
        let beside = self.ours.contains(&format!("{module}.weight")) || self.ours.contains(module);
        let scaled = last.starts_with("weight_") || ["qweight", "qzeros", "scales", "g_idx", "absmax"].contains(&last);
        if scaled && beside {
            return Some("belongs to quantised weights; only F32, BF16 and F16 weights are read".into());
        }
        (last == "bias" && beside).then(|| "is a bias that this model does not have; it would compute something else".into())
    }
}
