//! Model folders in Hugging Face layout: `config.json` and `model.safetensors`, whole or in shards.
//!
//! In: a folder or bytes. Out: named tensors in f32, exactly those of the model that the config describes, or one error
//! that names what is broken. Files are replaced whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{HostTensor, HostWeights, StoredDtype, from_host, published};
use crate::Error;
use crate::config::ModelConfig;
use crate::model::Qwen3Vl;
use crate::ops::Kernels;

/// The weights' file when there is one.
const WHOLE: &str = "model.safetensors";
/// Which shard holds which tensor, when there are several.
const INDEX: &str = "model.safetensors.index.json";
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

/// Safetensors bytes of host parameters.
pub fn serialise(weights: &HostWeights, dtype: StoredDtype) -> Result<Vec<u8>, Error> {
    type Stored<'a> = Vec<(&'a String, &'a HostTensor, Vec<u8>)>;
    let (kind, bytes): (Dtype, Stored<'_>) = match dtype {
        StoredDtype::F32 => (
            Dtype::F32,
            weights.iter().map(|(name, tensor)| (name, tensor, tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect())).collect(),
        ),
        StoredDtype::Bf16 => (
            Dtype::BF16,
            weights
                .iter()
                .map(|(name, tensor)| (name, tensor, tensor.values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect()))
                .collect(),
        ),
    };
    let views: Vec<(&String, TensorView<'_>)> = bytes
        .iter()
        .map(|(name, tensor, data)| {
            let view =
                TensorView::new(kind, tensor.shape.clone(), data).map_err(|error| Error::Input(format!("tensor {name}: {error}")))?;
            Ok((*name, view))
        })
        .collect::<Result<_, Error>>()?;
    let metadata = Some([("format".to_owned(), "pt".to_owned())].into());
    safetensors::serialize(views, metadata).map_err(|error| Error::Input(format!("cannot serialise: {error}")))
}

/// Reads a model folder: its shape, and exactly the tensors that belong to it.
///
/// # Errors
/// [`Error`] that names the file and what is missing, extra, mis-shaped or broken.
pub fn read(dir: &Path) -> Result<(ModelConfig, HostWeights), Error> {
    let config = ModelConfig::load(dir)?;
    let named = |why: String| Error::Input(format!("{}: {why}", dir.display()));
    let weights = if dir.join(INDEX).is_file() { read_shards(dir)? } else { read_file(&dir.join(WHOLE))? };
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

fn read_shards(dir: &Path) -> Result<HostWeights, Error> {
    let path = dir.join(INDEX);
    let input = |why: String| Error::Input(format!("{}: {why}", path.display()));
    let text = hypereyes_outside::files::read(&path, MAX_INDEX_BYTES).map_err(|error| Error::io(&path, error))?;
    let index: Index = serde_json::from_slice(&text).map_err(|error| input(format!("is no index: {error}")))?;
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    let mut weights = HostWeights::new();
    for shard in shards {
        // An index comes with the model: it may name files beside it, and nothing else on this machine.
        if !shard.ends_with(".safetensors") || shard.contains(['/', '\\']) {
            return Err(input(format!("{shard:?} is no name of a safetensors file in this folder")));
        }
        for (name, tensor) in read_file(&dir.join(shard))? {
            match index.weight_map.get(&name) {
                Some(home) if home == shard => weights.insert(name, tensor),
                Some(home) => return Err(input(format!("tensor {name} is in {shard}, the index says {home}"))),
                None => return Err(input(format!("tensor {name} of {shard} is not in the index"))),
            };
        }
    }
    match index.weight_map.iter().find(|(name, _)| !weights.contains_key(*name)) {
        Some((name, shard)) => Err(input(format!("tensor {name} is not in {shard}"))),
        None => Ok(weights),
    }
}

/// Writes `config.json` and `model.safetensors` into a folder, each replaced whole.
pub fn save(dir: &Path, config: &ModelConfig, weights: &HostWeights, dtype: StoredDtype) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, error))?;
    let json = serde_json::to_string_pretty(&config.to_json(dtype)).expect("JSON of plain values");
    replace(&dir.join("config.json"), json.as_bytes())?;
    replace(&dir.join("model.safetensors"), &serialise(weights, dtype)?)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes).map_err(|error| Error::io(&partial, error))?;
    std::fs::rename(&partial, path).map_err(|error| Error::io(path, error))
}
