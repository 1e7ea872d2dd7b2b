//! The models by name: load, promote, retire, list. In: sources and names. Out: calls on a model.
//!
//! What is acknowledged is in the ledger before it is true in memory, and there before it is said: a process that dies comes back
//! to the last state that it said. What serves is one pointer; a group keeps to what served its first question, so that a
//! promotion in between changes nothing for it, and a retired model leaves memory with its last group.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hypereyes_domain::{ModelCard, ModelInfo, ModelState, Promotion, Question, Roster, TeacherId, TeacherVersion};
use metrics::{counter, gauge};

use crate::ledger::{Kept, Ledger};
use crate::limits::ModelLimits;
use crate::metrics::{EPOCH, MODELS, REGISTRY};
use crate::model::{Call, Model};
use crate::pins::{Pins, Serving};
use crate::source::Source;
use crate::verify::verify;

/// Models in memory or on their way; each may have gigabytes.
const MAX_LOADED: usize = 8;
/// Models that are listed although they are gone.
const MAX_GONE: usize = 32;
/// Pause between looks for groups that no longer ask.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Why the registry did not do as told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Nobody goes by that name, or not any more.
    #[error("no model {0} is loaded; list the models, or load it")]
    Unknown(TeacherId),
    /// The model of that promotion is gone.
    #[error("the model of promotion {0} is not loaded any more; ask again without an epoch")]
    Gone(u64),
    /// No model is active.
    #[error("no model is active; load and promote one")]
    NoneActive,
    /// The name is taken.
    #[error("a model {0} is there already; take another name, or retire it first")]
    Taken(TeacherId),
    /// Too many models.
    #[error("{MAX_LOADED} models are loaded already; retire one first")]
    Full,
    /// It cannot be used.
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
    /// The ledger cannot be written.
    #[error("nothing has changed: the ledger cannot be written ({0}); see the disk of `store`")]
    Ledger(String),
}

#[derive(Debug)]
enum Slot {
    Loading,
    Held(Arc<Model>),
    /// Groups may still keep to it.
    LetGo(Weak<Model>),
    Failed(String),
}

#[derive(Debug)]
struct Entry {
    id: TeacherId,
    source: String,
    slot: Slot,
}

/// A model that shall be loaded.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The name that it will go by.
    pub id: TeacherId,
    /// Where it is.
    pub source: Source,
    /// The digest that its files must have; empty takes any.
    pub digest: String,
}

/// Entries and ledger, which change together.
#[derive(Debug)]
struct Book {
    /// In the order of loading.
    entries: Vec<Entry>,
    ledger: Ledger,
}

/// The models.
#[derive(Debug)]
pub struct Registry {
    limits: ModelLimits,
    book: Mutex<Book>,
    serving: RwLock<Option<Serving>>,
    pins: Pins,
}

impl Registry {
    /// No models yet, but what the ledger knows. A group keeps to its model until it has not asked for `keep`.
    pub fn new(limits: ModelLimits, ledger: Ledger, keep: Duration) -> Arc<Self> {
        Arc::new(Self { limits, book: Mutex::new(Book { entries: vec![], ledger }), serving: RwLock::default(), pins: Pins::new(keep) })
    }

    /// Where the model is from that the ledger says was active; `None` where it knows of none.
    pub fn active_source(&self) -> Option<String> {
        let book = self.book();
        let state = book.ledger.state();
        let last = state.history.last()?;
        state.models.iter().find(|kept| kept.id == last.id).map(|kept| kept.source.clone())
    }

    /// Loads what the ledger says was loaded, the active model first.
    ///
    /// # Errors
    /// [`RegistryError::Load`] when the active model cannot be loaded any more. Others that cannot are listed as failed.
    pub async fn restore(self: &Arc<Self>) -> Result<(), RegistryError> {
        let state = self.book().ledger.state().clone();
        let last = state.history.last().cloned().ok_or(RegistryError::NoneActive)?;
        let load_request = |kept: &Kept| {
            let source = kept.source.parse().map_err(|reason| RegistryError::Load { id: kept.id.clone(), reason })?;
            Ok(LoadRequest { id: kept.id.clone(), source, digest: kept.digest.clone() })
        };
        let active = state.models.iter().find(|kept| kept.id == last.id).ok_or_else(|| RegistryError::Unknown(last.id.clone()))?;
        self.bring(load_request(active)?, false).await?;
        let model = held(&self.book().entries, &last.id)?.clone();
        self.serve(Serving { model, revision: last.revision });
        let others: Vec<LoadRequest> =
            state.models.iter().filter(|kept| kept.id != last.id).filter_map(|kept| load_request(kept).ok()).collect();
        let registry = self.clone();
        tokio::spawn(async move {
            for load_request in others {
                // Whatever is wrong with it is in the list.
                let _ = registry.bring(load_request, false).await;
            }
        });
        Ok(())
    }

