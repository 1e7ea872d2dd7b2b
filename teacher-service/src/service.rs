//! The gRPC face. In: messages that are not trusted. Out: messages, or statuses that carry a typed failure. The only file here
//! that knows protobuf messages and `Status`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use hypereyes_chassis::tls::Peer;
use hypereyes_domain::{Failure, PictureId, Promotion, Question};
use hypereyes_pictures::Store;
use hypereyes_proto::convert::{Invalid, ids};
use hypereyes_proto::limits::{DIGEST_HEX, MAX_PICTURE_BYTES};
use hypereyes_proto::{failure, v1};
use metrics::{counter, histogram};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use crate::deadline;
use crate::error::ScoreError;
use crate::fair::Fair;
use crate::metrics::{ANSWERS, CALL_SECONDS, CALLS, PICTURES};
use crate::registry::{LoadRequest, Registry, RegistryError};

/// Pictures that are decoded at the same moment.
const DECODING: usize = 4;
/// Longest pause between two pictures of a stream.
const PICTURE_PAUSE: Duration = Duration::from_secs(30);

/// The teacher service.
#[derive(Clone)]
pub struct Service {
    registry: Arc<Registry>,
    store: Arc<Store>,
    turns: Arc<Fair>,
    decoding: Arc<Semaphore>,
}

impl Service {
    /// A service of the registry's models, for pictures of the store. Each caller has `of_caller` calls under way at the same
    /// moment; more of the same caller wait.
    pub fn new(registry: Arc<Registry>, store: Arc<Store>, of_caller: usize) -> Self {
        Self { registry, store, turns: Arc::new(Fair::new(of_caller)), decoding: Arc::new(Semaphore::new(DECODING)) }
    }

    async fn score(
        &self,
        request: v1::ScoreTokensRequest,
        caller: Option<IpAddr>,
        deadline: Instant,
    ) -> Result<v1::ScoreTokensReply, (&'static str, Status)> {
        let question = Question::try_from(request).map_err(|invalid| ("invalid", Status::from(invalid)))?;
        let turn = self.turns.turn(caller, deadline).await;
        let _turn = turn.ok_or_else(|| (ScoreError::Deadline.label(), Status::from(ScoreError::Deadline)))?;
        let (call, version) = self.registry.call(&question).map_err(|error| ("no_model", Status::from(error)))?;
        let span = tracing::info_span!("forward", group = %question.group, teacher = %version, sequences = question.sequences.len());
        let answers = call.model().ask(&question, &self.store, deadline).instrument(span).await.map_err(|error| {
            tracing::debug!(group = %question.group, teacher = %version, %error, "not scored");
            (error.label(), Status::from(error))
        })?;
        let labels = [("teacher", version.id.as_str().to_owned()), ("epoch", version.revision.to_string())];
        counter!(ANSWERS, &labels).increment(1);
        Ok((version, answers).into())
    }

    async fn put(&self, picture: v1::Picture) -> Result<bool, Status> {
        let id: PictureId = ids::picture("id", picture.id)?;
        if picture.data.len() > MAX_PICTURE_BYTES {
            return Err(Invalid::new("data", format!("has {} bytes, limit {MAX_PICTURE_BYTES}", picture.data.len())).into());
        }
        let store = self.store.clone();
        let new = !store.missing(std::slice::from_ref(&id)).is_empty();
        // A small file may become a large picture: not everybody's at the same moment.
        let turn = self.decoding.acquire().await;
        let _turn = turn.map_err(|error| failure::to_status(Failure::Infrastructure, format!("the service is stopping: {error}")))?;
        let put = tokio::task::spawn_blocking(move || store.put(picture.data)).await;
        let put = put.map_err(|error| failure::to_status(Failure::Infrastructure, format!("decoding died: {error}")))?;
        let named = put.map_err(|error| Status::from(Invalid::new("data", format!("of {id} is refused: {error}"))))?;
        if named != id {
            return Err(Invalid::new("id", format!("is {id}, but the data is {named}")).into());
        }
        Ok(new)
    }
}

