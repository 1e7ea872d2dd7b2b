//! A batch on its way into a step. In: groups that were accepted. Out: those that can be trained, with their pictures as patches, and
//! those that cannot (a file was damaged since, a picture is no more what it was), each with the reason: one bad group costs itself
//! and not its step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hypereyes_domain::{Patches, PictureId, TaughtGroup};
use hypereyes_pictures::{Limits, Picture};
use hypereyes_policy::config::ModelConfig;

use crate::service::Shared;
use crate::step::{self, Pictures};

/// A batch, sorted.
pub(crate) struct Prepared {
    /// What is trained.
    pub(crate) groups: Vec<TaughtGroup>,
    /// Pictures of those as patches.
    pub(crate) pictures: Pictures,
    /// The same as they came, for other ranks.
    pub(crate) encoded: Vec<(PictureId, Bytes)>,
    /// What is not, a label and why.
    pub(crate) dropped: Vec<(TaughtGroup, &'static str, String)>,
}

/// Reads the pictures of a batch, each once, and sees whether the model can read every group.
pub(crate) fn prepare(shared: &Shared, model: &ModelConfig, batch: Vec<TaughtGroup>) -> Prepared {
    let mut read: BTreeMap<PictureId, Result<(Bytes, Arc<Patches>), String>> = BTreeMap::new();
    let mut sorted = Prepared { groups: vec![], pictures: Pictures::new(), encoded: vec![], dropped: vec![] };
    for group in batch {
        let seen: BTreeSet<&PictureId> = group.scored.group.rollouts.iter().flat_map(|rollout| &rollout.pictures).collect();
        let mut pictures = Pictures::new();
        let mut fault = None;
        for id in &seen {
            match read.entry((*id).clone()).or_insert_with(|| patches(shared, id)) {
                Ok((_, patches)) => drop(pictures.insert((*id).clone(), patches.clone())),
                Err(reason) => fault = Some(format!("picture {id}: {reason}")),
            }
        }
        let fit = match fault {
            Some(reason) => Err(("picture", reason)),
            None => step::check(model, &group, &pictures).map_err(|error| ("unfit", error.to_string())),
        };
        match fit {
            Ok(()) => {
                sorted.pictures.extend(pictures);
                sorted.groups.push(group);
            }
            Err((label, reason)) => sorted.dropped.push((group, label, reason)),
        }
    }
    let needed = |id: &PictureId| sorted.pictures.contains_key(id);
    sorted.encoded = read.into_iter().filter(|(id, _)| needed(id)).filter_map(|(id, read)| Some((id, read.ok()?.0))).collect();
    sorted
}

fn patches(shared: &Shared, id: &PictureId) -> Result<(Bytes, Arc<Patches>), String> {
    let picture = match shared.pictures.get(id) {
        Some(kept) => Picture::from_bytes(kept.bytes, &Limits::default()).map_err(|error| error.to_string())?,
        None => shared.tasks.picture(id).map_err(|fault| fault.reason)?,
    };
    let patches = shared.admission.processor.patches(&picture.image);
    Ok((picture.bytes, Arc::new(patches)))
}
