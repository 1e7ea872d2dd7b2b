//! vLLM's HTTP protocol: tokens in, tokens out (`/inference/v1/generate`), and the routes that its development mode has for weights.
//! In: questions. Out: calls, and what replies say. Written for vLLM 0.32, and held against it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::dialect::{Around, Limits, Seeds, Speak, posted};
use super::link::{Call, read};
use super::outcome::{Miss, Outcome};
use super::request::{Ask, Echo, Finish, Place, Reply, Scores, Span, Want};

/// Where questions go.
pub(crate) const PATH: &str = "/inference/v1/generate";
/// What weights are called while they are loaded, and after a load that broke off.
const UNFINISHED: &str = "unfinished";
/// Added to the logit of what must not be sampled; the most that the server takes.
const NEVER: f32 = -100.0;

pub(super) struct Vllm;

#[derive(Serialize)]
struct Question<'a> {
    request_id: &'a str,
    model: &'a str,
    token_ids: &'a [u32],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    content_parts: Vec<Part<'a>>,
    sampling_params: Value,
    return_token_ids: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    cache_salt: &'a str,
}

/// A picture. Its address is a plain text here, unlike in chat completions.
#[derive(Serialize)]
struct Part<'a> {
    r#type: &'static str,
    url: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
    prompt_token_ids: Option<Vec<u32>>,
    usage: Option<Usage>,
    /// Per token of the prompt nothing, or by id.
    prompt_logprobs: Option<Vec<Option<BTreeMap<u32, Likely>>>>,
}

#[derive(Deserialize)]
struct Choice {
    finish_reason: Option<String>,
    token_ids: Option<Vec<u32>>,
    logprobs: Option<Logprobs>,
    weight_versions: Option<Vec<WeightVersion>>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    token_id: Option<u32>,
    logprob: Option<f64>,
}

#[derive(Deserialize)]
struct Likely {
    logprob: Option<f64>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
}

#[derive(Deserialize)]
struct WeightVersion {
    version: String,
    start: usize,
    end: usize,
}

