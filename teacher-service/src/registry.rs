//! The models by name: load, promote, retire, list. In: folders and names. Out: calls on a model.
//!
//! The active model is one pointer. A call takes it once and keeps what it took, so that a promotion in between changes
//! nothing for it; a retired model leaves memory with its last call.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use hypereyes_domain::TeacherId;
use metrics::{counter, gauge};

use crate::metrics::{MODELS, REGISTRY};
use crate::model::{Call, Model, ModelLimits};

/// Models in memory or on their way; each may have gigabytes.
const MAX_LOADED: usize = 8;
/// Models that are listed although they are gone.
const MAX_GONE: usize = 32;

/// Where a model stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Being read.
    Loading,
    /// Loaded, not active.
    Ready,
    /// Answers calls that name no model.
    Active,
    /// Finishes its last calls.
    Retiring,
    /// Unloaded.
    Retired,
    /// Could not be loaded; why.
    Failed(String),
}

/// A model as the list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name.
    pub id: TeacherId,
    /// Its folder.
    pub path: PathBuf,
    /// Where it stands.
    pub state: State,
    /// Calls under way.
    pub in_flight: u64,
}

/// Why the registry did not do as told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Nobody goes by that name, or not any more.
    #[error("no model {0} is loaded; list the models, or load it")]
    Unknown(TeacherId),
    /// No model is active.
    #[error("no model is active; load and promote one")]
    NoneActive,
    /// The name is taken.
    #[error("a model {0} is there already; take another name, or retire it first")]
    Taken(TeacherId),
    /// Too many models.
    #[error("{MAX_LOADED} models are loaded already; retire one first")]
    Full,
    /// It cannot be read.
    #[error("model {id} cannot be loaded: {reason}")]
    Load {
        /// Its name.
        id: TeacherId,
        /// What is wrong.
        reason: String,
    },
    /// The active model cannot be unloaded.
    #[error("model {0} is active; promote another first")]
    Active(TeacherId),
    /// Token ids would change their meaning under the callers.
    #[error("model {id} has another vocabulary than the active {active}; a run has one vocabulary, start another service for it")]
    OtherVocabulary {
        /// The model.
        id: TeacherId,
        /// The active one.
        active: TeacherId,
    },
}

#[derive(Debug)]
enum Slot {
    Loading,
    Held(Arc<Model>),
    /// Calls may still hold it.
    LetGo(Weak<Model>),
    Failed(String),
}

#[derive(Debug)]
struct Entry {
    id: TeacherId,
    path: PathBuf,
    slot: Slot,
}

/// The models.
#[derive(Debug)]
pub struct Registry {
    limits: ModelLimits,
    /// In the order of loading.
    entries: Mutex<Vec<Entry>>,
    active: RwLock<Option<Arc<Model>>>,
}

impl Registry {
    /// No models yet.
    pub fn new(limits: ModelLimits) -> Self {
        Self { limits, entries: Mutex::default(), active: RwLock::default() }
    }

