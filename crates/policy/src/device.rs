//! Where a policy computes, chosen when the program runs.
//!
//! In: the name of a device. Out: work done with that device's backend, or one error that says why it cannot be had. Work
//! that should run anywhere is an [`OnDevice`]; nothing else needs to name a backend.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::backend::Cpu;
use crate::config::ModelConfig;
use crate::ops::Kernels;

/// A device and the precision it computes in. Weights are always kept in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// This machine's cores, in f32.
    #[default]
    Cpu,
    /// The first NVIDIA GPU that is visible (`CUDA_VISIBLE_DEVICES`), in f32.
    Cuda,
    /// The same in bf16; norms, probabilities and log-probs are in f32.
    CudaBf16,
}

impl Device {
    /// Every device, in this build or not.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Cuda, Self::CudaBf16];

    /// As in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CudaBf16 => "cuda-bf16",
        }
    }

    /// Does work with the device's backend.
    ///
    /// # Errors
    /// [`Error::Input`] when this build or this machine has no such device; [`Error::Device`] when it fails.
    pub fn run<W: OnDevice>(self, work: W) -> Result<W::Output, Error> {
        match self {
            Self::Cpu => Ok(work.run::<Cpu>(Default::default())),
            #[cfg(feature = "cuda")]
            Self::Cuda => present(self).and_then(|()| crate::faults::guarded::<crate::backend::Cuda, _>(work, Default::default())),
            #[cfg(feature = "cuda")]
            Self::CudaBf16 => present(self).and_then(|()| crate::faults::guarded::<crate::backend::CudaBf16, _>(work, Default::default())),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda | Self::CudaBf16 => {
                Err(Error::Input(format!("device {:?} needs a build with CUDA: cargo build --release --features cuda", self.name())))
            }
        }
    }

    /// Whether this build and this machine have it.
    ///
    /// # Errors
    /// As [`Device::run`].
    pub fn check(self) -> Result<(), Error> {
        struct Nothing;
        impl OnDevice for Nothing {
            type Output = ();

            fn run<B: Kernels>(self, _: B::Device) {}
        }
        self.run(Nothing)
    }

    /// Whether a model may compute here. One with experts may not on a GPU: what it says there has been seen to be wrong, and not
    /// by rounding (`docs/gpu.md`).
    ///
    /// # Errors
    /// [`Error::Input`] in one line that names the key `device`.
    pub fn admits(self, model: &ModelConfig) -> Result<(), Error> {
        match &model.text.experts {
            Some(experts) if self != Self::Cpu => Err(Error::Input(format!(
                "device = {:?}: the model has experts ({} to a layer), and models with experts have not been shown to be right on GPUs \
                 (docs/gpu.md): set device = \"cpu\"",
                self.name(),
                experts.count
            ))),
            _ => Ok(()),
        }
    }

    /// As [`Device::admits`], of a model folder; only its `config.json` is read.
    ///
    /// # Errors
    /// [`Error::Input`] that names the folder, also when it holds no model.
    pub fn admits_folder(self, folder: &Path) -> Result<(), Error> {
        if self == Self::Cpu {
            return Ok(());
        }
        self.admits(&ModelConfig::load(folder)?).map_err(|error| Error::Input(format!("{}: {error}", folder.display())))
    }

    /// Bytes that one parameter of a model takes.
    pub fn value_bytes(self) -> u64 {
        match self {
            Self::Cpu | Self::Cuda => 4,
            Self::CudaBf16 => 2,
        }
    }

    /// Whether operations of one pass should be shared out to lanes of cores: a GPU takes whole passes.
    pub fn has_lanes(self) -> bool {
        self == Self::Cpu
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|device| device.name() == text).ok_or_else(|| format!("there is no device {text:?}; there are {known}"))
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Work for whichever backend a device has.
pub trait OnDevice {
    /// What comes out.
    type Output;

    /// Does it.
    fn run<B: Kernels>(self, device: B::Device) -> Self::Output;
}

/// Whether a GPU answers. Asked here because the backend's threads would panic at their first operation.
#[cfg(feature = "cuda")]
fn present(device: Device) -> Result<(), Error> {
    use std::sync::OnceLock;
    static ANSWER: OnceLock<Result<i32, String>> = OnceLock::new();
    let answer = ANSWER.get_or_init(|| {
        // cudarc panics, and says so on stderr, where there is no driver at all.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let counted = std::panic::catch_unwind(cudarc::driver::CudaContext::device_count);
        std::panic::set_hook(hook);
        match counted {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("there is no CUDA driver (libcuda) on this machine".to_owned()),
        }
    });
    let refuse = |reason: &str| Err(Error::Input(format!("device {:?}: {reason}", device.name())));
    match answer {
        Ok(count) if *count > 0 => {}
        Ok(_) => return refuse("the CUDA driver sees no GPU; look at nvidia-smi"),
        Err(reason) => return refuse(reason),
    }
    // Burn keeps one default precision per GPU and process, that of whoever comes first.
    static TAKEN: OnceLock<Device> = OnceLock::new();
    match TAKEN.get_or_init(|| device) {
        taken if *taken == device => Ok(()),
        taken => refuse(&format!("this process computes on {:?} already, and a GPU has one precision per process", taken.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Name;

    impl OnDevice for Name {
        type Output = String;

        fn run<B: Kernels>(self, device: B::Device) -> String {
            B::name(&device)
        }
    }

    #[test]
    fn names_are_read_back_and_unknown_ones_listed() {
        for device in Device::ALL {
            assert_eq!(device.name().parse::<Device>(), Ok(device));
        }
        assert!("gpu".parse::<Device>().unwrap_err().contains("cpu, cuda, cuda-bf16"));
    }

    #[test]
    fn a_model_with_experts_is_refused_on_gpus_before_anything_else() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let (dense, experts) = (data.join("qwen3vl-tiny"), data.join("qwen3vl-moe-tiny"));
        for device in Device::ALL {
            assert!(device.admits_folder(&dense).is_ok(), "{device}");
            let refused = device.admits_folder(&experts);
            if device == Device::Cpu {
                assert!(refused.is_ok());
                continue;
            }
            let reason = refused.unwrap_err().to_string();
            assert!(reason.contains(&format!("device = \"{device}\"")) && reason.contains("qwen3vl-moe-tiny"), "{reason}");
            assert!(!reason.contains('\n') && reason.contains("device = \"cpu\""), "{reason}");
            let (config, weights) = crate::checkpoint::read(&experts).unwrap();
            let sizes = crate::engine::EngineConfig { device, ..Default::default() };
            let started = crate::engine::Engine::start_from(config.clone(), &weights, sizes, hypereyes_domain::PolicyVersion(0));
            // Where this build has no GPU, the model is what is wrong all the same: it would be there, too.
            for reason in [started.unwrap_err(), crate::frozen::freeze(&config, &weights, device, 1).err().unwrap()] {
                assert!(reason.to_string().contains("experts"), "{reason}");
            }
        }
    }

    #[test]
    fn the_cpu_is_always_there_and_what_is_not_says_what_to_do() {
        assert!(Device::Cpu.run(Name).unwrap().contains("flex"));
        if !cfg!(feature = "cuda") {
            assert!(Device::Cuda.run(Name).unwrap_err().to_string().contains("--features cuda"));
        }
    }
}
