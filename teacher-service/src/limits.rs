//! What models are read and kept within. In: the settings of the service. Out: what every model is given when it is loaded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::Security;
use hypereyes_policy::device::Device;

use crate::access::Access;
use crate::loader::Loader;
use crate::memory::Memory;

/// What a model is read with and kept within.
#[derive(Clone, Debug)]
pub struct ModelLimits {
    /// Where it computes.
    pub device: Device,
    /// Tokens of one pass and of one sequence.
    pub max_batch_tokens: usize,
    /// Calls in the queue.
    pub max_waiting: usize,
    /// Bytes of patches kept.
    pub patches_bytes: usize,
    /// Memory for the weights of all models.
    pub memory: Arc<Memory>,
    /// Who reads them.
    pub loader: Loader,
    /// How other teacher services are spoken to.
    pub security: Security,
    /// Folder that files of object stores are fetched into; none refuses such sources.
    pub fetched: Option<PathBuf>,
    /// What the settings allow to those who name models.
    pub access: Arc<Access>,
    /// Longest time until a model is read.
    pub patience: Duration,
}
