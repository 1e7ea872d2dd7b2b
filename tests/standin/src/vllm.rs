//! vLLM's dialect, as version 0.32 speaks it with its development routes and token-in token-out: `/inference/v1/generate`, pauses,
//! `reload_weights`, labels. In: requests. Out: what they ask, and answers in vLLM's shape.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hypereyes_domain::Sampling;
use serde_json::{Map, Value, json};

use crate::asked::{Asked, End, OfPrompt, Refused, Scored, Turn};
use crate::chat;
use crate::replies::json as reply_json;
use crate::routes::{Shapes, float, ids, number, parse};
use crate::served::Pause;
use crate::server::Server;
use crate::told::Told;
use crate::turn::bytes_of;

/// Most log-probs at one place, unless vLLM is started with more.
const MOST_LOGPROBS: i64 = 20;
/// What stands for a log-prob that is not finite.
const NOT_FINITE: f32 = -9999.0;
/// Below it, vLLM samples greedily.
const GREEDY_BELOW: f32 = 1e-5;

type Shared = State<Arc<Server>>;

pub(crate) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/health", get(|| async { StatusCode::OK }))
        .route("/v1/models", get(models))
        .route("/inference/v1/generate", post(generate))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/pause", post(pause))
        .route("/resume", post(resume))
        .route("/is_paused", get(is_paused))
        .route("/abort_requests", post(abort))
        .route("/collective_rpc", post(collective_rpc))
        .route("/reset_encoder_cache", post(reset_encoder_cache))
        .route("/server_info", get(server_info))
        .route("/weight_info", get(weight_info))
        .route("/update_weight_version", post(update_weight_version))
}

pub(crate) async fn models(State(server): Shared) -> Response {
    let options = &server.options;
    let model = json!({"id": options.name, "object": "model", "created": 0, "owned_by": "vllm", "root": options.model, "parent": null,
        "max_model_len": options.max_model_len, "permission": []});
    reply_json(StatusCode::OK, &json!({"object": "list", "data": [model]}))
}

async fn generate(State(server): Shared, body: Bytes) -> Response {
    let asked = parse(&body).and_then(|body| asked(&server, &body));
    server.answer(asked, &Shapes { route: "/inference/v1/generate", reply, refusal }).await
}

/// How vLLM refuses.
pub(crate) fn refusal(refused: &Refused) -> Response {
    let kind = match refused.status {
        StatusCode::BAD_REQUEST => "BadRequestError",
        StatusCode::NOT_FOUND => "NotFoundError",
        _ => "InternalServerError",
    };
    let error = json!({"message": refused.message, "type": kind, "param": null, "code": refused.status.as_u16()});
    reply_json(refused.status, &json!({"error": error}))
}

/// Refuses a model that is not served.
pub(crate) fn model_of(server: &Server, body: &Value) -> Result<(), Refused> {
    match body["model"].as_str() {
        Some(name) if name != server.options.name => {
            Err(Refused { status: StatusCode::NOT_FOUND, message: format!("The model `{name}` does not exist.") })
        }
        _ => Ok(()),
    }
}

fn asked(server: &Server, body: &Value) -> Result<Asked, Refused> {
    model_of(server, body)?;
    if body["stream"].as_bool() == Some(true) {
        return Err(Refused::request("this server streams nothing"));
    }
    if body["cache_salt"].as_str().is_some_and(|salt| salt.is_empty() || salt.len() > 1024) {
        return Err(Refused::request("Parameter 'cache_salt' must be a non-empty string of at most 1024 characters if provided."));
    }
    let parts = body["content_parts"].as_array().map_or(&[][..], Vec::as_slice);
    let pictures = parts.iter().map(part).collect::<Result<_, _>>()?;
    let params = &body["sampling_params"];
    if !params.is_object() {
        return Err(Refused::request("sampling_params is missing"));
    }
    let max_tokens = number(params, "max_tokens")?;
    if max_tokens == Some(0) {
        return Err(Refused::request("max_tokens must be at least 1, got 0."));
    }
    let tops = |name: &str| match number::<i64>(params, name)? {
        Some(count) if !(0..=MOST_LOGPROBS).contains(&count) => {
            Err(Refused::request(format!("Requested {name} of {count}, which is greater than max allowed: {MOST_LOGPROBS}")))
        }
        count => Ok(count.map(|count| usize::try_from(count).unwrap_or_default())),
    };
    let tokens = ids(body, "token_ids")?;
    if tokens.is_empty() {
        return Err(Refused::request("token_ids is empty"));
    }
    Ok(Asked {
        id: body["request_id"].as_str().map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned),
        tokens,
        pictures,
        sampling: sampling_of(params)?,
        seed: seed_of(params, "seed")?,
        max_tokens,
        stop: if params["stop_token_ids"].is_null() { vec![] } else { ids(params, "stop_token_ids")? },
        ignore_end: params["ignore_eos"].as_bool().unwrap_or_default(),
        logprobs: tops("logprobs")?,
        of_prompt: tops("prompt_logprobs")?.map(|top| OfPrompt { from: 0, top }),
        echo: body["return_token_ids"].as_bool().unwrap_or_default(),
        must_fit: false,
    })
}

