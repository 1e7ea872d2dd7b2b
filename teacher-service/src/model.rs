//! One model with all that a call needs, wherever it computes. In: questions whose sequences name pictures. Out: answers. Knows
//! no registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hypereyes_domain::{Answer, ModelCard, Question, TeacherId};
use hypereyes_engines::scoring::ScoringClient;
use hypereyes_pictures::Store;
use tokio::time::{Instant, timeout_at};

use crate::access::Access;
use crate::error::ScoreError;
use crate::folder::Survey;
use crate::limits::ModelLimits;
use crate::local::Local;
use crate::memory::Share;
use crate::peer::Peer;
use crate::source::{Server, Source};
use crate::web::Stores;
use crate::{digest, fetch, folder};

/// Longest look at what a folder says, its weights apart: a disk that takes longer does not answer.
const LOOK: Duration = Duration::from_secs(60);

/// Where it computes.
#[derive(Debug)]
enum Backend {
    /// In this process.
    Local(Local),
    /// In another teacher service.
    Peer(Peer),
    /// In somebody else's server.
    Server(ScoringClient),
}

/// A model that answers and may not serve yet: [`verify`](crate::verify) makes a [`Model`] of it.
#[derive(Debug)]
pub struct Unverified(Model);

impl Unverified {
    /// The model, to be asked and looked at.
    pub fn model(&self) -> &Model {
        &self.0
    }

    /// The model that may serve; `sighted` is whether it has shown that it sees.
    pub(crate) fn verified(self, sighted: bool) -> Model {
        let Self(mut model) = self;
        model.card.sighted = sighted;
        model
    }
}

/// A verified model; dropping the last `Arc` frees its memory.
#[derive(Debug)]
pub struct Model {
    id: TeacherId,
    source: Source,
    card: ModelCard,
    backend: Backend,
    /// What its folder says of text and pictures; a peer keeps its own.
    survey: Option<Survey>,
    in_flight: AtomicU64,
    _memory: Option<Share>,
}

impl Model {
    /// Reads or reaches a model. Where there are rules of an earlier one, it must speak the same vocabulary.
    ///
    /// # Errors
    /// A text that says what is wrong and where.
    pub async fn load(
        id: TeacherId,
        source: Source,
        digest: &str,
        vocabulary: Option<&str>,
        limits: &ModelLimits,
    ) -> Result<Unverified, String> {
        let speaks = |own: &str| match vocabulary {
            Some(vocabulary) if own != vocabulary => Err(format!(
                "{source}: it has another vocabulary than the models that are loaded; a run has one, start another service for it"
            )),
            _ => Ok(()),
        };
        let access = &limits.access;
        let deadline = Instant::now() + limits.patience;
        if let Source::Server(server) = &source {
            // First of all, and before anything is read or sent: may this key go there?
            access.key(server)?;
        }
        access.look(&source).await.map_err(|reason| format!("{source}: {reason}"))?;
        let (backend, card, survey, memory) = match &source {
            Source::Folder(folder) => {
                let survey = look(folder, &source, true, limits).await?;
                local(&id, survey, digest, &speaks, deadline, limits).await?
            }
            Source::Store(url) => {
                let folder = limits.fetched.as_deref().ok_or("set `store`: files of an object store are fetched into it")?;
                let stores = Stores::new(&source, access).map_err(|reason| format!("{source}: {reason}"))?;
                let late = |_| format!("{source}: not fetched within `load_s`");
                let folder = timeout_at(deadline, fetch::fetch(url, stores, folder, &id, limits.memory.limit())).await.map_err(late)??;
                // What was fetched lies in a folder of our own.
                let own = Source::Folder(folder.clone());
                let survey = look_within(folder, own.clone(), Arc::new(Access::of_own(own)), true, limits).await?;
                local(&id, survey, digest, &speaks, deadline, limits).await?
            }
            Source::Peer(address) => {
                let (peer, card) = Peer::reach(&id, address, access.reach(&source), &limits.security).await?;
                speaks(&card.vocabulary)?;
                (Backend::Peer(peer), card, None, None)
            }
            Source::Server(server) => {
                let client = scoring_client(server, access, &source).map_err(|reason| format!("{source}: {reason}"))?;
                let survey = look(&server.tokenizer, &source, false, limits).await?;
                speaks(&survey.vocabulary)?;
                let card =
                    ModelCard { digest: String::new(), vocabulary: survey.vocabulary.clone(), parameters: 0, bytes: 0, sighted: false };
                let processor = survey.processor.clone().map_err(|reason| format!("{source}: {reason}"))?;
                let client = client.of(survey.config.text.vocab_size, survey.config.image_token_id, processor);
                (Backend::Server(client), card, Some(survey), None)
            }
        };
        if !digest.is_empty() && digest != card.digest {
            return Err(format!("{source}: its digest is {:?}, {digest} was asked for", card.digest));
        }
        Ok(Unverified(Self { id, source, card, backend, survey, in_flight: AtomicU64::new(0), _memory: memory }))
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

    /// What its folder says of how it reads text and pictures; a peer keeps its own.
    pub fn survey(&self) -> Option<&Survey> {
        self.survey.as_ref()
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
            Backend::Server(server) => {
                let scored = server.score(&question.sequences, question.temperature, question.top, store, deadline).await;
                scored.map_err(|error| ScoreError::of_server(&self.id, error))
            }
        }
    }
}

