//! A server that speaks as vLLM or SGLang does and computes nothing: what it samples follows from what it is asked, so that what arrives can
//! be told from what was made up. Everything that it does can be spoilt.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use hypereyes_domain::PolicyVersion;
use hypereyes_engines::{Engine, EngineConfig, Policy};
use hypereyes_pictures::{Limits, Picture, Processor, RgbImage, Store};
use hypereyes_policy::checkpoint::{self, HostWeights, Snapshot, StoredDtype};
use hypereyes_policy::config::{ModelConfig, SmallShape};
use hypereyes_policy::init;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The token that ends a turn.
pub const END: u32 = 7;
/// The placeholder of pictures.
pub const PAD: u32 = 61;
/// Tokens of the vocabulary.
const VOCABULARY: usize = 64;
/// Stands for the questions for turns where paths are held.
const TURNS: &str = "turns";
/// The first token of the one prompt of a probe after which a policy that is sure is undecided.
const UNDECIDED: u32 = 11;

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vllm,
    Sglang,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Vllm, Self::Sglang];

    pub fn name(self) -> &'static str {
        if self == Self::Vllm { "vllm" } else { "sglang" }
    }
}

/// Changes an answer to a turn before it is sent.
pub type Spoil = Box<dyn Fn(&mut Value) + Send>;

/// What a server is at present, and what it was asked.
#[derive(Default)]
pub struct State {
    /// The label of its weights.
    pub label: String,
    /// The folder that they are of.
    pub folder: String,
    pub paused: bool,
    /// Paths in the order in which they were asked for, looks apart.
    pub calls: Vec<String>,
    /// Bodies of questions.
    pub asked: Vec<Value>,
    /// Questions under way, and the most at once.
    pub under_way: usize,
    pub most: usize,
    /// Requests that were given up.
    pub aborted: Vec<String>,
    /// Paths that are answered with a status, so many times.
    pub failing: BTreeMap<String, (usize, u16)>,
    /// Paths that take so long.
    pub slow: BTreeMap<String, Duration>,
    pub spoil: Option<Spoil>,
    /// Labels of tokens, the newest weights' from this one on.
    pub straddle: Option<(String, usize)>,
    /// Where log-probs are taken: plain, tempered or truncated; or sure, at a policy that has no doubt but between two tokens, at times.
    pub convention: &'static str,
    /// Questions that are forgotten, and never answered.
    pub forgets: usize,
    /// Tokens of a sequence, and requests at once.
    pub context: usize,
    pub limit: Option<usize>,
    pub on_cpu: bool,
    /// Tokens more per picture than there should be.
    pub surplus: usize,
}

/// A running server.
#[derive(Clone)]
pub struct Fake {
    pub kind: Kind,
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Paths whose calls wait while they are in it.
    gate: Arc<(Mutex<BTreeSet<String>>, Notify)>,
}

impl Fake {
    pub async fn start(kind: Kind) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = State { label: "default".into(), convention: "tempered", context: 256, ..State::default() };
        let fake = Self { kind, address, state: Arc::new(Mutex::new(state)), gate: Arc::default() };
        let handler = fake.clone();
        let routes = Router::new().fallback(move |request: Request| handler.clone().answer(request));
        let server = Server::builder().accept_http1(true).add_routes(Routes::from(routes));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Questions for turns wait from now on.
    pub fn close_gate(&self) {
        self.hold(TURNS);
    }

    pub fn open_gate(&self) {
        self.release(TURNS);
    }

    /// Calls of a path wait from now on.
    pub fn hold(&self, path: &str) {
        self.gate.0.lock().expect("no panic").insert(path.to_owned());
    }

    pub fn release(&self, path: &str) {
        self.gate.0.lock().expect("no panic").remove(path);
        self.gate.1.notify_waiters();
    }

    async fn pass(&self, path: &str) {
        loop {
            let opened = self.gate.1.notified();
            if !self.gate.0.lock().expect("no panic").contains(path) {
                return;
            }
            opened.await;
        }
    }

    /// Fails the next so many calls of a path with a status.
    pub fn fail(&self, path: &str, times: usize, status: u16) {
        self.state().failing.insert(path.to_owned(), (times, status));
    }

    /// Changes answers to turns.
    pub fn spoil(&self, spoil: impl Fn(&mut Value) + Send + 'static) {
        self.state().spoil = Some(Box::new(spoil));
    }

    /// As after a restart: its weights are its own.
    pub fn restart(&self) {
        let mut state = self.state();
        (state.label, state.folder, state.paused) = ("default".into(), String::new(), false);
    }