/// A part of the content: `{"type": "image_url", "url": DATA_URI}`; the chat's shape of it is refused, as the real one does.
fn part(part: &Value) -> Result<bytes::Bytes, Refused> {
    match (part["type"].as_str(), part["url"].as_str()) {
        (Some("image_url"), Some(url)) => bytes_of(url),
        (Some("image_url"), None) => {
            Err(Refused::request("multi_modal_data is missing for a modality and multi_modal_uuids for it is missing, too"))
        }
        (kind, _) => Err(Refused::request(format!("a part of type {kind:?} is not served"))),
    }
}

/// How tokens are chosen, under the names that vLLM and OpenAI share.
pub(crate) fn sampling_of(params: &Value) -> Result<Sampling, Refused> {
    let temperature = float(params, "temperature", 1.0)?;
    // -1 keeps all as well.
    let top_k = number::<i64>(params, "top_k")?.unwrap_or_default().max(0);
    let given = Sampling {
        temperature,
        top_k: usize::try_from(top_k).unwrap_or_default(),
        top_p: float(params, "top_p", 1.0)?,
        min_p: float(params, "min_p", 0.0)?,
    };
    Ok(if (0.0..GREEDY_BELOW).contains(&temperature) { Sampling::GREEDY } else { given })
}

/// A seed, of 64 bits with or without a sign.
pub(crate) fn seed_of(params: &Value, name: &str) -> Result<Option<u64>, Refused> {
    match &params[name] {
        Value::Null => Ok(None),
        value => {
            let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
            seed.map(Some).ok_or_else(|| Refused::request(format!("{name} is {value}")))
        }
    }
}

/// Spans of labels as both dialects write them.
pub(crate) fn spans(told: &Told) -> Vec<Value> {
    told.spans.iter().map(|(version, start, end)| json!({"version": version, "start": start, "end": end})).collect()
}

/// Why a turn stopped, as vLLM and OpenAI call it, and the token that it stopped at where that is said.
pub(crate) fn finish_of(end: End) -> (&'static str, Value) {
    match end {
        End::EndToken(_) => ("stop", Value::Null),
        End::Stop(token) => ("stop", json!(token)),
        End::Length => ("length", Value::Null),
        End::Abort => ("abort", Value::Null),
    }
}

fn reply(server: &Server, asked: &Asked, turn: &Turn, told: &Told) -> Value {
    let (finish_reason, stop_reason) = finish_of(turn.end);
    let logprobs = told.logprobs.as_ref().map(|all| {
        let entry = |(at, (token, logprob)): (usize, &(u32, Option<f32>))| {
            let own = json!({"token_id": token, "logprob": logprob.unwrap_or(NOT_FINITE), "rank": null});
            let likeliest = turn.top.get(at).map_or(&[][..], Vec::as_slice);
            let named = (1..).zip(likeliest).filter(|(_, (id, _))| id != token);
            let others = named.map(|(rank, (id, logprob))| json!({"token_id": id, "logprob": logprob, "rank": rank}));
            // The sampled one stands first, and no more are named than were asked for.
            let most = asked.logprobs.unwrap_or_default().max(1);
            let top: Vec<Value> = std::iter::once(own.clone()).chain(others).take(most).collect();
            let mut own = own;
            own["top_logprobs"] = json!(top);
            own
        };
        json!({"content": all.iter().enumerate().map(entry).collect::<Vec<_>>()})
    });
    let choice = json!({
        "index": 0,
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
        "token_ids": told.tokens,
        "routed_experts": null,
        "sampling_mask": null,
        "weight_versions": spans(told),
        "logprobs": logprobs,
    });
    let placeholders: Vec<Value> = turn.pictures.iter().map(|(offset, length)| json!({"offset": offset, "length": length})).collect();
    let placeholders = (asked.echo && !placeholders.is_empty()).then(|| json!({"image": placeholders}));
    json!({
        "request_id": format!("generate-tokens-{}", asked.id),
        "model": server.options.name,
        "created": 0,
        "usage": usage(told.prompt.len(), turn.tokens.len()),
        "prompt_logprobs": asked.of_prompt.map(|_| turn.of_prompt.iter().map(of_prompt).collect::<Vec<_>>()),
        "prompt_token_id_logprobs": null,
        "prompt_token_ids": asked.echo.then_some(&told.prompt),
        "mm_placeholders": placeholders,
        "metrics": null,
        "kv_transfer_params": null,
        "ec_transfer_params": null,
        "output_mode": "tokens",
        "choices": [choice],
    })
}

