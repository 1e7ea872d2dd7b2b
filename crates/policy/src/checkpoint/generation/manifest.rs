//! What is written down of a generation, in `generation.json` in its folder.
//!
//! In: a snapshot and how it is cut into files; or a folder. Out: the list of tensors with their digests, and whether a folder holds
//! what the list says. Values are digested as the learner publishes them, in whatever layout a file has them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use rayon::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::names::Names;
use super::super::save::{Laid, MAX_BYTES as MAX_BESIDE, header};
use super::super::transposed::transposed;
use super::super::{Snapshot, StoredDtype};
use crate::Error;
use crate::config::ModelConfig;

/// The file.
pub(super) const FILE: &str = "generation.json";
/// The format that is written and read.
const FORMAT: u32 = 2;
/// Largest such file that is read: a model of ten thousand tensors takes two megabytes.
const MAX_BYTES: u64 = 64 << 20;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// [`FORMAT`].
    pub(super) format: u32,
    /// The policy's version.
    pub(super) version: u64,
    /// BLAKE3 of the payload.
    pub(super) digest: String,
    /// How values are written, as `config.json` calls it.
    pub(super) dtype: String,
    /// The tensors in the order of the payload.
    pub(super) tensors: Vec<Listed>,
    /// The table of embeddings once more, under the head's name, where the two are tied: the payload has it once.
    pub(super) tied_head: Option<Listed>,
    /// BLAKE3 of every other file.
    pub(super) beside: BTreeMap<String, String>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Its published name.
    name: String,
    /// Its dimensions in the payload.
    shape: Vec<usize>,
    /// BLAKE3 of its bytes in the payload.
    digest: String,
    /// The file that it is in.
    file: String,
}

impl Manifest {
    /// Describes a snapshot of a model that is cut into `files`, beside which others lie.
    pub(super) fn of(
        config: &ModelConfig,
        snapshot: &Snapshot,
        files: &[(String, Laid<'_>)],
        beside: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let places = files.iter().flat_map(|(file, tensors)| tensors.keys().map(move |name| (*name, file)));
        let places: BTreeMap<&str, &String> = places.collect();
        let listed = snapshot.tensors.par_iter().map(|tensor| {
            let digest = blake3::hash(snapshot.bytes(tensor)?).to_hex().to_string();
            let file = places[tensor.name.as_str()].clone();
            Ok(Listed { name: tensor.name.clone(), shape: tensor.shape.clone(), digest, file })
        });
        let tensors = listed.collect::<Result<Vec<_>, Error>>()?;
        let tied_head = Names::of(config).tied().and_then(|[embeddings, head]| {
            let table = tensors.iter().find(|tensor| tensor.name == embeddings)?;
            Some(Listed { name: head.to_owned(), file: places[head].clone(), ..table.clone() })
        });
        Ok(Self {
            format: FORMAT,
            version: snapshot.version.0,
            digest: snapshot.digest.to_hex().to_string(),
            dtype: snapshot.dtype().label().to_owned(),
            tensors,
            tied_head,
            beside,
        })
    }

    /// The content of the file.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("plain values");
        text.push(b'\n');
        text
    }

    /// Reads that of a generation; nothing else of the folder is looked at.
    ///
    /// # Errors
    /// [`Error`] that names the file.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let broken = |why: &dyn std::fmt::Display| Error::Input(format!("{}: {why}", path.display()));
        let text = hypereyes_outside::files::read(&path, MAX_BYTES).map_err(|error| Error::io(&path, error))?;
        let json: Value = serde_json::from_slice(&text).map_err(|error| broken(&error))?;
        match json.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(broken(&format!("is of format {format}; this release reads {FORMAT}"))),
            None => return Err(broken(&"says no format")),
        }
        let manifest: Self = serde_json::from_value(json).map_err(|error| broken(&error))?;
        let outside = manifest.listed().map(|tensor| &tensor.file).chain(manifest.beside.keys()).find(|file| !is_within(file)).cloned();
        match outside {
            Some(file) => Err(broken(&format!("{file:?} is no file of its folder"))),
            None => Ok(manifest),
        }
    }

    /// Everything that files of weights hold: the payload in its order, then the head of a tied model.
    fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.tensors.iter().chain(&self.tied_head)
    }

    /// The tensors of each file of weights, in the order of the payload.
    pub(super) fn by_file(&self) -> BTreeMap<&str, Vec<&Listed>> {
        let mut files: BTreeMap<&str, Vec<&Listed>> = BTreeMap::new();
        self.listed().for_each(|tensor| files.entry(&tensor.file).or_default().push(tensor));
        files
    }

    /// Whether the head of a tied model is listed as what it is, and that of no other.
    fn check_tied(&self, config: &ModelConfig) -> Result<(), String> {
        let wanted = Names::of(config).tied().map(|[embeddings, head]| {
            let table = self.tensors.iter().find(|tensor| tensor.name == embeddings);
            (head, table.map(|table| (&table.shape, &table.digest)))
        });
        let listed = self.tied_head.as_ref().map(|head| (head.name.as_str(), Some((&head.shape, &head.digest))));
        if listed == wanted { Ok(()) } else { Err("its tied_head is not the table of embeddings".into()) }
    }

    /// Reads a folder and compares all of it. One tensor is in memory at a time.
    ///
    /// # Errors
    /// [`Error`] that names the file.
    pub(super) fn verify(&self, folder: &Path) -> Result<blake3::Hash, Error> {
        for (name, digest) in &self.beside {
            let path = folder.join(name);
            let bytes = hypereyes_outside::files::read(&path, MAX_BESIDE).map_err(|error| Error::io(&path, error))?;
            if *blake3::hash(&bytes).to_hex() != **digest {
                return Err(Error::Input(format!("{}: is not what was written", path.display())));
            }
        }
        let config = ModelConfig::load(folder)?;
        self.check_tied(&config).map_err(|why| Error::Input(format!("{}: {why}", folder.join(FILE).display())))?;
        let turned = (config.family.published().turned)(&config);
        let mut payload = blake3::Hasher::new();
        let mut open: Option<(&str, Weights)> = None;
        for tensor in self.listed() {
            let weights = match &mut open {
                Some((name, weights)) if *name == tensor.file => weights,
                _ => &mut open.insert((&tensor.file, Weights::open(&folder.join(&tensor.file))?)).1,
            };
            let bytes = weights.read(tensor, &self.dtype, turned.contains(&tensor.name)).map_err(|why| {
                let path = folder.join(&tensor.file);
                Error::Input(format!("{}: tensor {} {why}", path.display(), tensor.name))
            })?;
            let is_in_payload = self.tied_head.as_ref() != Some(tensor);
            let add = || {
                if is_in_payload {
                    payload.update(&bytes);
                }
            };
            let (found, ()) = rayon::join(|| blake3::hash(&bytes), add);
            if *found.to_hex() != *tensor.digest {
                let path = folder.join(&tensor.file);
                return Err(Error::Input(format!("{}: tensor {} is not what was written", path.display(), tensor.name)));
            }
        }
        let found = payload.finalize();
        if *found.to_hex() != *self.digest {
            return Err(Error::Input(format!("{}: its tensors are not those of digest {}", folder.display(), self.digest)));
        }
        Ok(found)
    }
}

