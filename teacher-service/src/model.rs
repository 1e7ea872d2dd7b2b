//! One loaded model with all that a call needs: its thread, its picture processor, its vocabulary. In: sequences that name
//! pictures. Out: log-probs. Knows no registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hypereyes_domain::{PictureId, TeacherId};
use hypereyes_pictures::{Processor, Store};
use hypereyes_policy::device::Device;
use hypereyes_proto::ScoreSequence;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::error::ScoreError;
use crate::patches::PatchCache;
use crate::scorer::{Question, Scorer};
use crate::vocabulary::Vocabulary;

/// Calls whose pictures are cut at the same moment; cutting is short and the cores are the model's.
const PREPARING: usize = 2;

/// Sizes of a model's rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// Where it computes.
    pub device: Device,
    /// Tokens of one pass and of one sequence.
    pub max_batch_tokens: usize,
    /// Calls in the queue.
    pub max_waiting: usize,
    /// Bytes of patches kept.
    pub patches_bytes: usize,
}

/// A model in memory; dropping the last `Arc` ends its thread.
#[derive(Debug)]
pub struct Model {
    id: TeacherId,
    path: PathBuf,
    vocabulary: Vocabulary,
    scorer: Scorer,
    patches: PatchCache,
    preparing: Semaphore,
    in_flight: AtomicU64,
}

impl Model {
    /// Reads a model folder; takes as long as the disk does.
    ///
    /// # Errors
    /// A text that says which file is wrong and how.
    pub fn load(id: TeacherId, path: &Path, limits: &ModelLimits) -> Result<Self, String> {
        let scorer = Scorer::load(id.clone(), path, limits).map_err(|error| error.to_string())?;
        let processor = Processor::load(path).map_err(|error| error.to_string())?;
        let vision = &scorer.config().vision;
        if (processor.patch, processor.merge, processor.temporal)
            != (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        {
            return Err(format!("{}: preprocessor_config.json cuts patches that config.json does not describe", path.display()));
        }
        let vocabulary = Vocabulary::load(path, scorer.config().image_token_id)?;
        Ok(Self {
            id,
            path: path.to_owned(),
            vocabulary,
            scorer,
            patches: PatchCache::new(processor, limits.patches_bytes),
            preparing: Semaphore::new(PREPARING),
            in_flight: AtomicU64::new(0),
        })
    }

    /// Its name.
    pub fn id(&self) -> &TeacherId {
        &self.id
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its token ids mean.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Calls under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The pictures of `sequences` that can be taken neither from `store` nor from what was cut before.
    fn missing(&self, sequences: &[ScoreSequence], store: &Store) -> Vec<PictureId> {
        let named: Vec<PictureId> = sequences.iter().flat_map(|sequence| sequence.pictures.iter().cloned()).collect();
        store.missing(&named).into_iter().filter(|id| self.patches.get(id).is_none()).collect()
    }

    /// Looks pictures up, cuts those that are new, and checks each sequence.
    fn prepare(&self, sequences: Vec<ScoreSequence>, store: &Store) -> Result<Vec<Question>, ScoreError> {
        let mut questions = Vec::with_capacity(sequences.len());
        for (index, sequence) in sequences.into_iter().enumerate() {
            let mut pictures = Vec::with_capacity(sequence.pictures.len());
            for id in &sequence.pictures {
                let patches = match self.patches.get(id) {
                    Some(patches) => patches,
                    None => {
                        // It may have been dropped since the call began.
                        let picture = store.get(id).ok_or_else(|| ScoreError::MissingPictures(vec![id.clone()]))?;
                        self.patches.make(id, &picture.image)
                    }
                };
                pictures.push(patches);
            }
            let prompt = sequence.prompt.len();
            let mut tokens = sequence.prompt;
            tokens.extend(sequence.response);
            let question = Question { tokens, prompt, mask: sequence.mask, pictures };
            self.scorer.check(index, &question)?;
            questions.push(question);
        }
        Ok(questions)
    }
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

    /// Log-probs of `sequences`, one list each, with one entry per response token.
    ///
    /// # Errors
    /// [`ScoreError`]; an error concerns the whole call.
    pub async fn score(&self, sequences: Vec<ScoreSequence>, store: Arc<Store>, deadline: Instant) -> Result<Vec<Vec<f32>>, ScoreError> {
        let missing = self.model.missing(&sequences, &store);
        if !missing.is_empty() {
            return Err(ScoreError::MissingPictures(missing));
        }
        let broken = |reason: String| ScoreError::Broken { model: self.model.id.clone(), reason };
        let questions = {
            let turn = timeout_at(deadline, self.model.preparing.acquire()).await;
            let _turn = turn.map_err(|_| ScoreError::Deadline)?.map_err(|error| broken(error.to_string()))?;
            let model = self.model.clone();
            let prepared = tokio::task::spawn_blocking(move || model.prepare(sequences, &store)).await;
            prepared.unwrap_or_else(|error| Err(broken(error.to_string())))?
        };
        self.model.scorer.score(questions, deadline).await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.model.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
