//! SGLang's `/generate` as a giver of log-probs. In: a sequence, its pictures encoded. Out: the request, and what a reply says of each
//! response token.

use serde_json::{Value, json};

use super::{Asked, Place};

/// Where requests go.
pub(super) const PATH: &str = "/generate";

/// The request: token ids as they are, pictures in order, nothing sampled.
pub(super) fn body(asked: &Asked<'_>, pictures: &[String]) -> Value {
    json!({
        "input_ids": asked.tokens(),
        "image_data": pictures,
        "sampling_params": {"temperature": 0, "max_new_tokens": 0, "skip_special_tokens": false},
        "return_logprob": true,
        "logprob_start_len": asked.sequence.prompt.len().saturating_sub(1),
        "top_logprobs_num": asked.top,
    })
}

/// `meta_info.input_token_logprobs`: lists of (log-prob or null, token id, ...), of which the last ones are the response's.
pub(super) fn places(reply: &Value, asked: &Asked<'_>) -> Result<Vec<Place>, String> {
    let response = asked.sequence.response.len();
    let pair =
        |entry: &Value| Some((entry[1].as_u64().and_then(|id| u32::try_from(id).ok())?, entry[0].as_f64().map(|value| value as f32)));
    let list = |name: &str| {
        let list = reply["meta_info"][name].as_array().ok_or_else(|| format!("meta_info.{name} is missing"))?;
        let from =
            list.len().checked_sub(response).ok_or_else(|| format!("meta_info.{name} has {} entries for {response} tokens", list.len()))?;
        Ok::<_, String>(&list[from..])
    };
    let own = list("input_token_logprobs")?;
    let tops = if asked.top > 0 { Some(list("input_top_logprobs")?) } else { None };
    let place = |(at, entry): (usize, &Value)| {
        let (token, logprob) = pair(entry).ok_or_else(|| format!("entry {at} of input_token_logprobs is no (log-prob, token)"))?;
        let named = tops.and_then(|tops| tops[at].as_array()).into_iter().flatten();
        let top = named.filter_map(|entry| pair(entry).and_then(|(id, logprob)| Some((id, logprob?)))).collect();
        Ok(Place { token, logprob, top })
    };
    own.iter().enumerate().map(place).collect()
}
