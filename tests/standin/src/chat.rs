//! `/v1/chat/completions`, as both servers have it: messages in, text out, whole or as token ids. In: requests. Out: what they ask, and
//! answers in OpenAI's shape with vLLM's additions. Nothing is streamed.

use std::sync::Arc;

use axum::body::Bytes as Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hypereyes_chat::{Dialogue, special};
use serde_json::{Value, json};

use crate::asked::{Asked, End, Refused, Turn};
use crate::routes::{Shapes, ids, number, parse};
use crate::server::Server;
use crate::told::Told;
use crate::turn::bytes_of;
use crate::vllm::{finish_of, model_of, refusal, sampling_of, seed_of, usage};

pub(crate) async fn completions(State(server): State<Arc<Server>>, body: Body) -> Response {
    let asked = parse(&body).and_then(|body| asked(&server, &body));
    server.answer(asked, &Shapes { route: "/v1/chat/completions", reply, refusal }).await
}

fn asked(server: &Server, body: &Value) -> Result<Asked, Refused> {
    model_of(server, body)?;
    if body["stream"].as_bool() == Some(true) || number::<i64>(body, "n")?.is_some_and(|n| n != 1) {
        return Err(Refused::request("this server streams nothing and gives one choice"));
    }
    let dialogue = Dialogue::parse(&body["messages"]).map_err(Refused::request)?;
    let tools = body["tools"].as_array().map_or(&[][..], Vec::as_slice);
    let dialogue = dialogue.offering(tools);
    let pictures: Vec<Bytes> = dialogue.pictures().iter().map(|text| bytes_of(text)).collect::<Result<_, _>>()?;
    // One placeholder each: they are expanded like anybody's.
    let tokens = server.served.renderer.tokens(&dialogue, &vec![1; pictures.len()]).map_err(|error| Refused::request(error.to_string()))?;
    let top = number::<i64>(body, "top_logprobs")?.unwrap_or_default();
    let wants_logprobs = body["logprobs"].as_bool().unwrap_or_default();
    let most = number(body, "max_completion_tokens")?.or(number(body, "max_tokens")?);
    Ok(Asked {
        id: format!("chatcmpl-{:016x}", rand::random::<u64>()),
        tokens,
        pictures,
        sampling: sampling_of(body)?,
        seed: seed_of(body, "seed")?,
        max_tokens: most,
        stop: if body["stop_token_ids"].is_null() { vec![] } else { ids(body, "stop_token_ids")? },
        ignore_end: body["ignore_eos"].as_bool().unwrap_or_default(),
        logprobs: wants_logprobs.then_some(usize::try_from(top).unwrap_or_default()),
        of_prompt: None,
        echo: body["return_token_ids"].as_bool().unwrap_or_default(),
        must_fit: true,
    })
}

fn reply(server: &Server, asked: &Asked, turn: &Turn, told: &Told) -> Value {
    let decode = |tokens: &[u32]| server.served.chat.decode(tokens);
    let said = match turn.end {
        // What ends a turn is no part of the text.
        End::EndToken(_) => &turn.tokens[..turn.tokens.len() - 1],
        _ => &turn.tokens[..],
    };
    let text = decode(said).replace(special::IM_END, "");
    let logprobs = told.logprobs.as_ref().map(|all| {
        let one = |id: u32, logprob: Option<f32>| {
            let token = decode(&[id]);
            let bytes = token.as_bytes().to_vec();
            json!({"token": token, "logprob": logprob.unwrap_or(-9999.0), "bytes": bytes})
        };
        let entry = |(at, (id, logprob)): (usize, &(u32, Option<f32>))| {
            let mut own = one(*id, *logprob);
            own["top_logprobs"] = turn.top.get(at).into_iter().flatten().map(|(id, logprob)| one(*id, Some(*logprob))).collect();
            own
        };
        json!({"content": all.iter().enumerate().map(entry).collect::<Vec<_>>()})
    });
    let (finish_reason, stop_reason) = finish_of(turn.end);
    let choice = json!({
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": null, "tool_calls": []},
        "logprobs": logprobs,
        "finish_reason": finish_reason,
        "stop_reason": stop_reason,
        "token_ids": asked.echo.then_some(&told.tokens),
    });
    json!({
        "id": asked.id,
        "object": "chat.completion",
        "created": 0,
        "model": server.options.name,
        "choices": [choice],
        "usage": usage(told.prompt.len(), turn.tokens.len()),
        "prompt_token_ids": asked.echo.then_some(&told.prompt),
    })
}