    /// Waits until something holds of it.
    pub async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(&self.state()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn answer(self, request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let bytes: Bytes = axum::body::to_bytes(request.into_body(), 64 << 20).await.expect("a body");
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        {
            let mut state = self.state();
            if let Some((times, status)) = state.failing.get_mut(&path).filter(|(times, _)| *times > 0) {
                *times -= 1;
                let status = StatusCode::from_u16(*status).expect("a status");
                let mut headers = HeaderMap::new();
                if status == StatusCode::TOO_MANY_REQUESTS {
                    headers.insert("retry-after", "1".parse().expect("a number"));
                }
                return (status, headers, json!({"error": {"message": format!("{path} is spoilt")}}).to_string()).into_response();
            }
            if path != "/health" && !path.starts_with("/v1/") && !path.ends_with("_info") {
                state.calls.push(path.clone());
            }
        }
        let slow = self.state().slow.get(&path).copied();
        tokio::time::sleep(slow.unwrap_or_default()).await;
        self.pass(&path).await;
        match (self.kind, path.as_str()) {
            (Kind::Vllm, "/inference/v1/generate") | (Kind::Sglang, "/generate") => self.turn(body).await,
            (_, path) => self.control(path, &body),
        }
    }

    fn control(&self, path: &str, body: &Value) -> Response {
        let mut state = self.state();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let said = match (self.kind, path) {
            (_, "/health") => json!({}),
            (_, "/v1/models") => json!({"data": [{"id": "policy", "max_model_len": state.context}]}),
            (Kind::Vllm, "/weight_info") => json!({"weight_version": state.label}),
            (Kind::Vllm, "/server_info") => json!({"vllm_config": {
                "scheduler_config": {"max_num_seqs": state.limit, "enable_chunked_prefill": true},
                "device_config": {"device": if state.on_cpu { "cpu" } else { "cuda" }},
            }}),
            (Kind::Vllm, "/pause") | (Kind::Sglang, "/pause_generation") => {
                state.paused = true;
                json!({})
            }
            (Kind::Vllm, "/resume") | (Kind::Sglang, "/continue_generation") => {
                state.paused = false;
                json!({})
            }
            (Kind::Vllm, "/collective_rpc") => {
                state.folder = text(&body["kwargs"]["weights_path"]);
                json!({"results": [null]})
            }
            (Kind::Vllm, "/reset_encoder_cache") => json!({}),
            (Kind::Vllm, "/update_weight_version") => {
                state.label = text(&body["new_version"]);
                json!({})
            }
            (Kind::Sglang, "/model_info") => json!({"weight_version": state.label}),
            (Kind::Sglang, "/server_info") => json!({"max_running_requests": state.limit, "internal_states": []}),
            (Kind::Sglang, "/update_weights_from_disk") => {
                (state.folder, state.label) = (text(&body["model_path"]), text(&body["weight_version"]));
                json!({"success": true})
            }
            (Kind::Sglang, "/abort_request") => {
                state.aborted.push(text(&body["rid"]));
                json!({})
            }
            _ => return (StatusCode::NOT_FOUND, json!({"detail": "Not Found"}).to_string()).into_response(),
        };
        said.to_string().into_response()
    }

    async fn turn(&self, body: Value) -> Response {
        let forgotten = {
            let mut state = self.state();
            state.asked.push(body.clone());
            let forgotten = state.forgets > 0;
            state.forgets = state.forgets.saturating_sub(1);
            forgotten
        };
        if forgotten {
            return std::future::pending().await;
        }
        // A probe asks for one token, and has no place among turns.
        let under_way = (self.most_tokens(&body) > 1).then(|| UnderWay::at(self.clone()));
        if under_way.is_some() {
            self.pass(TURNS).await;
        }
        let mut state = self.state();
        let mut reply = self.sampled(&state, &body);
        if let Some(spoil) = state.spoil.take() {
            spoil(&mut reply);
            state.spoil = Some(spoil);
        }
        reply.to_string().into_response()
    }

    fn most_tokens(&self, body: &Value) -> usize {
        let name = if self.kind == Kind::Vllm { "max_tokens" } else { "max_new_tokens" };
        body["sampling_params"][name].as_u64().expect("a limit") as usize
    }

    fn sampled(&self, state: &State, body: &Value) -> Value {
        let vllm = self.kind == Kind::Vllm;
        let params = &body["sampling_params"];
        let compact = &body[if vllm { "token_ids" } else { "input_ids" }];
        let pictures = body[if vllm { "content_parts" } else { "image_data" }].as_array().cloned().unwrap_or_default();
        let compact: Vec<u32> = compact.as_array().expect("ids").iter().map(|id| id.as_u64().expect("a number") as u32).collect();
        let tokens = |picture: &Value| {
            let uri = if vllm { &picture["url"] } else { picture };
            let (_, encoded) = uri.as_str().expect("an address").split_once(";base64,").expect("a data URI");
            let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).expect("base64");
            let image = Picture::from_bytes(bytes.into(), &Limits::default()).expect("a picture").image;
            let processor = Processor::default();
            processor.tokens(processor.grid(image.dimensions())) + state.surplus
        };
        let mut counts = pictures.iter().map(tokens);
        let expand = |id: &u32| vec![*id; if *id == PAD { counts.next().expect("a picture per placeholder") } else { 1 }];
        let expanded: Vec<u32> = compact.iter().flat_map(expand).collect();
        // Probes have none.
        let seed = params[if vllm { "seed" } else { "sampling_seed" }].as_u64().unwrap_or(0);
        let sum = expanded.iter().map(|id| u64::from(*id)).sum::<u64>().wrapping_add(seed);
        let mut ids: Vec<u32> = (0..3).map(|step| 10 + ((sum.wrapping_add(step)) % 40) as u32).collect();
        ids.push(END);
        ids.truncate(self.most_tokens(body));
        let stopped = ids.last() == Some(&END);
        let (temperature, narrow) = (params["temperature"].as_f64().expect("a number"), params["top_p"].as_f64().expect("a number") < 0.01);
        let logprob = match state.convention {
            "plain" => -0.5,
            "truncated" if narrow => 0.0,
            "sure" if expanded[0] == UNDECIDED => -0.69,
            "sure" => 0.0,
            _ => -0.5 * temperature,
        };
        let finish = if stopped { "stop" } else { "length" };
        let spans = match &state.straddle {
            Some((before, at)) if *at < ids.len() => json!([
                {"version": before, "start": 0, "end": at}, {"version": state.label, "start": at, "end": ids.len()}
            ]),
            _ => json!([{"version": state.label, "start": 0, "end": ids.len()}]),
        };
        if vllm {
            let content: Vec<Value> = ids.iter().map(|id| json!({"token_id": id, "logprob": logprob, "top_logprobs": []})).collect();
            let choice = json!({
                "index": 0, "finish_reason": finish, "token_ids": ids, "logprobs": {"content": content}, "weight_versions": spans,
            });
            let usage = json!({"prompt_tokens": expanded.len(), "completion_tokens": ids.len()});
            return json!({"choices": [choice], "prompt_token_ids": expanded, "usage": usage});
        }
        let content: Vec<Value> = ids.iter().map(|id| json!([logprob, id, null])).collect();
        json!({
            "output_ids": ids, "prompt_token_ids": expanded, "text": "",
            "meta_info": {
                "finish_reason": {"type": finish}, "prompt_tokens": expanded.len(), "completion_tokens": ids.len(),
                "output_token_logprobs": content, "weight_version": state.label, "weight_versions": spans,
            },
        })
    }
}

