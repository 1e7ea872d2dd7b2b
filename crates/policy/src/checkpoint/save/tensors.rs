//! Tensors in safetensors files: laid out, written without a second copy in memory, and read back as a digest.
//!
//! In: host weights and how they are stored, or a snapshot. Out: one file, or shards with their index where one would be too large;
//! and one name for all tensors of a folder: BLAKE3 over names, types, shapes and bytes in the order of names, whatever files they
//! are in.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, View};

use super::super::files::{INDEX, WHOLE, read_index};
use super::super::names::Names;
use super::super::transposed::transposed;
use super::super::{HostTensor, HostWeights, Snapshot, StoredDtype};
use crate::Error;
use crate::config::ModelConfig;

/// Largest file of weights that is written, as transformers 5 has it.
pub const SHARD_BYTES: u64 = 50 << 30;
/// Largest header of a safetensors file; the format allows no more.
const MAX_HEADER: u64 = 100_000_000;

/// A tensor as it is stored: its bytes are made when they are asked for.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    shape: &'a [usize],
    values: Values<'a>,
    dtype: StoredDtype,
    /// Its shape with the last two dimensions swapped, where it is stored so.
    turned: Option<[usize; 3]>,
}

/// The values of a tensor, in the order of its shape.
#[derive(Clone, Copy)]
enum Values<'a> {
    /// Still to be brought into the stored type.
    Host(&'a [f32]),
    /// In that type.
    Stored(&'a [u8]),
}

impl<'a> Stored<'a> {
    fn new(shape: &'a [usize], values: Values<'a>, dtype: StoredDtype, turn: bool) -> Self {
        let turned = match *shape {
            [count, rows, columns] if turn => Some([count, columns, rows]),
            _ => None,
        };
        Self { shape, values, dtype, turned }
    }
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.dtype {
            StoredDtype::F32 => Dtype::F32,
            StoredDtype::Bf16 => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.turned.as_ref().map_or(self.shape, |turned| turned)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes: Cow<'_, [u8]> = match (self.values, self.dtype) {
            (Values::Stored(bytes), _) => bytes.into(),
            (Values::Host(values), StoredDtype::F32) if cfg!(target_endian = "little") => bytemuck::cast_slice(values).into(),
            (Values::Host(values), StoredDtype::F32) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            (Values::Host(values), StoredDtype::Bf16) => {
                values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect()
            }
        };
        match self.turned {
            Some([_, columns, rows]) => transposed(&bytes, rows, columns, self.dtype).into(),
            None => bytes,
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

/// Tensors under their published names, as they are stored.
pub type Laid<'a> = BTreeMap<&'a str, Stored<'a>>;

fn lay<'a>(weights: &'a HostWeights, dtype: StoredDtype, turn: impl Fn(&str) -> bool) -> Result<Laid<'a>, Error> {
    let stored = |(name, tensor): (&'a String, &'a HostTensor)| {
        if tensor.shape.iter().product::<usize>() != tensor.values.len() {
            return Err(Error::Input(format!("tensor {name}: {} values do not have the shape {:?}", tensor.values.len(), tensor.shape)));
        }
        Ok((name.as_str(), Stored::new(&tensor.shape, Values::Host(&tensor.values), dtype, turn(name))))
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
        Self::describes(config, &laid)?;
        Ok(Self { laid, shard_bytes: shard_bytes.max(1) })
    }

    /// Lays out what came in a payload, in the type in which it came.
    ///
    /// # Errors
    /// [`Error`] that names a tensor which is not within the payload, not of the config's model, or holds a value that is no number.
    pub fn of(config: &ModelConfig, snapshot: &'a Snapshot, shard_bytes: u64) -> Result<Self, Error> {
        snapshot.check_finite()?;
        let (names, turned) = (Names::of(config), (config.family.published().turned)(config));
        let mut laid = Laid::new();
        for place in &snapshot.tensors {
            let stored = Stored::new(&place.shape, Values::Stored(snapshot.bytes(place)?), place.dtype, turned.contains(&place.name));
            let again = laid.insert(place.name.as_str(), stored).is_some();
            if again || place.dtype != snapshot.dtype() || !names.has(&place.name) {
                let why = if again { "is there twice" } else { "is not of the model, or not of the type of the others" };
                return Err(Error::Input(format!("tensor {} {why}", place.name)));
            }
        }
        if let Some(name) = names.all().find(|name| !laid.contains_key(name.as_str())) {
            return Err(Error::Input(format!("tensor {name} is missing")));
        }
        Self::describes(config, &laid)?;
        Ok(Self { laid, shard_bytes: shard_bytes.max(1) })
    }

    /// Writes a tied table under both its names. Readers need it once; a server that packs its head apart from its embeddings when it
    /// starts (vLLM on a CPU) packs again only the head that it finds in a file.
    #[must_use]
    pub fn with_tied_head(mut self, config: &ModelConfig) -> Self {
        if let Some([embeddings, head]) = Names::of(config).tied() {
            self.laid.insert(head, self.laid[embeddings]);
        }
        self
    }

    /// Whether a config is that of these tensors.
    fn describes(config: &ModelConfig, laid: &Laid<'_>) -> Result<(), Error> {
        let values = |stored: &Stored<'_>| stored.shape.iter().map(|side| *side as u128).product::<u128>();
        let (described, held) = (config.parameters(), laid.values().map(values).sum::<u128>());
        if described != held {
            return Err(Error::Input(format!("the config describes {described} parameters, the weights are {held}")));
        }
        Ok(())
    }

    /// Writes them into a folder.
    ///
    /// # Errors
    /// [`Error`] that names the file.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let files = self.files();
        for (name, tensors) in &files {
            write_file(&folder.join(name), tensors)?;
        }
        let Some(index) = index(&files) else { return Ok(()) };
        let path = folder.join(INDEX);
        std::fs::write(&path, index).map_err(|error| Error::io(&path, error))
    }

    /// What goes into which file: the tensors in the order of their names, cut where a file would become too large. The cuts follow
    /// from names and sizes alone.
    pub fn files(&self) -> Vec<(String, Laid<'a>)> {
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
        let count = shards.len();
        let name = |at: usize| if count == 1 { WHOLE.to_owned() } else { format!("model-{:05}-of-{count:05}.safetensors", at + 1) };
        shards.into_iter().enumerate().map(|(at, shard)| (name(at), shard)).collect()
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

/// Writes one file. No tensor is in memory twice but one that is stored in another order or type, while it is written.
///
/// # Errors
/// [`Error`] that names it.
pub fn write_file(path: &Path, tensors: &Laid<'_>) -> Result<(), Error> {
    safetensors::serialize_to_file(tensors.iter().map(|(name, stored)| (*name, *stored)), metadata(), path)
        .map_err(|error| Error::Input(format!("{}: {error}", path.display())))
}

/// The text of the index of several files.
pub fn index(files: &[(String, Laid<'_>)]) -> Option<String> {
    if files.len() == 1 {
        return None;
    }
    let total: usize = files.iter().flat_map(|(_, tensors)| tensors.values()).map(Stored::data_len).sum();
    let places = files.iter().flat_map(|(file, tensors)| tensors.keys().map(|name| ((*name).to_owned(), file.as_str().into())));
    let map: serde_json::Map<String, serde_json::Value> = places.collect();
    Some(serde_json::json!({ "metadata": { "total_size": total }, "weight_map": map }).to_string())
}

fn head(hasher: &mut blake3::Hasher, name: &str, dtype: Dtype, shape: &[usize]) {
    hasher.update(format!("{}\n{name}\n{dtype:?}\n{shape:?}\n", name.len()).as_bytes());
}

/// What [`digest`] finds of the folder in which these weights are saved.
///
/// # Errors
/// [`Error`] where they are not those of the config.
pub fn digest_of(config: &ModelConfig, weights: &HostWeights, dtype: StoredDtype) -> Result<String, Error> {
    Ok(Written::new(config, weights, dtype, SHARD_BYTES)?.digest())
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
pub fn header(path: &Path) -> Result<(File, u64, Metadata), Error> {
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
