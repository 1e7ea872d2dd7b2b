//! A real vLLM server as a teacher: what it says of given tokens is what this service says of the same model. It is ignored, and runs
//! where the environment names a server: `bench/peers/vllm/check` starts one and runs this.

use std::sync::Arc;

use hypereyes_chat::Chat;
use hypereyes_domain::{PolicyVersion, ScoreSequence};
use hypereyes_engines::EngineConfig;
use hypereyes_miniature::shipped::Shipped;
use hypereyes_pictures::{Limits, Store};
use hypereyes_policy::checkpoint::{self, Snapshot};
use hypereyes_teacher_service::Config;

use crate::serving::rollouts;
use crate::support::{Running, picture};

/// The variable with the roots of servers that serve the shipped policy, a list with commas.
const SERVERS: &str = "HYPEREYES_VLLM";
/// The largest gap of one log-prob: both compute in f32, and add in another order.
const GAP: f32 = 1e-4;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: a real vLLM; bench/peers/vllm/check ENVIRONMENT"]
async fn a_real_vllm_gives_the_log_probs_of_this_service() {
    let named = std::env::var(SERVERS).unwrap_or_default();
    let Some(url) = named.split(',').map(str::trim).find(|url| !url.is_empty()) else {
        return hypereyes_tests::skip(&format!("{SERVERS} names no vLLM server"));
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("policy");
    Shipped::Policy.unpack(&model).expect("it is shipped");
    // Whatever it was left with: it is given the weights of the folder.
    let (shape, weights) = checkpoint::read(&model).expect("sound");
    let chat = Chat::load(&model).expect("sound");
    let config = EngineConfig {
        kind: "vllm".into(),
        url: vec![url.to_owned()],
        policy_folder: folder.path().join("policies"),
        max_context: 1024,
        start_timeout_s: 300,
        ..EngineConfig::default()
    };
    let policy = hypereyes_engines::Policy {
        model: shape,
        snapshot: Snapshot::exact(weights, PolicyVersion(0)),
        end_tokens: vec![chat.end_token()],
        processor: chat.processor().clone(),
        pictures: Arc::new(Store::new(1 << 20, Limits::default())),
        folder: &model,
    };
    hypereyes_engines::open(&config, policy).expect("opens").ready().await.expect("it takes part");

    let service = Running::serve(folder, Config { model: model.display().to_string(), ..Config::default() }).await;
    let source = format!("vllm+{url}?tokenizer={}&model=policy", model.display());
    let card = service.load("there", &source).await.expect("loads").card.expect("verified");
    assert!(card.sighted, "another picture makes another log-prob");
    let (mut sum, mut most, mut count) = (0.0, 0.0f32, 0usize);
    for seed in 0..4 {
        let pictures = [picture(2 * seed + 1, 96, 64), picture(2 * seed + 2, 64, 128)];
        service.put(&pictures).await;
        let sampled = rollouts(&model, &pictures).await.into_iter().map(|(sequence, _)| sequence);
        // Whatever stands there can be asked about, sampled or not: observations as well.
        let whole = |sequence: ScoreSequence| ScoreSequence { mask: vec![true; sequence.response.len()], ..sequence };
        let sequences: Vec<ScoreSequence> = sampled.flat_map(|sequence| [sequence.clone(), whole(sequence)]).collect();
        let (_, here) = service.score(&sequences, Some("a")).await.expect("answers");
        let (version, there) = service.score(&sequences, Some("there")).await.expect("answers");
        assert_eq!(version.id.as_str(), "there");
        for (here, there) in here.iter().zip(&there) {
            assert_eq!(here.len(), there.len());
            for (here, there) in here.iter().zip(there) {
                let gap = (here - there).abs();
                (sum, most, count) = (sum + f64::from(gap), most.max(gap), count + 1);
            }
        }
    }
    println!("vLLM as a teacher: mean {:.1e}, largest {most:.1e}, {count} tokens", sum / count as f64);
    assert!(most < GAP, "{most}");
    service.stop().await;
}
