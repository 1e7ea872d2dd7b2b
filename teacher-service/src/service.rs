//! The gRPC face. In: messages that are not trusted. Out: messages, or statuses that carry a typed failure. The only file here
//! that knows protobuf messages and `Status`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use hypereyes_domain::{Failure, PictureId, TeacherId};
use hypereyes_pictures::Store;
use hypereyes_proto::convert::{Invalid, ids};
use hypereyes_proto::limits::{MAX_GROUP_SIZE, MAX_PICTURE_BYTES};
use hypereyes_proto::{ScoreSequence, failure, v1};
use metrics::{counter, histogram};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming};

use crate::deadline;
use crate::error::ScoreError;
use crate::metrics::{CALL_SECONDS, CALLS, PICTURES};
use crate::registry::{Info, Registry, RegistryError, State};

/// Longest pause between two pictures of a stream.
const PICTURE_PAUSE: Duration = Duration::from_secs(30);
/// Longest path that is taken from a caller.
const MAX_PATH_BYTES: usize = 4096;

/// The teacher service.
#[derive(Clone)]
pub struct Service {
    registry: Arc<Registry>,
    store: Arc<Store>,
}

impl Service {
    /// A service of the registry's models, for pictures of the store.
    pub fn new(registry: Arc<Registry>, store: Arc<Store>) -> Self {
        Self { registry, store }
    }

    async fn score(&self, request: v1::ScoreTokensRequest, deadline: Instant) -> Result<v1::ScoreTokensReply, (&'static str, Status)> {
        let invalid = |invalid: Invalid| ("invalid", Status::from(invalid));
        let group = ids::group("group_id", request.group_id).map_err(invalid)?;
        let wanted: Option<TeacherId> = request.teacher_id.map(|id| ids::teacher("teacher_id", id)).transpose().map_err(invalid)?;
        if request.sequences.len() > MAX_GROUP_SIZE {
            let reason = format!("has {} entries, limit {MAX_GROUP_SIZE}", request.sequences.len());
            return Err(invalid(Invalid::new("sequences", reason)));
        }
        let sequence = |(index, message)| {
            let named = |error: Invalid| Invalid::new(format!("sequences[{index}].{}", error.what), error.reason);
            ScoreSequence::try_from(message).map_err(named)
        };
        let sequences: Vec<ScoreSequence> =
            request.sequences.into_iter().enumerate().map(sequence).collect::<Result<_, _>>().map_err(invalid)?;
        let call = self.registry.call(wanted.as_ref()).map_err(|error| ("no_model", Status::from(error)))?;
        let scored = call.score(sequences, self.store.clone(), deadline).await.map_err(|error| {
            tracing::debug!(%group, model = %call.model().id(), %error, "not scored");
            (error.label(), Status::from(error))
        })?;
        Ok(v1::ScoreTokensReply {
            teacher_id: call.model().id().as_str().to_owned(),
            sequences: scored.into_iter().map(|logprobs| v1::SequenceLogprobs { logprobs }).collect(),
        })
    }

    async fn put(&self, picture: v1::Picture) -> Result<bool, Status> {
        let id: PictureId = ids::picture("id", picture.id)?;
        if picture.data.len() > MAX_PICTURE_BYTES {
            return Err(Invalid::new("data", format!("has {} bytes, limit {MAX_PICTURE_BYTES}", picture.data.len())).into());
        }
        let store = self.store.clone();
        let new = !store.missing(std::slice::from_ref(&id)).is_empty();
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
            ScoreError::NotFinite { .. } | ScoreError::Broken { .. } => failure::to_status(Failure::Infrastructure, error.to_string()),
            ScoreError::Deadline => failure::to_status(Failure::Timeout, error.to_string()),
        }
    }
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::Unknown(_) => Status::not_found(text),
            RegistryError::NoneActive => failure::to_status(Failure::Infrastructure, text),
            RegistryError::Taken(_) => Status::already_exists(text),
            RegistryError::Full => Status::resource_exhausted(text),
            RegistryError::Load { .. } | RegistryError::Active(_) | RegistryError::OtherVocabulary { .. } => {
                Status::failed_precondition(text)
            }
        }
    }
}

impl From<Info> for v1::ModelInfo {
    fn from(info: Info) -> Self {
        let (state, detail) = match info.state {
            State::Loading => (v1::ModelState::Loading, String::new()),
            State::Ready => (v1::ModelState::Ready, String::new()),
            State::Active => (v1::ModelState::Active, String::new()),
            State::Retiring => (v1::ModelState::Retiring, String::new()),
            State::Retired => (v1::ModelState::Retired, String::new()),
            State::Failed(reason) => (v1::ModelState::Failed, reason),
        };
        Self {
            id: info.id.as_str().to_owned(),
            path: info.path.display().to_string(),
            state: state.into(),
            detail,
            in_flight: info.in_flight,
        }
    }
}

#[tonic::async_trait]
impl v1::teacher_server::Teacher for Service {
    async fn score_tokens(&self, request: Request<v1::ScoreTokensRequest>) -> Result<Response<v1::ScoreTokensReply>, Status> {
        let start = Clock::now();
        let header = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        let deadline = Instant::now() + deadline::parse(header);
        match self.score(request.into_inner(), deadline).await {
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
        Ok(Response::new(v1::ListModelsReply { models: self.registry.list().into_iter().map(Into::into).collect() }))
    }

    async fn load_model(&self, request: Request<v1::LoadModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        let request = request.into_inner();
        let id = ids::teacher("id", request.id)?;
        if request.path.is_empty() || request.path.len() > MAX_PATH_BYTES {
            return Err(Invalid::new("path", format!("has {} bytes; 1..={MAX_PATH_BYTES} are taken", request.path.len())).into());
        }
        Ok(Response::new(self.registry.load(id, PathBuf::from(request.path)).await?.into()))
    }

    async fn promote_model(&self, request: Request<v1::PromoteModelRequest>) -> Result<Response<v1::PromoteModelReply>, Status> {
        let id = ids::teacher("id", request.into_inner().id)?;
        let previous = self.registry.promote(&id)?;
        let previous = previous.map_or_else(String::new, |id| id.as_str().to_owned());
        Ok(Response::new(v1::PromoteModelReply { active: id.as_str().to_owned(), previous }))
    }

    async fn retire_model(&self, request: Request<v1::RetireModelRequest>) -> Result<Response<v1::ModelInfo>, Status> {
        let id = ids::teacher("id", request.into_inner().id)?;
        Ok(Response::new(self.registry.retire(&id)?.into()))
    }
}
