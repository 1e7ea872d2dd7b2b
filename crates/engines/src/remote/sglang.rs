//! SGLang's own HTTP protocol: `/generate`, and its routes for weights. In: questions. Out: calls, and what replies say. Written for SGLang
//! 0.5.23.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::dialect::{Around, Limits, Seeds, Speak, posted};
use super::link::{Call, read};
use super::outcome::{Miss, Outcome};
use super::request::{Ask, Echo, Finish, Place, Reply, Said, Scores, Shown, Span, Want};

/// Where questions go.
pub(crate) const PATH: &str = "/generate";
/// Added to the logit of what must not be sampled.
const NEVER: f32 = -100.0;

pub(super) struct Sglang;

#[derive(Serialize)]
struct Question<'a> {
    rid: &'a str,
    input_ids: &'a [u32],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    image_data: Vec<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mm_hashes: Vec<String>,
    sampling_params: Value,
    return_logprob: bool,
    logprob_start_len: i64,
    top_logprobs_num: usize,
    return_prompt_token_ids: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    extra_key: &'a str,
    stream: bool,
}

#[derive(Deserialize)]
struct Answer {
    output_ids: Option<Vec<u32>>,
    prompt_token_ids: Option<Vec<u32>>,
    meta_info: Meta,
}

#[derive(Deserialize)]
struct Meta {
    finish_reason: Option<Reason>,
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
    output_token_logprobs: Option<Vec<Entry>>,
    input_token_logprobs: Option<Vec<Entry>>,
    input_top_logprobs: Option<Vec<Option<Vec<Entry>>>>,
    weight_version: Option<String>,
    weight_versions: Option<Vec<WeightVersion>>,
}

