//! Reading model folders in Hugging Face layout: `config.json` and `model.safetensors`, whole or in shards.
//!
//! In: a folder or bytes. Out: named tensors in f32, exactly those of the model that the config describes, or one error
//! that names what is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::save::interrupted;
use super::{HostTensor, HostWeights, from_host, published};
use crate::Error;
use crate::config::ModelConfig;
use crate::model::Qwen3Vl;
use crate::ops::Kernels;

/// The weights' file when there is one.
pub(super) const WHOLE: &str = "model.safetensors";
/// Which shard holds which tensor, when there are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Largest file that is read: far above any single shard, far below an accident.
const MAX_FILE_BYTES: u64 = 64 << 30;
/// Largest index that is read; the largest published one has 3 MB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Reads safetensors bytes (F32, BF16 or F16) to f32.
pub fn parse(bytes: &[u8]) -> Result<HostWeights, Error> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| Error::Input(format!("not a sound safetensors file: {error}")))?;
    let mut weights = HostWeights::new();
    for (name, view) in file.tensors() {
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::BF16 => data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::F16 => data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => return Err(Error::Input(format!("tensor {name} has dtype {other:?}; F32, BF16 and F16 are read"))),
        };
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::Input(format!("tensor {name} holds {} at index {at}", values[at])));
        }
        weights.insert(name, HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(weights)
}

/// Reads a model folder: its shape, and exactly the tensors that belong to it.
///
/// # Errors
/// [`Error`] that names the file and what is missing, extra, mis-shaped or broken.
pub fn read(dir: &Path) -> Result<(ModelConfig, HostWeights), Error> {
    let named = |why: String| Error::Input(format!("{}: {why}", dir.display()));
    if !dir.exists()
        && let Some(left) = interrupted(dir)
    {
        let left = left.display();
        return Err(named(format!("is not there, but {left} is: a save was cut off; move that here, or save again, which does it")));
    }
    let config = ModelConfig::load(dir)?;
    // As transformers looks for them: an index beside a whole file is one that was left over.
    let weights = if dir.join(WHOLE).is_file() || !dir.join(INDEX).is_file() {
        if dir.join(INDEX).is_file() {
            tracing::warn!(folder = %dir.display(), "{WHOLE} is read; {INDEX} beside it is not, as in transformers");
        }
        read_file(&dir.join(WHOLE))?
    } else {
        read_shards(dir)?
    };
    let weights = published::ours(&config, weights).map_err(named)?;
    // A model is made before its tensors are compared by name: not one that is far larger than what the files hold.
    let (described, held) = (config.parameters(), weights.values().map(|tensor| tensor.values.len() as u128).sum::<u128>());
    if described > held.saturating_mul(2).saturating_add(1 << 20) {
        return Err(named(format!("config.json describes {described} parameters, the files hold {held}")));
    }
    Ok((config, weights))
}

/// Loads a model folder.
///
/// # Errors
/// As [`read`].
pub fn load<B: Kernels>(dir: &Path, device: &B::Device) -> Result<(ModelConfig, Qwen3Vl<B>), Error> {
    let (config, weights) = read(dir)?;
    let model =
        from_host(Qwen3Vl::init(&config, 0, device), &weights).map_err(|error| Error::Input(format!("{}: {error}", dir.display())))?;
    Ok((config, model))
}

fn read_file(path: &Path) -> Result<HostWeights, Error> {
    let input = |why: String| Error::Input(format!("{}: {why}", path.display()));
    let bytes = hypereyes_outside::files::read(path, MAX_FILE_BYTES).map_err(|error| input(format!("cannot read weights ({error})")))?;
    parse(&bytes).map_err(|error| input(error.to_string()))
}

/// The part of an index that is needed.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Which file of a folder holds which tensor.
pub(super) fn read_index(dir: &Path) -> Result<BTreeMap<String, String>, Error> {
    let path = dir.join(INDEX);
    let input = |why: String| Error::Input(format!("{}: {why}", path.display()));
    let text = hypereyes_outside::files::read(&path, MAX_INDEX_BYTES).map_err(|error| Error::io(&path, error))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| input(format!("is no index: {error}")))?;
    // An index comes with the model: it may name files beside it, and nothing else on this machine.
    if let Some(shard) = index.weight_map.values().find(|shard| !shard.ends_with(".safetensors") || shard.contains(['/', '\\'])) {
        return Err(input(format!("{shard:?} is no name of a safetensors file in this folder")));
    }
    Ok(index.weight_map)
}

fn read_shards(dir: &Path) -> Result<HostWeights, Error> {
    let path = dir.join(INDEX);
    let input = |why: String| Error::Input(format!("{}: {why}", path.display()));
    let index = read_index(dir)?;
    let shards: BTreeSet<&String> = index.values().collect();
    let mut weights = HostWeights::new();
    for shard in shards {
        for (name, tensor) in read_file(&dir.join(shard))? {
            match index.get(&name) {
                Some(home) if home == shard => weights.insert(name, tensor),
                Some(home) => return Err(input(format!("tensor {name} is in {shard}, the index says {home}"))),
                None => return Err(input(format!("tensor {name} of {shard} is not in the index"))),
            };
        }
    }
    match index.iter().find(|(name, _)| !weights.contains_key(*name)) {
        Some((name, shard)) => Err(input(format!("tensor {name} is not in {shard}"))),
        None => Ok(weights),
    }
}