/// Whether a name leads to nowhere but below the folder that it is of.
fn is_within(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// An open file of weights.
struct Weights {
    file: File,
    start: u64,
    header: Metadata,
}

impl Weights {
    fn open(path: &Path) -> Result<Self, Error> {
        let (file, start, header) = header(path)?;
        // The one thing in a file that neither its length nor a digest says.
        if header.metadata().as_ref().and_then(|said| said.get("format")).is_none_or(|format| format != "pt") {
            return Err(Error::Input(format!("{}: is not what was written", path.display())));
        }
        Ok(Self { file, start, header })
    }

    /// A tensor's bytes as the payload has them.
    fn read(&mut self, tensor: &Listed, dtype: &str, turned: bool) -> Result<Vec<u8>, String> {
        let info: &TensorInfo = self.header.info(&tensor.name).ok_or("is not there")?;
        let stored = match info.dtype {
            Dtype::F32 => StoredDtype::F32,
            Dtype::BF16 => StoredDtype::Bf16,
            other => return Err(format!("is of type {other:?}")),
        };
        let matrices = match tensor.shape[..] {
            [_, rows, columns] if turned => Some((rows, columns)),
            _ => None,
        };
        let mut wanted = tensor.shape.clone();
        if matrices.is_some() {
            wanted.swap(1, 2);
        }
        if info.shape != wanted || stored.label() != dtype {
            return Err(format!("is {:?} in {}, not {wanted:?} in {dtype}", info.shape, stored.label()));
        }
        let (from, to) = info.data_offsets;
        // The header was compared with the length of the file, so that there is as much.
        let mut bytes = vec![0; to - from];
        self.file.seek(SeekFrom::Start(self.start + from as u64)).map_err(|error| error.to_string())?;
        self.file.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        Ok(match matrices {
            Some((rows, columns)) => transposed(&bytes, columns, rows, stored),
            None => bytes,
        })
    }
}