    /// Loads and verifies a model beside the others; answers when it is ready. A caller that stops waiting does not stop the
    /// loading.
    ///
    /// # Errors
    /// [`RegistryError`]; a model that failed stays in the list with the reason until the name is used again.
    pub async fn load(self: &Arc<Self>, load_request: LoadRequest) -> Result<ModelInfo, RegistryError> {
        self.bring(load_request, true).await
    }

    /// Begins to load a model; the list says how it ends.
    ///
    /// # Errors
    /// [`RegistryError::Taken`], [`RegistryError::Full`].
    pub fn load_behind(self: &Arc<Self>, load_request: LoadRequest) -> Result<ModelInfo, RegistryError> {
        self.announce_loading(&load_request)?;
        let info = ModelInfo {
            id: load_request.id.clone(),
            source: load_request.source.to_string(),
            state: ModelState::Loading,
            card: None,
            in_flight: 0,
            pinned: 0,
        };
        let registry = self.clone();
        tokio::spawn(async move { registry.bring_announced(load_request, true).await });
        Ok(info)
    }

    async fn bring(self: &Arc<Self>, load_request: LoadRequest, keep: bool) -> Result<ModelInfo, RegistryError> {
        self.announce_loading(&load_request)?;
        let registry = self.clone();
        let bringing = tokio::spawn(async move { registry.bring_announced(load_request, keep).await });
        bringing.await.expect("panics are caught inside")
    }

    async fn bring_announced(self: &Arc<Self>, load_request: LoadRequest, keep: bool) -> Result<ModelInfo, RegistryError> {
        let vocabulary = self.serving().map(|serving| serving.model.card().vocabulary.clone());
        let (limits, wanted) = (self.limits.clone(), load_request.clone());
        // A task of its own: a panic in it is this model's fault and ends nothing else.
        let loading = tokio::spawn(async move {
            let LoadRequest { id, source, digest } = wanted;
            verify(Model::load(id, source, &digest, vocabulary.as_deref(), &limits).await?).await
        });
        let loaded = loading.await.unwrap_or_else(|_| Err("loading it panicked; see the log".into()));
        let registry = self.clone();
        // It waits for the disk.
        let finish = move || registry.finish_loading(&load_request, loaded, keep);
        tokio::task::spawn_blocking(finish).await.expect("writing a ledger does not panic")
    }

    fn announce_loading(&self, load_request: &LoadRequest) -> Result<(), RegistryError> {
        let announced = self.try_announce(load_request);
        if announced.is_err() {
            count("load", false);
        }
        announced
    }

    fn try_announce(&self, LoadRequest { id, source, .. }: &LoadRequest) -> Result<(), RegistryError> {
        let entries = &mut self.book().entries;
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
        entries.push(Entry { id: id.clone(), source: source.to_string(), slot: Slot::Loading });
        Ok(())
    }

    fn finish_loading(&self, load_request: &LoadRequest, loaded: Result<Model, String>, keep: bool) -> Result<ModelInfo, RegistryError> {
        let mut book = self.book();
        let Book { entries, ledger } = &mut *book;
        let loaded = loaded.and_then(|model| {
            let kept =
                || Kept { id: load_request.id.clone(), source: load_request.source.to_string(), digest: model.card().digest.clone() };
            if keep {
                ledger.loaded(kept()).map_err(|error| format!("the ledger cannot be written ({error})"))?;
            }
            Ok(Arc::new(model))
        });
        count("load", loaded.is_ok());
        let entry = entries.iter_mut().find(|entry| entry.id == load_request.id).expect("a loading entry is not removed");
        let result = match loaded {
            Ok(model) => {
                let ModelCard { digest, parameters, bytes, sighted, .. } = model.card();
                tracing::info!(id = %load_request.id, source = %load_request.source, digest, parameters, bytes, sighted, "model loaded");
                entry.slot = Slot::Held(model);
                Ok(self.info(entry))
            }
            Err(reason) => {
                tracing::warn!(id = %load_request.id, reason, "model cannot be loaded");
                entry.slot = Slot::Failed(reason.clone());
                Err(RegistryError::Load { id: load_request.id.clone(), reason })
            }
        };
        gauge!(MODELS).set(entries.iter().filter(|entry| matches!(entry.slot, Slot::Held(_))).count() as f64);
        result
    }

    /// Makes a loaded model the active one. It waits for the disk.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Ledger`].
    pub fn promote(&self, id: &TeacherId) -> Result<Promotion, RegistryError> {
        let promoted = self.try_promote(id);
        count("promote", promoted.is_ok());
        promoted
    }

