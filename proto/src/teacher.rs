//! A teacher service, spoken to in domain types: by actors, by another teacher service in front of it, by people.
//!
//! In: questions, pictures, orders to the registry. Out: answers that were held against the questions, or a [`CallError`].
//! Every call has a deadline, which the service is told.

use std::time::Duration;

use bytes::Bytes;
use hypereyes_domain::{Answer, ModelInfo, PictureId, Promotion, Question, Roster, TeacherId, TeacherVersion};
use tonic::Request;

use crate::call::{CallError, within};
use crate::client::TeacherClient;
use crate::convert::{answered, ids};
use crate::v1;

/// Pictures with their bytes.
pub type Pictures = Vec<(PictureId, Bytes)>;

/// A client of a teacher service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TeacherPeer {
    client: TeacherClient,
}

/// A model that shall be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Where it is.
    pub source: String,
    /// The name that it will go by.
    pub id: TeacherId,
    /// Digest that its files must have; empty takes any.
    pub digest: String,
    /// Whether to answer at once and go on loading.
    pub background: bool,
}

impl TeacherPeer {
    /// Speaks through this client.
    pub fn new(client: TeacherClient) -> Self {
        Self { client }
    }

    /// Asks about tokens.
    ///
    /// # Errors
    /// [`CallError`]; one that names missing pictures wants them put first.
    pub async fn ask(&self, question: &Question, patience: Duration) -> Result<(TeacherVersion, Vec<Answer>), CallError> {
        const OP: &str = "score_tokens";
        let mut request = Request::new(v1::ScoreTokensRequest::from(question.clone()));
        request.set_timeout(patience);
        let reply = within(OP, patience, self.client.clone().score_tokens(request)).await?;
        answered(&question.sequences, question.top, reply).map_err(|invalid| CallError::nonsense(OP, invalid))
    }

    /// Puts pictures where the service finds them.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn put(&self, pictures: Pictures, patience: Duration) -> Result<(), CallError> {
        let messages = pictures.into_iter().map(|(id, data)| v1::Picture { id: id.as_str().to_owned(), data });
        let messages: Vec<v1::Picture> = messages.collect();
        within("put_pictures", patience, self.client.clone().put_pictures(tokio_stream::iter(messages))).await.map(|_| ())
    }

    /// What the registry holds.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn roster(&self, patience: Duration) -> Result<Roster, CallError> {
        const OP: &str = "list_models";
        let reply = within(OP, patience, self.client.clone().list_models(v1::ListModelsRequest {})).await?;
        Roster::try_from(reply).map_err(|invalid| CallError::nonsense(OP, invalid))
    }

    /// Has a model loaded and verified.
    ///
    /// # Errors
    /// [`CallError`], which says what is wrong with the model.
    pub async fn load(&self, load: Load, patience: Duration) -> Result<ModelInfo, CallError> {
        const OP: &str = "load_model";
        let Load { source, id, digest, background } = load;
        let request = v1::LoadModelRequest { source, id: id.as_str().to_owned(), digest, background };
        let reply = within(OP, patience, self.client.clone().load_model(request)).await?;
        ModelInfo::try_from(reply).map_err(|invalid| CallError::nonsense(OP, invalid))
    }

    /// Makes a model the active one.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn promote(&self, id: &TeacherId, patience: Duration) -> Result<Promotion, CallError> {
        const OP: &str = "promote_model";
        let request = v1::PromoteModelRequest { id: id.as_str().to_owned() };
        let reply = within(OP, patience, self.client.clone().promote_model(request)).await?;
        let previous = (!reply.previous.is_empty()).then(|| ids::teacher("previous", reply.previous)).transpose();
        let previous = previous.map_err(|invalid| CallError::nonsense(OP, invalid))?;
        Ok(Promotion { revision: reply.epoch, id: id.clone(), previous, at: 0 })
    }

    /// Has a model unloaded.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn retire(&self, id: &TeacherId, patience: Duration) -> Result<ModelInfo, CallError> {
        const OP: &str = "retire_model";
        let request = v1::RetireModelRequest { id: id.as_str().to_owned() };
        let reply = within(OP, patience, self.client.clone().retire_model(request)).await?;
        ModelInfo::try_from(reply).map_err(|invalid| CallError::nonsense(OP, invalid))
    }
}
