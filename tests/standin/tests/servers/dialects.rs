//! Honest answers: the tokens and log-probs of the engine of this process, in the shapes and conventions of real servers.

use hypereyes_domain::{Sampling, Stop};
use hypereyes_pictures::Picture;
use hypereyes_policy::device::Device;
use hypereyes_policy::frozen::{ScoreOptions, freeze};
use hypereyes_policy::score::Sample;
use hypereyes_standin::{Dialect, LogprobsMode, Options, Standin};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Client, Policy, Question, numbers};

const BOTH: [Dialect; 2] = [Dialect::Vllm, Dialect::Sglang];

async fn serve(policy: &Policy, dialect: Dialect, change: impl FnOnce(&mut Options)) -> (Standin, Client) {
    let mut options = Options::new(policy.start(), dialect);
    change(&mut options);
    let standin = Standin::start(options).await.expect("starts");
    let client = Client::new(standin.url(), dialect);
    (standin, client)
}

/// What the model says of the tokens after a prompt.
fn scores(policy: &Policy, tokens: &[u32], from: usize, pictures: &[Picture], temperature: f64) -> Vec<f32> {
    let model = freeze(&policy.model, &policy.weights, Device::Cpu, 1).expect("fits");
    let sample = Sample { tokens: tokens.to_vec(), pictures: policy.patches(pictures), asked: (from..tokens.len()).collect(), trunk: 0 };
    model.score(&[sample], ScoreOptions { temperature, top: 0 }).expect("sound").remove(0).logprobs
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-5)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dialects_sample_what_the_engine_of_this_process_samples() {
    let policy = Policy::new();
    let pictures = [policy.picture(1, 192, 128), policy.picture(2, 64, 96)];
    for dialect in BOTH {
        let (_standin, client) = serve(&policy, dialect, |_| {}).await;
        for seed in 0..4 {
            let mut whole = policy.prompt("Which one has currency peso?", &pictures[..1]);
            for round in 0..2 {
                let shown = &pictures[..=round];
                for sampling in [Sampling::of(1.0, 1.0), Sampling::of(1.0, 0.8), Sampling::GREEDY] {
                    let here = policy.sample(&whole, shown, seed, sampling, 12).await;
                    let there = client.ask(&Question { sampling, ..Question::new(policy.compact(&whole, shown), shown, seed) }).await;
                    assert_eq!(
                        (&there.tokens, &there.ids, numbers(&there)),
                        (&here.tokens, &here.tokens, here.logprobs.clone()),
                        "{dialect:?}"
                    );
                    assert_eq!((&there.prompt, there.count), (&whole, whole.len()));
                    assert_eq!(there.finish, if here.stop == Stop::EndToken { "stop" } else { "length" });
                    assert_eq!(there.versions, [("default".to_owned(), 0, here.tokens.len())]);
                }
                whole.extend(policy.sample(&whole, shown, seed, Sampling::of(1.0, 1.0), 12).await.tokens);
                whole.extend(policy.observation("peso: Mexico", &pictures[1..]));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probs_are_told_in_the_servers_own_convention() {
    let policy = Policy::new();
    let prompt = policy.prompt("Which one?", &[]);
    for (dialect, mode) in [
        (Dialect::Vllm, LogprobsMode::Raw),
        (Dialect::Vllm, LogprobsMode::Processed),
        (Dialect::Sglang, LogprobsMode::Temperature),
        (Dialect::Sglang, LogprobsMode::Raw),
    ] {
        let (_standin, client) = serve(&policy, dialect, |options| options.logprobs = mode).await;
        for sampling in [Sampling::of(0.5, 1.0), Sampling { top_k: 3, ..Sampling::of(0.5, 1.0) }, Sampling::GREEDY] {
            let told = client.ask(&Question { sampling, ..Question::new(prompt.clone(), &[], 7) }).await;
            let whole = [&prompt[..], &told.tokens].concat();
            let at = |temperature| scores(&policy, &whole, prompt.len(), &[], temperature);
            let greedy = sampling.temperature == 0.0;
            let plain = mode == LogprobsMode::Raw || greedy;
            if mode == LogprobsMode::Processed && sampling.top_k > 0 {
                // Of three tokens, which share it all: likelier than without.
                assert!(numbers(&told).iter().zip(at(0.5)).all(|(told, own)| *told > own && *told <= 1e-6), "{told:?}");
            } else {
                assert!(close(&numbers(&told), &at(if plain { 1.0 } else { 0.5 })), "{dialect:?} {mode:?} {sampling:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_are_scored_with_their_pictures() {
    let policy = Policy::new();
    let pictures = [policy.picture(1, 128, 96)];
    let whole = policy.prompt("Which one has currency peso?", &pictures);
    let want = scores(&policy, &whole, 1, &pictures, 1.0);
    for dialect in BOTH {
        let (_standin, client) = serve(&policy, dialect, |_| {}).await;
        let most = if dialect == Dialect::Vllm { 1 } else { 0 };
        let question = Question { most, top: 2, of_prompt: true, ..Question::new(policy.compact(&whole, &pictures), &pictures, 1) };
        let (path, body) = question.body(dialect);
        let reply = client.json(path, &body).await;
        let told: Vec<f32> = match dialect {
            Dialect::Vllm => {
                let all = reply["prompt_logprobs"].as_array().expect("there");
                assert!(all.len() == whole.len() && all[0].is_null());
                let own = |(entry, token): (&Value, &u32)| entry[token.to_string()]["logprob"].as_f64().expect("a number") as f32;
                all[1..].iter().zip(&whole[1..]).map(own).collect()
            }
            Dialect::Sglang => {
                let all = reply["meta_info"]["input_token_logprobs"].as_array().expect("there");
                assert!(all.len() == whole.len() && all[0][0].is_null());
                assert!(all.iter().zip(&whole).all(|(entry, token)| entry[1] == json!(token)));
                assert_eq!(reply["meta_info"]["input_top_logprobs"][1].as_array().expect("there").len(), 2);
                all[1..].iter().map(|entry| entry[0].as_f64().expect("a number") as f32).collect()
            }
        };
        assert!(close(&told, &want));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_a_real_server_refuses_or_misreads_are_refused_or_misread() {
    let policy = Policy::new();
    let pictures = [policy.picture(1, 192, 128)];
    let whole = policy.prompt("Which one?", &pictures);
    let pads = policy.chat.processor().tokens(policy.grids(&pictures)[0]);
    for dialect in BOTH {
        let (_standin, client) = serve(&policy, dialect, |options| options.max_model_len = 200).await;
        // Expanded ids are expanded again, in silence.
        let told = client.ask(&Question::new(whole.clone(), &pictures, 1)).await;
        assert_eq!(told.count, whole.len() + pads - 1);
        assert_eq!(told.prompt.len(), told.count);
        let refused = async |change: &dyn Fn(&mut Question, &mut Value)| {
            let mut question = Question::new(policy.compact(&whole, &pictures), &pictures, 1);
            change(&mut question, &mut Value::Null);
            let (path, mut body) = question.body(dialect);
            change(&mut question, &mut body);
            client.post(path, &body).await.expect("an answer").status()
        };
        let no_place: &dyn Fn(&mut Question, &mut Value) = &|question, _| question.pictures.push(pictures[0].clone());
        let too_long: &dyn Fn(&mut Question, &mut Value) = &|question, _| {
            question.pictures.clear();
            question.tokens = vec![5; 200];
        };
        let streamed: &dyn Fn(&mut Question, &mut Value) = &|_, body| {
            if body.is_object() {
                body["stream"] = json!(true);
            }
        };
        assert_eq!(refused(no_place).await, StatusCode::INTERNAL_SERVER_ERROR);
        for change in [too_long, streamed] {
            assert_eq!(refused(change).await, StatusCode::BAD_REQUEST);
        }
        // vLLM stops when there is no room left, SGLang refuses what will not fit.
        let greedy: &dyn Fn(&mut Question, &mut Value) = &|question, _| question.most = 190;
        let want = if dialect == Dialect::Vllm { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        assert_eq!(refused(greedy).await, want);
        let wide: &dyn Fn(&mut Question, &mut Value) = &|question, _| question.seed = u64::MAX;
        assert_eq!(refused(wide).await, want, "a seed of 64 bits");
    }
    let (_standin, client) = serve(&policy, Dialect::Vllm, |_| {}).await;
    let of_chats = json!({"token_ids": policy.compact(&whole, &pictures), "sampling_params": {},
        "content_parts": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]});
    let response = client.post("/inference/v1/generate", &of_chats).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.text().await.expect("a body").contains("multi_modal_uuids"));
    let unknown = json!({"token_ids": [5], "sampling_params": {}, "model": "another"});
    assert_eq!(client.post("/inference/v1/generate", &unknown).await.expect("an answer").status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_is_can_be_asked() {
    let policy = Policy::new();
    for dialect in BOTH {
        let (_standin, client) = serve(&policy, dialect, |options| options.api_key = Some("k".into())).await;
        let response = client.post("/v1/chat/completions", &json!({})).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let (_standin, client) = serve(&policy, dialect, |options| options.max_sequences = 5).await;
        assert_eq!(client.get("/v1/models").await["data"][0]["max_model_len"], json!(1024));
        let info = client.get("/server_info").await;
        let most =
            if dialect == Dialect::Vllm { &info["vllm_config"]["scheduler_config"]["max_num_seqs"] } else { &info["max_running_requests"] };
        assert_eq!(*most, json!(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_answered_in_words() {
    let policy = Policy::new();
    let picture = policy.picture(1, 96, 64);
    let (_, encoded) = Question::new(vec![], std::slice::from_ref(&picture), 3).body(Dialect::Vllm);
    let content =
        json!([{"type": "image_url", "image_url": {"url": encoded["content_parts"][0]["url"]}}, {"type": "text", "text": "Which one?"}]);
    let body = json!({"model": "policy", "messages": [{"role": "user", "content": content}], "max_completion_tokens": 12, "temperature": 1.0,
        "seed": 3, "logprobs": true, "top_logprobs": 2, "return_token_ids": true});
    for dialect in BOTH {
        let (_standin, client) = serve(&policy, dialect, |_| {}).await;
        let reply = client.json("/v1/chat/completions", &body).await;
        let whole = policy.prompt("Which one?", std::slice::from_ref(&picture));
        let here = policy.sample(&whole, std::slice::from_ref(&picture), 3, Sampling::of(1.0, 1.0), 12).await;
        let choice = &reply["choices"][0];
        assert_eq!((&reply["prompt_token_ids"], &choice["token_ids"]), (&json!(whole), &json!(here.tokens)));
        let words = policy.chat.decode(&here.tokens).replace("<|im_end|>", "");
        assert_eq!(choice["message"]["content"], json!(words));
        let content = choice["logprobs"]["content"].as_array().expect("there");
        let logprobs: Vec<f32> = content.iter().map(|entry| entry["logprob"].as_f64().expect("a number") as f32).collect();
        assert_eq!(logprobs, here.logprobs);
        assert!(content.iter().all(|entry| entry["top_logprobs"].as_array().expect("there").len() == 2));
    }
}
