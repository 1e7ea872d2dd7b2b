//! A batch on its way into a step. In: groups that were accepted. Out: those that can be trained, with their pictures as patches, and
//! those that cannot (a file was damaged since, a picture is no more what it was), each with the reason: one bad group costs itself
//! and not its step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hypereyes_domain::{DistilledGroup, PictureId};
use hypereyes_pictures::{Limits, Patches, Picture};
use hypereyes_policy::config::ModelConfig;
use hypereyes_trainer::Pictures;

use crate::service::Shared;

/// A batch, sorted.
pub(crate) struct Prepared {
    /// What is trained.
    pub(crate) groups: Vec<DistilledGroup>,
    /// Pictures of those as patches.
    pub(crate) pictures: Pictures,
    /// The same as they came, in order, for other ranks; empty where there are none.
    pub(crate) encoded: Vec<(PictureId, Bytes)>,
    /// What is not, a label and why.
    pub(crate) dropped: Vec<(DistilledGroup, &'static str, String)>,
}

/// Reads the pictures of a batch, each once, and sees whether the model can read every group.
pub(crate) fn prepare(shared: &Shared, model: &ModelConfig, batch: Vec<DistilledGroup>) -> Prepared {
    let mut read: BTreeMap<PictureId, Result<Arc<Patches>, String>> = BTreeMap::new();
    let mut sorted = Prepared { groups: vec![], pictures: Pictures::new(), encoded: vec![], dropped: vec![] };
    for group in batch {
        let seen: BTreeSet<&PictureId> = group.scored.group.rollouts.iter().flat_map(|rollout| &rollout.pictures).collect();
        let mut pictures = Pictures::new();
        let mut fault = None;
        for id in &seen {
            match read.entry((*id).clone()).or_insert_with(|| patches(shared, id)) {
                Ok(patches) => drop(pictures.insert((*id).clone(), patches.clone())),
                Err(reason) => fault = Some(format!("picture {id}: {reason}")),
            }
        }
        let fit = match fault {
            Some(reason) => Err(("picture", reason)),
            None => hypereyes_trainer::check(model, &group, &pictures).map_err(|error| ("unfit", error.to_string())),
        };
        match fit {
            Ok(()) => {
                sorted.pictures.extend(pictures);
                sorted.groups.push(group);
            }
            Err((label, reason)) => sorted.dropped.push((group, label, reason)),
        }
    }
    if shared.world > 1 {
        sorted.encode(shared);
    }
    sorted
}

/// Cuts the pictures of the groups that come next, so that no step waits for it. What cannot be read is found out by the step that
/// needs it: until then it may be whole again.
pub(crate) fn prefetch(shared: &Shared) {
    let next = shared.intake().next_pictures();
    for id in &next {
        if let Err(reason) = patches(shared, id) {
            tracing::debug!(picture = %id, reason, "a picture of a waiting group cannot be read yet");
        }
    }
}

impl Prepared {
    /// Reads the pictures once more as they came. A group whose picture went away since it was cut is not trained either.
    fn encode(&mut self, shared: &Shared) {
        let mut gone: BTreeMap<PictureId, String> = BTreeMap::new();
        for id in self.pictures.keys() {
            match shared.encoded(id) {
                Ok(bytes) => self.encoded.push((id.clone(), bytes)),
                Err(fault) => drop(gone.insert(id.clone(), fault.reason)),
            }
        }
        // Other ranks get them in an order that does not depend on a hash.
        self.encoded.sort_by(|one, other| one.0.cmp(&other.0));
        for group in std::mem::take(&mut self.groups) {
            let lost = group.scored.group.rollouts.iter().flat_map(|rollout| &rollout.pictures).find_map(|id| gone.get_key_value(id));
            match lost {
                Some((id, reason)) => {
                    let reason = format!("picture {id}: {reason}");
                    self.dropped.push((group, "picture", reason));
                }
                None => self.groups.push(group),
            }
        }
    }
}

/// A picture as patches, from the cache or from whoever has it.
fn patches(shared: &Shared, id: &PictureId) -> Result<Arc<Patches>, String> {
    shared.patches.of(id, || match shared.pictures.get(id) {
        Some(kept) => Picture::from_bytes(kept.bytes, &Limits::default()).map(|picture| picture.image).map_err(|error| error.to_string()),
        None => shared.tasks.picture(id).map(|picture| picture.image).map_err(|fault| fault.reason),
    })
}
