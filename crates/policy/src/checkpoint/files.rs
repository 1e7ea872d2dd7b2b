//! Safetensors bytes, and the index of a model folder in Hugging Face layout.
//!
//! In: bytes, or a folder. Out: named tensors in f32, or which file of a folder holds which; or one error that names what is
//! broken. Reading a whole folder is `reading.rs`.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{HostTensor, HostWeights};
use crate::Error;

/// The weights' file when there is one.
pub(super) const WHOLE: &str = "model.safetensors";
/// Which shard holds which tensor, when there are several.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Largest index that is read; the largest published one has 3 MB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The tensors of safetensors bytes, as they are stored.
pub(super) fn open(bytes: &[u8]) -> Result<SafeTensors<'_>, Error> {
    SafeTensors::deserialize(bytes).map_err(|error| Error::Input(format!("not a sound safetensors file: {error}")))
}

/// Reads safetensors bytes (F32, BF16 or F16) to f32.
pub fn parse(bytes: &[u8]) -> Result<HostWeights, Error> {
    let file = open(bytes)?;
    let mut weights = HostWeights::new();
    for (name, view) in file.tensors() {
        let values = values(&name, &view)?;
        weights.insert(name, HostTensor { shape: view.shape().to_vec(), values });
    }
    Ok(weights)
}

/// A tensor's values in f32.
pub(super) fn values(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, Error> {
    let data = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        other => return Err(Error::Input(format!("tensor {name} has dtype {other:?}; F32, BF16 and F16 are read"))),
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Error::Input(format!("tensor {name} holds {} at index {at}", values[at]))),
        None => Ok(values),
    }
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