/// What a folder of a source says, read apart and not for long.
async fn look(folder: &Path, source: &Source, weights: bool, limits: &ModelLimits) -> Result<Survey, String> {
    look_within(folder.to_owned(), source.clone(), limits.access.clone(), weights, limits).await
}

async fn look_within(folder: PathBuf, source: Source, access: Arc<Access>, weights: bool, limits: &ModelLimits) -> Result<Survey, String> {
    let name = folder.display().to_string();
    let looked = limits.loader.apart(Instant::now() + LOOK, move || folder::survey(&folder, &source, &access, weights)).await;
    looked.map_err(|reason| format!("{name}: {reason}"))?
}

/// The client of somebody else's server: questions go where the source says, and nowhere else.
fn scoring_client(server: &Server, access: &Access, source: &Source) -> Result<ScoringClient, String> {
    let key = access.key(server)?.map(|key| key.header());
    let client = hypereyes_engines::http::client(&server.address().ok_or("it has no address")?, &access.reach(source))?;
    Ok(ScoringClient::new(server.dialect, &server.url, server.model.clone(), key, client))
}

/// A model of this process.
async fn local(
    id: &TeacherId,
    survey: Survey,
    digest: &str,
    speaks: &(dyn Fn(&str) -> Result<(), String> + Sync),
    deadline: Instant,
    limits: &ModelLimits,
) -> Result<(Backend, ModelCard, Option<Survey>, Option<Share>), String> {
    // The cheap checks come first: shape, vocabulary, memory, digest, and only then the weights.
    let (folder, vocabulary) = (survey.folder.as_path(), survey.vocabulary.clone());
    speaks(&vocabulary)?;
    let parameters = u64::try_from(survey.config.parameters()).unwrap_or(u64::MAX);
    let bytes = parameters.saturating_mul(limits.device.value_bytes());
    let share = limits.memory.take(bytes).map_err(|reason| format!("{}: {reason}", folder.display()))?;
    tracing::info!(%id, folder = %folder.display(), parameters, bytes, "reading a model");
    let (reader, name) = (limits.loader.clone(), folder.display().to_string());
    let (id, folder, limits, wanted) = (id.clone(), folder.to_owned(), limits.clone(), digest.to_owned());
    let read = move || {
        let digest = digest::of(&folder)?;
        if !wanted.is_empty() && wanted != digest {
            return Err(format!("{}: its digest is {digest}, {wanted} was asked for", folder.display()));
        }
        Ok((Local::load(id, &folder, &limits)?, digest))
    };
    let (local, digest) = reader.run(deadline, read).await.map_err(|reason| format!("{name}: {reason}"))??;
    let card = ModelCard { digest, vocabulary, parameters, bytes: share.bytes(), sighted: false };
    Ok((Backend::Local(local), card, Some(survey), Some(share)))
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