impl Speak for Vllm {
    fn question(&self, ask: &Ask, around: &Around<'_>) -> Call {
        let sampling_params = match ask.want {
            Want::Turn { sampling, seed, max_tokens } => json!({
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "min_p": sampling.min_p,
                // 63 bits: the server keeps it in a signed number.
                "seed": around.seeded.then_some(seed & (u64::MAX >> 1)),
                "max_tokens": max_tokens,
                "stop_token_ids": ask.reads.end_tokens,
                // Only our end tokens end a turn, whatever the model's files say.
                "ignore_eos": true,
                "logit_bias": {ask.reads.pad.to_string(): NEVER},
                "logprobs": 0,
                "detokenize": false,
            }),
            // One token must be sampled, and is not looked at.
            Want::Score { top, .. } => json!({
                "temperature": 0, "max_tokens": 1, "ignore_eos": true, "prompt_logprobs": top, "detokenize": false,
            }),
        };
        posted(
            PATH,
            &Question {
                request_id: around.request,
                model: around.model,
                token_ids: &ask.compact,
                content_parts: ask.pictures.iter().map(|picture| Part { r#type: "image_url", url: &picture.uri }).collect(),
                sampling_params,
                return_token_ids: true,
                cache_salt: around.label,
            },
        )
    }

    fn turn(&self, reply: &[u8]) -> Result<Reply, Miss> {
        let answer: Answer = read(reply)?;
        let echo = echo(&answer);
        let count = answer.usage.as_ref().and_then(|usage| usage.completion_tokens);
        let choice = answer.choices.into_iter().next().ok_or_else(|| Miss::last(Outcome::Malformed, "its reply has no choice"))?;
        let finish = match choice.finish_reason.as_deref() {
            Some("stop") => Finish::Stop,
            Some("length") => Finish::Length,
            Some("abort") => Finish::Abort,
            other => Finish::Other(other.unwrap_or_default().to_owned()),
        };
        let content = choice.logprobs.and_then(|logprobs| logprobs.content);
        let logprobs = content.map(|content| content.into_iter().map(|entry| (entry.token_id, entry.logprob)).collect());
        let span = |span: WeightVersion| Span { start: span.start, end: span.end, label: span.version };
        let versions = choice.weight_versions.map(|spans| spans.into_iter().map(span).collect());
        Ok(Reply { tokens: choice.token_ids, count, logprobs, finish, echo, versions })
    }

    fn scores(&self, reply: &[u8], ask: &Ask) -> Result<Scores, Miss> {
        let Want::Score { from, top } = ask.want else { return Err(Miss::last(Outcome::Malformed, "it was asked for no scores")) };
        let answer: Answer = read(reply)?;
        let echo = echo(&answer);
        let list = answer.prompt_logprobs.ok_or_else(|| Miss::last(Outcome::NoLogprobs, "prompt_logprobs is missing"))?;
        if list.len() != ask.expanded.len() {
            let message = format!("prompt_logprobs has {} entries for {} tokens", list.len(), ask.expanded.len());
            return Err(Miss::last(Outcome::ShortIds, message));
        }
        let place = |(entry, token): (Option<BTreeMap<u32, Likely>>, &u32)| {
            let named = entry.unwrap_or_default();
            let logprob = named.get(token).and_then(|likely| likely.logprob);
            let mut all: Vec<(u32, f32)> = named.iter().filter_map(|(id, likely)| Some((*id, likely.logprob? as f32))).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            all.truncate(top);
            Place { token: *token, logprob, top: all }
        };
        let places = list.into_iter().zip(&ask.expanded).skip(from).map(place).collect();
        Ok(Scores { places, echo })
    }

    /// Requests are kept with what was computed for them. Clearing that cache too would have them read again from the start, and 0.32 fails as
    /// a whole at one whose pictures came from the cache: it has put their pixels away. What was computed with older weights is not used for
    /// other turns: each version has its own salt.
    fn pause(&self) -> Call {
        Call::post("/pause?mode=keep&clear_cache=false", &json!({}))
    }

    fn reload(&self, folder: &str, label: &str) -> Vec<Call> {
        vec![
            // First, so that nothing that is sampled of what a broken load leaves has a good name.
            Call::post("/update_weight_version", &json!({"new_version": UNFINISHED})),
            Call::post("/collective_rpc", &json!({"method": "reload_weights", "kwargs": {"weights_path": folder}})),
            // The workers forget what they encoded with other weights; the scheduler must not count on it any more, or the engine fails at
            // the next picture that it has seen.
            Call::post("/reset_encoder_cache", &json!({})),
            Call::post("/update_weight_version", &json!({"new_version": label})),
        ]
    }

    fn resume(&self) -> Call {
        Call::post("/resume", &json!({}))
    }

    /// 0.32 keeps what it had counted of a load that broke off, and counts on in the next: layers are then made of both. A second whole load
    /// starts afresh.
    fn loads(&self, label: &str) -> usize {
        if label == UNFINISHED { 2 } else { 1 }
    }

    fn label(&self) -> Call {
        Call::get("/weight_info")
    }

    fn read_label(&self, reply: &[u8]) -> Result<String, Miss> {
        #[derive(Deserialize)]
        struct Info {
            weight_version: String,
        }
        Ok(read::<Info>(reply)?.weight_version)
    }

    fn advice(&self) -> &'static str {
        "start it with --enable-scale-out, and with VLLM_SERVER_DEV_MODE=1 in its environment"
    }

    fn limits(&self) -> Call {
        Call::get("/server_info?config_format=json")
    }

    /// On CPU, 0.32 fails as a whole at a seeded request of whose prompt it reads a part (`CPU Generator does not use offset`).
    fn read_limits(&self, reply: &[u8]) -> Limits {
        let Ok(info) = serde_json::from_slice::<Value>(reply) else { return Limits::default() };
        let config = &info["vllm_config"];
        let scheduler = &config["scheduler_config"];
        let requests = scheduler["max_num_seqs"].as_u64().and_then(|most| usize::try_from(most).ok());
        let in_parts = scheduler["enable_chunked_prefill"].as_bool() == Some(true);
        let fatal = in_parts && config["device_config"]["device"].as_str() == Some("cpu");
        let seeds = if fatal { Seeds::Fatal("vLLM on a CPU needs --no-enable-chunked-prefill for that") } else { Seeds::Kept };
        Limits { requests, seeds }
    }
}

fn echo(answer: &Answer) -> Echo {
    Echo { ids: answer.prompt_token_ids.clone(), count: answer.usage.as_ref().and_then(|usage| usage.prompt_tokens) }
}
