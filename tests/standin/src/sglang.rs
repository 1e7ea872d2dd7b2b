//! SGLang's dialect, as version 0.5.23 speaks it: `/generate`, pauses, weights from disk. In: requests. Out: what they ask, and answers
//! in SGLang's shape.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hypereyes_domain::Sampling;
use serde_json::{Value, json};

use crate::asked::{Asked, End, OfPrompt, Refused, Scored, Turn};
use crate::replies::json as reply_json;
use crate::routes::{Shapes, float, ids, number, parse};
use crate::served::Pause;
use crate::server::Server;
use crate::told::Told;
use crate::turn::bytes_of;
use crate::vllm::spans;
use crate::{chat, vllm};

/// Most new tokens where a request says nothing.
const MAX_NEW_TOKENS: usize = 128;
/// Below it, SGLang samples greedily.
const GREEDY_BELOW: f32 = 1e-6;

type Shared = State<Arc<Server>>;

pub(crate) fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/health", get(|| async { StatusCode::OK }))
        .route("/server_info", get(server_info))
        .route("/get_server_info", get(server_info))
        .route("/model_info", get(model_info))
        .route("/get_model_info", get(model_info))
        .route("/v1/models", get(vllm::models))
        .route("/generate", post(generate).put(generate))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/pause_generation", post(pause))
        .route("/continue_generation", post(resume))
        .route("/update_weights_from_disk", post(update_weights))
        .route("/update_weight_version", post(update_weight_version))
        .route("/abort_request", post(abort))
        .route("/flush_cache", get(flush).post(flush))
}

async fn server_info(State(server): Shared) -> Response {
    let options = &server.options;
    let info = json!({
        "model_path": options.model,
        "served_model_name": options.name,
        "context_length": options.max_model_len,
        "max_running_requests": options.max_sequences,
        "enable_deterministic_inference": true,
        "status": "ready",
        "max_total_num_tokens": options.max_model_len * options.max_sequences,
        "max_req_input_len": options.max_model_len.saturating_sub(6),
        "internal_states": [{"effective_max_running_requests_per_dp": options.max_sequences}],
        "version": "0.5.23",
        "frontend": "python",
    });
    reply_json(StatusCode::OK, &info)
}

async fn model_info(State(server): Shared) -> Response {
    let label = server.served.look().await.label.clone();
    let info = json!({
        "model_path": server.options.model,
        "served_model_name": server.options.name,
        "tokenizer_path": server.options.model,
        "is_generation": true,
        "preferred_sampling_params": null,
        "weight_version": label,
        "has_image_understanding": true,
        "has_audio_understanding": false,
        "model_type": "qwen3_vl",
    });
    reply_json(StatusCode::OK, &info)
}

async fn generate(State(server): Shared, body: Bytes) -> Response {
    let asked = parse(&body).and_then(|body| asked(&body));
    server.answer(asked, &Shapes { route: "/generate", reply, refusal }).await
}

fn refusal(refused: &Refused) -> Response {
    reply_json(refused.status, &json!({"error": {"message": refused.message}}))
}

fn asked(body: &Value) -> Result<Asked, Refused> {
    if body["stream"].as_bool() == Some(true) {
        return Err(Refused::request("this server streams nothing"));
    }
    let pictures = match &body["image_data"] {
        Value::Null => vec![],
        Value::String(one) => vec![bytes_of(one)?],
        Value::Array(all) => {
            let text = |value: &Value| bytes_of(value.as_str().ok_or_else(|| Refused::request("image_data is no text"))?);
            all.iter().map(text).collect::<Result<_, _>>()?
        }
        other => return Err(Refused::request(format!("image_data is {other}"))),
    };
    let tokens = ids(body, "input_ids")?;
    if tokens.is_empty() {
        return Err(Refused::request("input_ids is empty"));
    }
    let params = &body["sampling_params"];
    let temperature = float(params, "temperature", 1.0)?;
    let given = Sampling {
        temperature,
        top_k: usize::try_from(number::<i64>(params, "top_k")?.unwrap_or(-1).max(0)).unwrap_or_default(),
        top_p: float(params, "top_p", 1.0)?,
        min_p: float(params, "min_p", 0.0)?,
    };
    let top: usize = number(body, "top_logprobs_num")?.unwrap_or_default();
    let wants_logprobs = body["return_logprob"].as_bool().unwrap_or_default();
    let start: Option<usize> = number::<i64>(body, "logprob_start_len")?.and_then(|start| usize::try_from(start).ok());
    // It has a sign, and no more than 63 bits beside it.
    let seed: Option<i64> = match number(params, "sampling_seed") {
        Ok(seed) => seed,
        Err(_) => return Err(Refused::request(format!("sampling_seed must be in [-2**63, 2**63 - 1], got {}.", params["sampling_seed"]))),
    };
    Ok(Asked {
        id: body["rid"].as_str().map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned),
        tokens,
        pictures,
        sampling: if (0.0..GREEDY_BELOW).contains(&temperature) { Sampling::GREEDY } else { given },
        seed: seed.map(i64::cast_unsigned),
        max_tokens: Some(number(params, "max_new_tokens")?.unwrap_or(MAX_NEW_TOKENS)),
        stop: if params["stop_token_ids"].is_null() { vec![] } else { ids(params, "stop_token_ids")? },
        ignore_end: params["ignore_eos"].as_bool().unwrap_or_default(),
        logprobs: wants_logprobs.then_some(top),
        of_prompt: start.filter(|_| wants_logprobs).map(|from| OfPrompt { from, top }),
        echo: body["return_prompt_token_ids"].as_bool().unwrap_or_default(),
        must_fit: !params["max_new_tokens"].is_null(),
    })
}

