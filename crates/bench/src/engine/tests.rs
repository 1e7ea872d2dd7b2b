//! Rows of engines, in this process and behind a port, and what cannot be measured.

use std::path::PathBuf;

use hypereyes_chassis::exit;
use hypereyes_miniature::TinyConfig;
use hypereyes_policy::checkpoint::{self, StoredDtype};
use hypereyes_standin::{Dialect, Options, Standin};

use super::*;
use crate::Size;

const SPEEDS: [&str; 3] = ["first_token_s", "decode_tokens_per_s", "turn_s"];

fn positive(row: &Map<String, Value>, key: &str) -> bool {
    row[key].as_f64().is_some_and(|value| value > 0.0)
}

/// The shipped policy's folder.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy")
}

fn server(kind: &str, url: &str) -> EngineConfig {
    EngineConfig { kind: kind.into(), url: vec![url.into()], ..EngineConfig::default() }
}

#[tokio::test]
async fn every_batch_has_a_row_of_positive_speeds() {
    let model = Size::Tiny.model();
    let weights = hypereyes_policy::init::fresh(&model, &Default::default(), 1);
    let policy = Policy { model: &model, weights: &weights, folder: None };
    for (pictures, length) in [(0, 20), (2, 20 + 2 * (4 + 2))] {
        let load = Load { batches: vec![1, 3], prompt: 20, new: 4, pictures, picture_side: 64, repeats: 1, ..Load::default() };
        let Measured { rows, warnings } = measure(&policy, &EngineConfig::default(), &load, 7).await.expect("it runs");
        assert_eq!(rows.iter().map(|row| row["batch"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(3)]);
        for row in &rows {
            assert_eq!((&row["engine"], &row["pictures"], &row["prompt_tokens"]), (&"local".into(), &pictures.into(), &length.into()));
            assert!(SPEEDS.iter().chain(&["prefill_tokens_per_s"]).all(|key| positive(row, key)), "{row:?}");
            assert!(row.keys().all(|key| !key.ends_with("_ratio")), "{row:?}");
        }
        assert!(warnings.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_a_row_beside_each_of_ours_and_the_same_log_probs() {
    let (model, weights) = checkpoint::read(&shipped()).expect("sound");
    let policy = Policy { model: &model, weights: &weights, folder: Some(&shipped()) };
    for (dialect, kind, pictures) in [(Dialect::Vllm, "vllm", 0), (Dialect::Sglang, "sglang", 2)] {
        let standin = Standin::start(Options::new(shipped(), dialect)).await.expect("starts");
        let load = Load { batches: vec![1, 4], prompt: 40, new: 60, pictures, picture_side: 96, repeats: 2, ..Load::default() };
        let measured = measure(&policy, &server(kind, standin.url()), &load, 7).await.expect("it runs");
        let (last, rows) = measured.rows.split_last().expect("rows");
        let named: Vec<_> = rows.iter().map(|row| (row["engine"].as_str().expect("a name"), row["batch"].as_u64())).collect();
        assert_eq!(named, [("local", Some(1)), (kind, Some(1)), ("local", Some(4)), (kind, Some(4))]);
        for row in rows {
            let length = 40 + pictures * (9 + 2);
            assert_eq!((&row["prompt_tokens"], &row["new_tokens"], &row["pictures"]), (&length.into(), &60.into(), &pictures.into()));
            // A server's speed of decoding is a difference of two times, which a busy machine may make none.
            let known = |key: &&&str| row["engine"] == "local" || **key != "decode_tokens_per_s";
            assert!(SPEEDS.iter().filter(known).all(|key| positive(row, key)), "{row:?}");
        }
        for name in ["first_token_ratio", "decode_ratio", "turn_ratio"] {
            for theirs in [&rows[1], &rows[3]] {
                if name == "decode_ratio" && theirs[name].is_null() {
                    continue;
                }
                let range = theirs[&format!("{name}_range")].as_array().expect("two ratios").clone();
                assert!(positive(theirs, name) && range.len() == 2 && range.contains(&theirs[name]), "{name}: {theirs:?}");
            }
            assert!(!rows[0].contains_key(name) && !rows[2].contains_key(name));
        }
        assert_eq!((&last["engine"], &last["compared_logprobs"]), (&kind.into(), &32.into()));
        assert!(last["largest_difference"].as_f64().expect("a number") < 1e-5, "{last:?}");
        assert!(measured.warnings.is_empty(), "{:?}", measured.warnings);
        // No turn ended early.
        let turns: Vec<usize> = standin.audit().iter().map(|entry| entry.tokens.len()).filter(|tokens| *tokens > 1).collect();
        assert_eq!(turns.iter().filter(|tokens| **tokens == 60).count(), (1 + 4) * 3, "{turns:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_model_or_without_it_is_refused() {
    let standin = Standin::start(Options::new(shipped(), Dialect::Vllm)).await.expect("starts");
    let (model, weights) = checkpoint::read(&shipped()).expect("sound");
    let load = Load { batches: vec![1], prompt: 10, new: 2, repeats: 1, ..Load::default() };
    let refused = async |model: &ModelConfig, weights: &HostWeights, folder: &Path, engine: EngineConfig, load: &Load| {
        let policy = Policy { model, weights, folder: Some(folder) };
        let error = measure(&policy, &engine, load, 7).await.expect_err("cannot be measured");
        (exit::code_of(error.as_ref()), format!("{error:#}"))
    };
    let named = EngineConfig { model: "other".into(), ..server("vllm", standin.url()) };
    let (code, said) = refused(&model, &weights, &shipped(), named, &load).await;
    assert!(code == exit::BAD_INPUT && said.contains("it serves policy, but model is \"other\""), "{said}");
    let long = Load { prompt: 2000, ..load.clone() };
    let (code, said) = refused(&model, &weights, &shipped(), server("vllm", standin.url()), &long).await;
    assert!(code == exit::BAD_INPUT && said.contains("1024 tokens"), "{said}");
    // Weights that do not fit into what it serves.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tiny = TinyConfig { width: 64, ..TinyConfig::default() };
    let ids = [model.image_token_id, model.vision_start_token_id, model.vision_end_token_id];
    let other = tiny.model(model.text.vocab_size, ids[0], ids[1], ids[2]);
    let fresh = hypereyes_policy::init::fresh(&other, &Default::default(), 1);
    let other_folder = folder.path().join("other");
    checkpoint::save(&other_folder, Some(&shipped()), &other, &fresh, StoredDtype::F32).expect("writes");
    let short = EngineConfig { start_timeout_s: 1, ..server("vllm", standin.url()) };
    let (_, said) = refused(&other, &fresh, &other_folder, short.clone(), &load).await;
    assert!(said.contains("no server took part") && said.contains("was not taken"), "{said}");
    // Nobody listens there any more.
    drop(standin);
    let (_, said) = refused(&model, &weights, &shipped(), short, &load).await;
    assert!(said.contains("no server took part"), "{said}");
}