    /// Loads a model beside the others; answers when it is ready. A caller that stops waiting does not stop the loading.
    ///
    /// # Errors
    /// [`RegistryError`]; a model that failed stays in the list with the reason until the name is used again.
    pub async fn load(self: &Arc<Self>, id: TeacherId, path: PathBuf) -> Result<Info, RegistryError> {
        self.announce_loading(&id, &path).inspect_err(|_| count("load", false))?;
        let registry = self.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let read = || Model::load(id.clone(), &path, &registry.limits);
            let loaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|_| Err("loading panicked".into()));
            registry.finish_loading(&id, loaded)
        });
        loading.await.expect("panics are caught inside")
    }

    fn announce_loading(&self, id: &TeacherId, path: &std::path::Path) -> Result<(), RegistryError> {
        let mut entries = self.entries();
        let in_memory = |entry: &&Entry| matches!(entry.slot, Slot::Loading | Slot::Held(_));
        if entries.iter().any(|entry| entry.id == *id && in_memory(&entry)) {
            return Err(RegistryError::Taken(id.clone()));
        }
        if entries.iter().filter(in_memory).count() >= MAX_LOADED {
            return Err(RegistryError::Full);
        }
        entries.retain(|entry| entry.id != *id);
        let gone = entries.iter().filter(|entry| !in_memory(entry)).count();
        if gone >= MAX_GONE
            && let Some(oldest) = entries.iter().position(|entry| !in_memory(&entry))
        {
            entries.remove(oldest);
        }
        entries.push(Entry { id: id.clone(), path: path.to_owned(), slot: Slot::Loading });
        Ok(())
    }

    fn finish_loading(&self, id: &TeacherId, loaded: Result<Model, String>) -> Result<Info, RegistryError> {
        count("load", loaded.is_ok());
        let mut entries = self.entries();
        let entry = entries.iter_mut().find(|entry| entry.id == *id).expect("a loading entry is not removed");
        let result = match loaded {
            Ok(model) => {
                tracing::info!(%id, path = %model.path().display(), "model loaded");
                entry.slot = Slot::Held(Arc::new(model));
                Ok(self.info(entry))
            }
            Err(reason) => {
                tracing::warn!(%id, reason, "model cannot be loaded");
                entry.slot = Slot::Failed(reason.clone());
                Err(RegistryError::Load { id: id.clone(), reason })
            }
        };
        gauge!(MODELS).set(entries.iter().filter(|entry| matches!(entry.slot, Slot::Held(_))).count() as f64);
        result
    }

    /// Makes a loaded model the active one, and returns the one before.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::OtherVocabulary`].
    pub fn promote(&self, id: &TeacherId) -> Result<Option<TeacherId>, RegistryError> {
        let promoted = self.try_promote(id);
        count("promote", promoted.is_ok());
        promoted
    }

    fn try_promote(&self, id: &TeacherId) -> Result<Option<TeacherId>, RegistryError> {
        // The entries stay locked, so that nobody retires the model meanwhile.
        let entries = self.entries();
        let model = held(&entries, id)?;
        let mut active = self.active.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = active.as_ref()
            && before.vocabulary() != model.vocabulary()
        {
            return Err(RegistryError::OtherVocabulary { id: id.clone(), active: before.id().clone() });
        }
        let previous = active.replace(model.clone()).map(|before| before.id().clone());
        tracing::info!(%id, previous = previous.as_ref().map(TeacherId::as_str), "model promoted");
        Ok(previous)
    }

    /// Unloads a model that is not active, once its last call is done.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Active`].
    pub fn retire(&self, id: &TeacherId) -> Result<Info, RegistryError> {
        let retired = self.try_retire(id);
        count("retire", retired.is_ok());
        retired
    }

    fn try_retire(&self, id: &TeacherId) -> Result<Info, RegistryError> {
        let mut entries = self.entries();
        let model = held(&entries, id)?.clone();
        if self.active().is_some_and(|active| Arc::ptr_eq(&active, &model)) {
            return Err(RegistryError::Active(id.clone()));
        }
        let entry = entries.iter_mut().find(|entry| entry.id == *id).expect("just found");
        entry.slot = Slot::LetGo(Arc::downgrade(&model));
        drop(model);
        let info = self.info(entry);
        gauge!(MODELS).set(entries.iter().filter(|entry| matches!(entry.slot, Slot::Held(_))).count() as f64);
        tracing::info!(%id, in_flight = info.in_flight, "model retired");
        Ok(info)
    }

    /// All models in the order of loading.
    pub fn list(&self) -> Vec<Info> {
        self.entries().iter().map(|entry| self.info(entry)).collect()
    }

    /// Begins a call on the model named, or on the active one.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::NoneActive`].
    pub fn call(&self, id: Option<&TeacherId>) -> Result<Call, RegistryError> {
        match id {
            Some(id) => held(&self.entries(), id).cloned().map(Call::new),
            None => self.active().map(Call::new).ok_or(RegistryError::NoneActive),
        }
    }

    fn active(&self) -> Option<Arc<Model>> {
        self.active.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn info(&self, entry: &Entry) -> Info {
        let (state, in_flight) = match &entry.slot {
            Slot::Loading => (State::Loading, 0),
            Slot::Held(model) if self.active().is_some_and(|active| Arc::ptr_eq(&active, model)) => (State::Active, model.in_flight()),
            Slot::Held(model) => (State::Ready, model.in_flight()),
            Slot::LetGo(model) => model.upgrade().map_or((State::Retired, 0), |model| (State::Retiring, model.in_flight())),
            Slot::Failed(reason) => (State::Failed(reason.clone()), 0),
        };
        Info { id: entry.id.clone(), path: entry.path.clone(), state, in_flight }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn held<'a>(entries: &'a [Entry], id: &TeacherId) -> Result<&'a Arc<Model>, RegistryError> {
    let find = |entry: &'a Entry| match &entry.slot {
        Slot::Held(model) if entry.id == *id => Some(model),
        _ => None,
    };
    entries.iter().find_map(find).ok_or_else(|| RegistryError::Unknown(id.clone()))
}

fn count(op: &'static str, ok: bool) {
    counter!(REGISTRY, "op" => op, "outcome" => if ok { "ok" } else { "failed" }).increment(1);
}
