//! Model folders in Hugging Face layout: `config.json` and `model.safetensors`, read and written.
//!
//! In: a folder or bytes. Out: a model with exactly the file's tensors, or one error that names what is missing, extra,
//! mis-shaped or broken. Parameter names are the module paths, so there is no mapping table. Files are replaced whole.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::Error;
use crate::config::ModelConfig;
use crate::model::Qwen3Vl;
use crate::ops::Kernels;

/// Largest `model.safetensors` that is read: far above any single shard, far below an accident.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// A named f32 tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// All parameters of a model by published name, on the host.
pub type HostWeights = BTreeMap<String, HostTensor>;

/// How stored values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredDtype {
    /// Four bytes, exact.
    F32,
    /// Two bytes, rounded to nearest even.
    Bf16,
}

/// Copies a model's parameters to the host.
pub fn to_host<B: Backend>(model: &Qwen3Vl<B>) -> HostWeights {
    struct Collect {
        path: Vec<String>,
        weights: HostWeights,
    }
    impl<B: Backend> ModuleVisitor<B> for Collect {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            let values = tensor.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32");
            self.weights.insert(self.path.join("."), HostTensor { shape, values });
        }
    }
    let mut collect = Collect { path: vec![], weights: HostWeights::new() };
    model.visit(&mut collect);
    collect.weights
}

/// Puts host parameters into a model; every parameter must be there with its shape, and nothing else.
pub fn from_host<B: Backend>(model: Qwen3Vl<B>, weights: &HostWeights) -> Result<Qwen3Vl<B>, Error> {
    struct Apply<'a> {
        path: Vec<String>,
        weights: &'a HostWeights,
        used: usize,
        error: Option<String>,
    }
    impl<B: Backend> ModuleMapper<B> for Apply<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let name = self.path.join(".");
            let shape = param.val().dims();
            match self.weights.get(&name) {
                Some(found) if found.shape == shape => {
                    self.used += 1;
                    let device = param.val().device();
                    let data = TensorData::new(found.values.clone(), shape);
                    // Gradients are asked for again: mapping a parameter forgets that it had been tracked.
                    param.map(|_| Tensor::from_data(data, &device).require_grad())
                }
                Some(found) => {
                    self.error.get_or_insert(format!("tensor {name} has shape {:?}, the config asks for {shape:?}", found.shape));
                    param
                }
                None => {
                    self.error.get_or_insert(format!("tensor {name} is missing"));
                    param
                }
            }
        }
    }
    let mut apply = Apply { path: vec![], weights, used: 0, error: None };
    let model = model.map(&mut apply);
    if let Some(error) = apply.error {
        return Err(Error::Input(error));
    }
    if apply.used != weights.len() {
        let expected = to_host(&model);
        let extra = weights.keys().find(|name| !expected.contains_key(*name)).cloned().unwrap_or_default();
        return Err(Error::Input(format!("tensor {extra} is not part of the model that the config describes")));
    }
    Ok(model)
}

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
    let (kind, bytes): (Dtype, Vec<(&String, &HostTensor, Vec<u8>)>) = match dtype {
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

/// Reads the weights of a model folder.
pub fn read_weights(dir: &Path) -> Result<HostWeights, Error> {
    let path = dir.join("model.safetensors");
    let input = |why: String| Error::Input(format!("{}: {why}", path.display()));
    let size = std::fs::metadata(&path).map_err(|error| input(format!("cannot read weights ({error})")))?.len();
    if size > MAX_FILE_BYTES {
        return Err(input(format!("{size} bytes is over the limit of {MAX_FILE_BYTES}")));
    }
    let bytes = std::fs::read(&path).map_err(|error| input(format!("cannot read weights ({error})")))?;
    parse(&bytes).map_err(|error| input(error.to_string()))
}

/// Loads a model folder.
pub fn load<B: Kernels>(dir: &Path, device: &B::Device) -> Result<(ModelConfig, Qwen3Vl<B>), Error> {
    let config = ModelConfig::load(dir)?;
    let weights = read_weights(dir)?;
    let model = from_host(Qwen3Vl::init(&config, 0, device), &weights)
        .map_err(|error| Error::Input(format!("{}: {error}", dir.join("model.safetensors").display())))?;
    Ok((config, model))
}

/// Writes `config.json` and `model.safetensors` into a folder, each replaced whole.
pub fn save(dir: &Path, config: &ModelConfig, weights: &HostWeights, dtype: StoredDtype) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, error))?;
    let json = serde_json::to_string_pretty(&config.to_json()).expect("JSON of plain values");
    replace(&dir.join("config.json"), json.as_bytes())?;
    replace(&dir.join("model.safetensors"), &serialise(weights, dtype)?)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes).map_err(|error| Error::io(&partial, error))?;
    std::fs::rename(&partial, path).map_err(|error| Error::io(path, error))
}