/// Log-prob, token, and its text, which is nobody's concern here.
#[derive(Deserialize)]
struct Entry(Option<f64>, Option<u32>, #[serde(default)] serde::de::IgnoredAny);

#[derive(Deserialize)]
struct Reason {
    r#type: String,
}

#[derive(Deserialize)]
struct WeightVersion {
    version: String,
    start: usize,
    end: usize,
}

impl Speak for Sglang {
    fn question(&self, ask: &Ask, around: &Around<'_>) -> Call {
        let (sampling_params, logprob_start_len, top_logprobs_num) = match ask.want {
            Want::Turn { sampling, seed, max_tokens } => {
                let params = json!({
                    "temperature": sampling.temperature,
                    "top_p": sampling.top_p,
                    "top_k": if sampling.top_k == 0 { -1 } else { sampling.top_k as i64 },
                    "min_p": sampling.min_p,
                    // 63 bits: the server keeps it in a signed number.
                    "sampling_seed": around.seeded.then_some(seed & (u64::MAX >> 1)),
                    "max_new_tokens": max_tokens,
                    "stop_token_ids": ask.reads.end_tokens,
                    // Only our end tokens end a turn, whatever the model's files say.
                    "ignore_eos": true,
                    "logit_bias": {ask.reads.pad.to_string(): NEVER},
                    "skip_special_tokens": false,
                    "no_stop_trim": true,
                    "spaces_between_special_tokens": false,
                });
                (params, -1, 0)
            }
            Want::Score { from, top } => {
                (json!({"temperature": 0, "max_new_tokens": 0, "skip_special_tokens": false}), from.saturating_sub(1) as i64, top)
            }
        };
        posted(
            PATH,
            &Question {
                rid: around.request,
                input_ids: &ask.compact,
                image_data: ask.pictures.iter().map(|picture| &*picture.uri).collect(),
                mm_hashes: ask.pictures.iter().map(|picture| hash(picture, around.label)).collect(),
                sampling_params,
                return_logprob: true,
                logprob_start_len,
                top_logprobs_num,
                return_prompt_token_ids: true,
                extra_key: around.label,
                stream: false,
            },
        )
    }

    fn turn(&self, reply: &[u8]) -> Result<Reply, Miss> {
        let Answer { output_ids, prompt_token_ids, meta_info } = read(reply)?;
        let finish = match meta_info.finish_reason.as_ref().map(|reason| reason.r#type.as_str()) {
            Some("stop") => Finish::Stop,
            Some("length") => Finish::Length,
            Some("abort") => Finish::Abort,
            other => Finish::Other(other.unwrap_or_default().to_owned()),
        };
        let said = |Entry(logprob, token, _): Entry| -> Said { (token, logprob) };
        let logprobs = meta_info.output_token_logprobs.map(|list| list.into_iter().map(said).collect());
        let tokens = output_ids.as_ref().map_or(0, Vec::len);
        let span = |span: WeightVersion| Span { start: span.start, end: span.end, label: span.version };
        let versions = match (meta_info.weight_versions, meta_info.weight_version) {
            (Some(spans), _) => Some(spans.into_iter().map(span).collect()),
            // One label for all, of a server without spans.
            (None, Some(label)) => Some(vec![Span { start: 0, end: tokens, label }]),
            (None, None) => None,
        };
        let echo = Echo { ids: prompt_token_ids, count: meta_info.prompt_tokens };
        Ok(Reply { tokens: output_ids, count: meta_info.completion_tokens, logprobs, finish, echo, versions })
    }

    fn scores(&self, reply: &[u8], ask: &Ask) -> Result<Scores, Miss> {
        let Want::Score { from, top } = ask.want else { return Err(Miss::last(Outcome::Malformed, "it was asked for no scores")) };
        let Answer { prompt_token_ids, meta_info, .. } = read(reply)?;
        let echo = Echo { ids: prompt_token_ids, count: meta_info.prompt_tokens };
        let wanted = ask.expanded.len() - from;
        // Lists begin a little before what was asked for; the last entries are the last tokens'.
        let own = last(meta_info.input_token_logprobs, wanted, "input_token_logprobs")?;
        let tops = if top > 0 { last(meta_info.input_top_logprobs, wanted, "input_top_logprobs")? } else { Vec::new() };
        let mut tops = tops.into_iter();
        let place = |(at, Entry(logprob, token, _)): (usize, Entry)| {
            let missing = || Miss::last(Outcome::Malformed, format!("entry {at} of input_token_logprobs names no token"));
            let named = tops.next().flatten().unwrap_or_default();
            let top = named.into_iter().filter_map(|Entry(logprob, token, _)| Some((token?, logprob? as f32))).collect();
            Ok(Place { token: token.ok_or_else(missing)?, logprob, top })
        };
        let places = own.into_iter().enumerate().map(place).collect::<Result<_, Miss>>()?;
        Ok(Scores { places, echo })
    }

    fn abort(&self, request: &str) -> Option<Call> {
        Some(Call::post("/abort_request", &json!({"rid": request})))
    }

    fn pause(&self) -> Call {
        Call::post("/pause_generation", &json!({"mode": "in_place"}))
    }

    fn reload(&self, folder: &str, label: &str) -> Vec<Call> {
        // Its cache of prompts cannot be flushed while requests wait in it: what it remembers is apart by label instead.
        let body = json!({
            "model_path": folder, "weight_version": label, "flush_cache": false, "abort_all_requests": false, "torch_empty_cache": false,
        });
        vec![Call::post("/update_weights_from_disk", &body)]
    }

    fn resume(&self) -> Call {
        Call::post("/continue_generation", &json!({"torch_empty_cache": false}))
    }

    fn label(&self) -> Call {
        Call::get("/model_info")
    }

    fn read_label(&self, reply: &[u8]) -> Result<String, Miss> {
        #[derive(Deserialize)]
        struct Info {
            weight_version: Option<String>,
        }
        Ok(read::<Info>(reply)?.weight_version.unwrap_or_default())
    }

    fn advice(&self) -> &'static str {
        "SGLang 0.5.23 has all that is needed"
    }

    fn limits(&self) -> Call {
        Call::get("/server_info")
    }

    /// Without its deterministic mode, 0.5.23 draws by no seed that it is sent, and says nothing of it.
    fn read_limits(&self, reply: &[u8]) -> Limits {
        let Ok(info) = serde_json::from_slice::<Value>(reply) else { return Limits::default() };
        let states = info["internal_states"].as_array().into_iter().flatten();
        let effective: Option<u64> = states.map(|state| state["effective_max_running_requests_per_dp"].as_u64()).sum();
        let limit = effective.filter(|sum| *sum > 0).or_else(|| info["max_running_requests"].as_u64());
        let seeds = match info["enable_deterministic_inference"].as_bool() {
            Some(false) => Seeds::Ignored("SGLang needs --enable-deterministic-inference for that"),
            _ => Seeds::Kept,
        };
        Limits { requests: limit.and_then(|most| usize::try_from(most).ok()), seeds }
    }
}

/// What the server calls a picture. It keeps what its vision tower made of pictures, across weights: with the label in the name, what
/// other weights made is not found.
fn hash(picture: &Shown, label: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(picture.id.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(label.as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The last so many entries of a list.
fn last<T>(list: Option<Vec<T>>, wanted: usize, name: &str) -> Result<Vec<T>, Miss> {
    let mut list = list.ok_or_else(|| Miss::last(Outcome::NoLogprobs, format!("meta_info.{name} is missing")))?;
    let from = list.len().checked_sub(wanted);
    let from =
        from.ok_or_else(|| Miss::last(Outcome::ShortIds, format!("meta_info.{name} has {} entries for {wanted} tokens", list.len())))?;
    Ok(list.split_off(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_draws_by_no_seed_is_told_by_what_it_says_of_itself() {
        let seeds = |info: Value| Sglang.read_limits(info.to_string().as_bytes()).seeds;
        assert!(matches!(seeds(json!({"enable_deterministic_inference": false})), Seeds::Ignored(advice) if advice.contains("--enable")));
        assert_eq!(seeds(json!({"enable_deterministic_inference": true})), Seeds::Kept);
        assert_eq!(seeds(json!({})), Seeds::Kept, "what is not said is not held against it");
    }
}
