//! Tensors in safetensors files: laid out, written without a second copy in memory, and read back as a digest.
//!
//! In: host weights and how they are stored. Out: one file, or shards with their index where one would be too large; and one name
//! for all tensors of a folder: BLAKE3 over names, types, shapes and bytes in the order of names, whatever files they are in.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, View};

use super::super::files::{INDEX, WHOLE, read_index};
use super::super::{HostTensor, HostWeights, StoredDtype};
use crate::Error;
use crate::config::ModelConfig;

/// Largest file of weights that is written, as transformers 5 has it.
pub const SHARD_BYTES: u64 = 50 << 30;
/// Largest header of a safetensors file; the format allows no more.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor as it is stored: its bytes are made when they are asked for.
#[derive(Clone, Copy)]
struct Stored<'a> {
    tensor: &'a HostTensor,
    dtype: StoredDtype,
    /// With its last two dimensions swapped.
    turned: Option<[usize; 3]>,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.turned.as_ref().map_or(&self.tensor.shape, |turned| turned)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let turned = self.turned.map(|_| self.tensor.transposed());
        let values = &turned.as_ref().unwrap_or(self.tensor).values;
        match self.dtype {
            StoredDtype::F32 if turned.is_none() && cfg!(target_endian = "little") => bytemuck::cast_slice(&self.tensor.values).into(),
            StoredDtype::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            StoredDtype::Bf16 => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        self.tensor.values.len() * self.dtype.bytes()
    }
}

/// Tensors under their published names, as they are stored.
type Laid<'a> = BTreeMap<&'a str, Stored<'a>>;

fn lay<'a>(weights: &'a HostWeights, dtype: StoredDtype, turn: impl Fn(&str) -> bool) -> Result<Laid<'a>, Error> {
    let stored = |(name, tensor): (&'a String, &'a HostTensor)| {
        if tensor.shape.iter().product::<usize>() != tensor.values.len() {
            return Err(Error::Input(format!("tensor {name}: {} values do not have the shape {:?}", tensor.values.len(), tensor.shape)));
        }
        let turned = match tensor.shape[..] {
            [count, rows, columns] if turn(name) => Some([count, columns, rows]),
            _ => None,
        };
        Ok((name.as_str(), Stored { tensor, dtype, turned }))
    };
    weights.iter().map(stored).collect()
}

fn metadata() -> Option<HashMap<String, String>> {
    Some([("format".to_owned(), "pt".to_owned())].into())
}

/// Safetensors bytes of host parameters, as they are.
///
/// # Errors
/// [`Error`] when a tensor does not have its shape.
pub fn serialise(weights: &HostWeights, dtype: StoredDtype) -> Result<Vec<u8>, Error> {
    safetensors::serialize(lay(weights, dtype, |_| false)?, metadata()).map_err(|error| Error::Input(format!("cannot serialise: {error}")))
}

/// Weights that are going to be written as published ones are.
pub struct Written<'a> {
    laid: Laid<'a>,
    shard_bytes: u64,
}

impl<'a> Written<'a> {
    /// Lays weights out in the published way.
    ///
    /// # Errors
    /// [`Error`] that names a tensor which no reader would take: not in its shape, or not finite as it is stored.
    pub fn new(config: &ModelConfig, weights: &'a HostWeights, dtype: StoredDtype, shard_bytes: u64) -> Result<Self, Error> {
        let turned = (config.family.published().turned)(config);
        let laid = lay(weights, dtype, |name| turned.contains(name))?;
        for (name, tensor) in weights {
            let lost = |value: &f32| match dtype {
                StoredDtype::F32 => !value.is_finite(),
                StoredDtype::Bf16 => !half::bf16::from_f32(*value).is_finite(),
            };
            if let Some(at) = tensor.values.iter().position(lost) {
                return Err(Error::Input(format!("tensor {name} holds {} at index {at} as {}", tensor.values[at], dtype.label())));
            }
        }
        let (described, held) = (config.parameters(), weights.values().map(|tensor| tensor.values.len() as u128).sum::<u128>());
        if described != held {
            return Err(Error::Input(format!("the config describes {described} parameters, the weights are {held}")));
        }
        Ok(Self { laid, shard_bytes: shard_bytes.max(1) })
    }

