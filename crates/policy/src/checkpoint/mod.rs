//! Parameters by published name, on the host and in a model.
//!
//! In: a model, or named tensors ([`reading`] reads them from a folder, [`mod@save`] is the one way to write one). Out: the other, or
//! one error that names what is missing, extra or mis-shaped. A [`Snapshot`] is one version of them as bytes. Parameter names are the
//! module paths, so there is no mapping table; what else a file may hold is told apart in [`names`].

mod files;
mod generation;
pub(crate) mod names;
mod reading;
pub mod save;
mod snapshot;
mod transposed;

use std::collections::BTreeMap;

pub use self::files::parse;
pub(crate) use self::generation::metrics::describe;
pub use self::generation::{Generation, PolicyFolder};
pub use self::reading::{load, read, read_tower, read_with_remarks};
pub use self::save::{Saver, digest, digest_of, save, serialise};
pub use self::snapshot::{Snapshot, TensorPlace};
use crate::Error;
use crate::aligned::Aligned;
use crate::faults;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// A named f32 tensor on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

impl HostTensor {
    /// The tensor with the last two of its three dimensions swapped; as it is where it has not three.
    pub(crate) fn transposed(&self) -> Self {
        let [count, rows, columns] = self.shape[..] else { return self.clone() };
        Self { shape: vec![count, columns, rows], values: transposed::swapped(&self.values, rows, columns) }
    }
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

impl StoredDtype {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// As `config.json` calls it.
    pub fn label(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// Where a walk over a model's modules is: the name of the parameter that it has reached.
#[derive(Clone, Debug, Default)]
pub struct ParamPath(Vec<String>);

impl ParamPath {
    /// Goes into a module, as `ModuleVisitor::enter_module` is told. Which kind of block a layer has is not part of a name.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.push(name.to_owned());
        }
    }

    /// Leaves it again.
    pub fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.pop();
        }
    }

    /// The published name.
    pub fn name(&self) -> String {
        self.0.join(".")
    }
}

/// Copies the parameters of a model, or of a part of one, to the host.
pub fn to_host<B: Backend, M: Module<B>>(model: &M) -> HostWeights {
    struct Collect {
        path: ParamPath,
        weights: HostWeights,
    }
    impl<B: Backend> ModuleVisitor<B> for Collect {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let tensor = param.val();
            let shape = tensor.dims().to_vec();
            let values = faults::floats_or_panic(tensor);
            self.weights.insert(self.path.name(), HostTensor { shape, values });
        }
    }
    let mut collect = Collect { path: ParamPath::default(), weights: HostWeights::new() };
    model.visit(&mut collect);
    collect.weights
}

/// Puts host parameters into a model, or into a part of one; every parameter must be there with its shape, and nothing else.
pub fn from_host<B: Backend, M: Module<B>>(model: M, weights: &HostWeights) -> Result<M, Error> {
    struct Apply<'a> {
        path: ParamPath,
        weights: &'a HostWeights,
        used: usize,
        error: Option<String>,
    }
    impl<B: Backend> ModuleMapper<B> for Apply<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, container: &str) {
            self.path.exit(container);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            let name = self.path.name();
            let shape = param.val().dims();
            match self.weights.get(&name) {
                Some(found) if found.shape == shape => {
                    self.used += 1;
                    let device = param.val().device();
                    let data = Aligned::copy_of(&found.values).into_data(shape);
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
    let mut apply = Apply { path: ParamPath::default(), weights, used: 0, error: None };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_swaps_rows_and_columns_of_each_expert() {
        let tensor = HostTensor { shape: vec![2, 2, 3], values: (0..12).map(|value| value as f32).collect() };
        let tensor = tensor.transposed();
        assert_eq!(tensor.shape, [2, 3, 2]);
        assert_eq!(tensor.values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
    }
}
