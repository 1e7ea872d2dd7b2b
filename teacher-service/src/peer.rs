//! A model in another teacher service. In: questions. Out: its answers; pictures that it lacks are handed on. This is how one
//! registry serves models that each have a machine of their own.

use std::sync::Arc;
use std::time::Duration;

use hypereyes_chassis::{Reach, Security};
use hypereyes_domain::{Answer, ModelCard, ModelState, Question, TeacherId};
use hypereyes_pictures::Store;
use hypereyes_proto::{CallError, TeacherPeer, client};
use tokio::time::Instant;

use crate::error::ScoreError;

/// Longest wait for the other service's list.
const REACH: Duration = Duration::from_secs(10);

/// The other service.
#[derive(Debug)]
pub struct Peer {
    id: TeacherId,
    client: TeacherPeer,
    /// Who answered when it was verified: nobody else may answer under this name.
    answers: TeacherId,
}

impl Peer {
    /// Asks another service what its active model is.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub async fn reach(id: &TeacherId, address: &str, reach: Reach, security: &Security) -> Result<(Self, ModelCard), String> {
        let client = TeacherPeer::new(client::secure(security).within(reach).teacher(address).map_err(|error| error.to_string())?);
        let roster = client.roster(REACH).await.map_err(|error| format!("grpc://{address}: {error}"))?;
        let active = roster.models.into_iter().find(|model| model.state == ModelState::Active);
        let active = active.ok_or_else(|| format!("grpc://{address}: no model is active there"))?;
        let card = active.card.ok_or_else(|| format!("grpc://{address}: its model is not verified"))?;
        // Its weights are in the other service's memory.
        Ok((Self { id: id.clone(), client, answers: active.id }, ModelCard { bytes: 0, ..card }))
    }

    /// Answers, one per sequence.
    ///
    /// # Errors
    /// [`ScoreError`].
    pub async fn ask(&self, question: &Question, store: &Arc<Store>, deadline: Instant) -> Result<Vec<Answer>, ScoreError> {
        // By name: a promotion over there must not change what this name stands for.
        let question = Question { teacher: Some(self.answers.clone()), revision: None, ..question.clone() };
        let missing = match self.client.ask(&question, left(deadline)?).await {
            Ok((_, answers)) => return Ok(answers),
            Err(error) if error.missing.is_empty() => return Err(self.said(error)),
            Err(error) => error.missing,
        };
        let mut pictures = Vec::new();
        let (mut unknown, named) = (Vec::new(), question.sequences.iter().flat_map(|sequence| &sequence.pictures));
        // A full list names only the first of them.
        let wanted: Vec<_> = if missing.len() < hypereyes_proto::limits::MAX_MISSING_LISTED { missing } else { named.cloned().collect() };
        for id in wanted {
            match store.get(&id) {
                Some(picture) => pictures.push((id, picture.bytes.clone())),
                None => unknown.push(id),
            }
        }
        if !unknown.is_empty() {
            return Err(ScoreError::MissingPictures(unknown));
        }
        self.client.put(pictures, left(deadline)?).await.map_err(|error| self.said(error))?;
        let (_, answers) = self.client.ask(&question, left(deadline)?).await.map_err(|error| self.said(error))?;
        Ok(answers)
    }

    fn said(&self, error: CallError) -> ScoreError {
        let model = self.id.clone();
        if error.refused {
            ScoreError::Unusable { model, index: 0, reason: error.message }
        } else {
            ScoreError::Unreachable { model, reason: error.to_string() }
        }
    }
}

fn left(deadline: Instant) -> Result<Duration, ScoreError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ScoreError::Deadline) } else { Ok(left) }
}
