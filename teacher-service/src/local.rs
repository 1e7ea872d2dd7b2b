//! A model in this process: its thread, its picture processor, its patches. In: questions that name pictures. Out: answers.

use std::path::Path;
use std::sync::Arc;

use hypereyes_domain::{Answer, PictureId, Question, ScoreSequence, TeacherId};
use hypereyes_pictures::{PatchCache, Processor, Store};
use hypereyes_policy::frozen::ScoreOptions;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::error::ScoreError;
use crate::limits::ModelLimits;
use crate::scorer::{Item, Scorer};

/// Calls whose pictures are cut at the same moment; cutting is short and the cores are the model's.
const PREPARING: usize = 2;

/// The model; dropping it ends its thread.
#[derive(Debug)]
pub struct Local {
    id: TeacherId,
    inner: Arc<Inner>,
    preparing: Semaphore,
}

#[derive(Debug)]
struct Inner {
    scorer: Scorer,
    patches: PatchCache,
}

impl Local {
    /// Reads a model folder; takes as long as the disk does.
    ///
    /// # Errors
    /// A text that says which file is wrong and how.
    pub fn load(id: TeacherId, folder: &Path, limits: &ModelLimits) -> Result<Self, String> {
        let scorer = Scorer::load(id.clone(), folder, limits).map_err(|error| error.to_string())?;
        let loaded = Processor::load_from(folder).map_err(|error| error.to_string())?;
        let file = loaded.path.file_name().unwrap_or_default().display();
        if let Some(assumed) = &loaded.assumed {
            tracing::warn!("{}: {file}: {assumed}", folder.display());
        }
        let processor = loaded.processor;
        let vision = &scorer.config().vision;
        if (processor.patch, processor.merge, processor.temporal)
            != (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        {
            return Err(format!("{}: {file} cuts patches that config.json does not describe", folder.display()));
        }
        let inner = Arc::new(Inner { scorer, patches: PatchCache::new(processor, limits.patches_bytes) });
        Ok(Self { id, inner, preparing: Semaphore::new(PREPARING) })
    }

    /// Answers, one per sequence.
    ///
    /// # Errors
    /// [`ScoreError`]; an error concerns the whole call.
    pub async fn ask(&self, question: &Question, store: &Arc<Store>, deadline: Instant) -> Result<Vec<Answer>, ScoreError> {
        let missing = self.inner.missing(&question.sequences, store);
        if !missing.is_empty() {
            return Err(ScoreError::MissingPictures(missing));
        }
        let broken = |reason: String| ScoreError::Broken { model: self.id.clone(), reason };
        let items = {
            let turn = timeout_at(deadline, self.preparing.acquire()).await;
            let _turn = turn.map_err(|_| ScoreError::Deadline)?.map_err(|error| broken(error.to_string()))?;
            let (inner, store, sequences) = (self.inner.clone(), store.clone(), question.sequences.clone());
            let prepared = tokio::task::spawn_blocking(move || inner.prepare(sequences, &store)).await;
            prepared.unwrap_or_else(|error| Err(broken(error.to_string())))?
        };
        let wanted = ScoreOptions { temperature: f64::from(question.temperature), top: question.top };
        self.inner.scorer.score(items, wanted, deadline).await
    }
}

impl Inner {
    /// The pictures of `sequences` that can be taken neither from `store` nor from what was cut before.
    fn missing(&self, sequences: &[ScoreSequence], store: &Store) -> Vec<PictureId> {
        let named: Vec<PictureId> = sequences.iter().flat_map(|sequence| sequence.pictures.iter().cloned()).collect();
        store.missing(&named).into_iter().filter(|id| !self.patches.holds(id)).collect()
    }

    /// Looks pictures up, cuts those that are new, and checks each sequence.
    fn prepare(&self, sequences: Vec<ScoreSequence>, store: &Store) -> Result<Vec<Item>, ScoreError> {
        let mut items = Vec::with_capacity(sequences.len());
        for (index, sequence) in sequences.into_iter().enumerate() {
            let mut pictures = Vec::with_capacity(sequence.pictures.len());
            for id in &sequence.pictures {
                // It may have been dropped since the call began.
                let find = || store.get(id).map(|picture| picture.image.clone());
                pictures.push(self.patches.of(id, || find().ok_or_else(|| ScoreError::MissingPictures(vec![id.clone()])))?);
            }
            let prompt = sequence.prompt.len();
            let mut tokens = sequence.prompt;
            tokens.extend(sequence.response);
            let item = Item { tokens, prompt, mask: sequence.mask, pictures };
            self.scorer.check(index, &item)?;
            items.push(item);
        }
        Ok(items)
    }
}
