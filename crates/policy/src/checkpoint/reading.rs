//! Reading a model folder: `config.json`, and `model.safetensors` or the shards of its index.
//!
//! In: a folder. Out: its shape, the tensors that belong to the model under our names, and what there is to say of the rest.
//! As transformers: `model.safetensors` goes before an index, every tensor of a shard that the index names is looked at, and
//! tensors beside the model are passed over. Stricter than transformers: a missing tensor is an error, as are one tensor with
//! two values and one that would change what the model computes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use super::files::{self, INDEX, WHOLE, values};
use super::names::{Meaning, Names};
use super::save::interrupted;
use super::{HostTensor, HostWeights, from_host};
use crate::Error;
use crate::config::ModelConfig;
use crate::models::{ExpertsApart, Model, Vlm};
use crate::ops::Kernels;

/// Largest file that is read: far above any single shard, far below an accident.
const MAX_FILE_BYTES: u64 = 64 << 30;
/// Names that a warning spells out.
const SPELT_OUT: usize = 4;

/// Reads a model folder: its shape, and exactly the tensors that belong to it. What was passed over is logged, one line for all.
///
/// # Errors
/// [`Error`] that names the file and what is missing, contradictory, mis-shaped or broken.
pub fn read(dir: &Path) -> Result<(ModelConfig, HostWeights), Error> {
    let (config, weights, remarks) = read_with_remarks(dir)?;
    for remark in remarks {
        tracing::warn!("{}: {remark}", dir.display());
    }
    Ok((config, weights))
}

/// As [`read`], and gives what there is to say of the files instead of logging it.
///
/// # Errors
/// As [`read`].
pub fn read_with_remarks(dir: &Path) -> Result<(ModelConfig, HostWeights, Vec<String>), Error> {
    read_part(dir, "")
}

/// Reads the vision tower of a model folder, and its shape; parameters are named as in [`crate::models::Tower`]. One file at a time is
/// in memory, and of each only what is the tower's stays.
///
/// # Errors
/// As [`read`], of the tower's tensors.
pub fn read_tower(dir: &Path) -> Result<(ModelConfig, HostWeights), Error> {
    let prefix = ModelConfig::load(dir)?.family.published().tower;
    let (config, weights, _) = read_part(dir, prefix)?;
    let bare = |(name, tensor): (String, HostTensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor));
    Ok((config, weights.into_iter().filter_map(bare).collect()))
}

/// The parameters whose names begin with `prefix`.
fn read_part(dir: &Path, prefix: &str) -> Result<(ModelConfig, HostWeights, Vec<String>), Error> {
    let named = |why: String| Error::Input(format!("{}: {why}", dir.display()));
    if !dir.exists()
        && let Some(left) = interrupted(dir)
    {
        let left = left.display();
        return Err(named(format!("is not there, but {left} is: a save was cut off; move that here, or save again, which does it")));
    }
    let config = ModelConfig::load(dir)?;
    let mut found = Found::of(&config, prefix);
    let mut remarks = vec![];
    let (whole, index) = (dir.join(WHOLE), dir.join(INDEX));
    if whole.exists() {
        found.file(&whole)?;
        if index.exists() {
            remarks.push(format!("{WHOLE} and {INDEX} are both there; the former is read, as transformers does, the latter is not"));
        }
    } else if index.exists() {
        found.shards(dir)?;
    } else {
        return Err(named(format!("cannot read weights: neither {WHOLE} nor {INDEX} is there")));
    }
    // A model is made before its tensors are compared by shape: not one that is far larger than what the files hold.
    let (described, held) = (config.parameters(), found.held);
    if described > held.saturating_mul(2).saturating_add(1 << 20) {
        return Err(named(format!("config.json describes {described} parameters, the files hold {held}")));
    }
    let beside = std::mem::take(&mut found.beside);
    if !beside.is_empty() {
        let spelt: Vec<&str> = beside.iter().take(SPELT_OUT).map(String::as_str).collect();
        let more = if beside.len() > SPELT_OUT { ", ..." } else { "" };
        remarks.push(format!("{} tensors are no part of the model and were passed over: {}{more}", beside.len(), spelt.join(", ")));
    }
    let Found { names, weights, experts, .. } = found;
    let weights = (config.family.published().ours)(&config, weights, experts).map_err(named)?;
    let mut missing = names.all().filter(|name| name.starts_with(prefix) && !weights.contains_key(*name));
    if let Some(first) = missing.next() {
        let others = missing.count();
        let others = if others == 0 { String::new() } else { format!(", and {others} more are") };
        return Err(named(format!("tensor {first} is missing{others}")));
    }
    Ok((config, weights, remarks))
}

