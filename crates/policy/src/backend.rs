//! The one file that names Burn backends.

/// The CPU backend.
pub type Cpu = burn_flex::Flex;
/// The CPU backend with gradients.
pub type CpuTrain = burn::backend::Autodiff<Cpu>;

/// The CUDA backend in f32; kernels are compiled by NVRTC when they first run.
#[cfg(feature = "cuda")]
pub type Cuda = burn::backend::Cuda;
/// The CUDA backend in bf16.
#[cfg(feature = "cuda")]
pub type CudaBf16 = burn::backend::Cuda<half::bf16>;
