//! The model behind the server, and what can be done to it while it serves: pause, other weights, a label, aborts, a fresh start. In:
//! orders. Out: the model's state. Between two tokens of a turn the state may change; while one is sampled it does not.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use hypereyes_chat::{Chat, Renderer, Vocabulary};
use hypereyes_domain::{PictureId, PolicyVersion};
use hypereyes_pictures::{Limits, PatchCache, PatchSource, Store};
use hypereyes_policy::checkpoint::{self, HostWeights};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::engine::{Engine, EngineConfig};
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard, watch};
use tokio_util::sync::CancellationToken;

use crate::asked::Refused;
use crate::scores::Scorer;
use crate::{Dialect, LogprobsMode, Options};

/// What weights are called that nobody has named.
pub(crate) const UNNAMED: &str = "default";
/// Bytes of pictures and of their patches that are kept.
const PICTURES_BYTES: usize = 256 << 20;

/// How turns under way are treated while nothing is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// They wait.
    Keep,
    /// They end as they are.
    Abort,
    /// They are finished first.
    Wait,
}

/// What can change between two tokens.
pub(crate) struct State {
    pub(crate) paused: Option<Pause>,
    pub(crate) label: String,
    /// What the weights were called before.
    pub(crate) label_before: String,
    pub(crate) weights: Arc<HostWeights>,
    pub(crate) scorer: Option<Arc<Scorer>>,
}

/// A turn under way.
struct UnderWay {
    id: String,
    begun: bool,
    abort: CancellationToken,
}

/// A model that is served.
pub(crate) struct Served {
    pub(crate) chat: Chat,
    pub(crate) renderer: Renderer,
    pub(crate) model: ModelConfig,
    pub(crate) engine: Engine,
    pub(crate) store: Arc<Store>,
    pub(crate) pictures: PatchSource,
    pub(crate) context: usize,
    pub(crate) mode: LogprobsMode,
    dialect: Dialect,
    state: RwLock<State>,
    /// Tells those who wait that the state has changed.
    changes: watch::Sender<u64>,
    start: (PathBuf, Arc<HostWeights>),
    versions: AtomicU64,
    turns: Mutex<HashMap<u64, UnderWay>>,
    encoded: Mutex<Encoded>,
    numbers: AtomicU64,
}

/// What the scheduler believes that the workers have made of pictures.
#[derive(Default)]
struct Encoded {
    pictures: HashSet<PictureId>,
    /// What the workers have forgotten since.
    forgotten: HashSet<PictureId>,
}

/// A place among the turns under way, which is given back when dropped.
pub(crate) struct Place<'a> {
    served: &'a Served,
    number: u64,
    abort: CancellationToken,
}

impl Served {
    /// Loads a folder and starts its engine.
    pub(crate) fn open(options: &Options) -> anyhow::Result<Self> {
        let folder = &options.model;
        let (model, weights) = checkpoint::read(folder).with_context(|| format!("cannot serve {}", folder.display()))?;
        let chat = Chat::load(folder)?;
        let vocabulary = Arc::new(Vocabulary::load(&folder.join("tokenizer.json"))?);
        let (renderer, _) = Renderer::load(folder, vocabulary)?;
        // Turns are sampled token by token, and where they end is looked at here: every request may name its own ends.
        let sizes = EngineConfig { max_context: options.max_model_len, max_sequences: options.max_sequences, ..EngineConfig::default() };
        let store = Arc::new(Store::new(PICTURES_BYTES, Limits::default()));
        let pictures = PatchSource::new(store.clone(), Arc::new(PatchCache::new(chat.processor().clone(), PICTURES_BYTES)));
        let engine = Engine::start_from(model.clone(), &weights, sizes, PolicyVersion(0))?.seeing(pictures.clone());
        let weights = Arc::new(weights);
        let state = State { paused: None, label: UNNAMED.into(), label_before: UNNAMED.into(), weights: weights.clone(), scorer: None };
        Ok(Self {
            chat,
            renderer,
            model,
            engine,
            store,
            pictures,
            context: options.max_model_len,
            mode: options.logprobs,
            dialect: options.dialect,
            state: RwLock::new(state),
            changes: watch::Sender::new(0),
            start: (folder.clone(), weights),
            versions: AtomicU64::new(0),
            turns: Mutex::default(),
            encoded: Mutex::default(),
            numbers: AtomicU64::new(0),
        })
    }

    /// The folder that it was started with.
    pub(crate) fn folder(&self) -> &Path {
        &self.start.0
    }

    /// A look at the state, which stays as it is while the guard is held.
    pub(crate) async fn look(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().await
    }