/// Loads a model folder.
///
/// # Errors
/// As [`read`].
pub fn load<B: Kernels>(dir: &Path, device: &B::Device) -> Result<(ModelConfig, Model<B>), Error> {
    let (config, weights) = read(dir)?;
    let model =
        from_host(Model::init(&config, 0, device), &weights).map_err(|error| Error::Input(format!("{}: {error}", dir.display())))?;
    Ok((config, model))
}

/// What files hold of a model.
struct Found<'a> {
    names: Names,
    /// What the names of parameters that are kept begin with.
    prefix: &'a str,
    weights: HostWeights,
    /// Where a parameter came from, and what it is called there.
    origins: BTreeMap<String, (PathBuf, String)>,
    /// What is kept apart there and is one parameter of ours.
    experts: ExpertsApart,
    /// Names of tensors that are no part of the model.
    beside: BTreeSet<String>,
    /// Elements of all tensors.
    held: u128,
}

impl<'a> Found<'a> {
    fn of(config: &ModelConfig, prefix: &'a str) -> Self {
        Self {
            names: Names::of(config),
            prefix,
            weights: HostWeights::new(),
            origins: BTreeMap::new(),
            experts: ExpertsApart::new(),
            beside: BTreeSet::new(),
            held: 0,
        }
    }

    /// Takes one safetensors file in; its tensors' names as the file has them.
    fn file(&mut self, path: &Path) -> Result<BTreeSet<String>, Error> {
        let input = |why: String| Error::Input(format!("{}: {why}", path.display()));
        let bytes =
            hypereyes_outside::files::read(path, MAX_FILE_BYTES).map_err(|error| input(format!("cannot read weights ({error})")))?;
        let file = files::open(&bytes).map_err(|error| input(error.to_string()))?;
        self.tensors(path, &file).map_err(input)?;
        Ok(file.names().into_iter().map(ToString::to_string).collect())
    }

    fn tensors(&mut self, path: &Path, file: &SafeTensors<'_>) -> Result<(), String> {
        for (name, view) in file.tensors() {
            self.held += view.shape().iter().map(|side| *side as u128).product::<u128>();
            let tensor = || -> Result<HostTensor, String> {
                let values = values(&name, &view).map_err(|error| error.to_string())?;
                Ok(HostTensor { shape: view.shape().to_vec(), values })
            };
            match self.names.meaning(&name) {
                Meaning::Beside => drop(self.beside.insert(name)),
                Meaning::Contradicts(why) => return Err(format!("tensor {name} {why}")),
                Meaning::Expert(_) if !self.prefix.is_empty() => {}
                Meaning::Ours(ours) if !ours.starts_with(self.prefix) => {}
                Meaning::Expert(part) => {
                    self.experts.insert(part, tensor()?);
                }
                Meaning::Ours(ours) => {
                    let tensor = tensor()?;
                    if let Some(known) = self.weights.get(&ours) {
                        if *known != tensor {
                            let (file, other) = &self.origins[&ours];
                            return Err(format!("tensor {name} differs from {other} of {}, and they are one tensor", file.display()));
                        }
                        continue;
                    }
                    self.origins.insert(ours.clone(), (path.to_owned(), name));
                    self.weights.insert(ours, tensor);
                }
            }
        }
        Ok(())
    }

    /// Takes the shards in that an index names.
    fn shards(&mut self, dir: &Path) -> Result<(), Error> {
        let index = files::read_index(dir)?;
        let shards: BTreeSet<&String> = index.values().collect();
        let mut there = BTreeSet::new();
        for shard in shards {
            there.extend(self.file(&dir.join(shard))?);
        }
        // A tied table under its other name may have been left out of the shards and not of the index.
        let elsewhere = |name: &str| match self.names.meaning(name) {
            Meaning::Ours(ours) => self.names.is_head(&ours) || self.weights.contains_key(&ours) || !ours.starts_with(self.prefix),
            _ => false,
        };
        match index.iter().find(|(name, _)| !there.contains(*name) && !elsewhere(name)) {
            Some((name, shard)) => Err(Error::Input(format!("{}: tensor {name} is not in {shard}", dir.join(INDEX).display()))),
            None => Ok(()),
        }
    }
}
