//! The pictures of one group: those of its task, fetched once per actor and kept in a bounded store, and the crops that its
//! rollouts saw. In: ids. Out: decoded pictures for the rollouts, encoded ones for peers that lack them.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use hypereyes_domain::{PictureId, RolloutGroup};
use hypereyes_pictures::{Picture, Store};
use metrics::counter;

use crate::metrics::PICTURES;
use crate::service::{CallError, Peers};

/// Why the pictures of a task are not there.
#[derive(Debug, thiserror::Error)]
pub enum PicturesError {
    /// The learner did not send them.
    #[error(transparent)]
    Call(#[from] CallError),
    /// What it sent cannot be used.
    #[error("the pictures of the task cannot be used: {0}")]
    Unusable(String),
}

impl hypereyes_chassis::Retryable for PicturesError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_retryable())
    }
}

/// The task's pictures in order, fetched if the store lacks them.
pub async fn of_task(peers: &Peers, store: &Arc<Store>, ids: &[PictureId]) -> Result<Vec<Arc<Picture>>, PicturesError> {
    let missing = store.missing(ids);
    if !missing.is_empty() {
        let sent = peers.get_pictures(&missing).await?;
        counter!(PICTURES, "from" => "learner_get").increment(sent.len() as u64);
        let store = store.clone();
        // Names are computed from the bytes, never taken from the sender. Decoding takes milliseconds per picture.
        let kept = tokio::task::spawn_blocking(move || sent.into_iter().try_for_each(|bytes| store.put(bytes).map(|_| ()))).await;
        let unusable = |error: &dyn std::fmt::Display| PicturesError::Unusable(error.to_string());
        kept.map_err(|error| unusable(&error))?.map_err(|error| unusable(&error))?;
    }
    let held =
        |id: &PictureId| store.get(id).ok_or_else(|| PicturesError::Unusable(format!("{id} did not come, or pictures_bytes is too small")));
    ids.iter().map(held).collect()
}

/// All pictures that trajectories of a group may name.
#[derive(Clone, Debug, Default)]
pub struct GroupPictures {
    task: Vec<(PictureId, Bytes)>,
    crops: Vec<(PictureId, Bytes)>,
}

impl GroupPictures {
    /// Of a task and what its rollouts saw.
    pub fn new(task: &[Arc<Picture>], crops: &[Arc<Picture>]) -> Self {
        Self {
            task: task.iter().map(|picture| (picture.id.clone(), picture.bytes.clone())).collect(),
            crops: crops.iter().map(|picture| (picture.id.clone(), picture.bytes.clone())).collect(),
        }
    }

    /// Crops that rollouts of the group name, masked ones included: the learner takes no group with pictures unknown to it. It has
    /// the task's pictures.
    pub fn crops_of(&self, group: &RolloutGroup) -> Vec<(PictureId, Bytes)> {
        let named: HashSet<&PictureId> = group.rollouts.iter().flat_map(|rollout| &rollout.pictures).collect();
        self.crops.iter().filter(|(id, _)| named.contains(id)).cloned().collect()
    }

    /// Those of `ids` that are here.
    pub fn find(&self, ids: &[PictureId]) -> Vec<(PictureId, Bytes)> {
        self.all().filter(|(id, _)| ids.contains(id)).cloned().collect()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &(PictureId, Bytes)> {
        self.task.iter().chain(&self.crops)
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Ending, PolicyVersion, RolloutSummary, Trajectory};
    use hypereyes_pictures::RgbImage;

    use super::*;

    fn picture(shade: u8) -> Picture {
        Picture::from_image(RgbImage::from_pixel(8, 8, [shade; 3].into())).expect("encodes")
    }

    fn rollout(pictures: &[&Picture], sampled: bool) -> Trajectory {
        Trajectory {
            prompt: vec![1],
            response: vec![2],
            mask: vec![sampled],
            logprobs: vec![if sampled { -0.5 } else { 0.0 }],
            versions: vec![PolicyVersion(0)],
            pictures: pictures.iter().map(|picture| picture.id.clone()).collect(),
            summary: RolloutSummary { rounds: vec![], ending: Ending::NoAction, answer: None },
            spoken: None,
        }
    }

    #[test]
    fn the_learner_gets_the_crops_that_rollouts_name_and_no_others() {
        let [task, used, masked, unused] = [1, 2, 3, 4].map(picture);
        let pictures = GroupPictures::new(&[Arc::new(task.clone())], &[&used, &masked, &unused].map(|crop| Arc::new(crop.clone())));
        let rollouts = vec![rollout(&[&task, &used], true), rollout(&[&task, &used, &masked], false)];
        let group = RolloutGroup { id: "t@1".into(), task: "t".into(), actor: "a".into(), rollouts };
        assert_eq!(pictures.crops_of(&group), [(used.id.clone(), used.bytes.clone()), (masked.id.clone(), masked.bytes.clone())]);
        let found = pictures.find(&[unused.id.clone(), task.id.clone(), picture(9).id]);
        assert_eq!(found.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&task.id, &unused.id]);
    }
}
