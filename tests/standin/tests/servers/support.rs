//! A tiny policy, dialogues with pictures, and a client that asks in either dialect without believing or checking anything.

// Two programs share it, and each leaves parts of it alone.
#![allow(dead_code)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hypereyes_chat::Chat;
use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampled, Sampling, Sequence};
use hypereyes_miniature::tokenizer::{self, TinyWords};
use hypereyes_miniature::{InitConfig, TinyConfig, init};
use hypereyes_pictures::{Limits, PatchCache, PatchSource, Patches, Picture, RgbImage, Store};
use hypereyes_policy::checkpoint::{self, HostWeights, StoredDtype};
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::engine::{Engine, EngineConfig};
use hypereyes_standin::Dialect;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Tokens of a sequence.
pub const CONTEXT: usize = 1024;

/// A policy of this process, and the folder that others serve it from.
pub struct Policy {
    pub folder: TempDir,
    pub model: ModelConfig,
    pub weights: HostWeights,
    pub chat: Chat,
    pub store: Arc<Store>,
    pub source: PatchSource,
    pub engine: Engine,
}

impl Policy {
    /// A tiny one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let terms = ["Mexico".to_owned(), "Peru".to_owned(), "peso".to_owned()];
        let words = tempfile::tempdir().expect("a temporary folder");
        let summary = tokenizer::write(words.path(), TinyWords { terms: &terms, relations: &["currency".to_owned()], phrases: &[] })
            .expect("sound words");
        let tiny = TinyConfig { width: 64, layers: 2, heads: 4, inner: 96, vision_width: 32, vision_depth: 2 };
        let model = tiny.model(summary.vocab_size, summary.image, summary.vision_start, summary.vision_end);
        let weights = init::fresh(&model, &InitConfig::default(), 1);
        checkpoint::save(&folder.path().join("start"), Some(words.path()), &model, &weights, StoredDtype::F32).expect("writes");
        Self::of(folder)
    }

    /// That of the folder `start` in a folder.
    pub fn of(folder: TempDir) -> Self {
        let start = folder.path().join("start");
        let (model, weights) = checkpoint::read(&start).expect("sound");
        let chat = Chat::load(&start).expect("sound");
        let store = Arc::new(Store::new(64 << 20, Limits::default()));
        let source = PatchSource::new(store.clone(), Arc::new(PatchCache::new(chat.processor().clone(), 64 << 20)));
        let sizes = EngineConfig { end_tokens: vec![chat.end_token()], max_context: CONTEXT, ..EngineConfig::default() };
        let engine = Engine::start_from(model.clone(), &weights, sizes, PolicyVersion(0)).expect("starts").seeing(source.clone());
        Self { folder, model, weights, chat, store, source, engine }
    }

    /// Where it is served from.
    pub fn start(&self) -> std::path::PathBuf {
        self.folder.path().join("start")
    }

    /// Other weights of the same policy.
    pub fn scaled(&self, scale: f32) -> HostWeights {
        let mut weights = self.weights.clone();
        weights.values_mut().for_each(|tensor| tensor.values.iter_mut().for_each(|value| *value *= scale));
        weights
    }

    /// The same, in a folder of their own.
    pub fn moved(&self, name: &str, scale: f32) -> (std::path::PathBuf, HostWeights) {
        let weights = self.scaled(scale);
        let folder = self.folder.path().join(name);
        checkpoint::save(&folder, Some(&self.start()), &self.model, &weights, StoredDtype::F32).expect("writes");
        (folder, weights)
    }

    /// A picture of some shade and size.
    pub fn picture(&self, shade: u8, width: u32, height: u32) -> Picture {
        let picture = Picture::from_image(RgbImage::from_fn(width, height, |x, y| [x as u8, y as u8 * 3, shade].into())).expect("encodes");
        self.store.insert(picture.clone()).expect("fits");
        picture
    }

    /// Patches per side of pictures.
    pub fn grids(&self, pictures: &[Picture]) -> Vec<(usize, usize)> {
        pictures.iter().map(|picture| self.chat.processor().grid(picture.image.dimensions())).collect()
    }

    /// A prompt, expanded.
    pub fn prompt(&self, question: &str, pictures: &[Picture]) -> Vec<u32> {
        self.chat.prompt("", question, &self.grids(pictures)).expect("renders")
    }

    /// What follows a turn, expanded.
    pub fn observation(&self, text: &str, pictures: &[Picture]) -> Vec<u32> {
        self.chat.observation(text, &self.grids(pictures))
    }

    /// Patches of pictures, in order.
    pub fn patches(&self, pictures: &[Picture]) -> Vec<Arc<Patches>> {
        let ids: Vec<_> = pictures.iter().map(|picture| picture.id.clone()).collect();
        self.source.patches(&ids).expect("they are here")
    }

    /// A turn after a whole prompt, as this process samples it.
    pub async fn sample(&self, prompt: &[u32], pictures: &[Picture], seed: u64, sampling: Sampling, most: usize) -> Sampled {
        let chunk = Chunk { tokens: prompt.to_vec(), pictures: pictures.iter().map(|picture| picture.id.clone()).collect() };
        let mut sequence = self.engine.start(chunk, vec![seed], sampling).await.expect("starts").remove(0);
        sequence.advance(Chunk::default(), most).await.expect("samples")
    }

    /// One placeholder per picture.
    pub fn compact(&self, expanded: &[u32], pictures: &[Picture]) -> Vec<u32> {
        let sizes = self.grids(pictures).into_iter().map(|grid| self.chat.processor().tokens(grid));
        let (mut compact, mut sizes, mut at) = (vec![], sizes, 0);
        while at < expanded.len() {
            compact.push(expanded[at]);
            at += if expanded[at] == self.model.image_token_id { sizes.next().expect("a picture each") } else { 1 };
        }
        compact
    }
}

