//! What carries the bulk between ranks that have met.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Collective, CollectiveError, Tcp};

/// What carries values between ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// TCP, a star around rank 0.
    #[default]
    Tcp,
    /// NCCL between GPUs; what is said besides goes over the star.
    Nccl,
}

impl Transport {
    /// As in configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Nccl => "nccl",
        }
    }

    /// The group of those that have met over `star`. `gpu` is which of the visible ones NCCL takes. Blocks until all are there.
    ///
    /// # Errors
    /// [`CollectiveError::Meeting`] when there is no NCCL in this build, on this machine or in time.
    pub fn carry(self, star: Tcp, gpu: usize, timeout: Duration) -> Result<Box<dyn Collective>, CollectiveError> {
        match self {
            Self::Tcp => Ok(Box::new(star)),
            #[cfg(feature = "cuda")]
            Self::Nccl => Ok(Box::new(crate::Nccl::join(star, gpu, timeout)?)),
            #[cfg(not(feature = "cuda"))]
            Self::Nccl => {
                let _ = (gpu, timeout);
                Err(CollectiveError::Meeting("NCCL needs a build with CUDA: cargo build --release --features cuda".into()))
            }
        }
    }
}

impl std::str::FromStr for Transport {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Tcp, Self::Nccl]
            .into_iter()
            .find(|transport| transport.name() == text)
            .ok_or_else(|| format!("there is no transport {text:?}; there are tcp and nccl"))
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
