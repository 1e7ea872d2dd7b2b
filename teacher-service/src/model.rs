//! One model with all that a call needs, wherever it computes. In: questions whose sequences name pictures. Out: answers. Knows
//! no registry.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypereyes_chassis::Security;
use hypereyes_domain::{ModelCard, TeacherId};
use hypereyes_pictures::Store;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_proto::{Answer, Question};
use tokio::time::Instant;

use crate::error::ScoreError;
use crate::loader::Loader;
use crate::local::Local;
use crate::memory::{Memory, Share};
use crate::peer::Peer;
use crate::server::Remote;
use crate::source::Source;
use crate::vocabulary::Vocabulary;
use crate::{digest, fetch, verify};

/// Sizes of a model's rooms.
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
    pub fetched: Option<std::path::PathBuf>,
}

/// Where it computes.
#[derive(Debug)]
enum Backend {
    /// In this process.
    Local(Local),
    /// In another teacher service.
    Peer(Peer),
    /// In somebody else's server.
    Server(Remote),
}

/// A verified model; dropping the last `Arc` frees its memory.
#[derive(Debug)]
pub struct Model {
    id: TeacherId,
    source: Source,
    card: ModelCard,
    backend: Backend,
    in_flight: AtomicU64,
    _memory: Option<Share>,
}

impl Model {
    /// Reads or reaches a model and verifies it. Where there are rules of an earlier one, it must speak the same vocabulary.
    ///
    /// # Errors
    /// A text that says what is wrong and where.
    pub async fn load(id: TeacherId, source: Source, digest: &str, vocabulary: Option<&str>, limits: &ModelLimits) -> Result<Self, String> {
        let speaks = |own: &str| match vocabulary {
            Some(vocabulary) if own != vocabulary => Err(format!(
                "{source}: it has another vocabulary than the models that are loaded; a run has one, start another service for it"
            )),
            _ => Ok(()),
        };
        let (backend, mut card, memory) = match &source {
            Source::Folder(folder) => local(&id, folder, digest, &speaks, limits).await?,
            Source::Store(url) => {
                let folder = limits.fetched.as_deref().ok_or("set `store`: files of an object store are fetched into it")?;
                let folder = fetch::fetch(url, folder, &id).await?;
                local(&id, &folder, digest, &speaks, limits).await?
            }
            Source::Peer(address) => {
                let (peer, card) = Peer::reach(&id, address, &limits.security).await?;
                speaks(&card.vocabulary)?;
                (Backend::Peer(peer), card, None)
            }
            Source::Server(server) => {
                let own = Vocabulary::load(
                    &server.tokenizer,
                    ModelConfig::load(&server.tokenizer).map_err(|error| error.to_string())?.image_token_id,
                )?;
                speaks(&own.digest())?;
                let card = ModelCard { digest: String::new(), vocabulary: own.digest(), parameters: 0, bytes: 0, sighted: false };
                (Backend::Server(Remote::new(id.clone(), server.clone())?), card, None)
            }
        };
        if !digest.is_empty() && digest != card.digest {
            return Err(format!("{source}: its digest is {:?}, {digest} was asked for", card.digest));
        }
        let probe = Self { id, source, card: card.clone(), backend, in_flight: AtomicU64::new(0), _memory: memory };
        card.sighted = verify::verify(&probe).await?;
        Ok(Self { card, ..probe })
    }

    /// Its name.
    pub fn id(&self) -> &TeacherId {
        &self.id
    }

    /// Where it came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// What is known of it.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// The folder that says how it reads text and pictures; a peer keeps its own.
    pub fn reading(&self) -> Option<&Path> {
        match (&self.backend, &self.source) {
            (Backend::Local(local), _) => Some(local.folder()),
            (_, Source::Server(server)) => Some(&server.tokenizer),
            _ => None,
        }
    }

    /// Whether pictures can be shown to it.
    pub fn takes_pictures(&self) -> bool {
        !matches!(&self.backend, Backend::Server(server) if !server.takes_pictures())
    }

    /// Calls under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Answers, one per sequence.
    ///
    /// # Errors
    /// [`ScoreError`]; an error concerns the whole call.
    pub async fn ask(&self, question: &Question, store: &Arc<Store>, deadline: Instant) -> Result<Vec<Answer>, ScoreError> {
        match &self.backend {
            Backend::Local(local) => local.ask(question, store, deadline).await,
            Backend::Peer(peer) => peer.ask(question, store, deadline).await,
            Backend::Server(server) => server.ask(question, store, deadline).await,
        }
    }
}

/// A model of this process.
async fn local(
    id: &TeacherId,
    folder: &Path,
    digest: &str,
    speaks: &(dyn Fn(&str) -> Result<(), String> + Sync),
    limits: &ModelLimits,
) -> Result<(Backend, ModelCard, Option<Share>), String> {
    // The cheap checks come first: shape, vocabulary, memory, digest, and only then the weights.
    let config = ModelConfig::load(folder).map_err(|error| error.to_string())?;
    let vocabulary = Vocabulary::load(folder, config.image_token_id)?.digest();
    speaks(&vocabulary)?;
    let parameters = u64::try_from(config.parameters()).unwrap_or(u64::MAX);
    let bytes = parameters.saturating_mul(limits.device.value_bytes());
    let share = limits.memory.take(bytes).map_err(|reason| format!("{}: {reason}", folder.display()))?;
    tracing::info!(%id, folder = %folder.display(), parameters, bytes, "reading a model");
    let reader = limits.loader.clone();
    let (id, folder, limits, wanted) = (id.clone(), folder.to_owned(), limits.clone(), digest.to_owned());
    let read = move || {
        let digest = digest::of(&folder)?;
        if !wanted.is_empty() && wanted != digest {
            return Err(format!("{}: its digest is {digest}, {wanted} was asked for", folder.display()));
        }
        Ok((Local::load(id, &folder, &limits)?, digest))
    };
    let loaded = reader.run(read).await.unwrap_or_else(|| Err("reading it panicked; see the log".into()));
    let (local, digest) = loaded?;
    Ok((Backend::Local(local), ModelCard { digest, vocabulary, parameters, bytes: share.bytes(), sighted: false }, Some(share)))
}

/// A call under way on one model: it keeps the model, whatever is promoted meanwhile.
#[derive(Debug)]
pub struct Call {
    model: Arc<Model>,
}

impl Call {
    /// Begins a call.
    pub fn new(model: Arc<Model>) -> Self {
        model.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { model }
    }

    /// The model that answers.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.model.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