impl From<ScoreError> for Status {
    fn from(error: ScoreError) -> Self {
        match &error {
            ScoreError::MissingPictures(ids) => failure::missing_pictures(ids),
            // The caller's process sent what cannot be scored here; trying again is of no use.
            ScoreError::Misfit { .. } | ScoreError::TooLong { .. } => Status::invalid_argument(error.to_string()),
            ScoreError::Unusable { .. } => Status::failed_precondition(error.to_string()),
            ScoreError::NotFinite { .. } | ScoreError::Broken { .. } | ScoreError::Unreachable { .. } => {
                failure::to_status(Failure::Infrastructure, error.to_string())
            }
            ScoreError::Deadline => failure::to_status(Failure::Timeout, error.to_string()),
        }
    }
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::Unknown(_) | RegistryError::Gone(_) => Status::not_found(text),
            RegistryError::NoneActive | RegistryError::Ledger(_) => failure::to_status(Failure::Infrastructure, text),
            RegistryError::Taken(_) => Status::already_exists(text),
            RegistryError::Full => Status::resource_exhausted(text),
            RegistryError::Load { .. } | RegistryError::Active(_) => Status::failed_precondition(text),
        }
    }
}

/// Work that waits for the disk, away from the threads that answer.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, RegistryError> + Send + 'static) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(failure::to_status(Failure::Infrastructure, format!("the registry failed: {error}"))),
    }
}

#[tonic::async_trait]
impl v1::teacher_server::Teacher for Service {
    async fn score_tokens(&self, request: Request<v1::ScoreTokensRequest>) -> Result<Response<v1::ScoreTokensReply>, Status> {
        let start = Clock::now();
        let header = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let deadline = Instant::now() + deadline::parse(header);
        let caller = request.extensions().get::<Peer>().and_then(|peer| peer.addr).map(|addr| addr.ip());
        match self.score(request.into_inner(), caller, deadline).await {
            Ok(reply) => {
                counter!(CALLS, "outcome" => "ok").increment(1);
                histogram!(CALL_SECONDS).record(start.elapsed().as_secs_f64());
                Ok(Response::new(reply))
            }
            Err((outcome, status)) => {
                counter!(CALLS, "outcome" => outcome).increment(1);
                Err(status)
            }
        }
    }

    async fn put_pictures(&self, request: Request<Streaming<v1::Picture>>) -> Result<Response<v1::PutPicturesReply>, Status> {
        let mut pictures = request.into_inner();
        let mut reply = v1::PutPicturesReply::default();
        loop {
            let late = |_| failure::to_status(Failure::Timeout, format!("no picture within {PICTURE_PAUSE:?}; put them again"));
            let Some(picture) = timeout(PICTURE_PAUSE, pictures.message()).await.map_err(late)?? else { return Ok(Response::new(reply)) };
            match self.put(picture).await {
                Ok(true) => {
                    reply.stored += 1;
                    counter!(PICTURES, "outcome" => "stored").increment(1);
                }
                Ok(false) => {
                    reply.known += 1;
                    counter!(PICTURES, "outcome" => "known").increment(1);
                }
                Err(status) => {
                    counter!(PICTURES, "outcome" => "refused").increment(1);
                    return Err(status);
                }
            }
        }
    }

    async fn list_models(&self, _request: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsReply>, Status> {
        Ok(Response::new(self.registry.roster().into()))
    }

    async fn load_model(&self, request: Request<v1::LoadModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        let v1::LoadModelRequest { source, id, digest, background } = request.into_inner();
        let id = ids::teacher("id", id)?;
        let source = source.parse().map_err(|reason: String| Invalid::new("source", format!("cannot be meant: {reason}")))?;
        if !digest.is_empty() && (digest.len() != DIGEST_HEX || !digest.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return Err(Invalid::new("digest", format!("is not {DIGEST_HEX} hex digits")).into());
        }
        let load_request = LoadRequest { id, source, digest: digest.to_lowercase() };
        let info = if background { self.registry.load_behind(load_request)? } else { self.registry.load(load_request).await? };
        Ok(Response::new(info.into()))
    }

    async fn promote_model(&self, request: Request<v1::PromoteModelRequest>) -> Result<Response<v1::PromoteModelReply>, Status> {
        let id = ids::teacher("id", request.into_inner().id)?;
        let registry = self.registry.clone();
        let Promotion { revision, id, previous, .. } = apart(move || registry.promote(&id)).await?;
        let previous = previous.map_or_else(String::new, |id| id.as_str().to_owned());
        Ok(Response::new(v1::PromoteModelReply { active: id.as_str().to_owned(), previous, epoch: revision }))
    }

    async fn retire_model(&self, request: Request<v1::RetireModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        let id = ids::teacher("id", request.into_inner().id)?;
        let registry = self.registry.clone();
        Ok(Response::new(apart(move || registry.retire(&id)).await?.into()))
    }
}
