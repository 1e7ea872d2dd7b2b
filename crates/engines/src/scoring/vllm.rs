//! `/v1/completions` with `prompt_logprobs`, as vLLM serves it. In: a sequence without pictures. Out: the request, and what a reply
//! says of each response token.

use serde_json::{Value, json};

use super::{Asked, Place};

/// Where requests go.
pub(super) const PATH: &str = "/v1/completions";

/// The request: token ids as they are; one token must be sampled, and is not looked at.
pub(super) fn body(asked: &Asked<'_>, model: &str) -> Value {
    json!({
        "model": model,
        "prompt": asked.tokens(),
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": asked.top.max(1),
    })
}

/// `choices[0].prompt_logprobs`: per token null or {token id: {logprob, ..}}, the token itself among them.
pub(super) fn places(reply: &Value, asked: &Asked<'_>) -> Result<Vec<Place>, String> {
    let sequence = asked.sequence;
    let list = reply["choices"][0]["prompt_logprobs"].as_array().ok_or("choices[0].prompt_logprobs is missing")?;
    let whole = sequence.prompt.len() + sequence.response.len();
    if list.len() != whole {
        return Err(format!("prompt_logprobs has {} entries for {whole} tokens", list.len()));
    }
    let place = |(entry, token): (&Value, &u32)| {
        let named = entry.as_object().into_iter().flatten();
        let read = |(id, value): (&String, &Value)| Some((id.parse().ok()?, value["logprob"].as_f64()? as f32));
        let mut all: Vec<(u32, f32)> = named.filter_map(read).collect();
        let logprob = all.iter().find(|(id, _)| id == token).map(|(_, logprob)| *logprob);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(asked.top);
        Place { token: *token, logprob, top: all }
    };
    Ok(list[sequence.prompt.len()..].iter().zip(&sequence.response).map(place).collect())
}