    fn try_promote(&self, id: &TeacherId) -> Result<Promotion, RegistryError> {
        // The book stays open, so that nobody retires the model meanwhile.
        let mut book = self.book();
        let model = held(&book.entries, id)?.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let promotion = book.ledger.promoted(id, now).map_err(|error| RegistryError::Ledger(error.to_string()))?;
        self.serve(Serving { model, revision: promotion.revision });
        tracing::info!(%id, revision = promotion.revision, previous = promotion.previous.as_ref().map(TeacherId::as_str), "model promoted");
        Ok(promotion)
    }

    fn serve(&self, serving: Serving) {
        gauge!(EPOCH).set(serving.revision as f64);
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Some(serving);
    }

    /// Unloads a model that is not active, once the last group that keeps to it is done. It waits for the disk.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Active`], [`RegistryError::Ledger`].
    pub fn retire(&self, id: &TeacherId) -> Result<ModelInfo, RegistryError> {
        let retired = self.try_retire(id);
        count("retire", retired.is_ok());
        retired
    }

    fn try_retire(&self, id: &TeacherId) -> Result<ModelInfo, RegistryError> {
        let mut book = self.book();
        let model = held(&book.entries, id)?.clone();
        if self.serving().is_some_and(|serving| Arc::ptr_eq(&serving.model, &model)) {
            return Err(RegistryError::Active(id.clone()));
        }
        book.ledger.retired(id).map_err(|error| RegistryError::Ledger(error.to_string()))?;
        let entry = book.entries.iter_mut().find(|entry| entry.id == *id).expect("it is held");
        entry.slot = Slot::LetGo(Arc::downgrade(&model));
        drop(model);
        self.pins.sweep();
        let info = self.info(entry);
        let left = book.entries.iter().filter(|entry| matches!(entry.slot, Slot::Held(_))).count();
        gauge!(MODELS).set(left as f64);
        tracing::info!(%id, in_flight = info.in_flight, pinned = info.pinned, "model retired");
        Ok(info)
    }

    /// All models, in the order of loading, and the promotions.
    pub fn roster(&self) -> Roster {
        let book = self.book();
        let models = book.entries.iter().map(|entry| self.info(entry)).collect();
        Roster { models, history: book.ledger.state().history.clone() }
    }

    /// Begins a call: on the model named, on that of the promotion named, or on the one that the group keeps to.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::Gone`], [`RegistryError::NoneActive`].
    pub fn call(&self, question: &Question) -> Result<(Call, TeacherVersion), RegistryError> {
        let serving = match (&question.teacher, question.revision) {
            (Some(id), _) => Serving { model: held(&self.book().entries, id)?.clone(), revision: 0 },
            (None, None) => self.pins.serve(&question.group, self.serving().ok_or(RegistryError::NoneActive)?),
            (None, Some(revision)) => self.of_revision(question, revision)?,
        };
        let version = TeacherVersion { id: serving.model.id().clone(), revision: serving.revision };
        Ok((Call::new(serving.model), version))
    }

    fn of_revision(&self, question: &Question, revision: u64) -> Result<Serving, RegistryError> {
        let wanted = {
            let book = self.book();
            let promotion = book.ledger.state().history.iter().find(|promotion| promotion.revision == revision);
            let held = promotion.and_then(|promotion| held(&book.entries, &promotion.id).ok().cloned());
            held.map(|model| Serving { model, revision })
        };
        // A retired model still serves the groups that keep to it.
        let now = wanted.clone().or_else(|| self.serving()).ok_or(RegistryError::NoneActive)?;
        let kept = self.pins.serve(&question.group, now);
        match wanted {
            Some(wanted) => Ok(wanted),
            None if kept.revision == revision => Ok(kept),
            None => Err(RegistryError::Gone(revision)),
        }
    }

    /// Lets go of groups that no longer ask, for ever.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.pins.sweep();
        }
    }

    fn serving(&self) -> Option<Serving> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn info(&self, entry: &Entry) -> ModelInfo {
        let of = |model: &Arc<Model>, state| (state, Some(model.card().clone()), model.in_flight(), self.pins.of(model));
        let (state, card, in_flight, pinned) = match &entry.slot {
            Slot::Loading => (ModelState::Loading, None, 0, 0),
            Slot::Held(model) if self.serving().is_some_and(|serving| Arc::ptr_eq(&serving.model, model)) => of(model, ModelState::Active),
            Slot::Held(model) => of(model, ModelState::Ready),
            Slot::LetGo(model) => model.upgrade().map_or((ModelState::Retired, None, 0, 0), |model| of(&model, ModelState::Retiring)),
            Slot::Failed(reason) => (ModelState::Failed(reason.clone()), None, 0, 0),
        };
        ModelInfo { id: entry.id.clone(), source: entry.source.clone(), state, card, in_flight, pinned }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
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
