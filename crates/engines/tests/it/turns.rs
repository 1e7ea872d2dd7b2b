//! Turns: what is sent, what comes back, and what is never believed.

use std::time::Duration;

use hypereyes_chassis::{TelemetryConfig, telemetry};
use hypereyes_domain::{Chunk, Failure, Generate, PolicyVersion, Sampling, Sequence, Stop, turn_seed};
use serde_json::{Value, json};

use crate::fake::{Bed, END, Kind, PAD};

fn text(tokens: &[u32]) -> Chunk {
    Chunk { tokens: tokens.to_vec(), pictures: vec![] }
}

/// Ids of a question.
fn ids(body: &Value) -> Vec<u64> {
    let ids = if body["token_ids"].is_null() { &body["input_ids"] } else { &body["token_ids"] };
    ids.as_array().expect("ids").iter().map(|id| id.as_u64().expect("a number")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_sends_all_that_it_is_with_one_placeholder_a_picture() {
    for kind in Kind::BOTH {
        let bed = Bed::of(kind, 1).await;
        let engine = bed.ready().await;
        let picture = bed.picture();
        let prompt = Chunk { tokens: [vec![1, 62], vec![PAD; 6], vec![63, 2]].concat(), pictures: vec![picture.clone()] };
        let mut group = engine.start(prompt, vec![5, 6], Sampling::of(1.0, 1.0)).await.expect("starts");
        let first = group[0].advance(Chunk::default(), 40).await.expect("a turn");
        assert_eq!((first.tokens.len(), first.stop, first.tokens[3]), (4, Stop::EndToken, END));
        assert_eq!((first.logprobs, first.versions), (vec![-0.5; 4], vec![PolicyVersion(0); 4]));
        let seen = Chunk { tokens: [vec![3, 62], vec![PAD; 6], vec![63]].concat(), pictures: vec![picture] };
        let second = group[0].advance(seen, 2).await.expect("a turn");
        assert_eq!((second.tokens.len(), second.stop), (2, Stop::Length));
        let (asked, label) = (fakes(&bed), bed.fakes[0].state().label.clone());
        let pad = u64::from(PAD);
        assert_eq!(ids(&asked[0]), [1, 62, pad, 63, 2]);
        let sampled = first.tokens.iter().map(|id| u64::from(*id));
        let expected: Vec<u64> = [1, 62, pad, 63, 2].into_iter().chain(sampled).chain([3, 62, pad, 63]).collect();
        assert_eq!(ids(&asked[1]), expected);
        let params = |body: &Value| body["sampling_params"].clone();
        let (seed, salt, pictures) = match kind {
            Kind::Vllm => ("seed", "cache_salt", "content_parts"),
            Kind::Sglang => ("sampling_seed", "extra_key", "image_data"),
        };
        assert_eq!(asked[1][pictures].as_array().map(Vec::len), Some(2));
        assert_eq!(asked[0][salt].as_str(), Some(label.as_str()));
        assert!(label.starts_with("v0-"), "{label}");
        assert_eq!(params(&asked[0])[seed].as_u64(), Some(5));
        assert_eq!(params(&asked[1])[seed].as_u64(), Some(turn_seed(5, 1) & (u64::MAX >> 1)));
        assert_eq!((&params(&asked[0])["stop_token_ids"], &params(&asked[0])["ignore_eos"]), (&json!([END]), &json!(true)));
        assert_eq!(params(&asked[0])["logit_bias"][PAD.to_string()], json!(-100.0));
        let sibling = group[1].advance(Chunk::default(), 40).await.expect("a turn");
        assert_ne!(sibling.tokens, first.tokens, "a seed of its own");
    }
}

fn fakes(bed: &Bed) -> Vec<Value> {
    bed.fakes[0].state().asked.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_servers_count_as_sampled() {
    let telemetry = telemetry::init(&TelemetryConfig::default()).expect("nobody else records");
    hypereyes_engines::metrics::describe();
    let count = || telemetry.read("hypereyes_engine_sampled_tokens_total", &[]).unwrap_or(0.0);
    let bed = Bed::of(Kind::Vllm, 1).await;
    let engine = bed.ready().await;
    let mut sequence = engine.start(text(&[1, 2]), vec![5], Sampling::of(1.0, 1.0)).await.expect("starts").remove(0);
    let before = count();
    sequence.advance(Chunk::default(), 40).await.expect("a turn");
    // Other tests sample meanwhile, and no engine of this process does.
    assert!(count() >= before + 4.0);
    assert!(telemetry.snapshot().contains("# HELP hypereyes_engine_sampled_tokens_total tokens sampled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_a_seed_would_end_is_sent_none() {
    let bed = Bed::of(Kind::Vllm, 1).await;
    bed.fakes[0].state().on_cpu = true;
    let engine = bed.ready().await;
    let mut sequence = engine.start(text(&[1, 2]), vec![5], Sampling::of(1.0, 1.0)).await.expect("starts").remove(0);
    sequence.advance(Chunk::default(), 9).await.expect("a turn");
    assert_eq!(fakes(&bed)[0]["sampling_params"]["seed"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_ends_a_turn_and_then_the_sequence() {
    let mut bed = Bed::of(Kind::Vllm, 1).await;
    bed.config.max_context = 16;
    let engine = bed.ready().await;
    let start = async |tokens: usize| engine.start(text(&vec![1; tokens]), vec![1], Sampling::GREEDY).await;
    let mut group = start(14).await.expect("starts");
    let cut = group[0].advance(Chunk::default(), 9).await.expect("a turn");
    assert_eq!((cut.tokens.len(), cut.stop), (2, Stop::ContextFull));
    let full = group[0].advance(text(&[1]), 9).await.expect("no room");
    assert_eq!((full.tokens.len(), full.stop), (0, Stop::ContextFull));
    assert_eq!(start(16).await.err().map(|error| error.failure), Some(Failure::Policy));
    assert_eq!(engine.start(text(&[99]), vec![1], Sampling::GREEDY).await.err().map(|error| error.failure), Some(Failure::Policy));
    let blind = engine.start(text(&[1, PAD]), vec![1], Sampling::GREEDY).await.err().expect("no picture");
    assert!(blind.failure == Failure::Policy && blind.message.contains("has no picture"), "{blind}");
    let lost = Chunk { tokens: vec![1, PAD], pictures: vec![hypereyes_domain::PictureId::new("nobody's")] };
    let lost = engine.start(lost, vec![1], Sampling::GREEDY).await.err().expect("nobody has it");
    assert_eq!(lost.failure, Failure::Infrastructure);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_is_a_failure_of_nobodys_policy_and_is_not_asked_again() {
    for kind in Kind::BOTH {
        let bed = Bed::of(kind, 1).await;
        let engine = bed.ready().await;
        let fake = &bed.fakes[0];
        let mut sequence = engine.start(text(&[1, 2]), vec![1], Sampling::of(1.0, 1.0)).await.expect("starts").remove(0);
        type Lie = fn(&mut Value);
        let lies: [(&str, Lie); 3] = [
            ("expansion", |reply| reply["prompt_token_ids"] = json!([1, 2, 3])),
            ("other_ids", |reply| match reply["choices"].is_array() {
                true => reply["choices"][0]["token_ids"][1] = json!(3),
                false => reply["output_ids"][1] = json!(3),
            }),
            ("not_finite", |reply| match reply["choices"].is_array() {
                true => reply["choices"][0]["logprobs"]["content"][1]["logprob"] = json!(-9999.0),
                false => reply["meta_info"]["output_token_logprobs"][1][0] = json!(null),
            }),
        ];
        for (number, (name, lie)) in lies.into_iter().enumerate() {
            fake.spoil(lie);
            // Two lies in a row are no reason to take a server out.
            let error = sequence.advance(Chunk::default(), 9).await.expect_err("a lie");
            assert!(error.failure == Failure::Infrastructure && error.message.contains(&format!("({name})")), "{error}");
            assert_eq!(fake.state().asked.len(), 2 * number + 1);
            fake.state().spoil = None;
            sequence.advance(Chunk::default(), 9).await.expect("an honest answer");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_asked_again_with_the_same_seed() {
    for (kind, path) in [(Kind::Vllm, "/inference/v1/generate"), (Kind::Sglang, "/generate")] {
        let bed = Bed::of(kind, 1).await;
        let engine = bed.ready().await;
        let fake = &bed.fakes[0];
        let mut sequence = engine.start(text(&[1, 2]), vec![1], Sampling::of(1.0, 1.0)).await.expect("starts").remove(0);
        for (status, pause) in [(500, 0), (429, 1)] {
            let began = std::time::Instant::now();
            fake.fail(path, 2, status);
            let turn = sequence.advance(Chunk::default(), 9).await.expect("in the end");
            assert!(turn.tokens.len() == 4 && began.elapsed() >= Duration::from_secs(2 * pause), "{status}");
        }
        // What the server refuses, it would refuse again.
        fake.fail(path, 9, 400);
        let error = sequence.advance(Chunk::default(), 9).await.expect_err("refused");
        assert!(error.message.contains("400") && error.message.contains("is spoilt") && error.message.contains("(refused)"), "{error}");
        assert_eq!(fake.state().failing[path].0, 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_nobody_waits_for_is_given_up_at_the_server() {
    for kind in Kind::BOTH {
        let bed = Bed::of(kind, 1).await;
        let engine = bed.ready().await;
        let fake = &bed.fakes[0];
        let mut sequence = engine.start(text(&[1, 2]), vec![1], Sampling::of(1.0, 1.0)).await.expect("starts").remove(0);
        fake.close_gate();
        let turn = tokio::spawn(async move { sequence.advance(Chunk::default(), 9).await });
        fake.until("the turn is asked", |state| state.under_way == 1).await;
        turn.abort();
        fake.until("nobody waits", |state| state.under_way == 0).await;
        if kind == Kind::Sglang {
            fake.until("it is told", |state| state.aborted.len() == 1).await;
            let state = fake.state();
            assert_eq!(Some(state.aborted[0].as_str()), state.asked[0]["rid"].as_str());
        }
    }
}