/// Counts of tokens.
pub(crate) fn usage(prompt: usize, sampled: usize) -> Value {
    json!({"prompt_tokens": prompt, "total_tokens": prompt + sampled, "completion_tokens": sampled, "prompt_tokens_details": null,
        "completion_tokens_details": null})
}

/// A token of the prompt: null, or what is said of it and of the likeliest, by id.
fn of_prompt(scored: &Scored) -> Value {
    let Some(logprob) = scored.logprob else { return Value::Null };
    let rank_of = |token: u32| scored.top.iter().position(|(id, _)| *id == token).map(|at| at + 1);
    let mut named = Map::new();
    let said = |logprob: f32, rank: Option<usize>| json!({"logprob": logprob, "rank": rank, "decoded_token": null});
    named.insert(scored.token.to_string(), said(logprob, rank_of(scored.token)));
    for (at, (id, logprob)) in scored.top.iter().enumerate() {
        named.entry(id.to_string()).or_insert_with(|| said(*logprob, Some(at + 1)));
    }
    Value::Object(named)
}

async fn pause(State(server): Shared, uri: Uri) -> Response {
    let mode = uri.query().into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("mode=")).unwrap_or("abort");
    let pause = match mode {
        "keep" => Pause::Keep,
        "abort" => Pause::Abort,
        "wait" => Pause::Wait,
        mode => return reply_json(StatusCode::UNPROCESSABLE_ENTITY, &json!({"detail": format!("mode is {mode:?}")})),
    };
    server.note("/pause", mode);
    server.served.pause(pause).await;
    reply_json(StatusCode::OK, &json!({"status": "paused"}))
}

async fn resume(State(server): Shared) -> Response {
    server.note("/resume", "");
    server.served.resume().await;
    reply_json(StatusCode::OK, &json!({"status": "resumed"}))
}

async fn is_paused(State(server): Shared) -> Response {
    let paused = server.served.look().await.paused.is_some();
    reply_json(StatusCode::OK, &json!({"is_paused": paused}))
}

async fn abort(State(server): Shared, body: Bytes) -> Response {
    let body = match parse(&body) {
        Ok(body) => body,
        Err(refused) => return refusal(&refused),
    };
    let named: Vec<&str> = body["request_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    server.note("/abort_requests", named.join(" "));
    let aborted = server.served.abort(|id| named.is_empty() || named.contains(&id));
    reply_json(StatusCode::OK, &json!({"status": "aborted", "aborted": aborted}))
}

async fn collective_rpc(State(server): Shared, body: Bytes) -> Response {
    let folder = parse(&body).and_then(|body| match body["method"].as_str() {
        Some("reload_weights") => {
            let named = body["kwargs"]["weights_path"].as_str();
            Ok(named.map_or_else(|| server.served.folder().to_owned(), PathBuf::from))
        }
        Some(method) => Err(Refused::server(format!("a worker has no method {method:?}"))),
        None => Err(Refused::request("Missing 'method' in request body")),
    });
    let done = match folder {
        Ok(folder) => server.reload("/collective_rpc", folder, None).await,
        Err(refused) => Err(refused),
    };
    match done {
        Ok(()) => reply_json(StatusCode::OK, &json!({"results": [null]})),
        Err(refused) => refusal(&refused),
    }
}

async fn reset_encoder_cache(State(server): Shared) -> Response {
    server.served.forget_pictures();
    StatusCode::OK.into_response()
}

async fn server_info(State(server): Shared) -> Response {
    let limits = json!({"max_num_seqs": server.options.max_sequences});
    let config = json!({"scheduler_config": limits, "model_config": {"max_model_len": server.options.max_model_len}});
    reply_json(StatusCode::OK, &json!({"vllm_config": config, "vllm_env": {}, "system_env": {}}))
}

async fn weight_info(State(server): Shared) -> Response {
    let label = server.served.look().await.label.clone();
    reply_json(StatusCode::OK, &json!({"weight_version": label}))
}

async fn update_weight_version(State(server): Shared, body: Bytes) -> Response {
    let body = parse(&body).unwrap_or_default();
    let Some(label) = body["new_version"].as_str() else {
        return (StatusCode::UNPROCESSABLE_ENTITY, "new_version is missing").into_response();
    };
    server.note("/update_weight_version", label);
    server.served.name(label).await;
    reply_json(StatusCode::OK, &json!({"success": true, "new_version": label}))
}