/// What a client asks for.
#[derive(Clone)]
pub struct Question {
    pub tokens: Vec<u32>,
    pub pictures: Vec<Picture>,
    pub seed: u64,
    pub sampling: Sampling,
    pub most: usize,
    /// Likeliest tokens at each place.
    pub top: usize,
    /// Also log-probs of the prompt.
    pub of_prompt: bool,
}

impl Question {
    pub fn new(tokens: Vec<u32>, pictures: &[Picture], seed: u64) -> Self {
        Self { tokens, pictures: pictures.to_vec(), seed, sampling: Sampling::of(1.0, 1.0), most: 12, top: 0, of_prompt: false }
    }

    /// Where it goes, and what it says.
    pub fn body(&self, dialect: Dialect) -> (&'static str, Value) {
        let encoded = |picture: &Picture| base64::engine::general_purpose::STANDARD.encode(&picture.bytes);
        let Sampling { temperature, top_k, top_p, min_p } = self.sampling;
        match dialect {
            Dialect::Vllm => {
                let part = |picture: &Picture| json!({"type": "image_url", "url": format!("data:image/png;base64,{}", encoded(picture))});
                let mut params = json!({"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": self.seed,
                    "max_tokens": self.most, "logprobs": self.top});
                if self.of_prompt {
                    params["prompt_logprobs"] = json!(self.top);
                }
                let parts: Vec<Value> = self.pictures.iter().map(part).collect();
                let body = json!({"token_ids": self.tokens, "content_parts": parts, "sampling_params": params, "return_token_ids": true});
                ("/inference/v1/generate", body)
            }
            Dialect::Sglang => {
                let params = json!({"temperature": temperature, "top_k": if top_k == 0 { -1 } else { top_k as i64 }, "top_p": top_p,
                    "min_p": min_p, "sampling_seed": self.seed, "max_new_tokens": self.most});
                let pictures: Vec<String> = self.pictures.iter().map(encoded).collect();
                let body = json!({"input_ids": self.tokens, "image_data": pictures, "sampling_params": params, "return_logprob": true,
                    "logprob_start_len": if self.of_prompt { 0 } else { -1 }, "top_logprobs_num": self.top, "return_prompt_token_ids": true});
                ("/generate", body)
            }
        }
    }
}