    /// A place for a turn.
    pub(crate) fn place(&self, id: &str) -> Place<'_> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let abort = CancellationToken::new();
        self.turns.lock().insert(number, UnderWay { id: id.to_owned(), begun: false, abort: abort.clone() });
        Place { served: self, number, abort }
    }

    /// Pauses, in one of the ways; returns when the way says that it is done.
    pub(crate) async fn pause(&self, pause: Pause) {
        // Nothing is being sampled while this is held.
        self.state.write().await.paused = Some(pause);
        self.told();
        if pause == Pause::Abort {
            self.abort(|_| true);
        }
        if pause != Pause::Keep {
            let mut changes = self.changes.subscribe();
            while self.turns.lock().values().any(|turn| turn.begun) {
                // Its sender is this very server.
                let _ = changes.changed().await;
            }
        }
    }

    /// Goes on.
    pub(crate) async fn resume(&self) {
        self.state.write().await.paused = None;
        self.told();
    }

    /// Calls the weights something.
    pub(crate) async fn name(&self, label: &str) {
        self.state.write().await.name(label);
    }

    /// Puts the weights of a folder in, and calls them `label` if one is given.
    ///
    /// # Errors
    /// [`Refused`] where the folder cannot be used; nothing has changed then.
    pub(crate) async fn load(&self, folder: PathBuf, label: Option<&str>) -> Result<(), Refused> {
        let read = tokio::task::spawn_blocking(move || checkpoint::read(&folder)).await;
        let (_, weights) = read.map_err(|died| Refused::server(died.to_string()))?.map_err(|error| Refused::server(error.to_string()))?;
        self.put(Arc::new(weights), label).await
    }

    /// Puts the weights of the start in, and calls them `label`.
    pub(crate) async fn load_start(&self, label: &str) -> Result<(), Refused> {
        self.put(self.start.1.clone(), Some(label)).await
    }

    async fn put(&self, weights: Arc<HostWeights>, label: Option<&str>) -> Result<(), Refused> {
        let mut state = self.state.write().await;
        let version = PolicyVersion(self.versions.fetch_add(1, Ordering::Relaxed) + 1);
        let swapped = self.engine.swap((*weights).clone(), version).await;
        swapped.map_err(|error| Refused::server(error.to_string()))?;
        (state.weights, state.scorer) = (weights, None);
        if self.dialect == Dialect::Vllm {
            let mut encoded = self.encoded.lock();
            encoded.forgotten = std::mem::take(&mut encoded.pictures);
        }
        if let Some(label) = label {
            state.name(label);
        }
        Ok(())
    }

    /// As after a fresh start. Nobody may be in the middle of a turn.
    pub(crate) async fn reset(&self) {
        // The very weights that were loaded once are taken again.
        let _ = self.load_start(UNNAMED).await;
        self.forget_pictures();
        let mut state = self.state.write().await;
        (state.paused, state.label_before) = (None, UNNAMED.into());
        drop(state);
        self.told();
    }

    /// Notes that pictures are shown. vLLM's workers forget what they made of pictures when other weights come, and its scheduler does
    /// not: it fails at the next that it has seen before, unless it was told to forget as well.
    ///
    /// # Errors
    /// [`Refused`] where it fails.
    pub(crate) fn encode(&self, pictures: &[PictureId]) -> Result<(), Refused> {
        let mut encoded = self.encoded.lock();
        if let Some(picture) = pictures.iter().find(|picture| encoded.forgotten.contains(*picture)) {
            return Err(Refused::server(format!("Encoder cache miss for {picture}.")));
        }
        encoded.pictures.extend(pictures.iter().cloned());
        Ok(())
    }

    /// Forgets what was made of pictures.
    pub(crate) fn forget_pictures(&self) {
        *self.encoded.lock() = Encoded::default();
    }

    /// Ends turns under way as they are; how many.
    pub(crate) fn abort(&self, which: impl Fn(&str) -> bool) -> usize {
        let turns = self.turns.lock();
        let meant = turns.values().filter(|turn| which(&turn.id));
        meant.map(|turn| turn.abort.cancel()).count()
    }

    /// Whether a turn is under way.
    pub(crate) fn is_busy(&self) -> bool {
        !self.turns.lock().is_empty()
    }

    /// What says log-probs of given tokens under the weights of now.
    ///
    /// # Errors
    /// [`Refused`] where there is no room for a second copy of the model.
    pub(crate) async fn scorer(&self) -> Result<Arc<Scorer>, Refused> {
        let mut state = self.state.write().await;
        if let Some(scorer) = &state.scorer {
            return Ok(scorer.clone());
        }
        let scorer = Arc::new(Scorer::new(&self.model, &state.weights)?);
        state.scorer = Some(scorer.clone());
        Ok(scorer)
    }

    fn told(&self) {
        self.changes.send_modify(|number| *number += 1);
    }
}

impl State {
    fn name(&mut self, label: &str) {
        self.label_before = std::mem::replace(&mut self.label, label.to_owned());
    }
}

impl Place<'_> {
    /// Waits until a token may be sampled; the state cannot change while the guard is held. `None` once the turn is aborted.
    pub(crate) async fn go(&self) -> Option<RwLockReadGuard<'_, State>> {
        tokio::select! {
            biased;
            () = self.abort.cancelled() => None,
            state = self.may_go() => Some(state),
        }
    }

    async fn may_go(&self) -> RwLockReadGuard<'_, State> {
        let mut changes = self.served.changes.subscribe();
        loop {
            let state = self.served.state.read().await;
            if self.goes(state.paused) {
                return state;
            }
            drop(state);
            // Its sender is this very server.
            let _ = changes.changed().await;
        }
    }
}

impl Place<'_> {
    /// Whether it goes on in spite of a pause; it has begun then.
    fn goes(&self, paused: Option<Pause>) -> bool {
        let mut turns = self.served.turns.lock();
        let turn = turns.get_mut(&self.number).expect("it has its place until it is dropped");
        let goes = match paused {
            None => true,
            Some(Pause::Wait) => turn.begun,
            Some(Pause::Keep | Pause::Abort) => false,
        };
        turn.begun |= goes;
        goes
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.served.turns.lock().remove(&self.number);
        self.served.told();
    }
}
