//! The one file that names Burn backends.

use burn::backend::Autodiff;

/// The CPU backend.
pub type Cpu = burn_flex::Flex;
/// The CPU backend with gradients.
pub type CpuTrain = Autodiff<Cpu>;

/// The CUDA backend; kernels are compiled by NVRTC when they first run.
#[cfg(feature = "cuda")]
pub type Cuda = burn::backend::Cuda;
/// The CUDA backend with gradients.
#[cfg(feature = "cuda")]
pub type CudaTrain = Autodiff<Cuda>;