/// A server, as a client sees it.
#[derive(Clone)]
pub struct Client {
    pub url: String,
    pub dialect: Dialect,
    http: reqwest::Client,
}

/// What an answer says, in any dialect.
#[derive(Debug)]
pub struct Said {
    pub tokens: Vec<u32>,
    pub logprobs: Vec<Option<f64>>,
    /// Ids that log-probs are of.
    pub ids: Vec<u32>,
    pub finish: String,
    pub prompt: Vec<u32>,
    /// How many tokens the prompt is said to have.
    pub count: usize,
    pub versions: Vec<(String, usize, usize)>,
}

impl Client {
    pub fn new(url: &str, dialect: Dialect) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Self { url: url.to_owned(), dialect, http }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Response, reqwest::Error> {
        self.http.post(format!("{}{path}", self.url)).header("content-type", "application/json").body(body.to_string()).send().await
    }

    /// A reply that must be JSON of 200.
    pub async fn json(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body).await.expect("an answer");
        let (status, text) = (response.status(), response.text().await.expect("a body"));
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        serde_json::from_str(&response.text().await.expect("a body")).expect("JSON")
    }

    /// Asks, and reads what comes without checking it.
    pub async fn ask(&self, question: &Question) -> Said {
        let (path, body) = question.body(self.dialect);
        said(&self.json(path, &body).await, self.dialect)
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().into_iter().flatten().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// Reads a reply.
pub fn said(reply: &Value, dialect: Dialect) -> Said {
    let spans = |value: &Value| {
        let span = |span: &Value| {
            let number = |name: &str| span[name].as_u64().expect("a number") as usize;
            (span["version"].as_str().expect("a label").to_owned(), number("start"), number("end"))
        };
        value.as_array().into_iter().flatten().map(span).collect()
    };
    match dialect {
        Dialect::Vllm => {
            let choice = &reply["choices"][0];
            let content: Vec<&Value> = choice["logprobs"]["content"].as_array().into_iter().flatten().collect();
            Said {
                tokens: ids(&choice["token_ids"]),
                logprobs: content.iter().map(|entry| entry["logprob"].as_f64()).collect(),
                ids: content.iter().map(|entry| entry["token_id"].as_u64().expect("an id") as u32).collect(),
                finish: choice["finish_reason"].as_str().expect("a reason").to_owned(),
                prompt: ids(&reply["prompt_token_ids"]),
                count: reply["usage"]["prompt_tokens"].as_u64().expect("a number") as usize,
                versions: spans(&choice["weight_versions"]),
            }
        }
        Dialect::Sglang => {
            let meta = &reply["meta_info"];
            let entries: Vec<&Value> = meta["output_token_logprobs"].as_array().into_iter().flatten().collect();
            Said {
                tokens: ids(&reply["output_ids"]),
                logprobs: entries.iter().map(|entry| entry[0].as_f64()).collect(),
                ids: entries.iter().map(|entry| entry[1].as_u64().expect("an id") as u32).collect(),
                finish: meta["finish_reason"]["type"].as_str().expect("a reason").to_owned(),
                prompt: ids(&reply["prompt_token_ids"]),
                count: meta["prompt_tokens"].as_u64().expect("a number") as usize,
                versions: spans(&meta["weight_versions"]),
            }
        }
    }
}

/// Log-probs as numbers.
pub fn numbers(said: &Said) -> Vec<f32> {
    said.logprobs.iter().map(|logprob| logprob.expect("there") as f32).collect()
}

/// Waits until something is so.
pub async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}: never");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a file has a text in it.
pub fn has(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|own| own.contains(text))
}