/// `[log-prob, id, text]`; one that is not finite is null, and there is no text.
fn triple(id: u32, logprob: Option<f32>) -> Value {
    json!([logprob, id, null])
}

fn reply(server: &Server, asked: &Asked, turn: &Turn, told: &Told) -> Value {
    let finish = match turn.end {
        End::EndToken(token) | End::Stop(token) => json!({"type": "stop", "matched": token}),
        End::Length => json!({"type": "length", "length": turn.tokens.len()}),
        End::Abort => json!({"type": "abort", "message": "Aborted", "status_code": null, "err_type": null}),
    };
    let mut meta = json!({
        "id": asked.id,
        "finish_reason": finish,
        "prompt_tokens": told.prompt.len(),
        "weight_version": told.spans.last().map_or("default", |(label, ..)| label),
        "num_retractions": 0,
        "reasoning_tokens": 0,
        "completion_tokens": turn.tokens.len(),
        "cached_tokens": 0,
        "weight_versions": spans(told),
    });
    if asked.logprobs.is_some() {
        // The first token that is spoken of has no log-prob.
        let scored = |(at, scored): (usize, &Scored)| triple(scored.token, scored.logprob.filter(|_| at > 0));
        meta["input_token_logprobs"] = turn.of_prompt.iter().enumerate().map(scored).collect();
        if let Some(logprobs) = &told.logprobs {
            meta["output_token_logprobs"] = logprobs.iter().map(|(id, logprob)| triple(*id, *logprob)).collect();
            meta["output_token_logprobs_length"] = json!(logprobs.len());
        }
    }
    if asked.logprobs.is_some_and(|top| top > 0) {
        let list = |top: &[(u32, f32)]| top.iter().map(|(id, logprob)| triple(*id, Some(*logprob))).collect::<Value>();
        let of_prompt = |(at, scored): (usize, &Scored)| if at == 0 { Value::Null } else { list(&scored.top) };
        meta["input_top_logprobs"] = turn.of_prompt.iter().enumerate().map(of_prompt).collect();
        meta["output_top_logprobs"] = turn.top.iter().map(|top| list(top)).collect();
    }
    let mut reply = json!({"text": server.served.chat.decode(&turn.tokens), "output_ids": told.tokens, "meta_info": meta});
    if asked.echo {
        reply["prompt_token_ids"] = json!(told.prompt);
    }
    reply
}

async fn pause(State(server): Shared, body: Bytes) -> Response {
    let body = parse(&body).unwrap_or_default();
    let mode = body["mode"].as_str().unwrap_or("abort");
    let pause = match mode {
        "in_place" | "retract" => Pause::Keep,
        "abort" => Pause::Abort,
        mode => return (StatusCode::UNPROCESSABLE_ENTITY, format!("mode is {mode:?}")).into_response(),
    };
    server.note("/pause_generation", mode);
    server.served.pause(pause).await;
    reply_json(StatusCode::OK, &json!({"message": "Generation paused successfully.", "status": "ok"}))
}

async fn resume(State(server): Shared) -> Response {
    server.note("/continue_generation", "");
    server.served.resume().await;
    reply_json(StatusCode::OK, &json!({"message": "Generation continued successfully.", "status": "ok"}))
}

async fn update_weights(State(server): Shared, body: Bytes) -> Response {
    let body = parse(&body).unwrap_or_default();
    let Some(folder) = body["model_path"].as_str() else {
        return (StatusCode::UNPROCESSABLE_ENTITY, "model_path is missing").into_response();
    };
    if body["abort_all_requests"].as_bool().unwrap_or_default() {
        server.served.abort(|_| true);
    }
    let label = body["weight_version"].as_str();
    match server.reload("/update_weights_from_disk", PathBuf::from(folder), label).await {
        Ok(()) => {
            let named = label.map(|label| format!(" Weight version updated to {label}.")).unwrap_or_default();
            let message = format!("Succeeded to update model weights.{named}");
            reply_json(StatusCode::OK, &json!({"success": true, "message": message, "num_paused_requests": 0}))
        }
        Err(refused) => {
            let message = format!("Failed to update weights: {}", refused.message);
            reply_json(StatusCode::BAD_REQUEST, &json!({"success": false, "message": message, "num_paused_requests": 0}))
        }
    }
}

async fn update_weight_version(State(server): Shared, body: Bytes) -> Response {
    let body = parse(&body).unwrap_or_default();
    let Some(label) = body["new_version"].as_str() else {
        return (StatusCode::UNPROCESSABLE_ENTITY, "new_version is missing").into_response();
    };
    // Unless it is told not to, it aborts whatever is under way.
    if body["abort_all_requests"].as_bool().unwrap_or(true) {
        server.served.abort(|_| true);
    }
    server.note("/update_weight_version", label);
    server.served.name(label).await;
    let message = format!("Weight version updated to {label}");
    reply_json(StatusCode::OK, &json!({"success": true, "message": message, "new_version": label}))
}

async fn abort(State(server): Shared, body: Bytes) -> Response {
    let body = parse(&body).unwrap_or_default();
    let (all, named) = (body["abort_all"].as_bool().unwrap_or_default(), body["rid"].as_str().unwrap_or_default());
    server.note("/abort_request", if all { "all" } else { named });
    server.served.abort(|id| all || !named.is_empty() && id.starts_with(named));
    StatusCode::OK.into_response()
}

async fn flush(State(server): Shared) -> Response {
    if server.served.is_busy() {
        return (StatusCode::BAD_REQUEST, "Flush cache failed: requests are under way.\n").into_response();
    }
    (StatusCode::OK, "Cache flushed.\n").into_response()
}