    /// Writes them into a folder.
    ///
    /// # Errors
    /// [`Error`] that names the file.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let shards = self.shards();
        let one = |name: &str, tensors: &Laid<'_>| {
            let path = folder.join(name);
            safetensors::serialize_to_file(tensors.iter().map(|(name, stored)| (*name, *stored)), metadata(), &path)
                .map_err(|error| Error::Input(format!("{}: {error}", path.display())))
        };
        if let [all] = &shards[..] {
            return one(WHOLE, all);
        }
        let mut map = serde_json::Map::new();
        for (at, shard) in shards.iter().enumerate() {
            let name = format!("model-{:05}-of-{:05}.safetensors", at + 1, shards.len());
            one(&name, shard)?;
            map.extend(shard.keys().map(|tensor| ((*tensor).to_owned(), name.clone().into())));
        }
        let total: usize = self.laid.values().map(Stored::data_len).sum();
        let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map });
        let path = folder.join(INDEX);
        std::fs::write(&path, index.to_string()).map_err(|error| Error::io(&path, error))
    }

    /// The tensors in the order of their names, cut where a file would become too large.
    fn shards(&self) -> Vec<Laid<'a>> {
        let (mut shards, mut bytes) = (vec![Laid::new()], 0u64);
        for (name, stored) in &self.laid {
            let more = stored.data_len() as u64;
            if bytes > 0 && bytes + more > self.shard_bytes {
                shards.push(Laid::new());
                bytes = 0;
            }
            bytes += more;
            shards.last_mut().expect("there is one").insert(*name, *stored);
        }
        shards
    }

    /// What [`digest`] will find.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, stored) in &self.laid {
            head(&mut hasher, name, stored.dtype(), stored.shape());
            hasher.update(&stored.data());
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn head(hasher: &mut blake3::Hasher, name: &str, dtype: Dtype, shape: &[usize]) {
    hasher.update(format!("{}\n{name}\n{dtype:?}\n{shape:?}\n", name.len()).as_bytes());
}

/// One name for all tensors of a folder: BLAKE3, hex.
///
/// # Errors
/// [`Error`] that names the file that cannot be read, or that its index contradicts.
pub fn digest(folder: &Path) -> Result<String, Error> {
    // Each file is opened once: who saves there meanwhile puts others in their place.
    let mut places = BTreeMap::new();
    let mut take = |file: &str| -> Result<Vec<String>, Error> {
        let path = folder.join(file);
        let (open, start, header) = header(&path)?;
        let open = Arc::new(open);
        let place = |(name, info): (String, &TensorInfo)| (name, (path.clone(), open.clone(), start, info.clone()));
        let found: Vec<_> = header.tensors().into_iter().map(place).collect();
        let names = found.iter().map(|(name, _)| name.clone()).collect();
        places.extend(found);
        Ok(names)
    };
    if folder.join(WHOLE).is_file() {
        take(WHOLE)?;
    } else {
        let index = read_index(folder)?;
        let files: std::collections::BTreeSet<&String> = index.values().collect();
        for file in files {
            for name in take(file)? {
                if index.get(&name) != Some(file) {
                    return Err(Error::Input(format!("{}: tensor {name} is not where the index says", folder.join(file).display())));
                }
            }
        }
        if let Some(name) = index.keys().find(|name| !places.contains_key(*name)) {
            return Err(Error::Input(format!("{}: tensor {name} of the index is in no file", folder.display())));
        }
    }
    let mut hasher = blake3::Hasher::new();
    for (name, (path, open, start, info)) in &places {
        head(&mut hasher, name, info.dtype, &info.shape);
        let (from, to) = info.data_offsets;
        let mut file: &File = open;
        file.seek(SeekFrom::Start(start + from as u64)).map_err(|error| Error::io(path, error))?;
        hasher.update_reader(file.take((to - from) as u64)).map_err(|error| Error::io(path, error))?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// A file, where its tensors begin, and what they are; the file must be as long as they say.
fn header(path: &Path) -> Result<(File, u64, Metadata), Error> {
    let io = |error| Error::io(path, error);
    let broken = |why: &dyn std::fmt::Display| Error::Input(format!("{}: not a sound safetensors file: {why}", path.display()));
    let mut file = hypereyes_outside::files::open(path, u64::MAX).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER || length + 8 > size {
        return Err(broken(&format!("a header of {length} bytes")));
    }
    let mut text = vec![];
    (&file).take(length).read_to_end(&mut text).map_err(io)?;
    let header: Metadata = serde_json::from_slice(&text).map_err(|error| broken(&error))?;
    let end = header.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    if 8 + length + end != size {
        return Err(broken(&format!("{size} bytes, not {}", 8 + length + end)));
    }
    Ok((file, 8 + length, header))
}