/// A question for a turn under way; whoever asked may give up.
struct UnderWay(Fake);

impl UnderWay {
    fn at(fake: Fake) -> Self {
        let mut state = fake.state();
        state.under_way += 1;
        state.most = state.most.max(state.under_way);
        drop(state);
        Self(fake)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

/// A policy, servers, and what an engine at them is opened with.
pub struct Bed {
    pub folder: tempfile::TempDir,
    pub model: ModelConfig,
    pub weights: HostWeights,
    pub pictures: Arc<Store>,
    pub fakes: Vec<Fake>,
    pub config: EngineConfig,
}

impl Bed {
    /// So many servers of a kind, not asked yet.
    pub async fn of(kind: Kind, servers: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let shape = SmallShape { width: 16, layers: 1, heads: 2, inner: 12, vision_width: 16, vision_depth: 1 };
        let model = shape.model(VOCABULARY, PAD, 62, 63);
        let weights = init::fresh(&model, &Default::default(), 3);
        let start = folder.path().join("start");
        checkpoint::save(&start, None, &model, &weights, StoredDtype::F32).expect("written");
        std::fs::write(start.join("tokenizer.json"), "{}").expect("written");
        let mut fakes = Vec::new();
        for _ in 0..servers {
            fakes.push(Fake::start(kind).await);
        }
        let config = EngineConfig {
            kind: kind.name().into(),
            url: fakes.iter().map(Fake::url).collect(),
            policy_folder: folder.path().join("policies"),
            max_context: 256,
            request_timeout_s: 20,
            reload_timeout_s: 20,
            start_timeout_s: 20,
            health_interval_s: 1,
            ..EngineConfig::default()
        };
        let pictures = Arc::new(Store::new(64 << 20, Limits::default()));
        Self { folder, model, weights, pictures, fakes, config }
    }

    pub fn start(&self) -> std::path::PathBuf {
        self.folder.path().join("start")
    }

    pub fn open(&self) -> Engine {
        self.open_with(&self.config, &self.start())
    }

    fn open_with(&self, config: &EngineConfig, start: &Path) -> Engine {
        let policy = Policy {
            model: self.model.clone(),
            snapshot: Snapshot::new(&self.weights, PolicyVersion(0)),
            end_tokens: vec![END],
            processor: Processor::default(),
            pictures: self.pictures.clone(),
            folder: start,
        };
        hypereyes_engines::open(config, policy).expect("opens")
    }

    /// An engine whose servers all take part, with what they were asked until then forgotten.
    pub async fn ready(&self) -> Engine {
        let engine = self.open();
        engine.ready().await.expect("ready");
        for fake in &self.fakes {
            let mut state = fake.state();
            (state.calls, state.asked, state.most) = (vec![], vec![], 0);
        }
        engine
    }

    /// A picture of 3 x 2 tokens in the store, and its name.
    pub fn picture(&self) -> hypereyes_domain::PictureId {
        let image = RgbImage::from_fn(96, 64, |x, y| [x as u8, y as u8, 9].into());
        self.pictures.insert(Picture::from_image(image).expect("encodes")).expect("fits")
    }
}
