//! Models that must not serve are refused before anybody is routed to them, each with one clear error.

use std::path::Path;

use crate::support::{PATIENCE, Running, model, parts, plain, write};
use hypereyes_domain::ModelState;
use hypereyes_policy::checkpoint::HostTensor;
use hypereyes_proto::teacher::Load;
use hypereyes_teacher_service::Config;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("reads");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copies");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_and_foreign_models_are_refused_and_the_old_one_serves() {
    // One model of this size fits, and a second; a third does not.
    let probe = tempfile::tempdir().expect("a temporary folder");
    let (config, _) = parts(probe.path(), 1, &["Peru", "Lima"]);
    let one = u64::try_from(config.parameters()).expect("small") * 4;
    let service = Running::start(Config { model_bytes: 2 * one + one / 2, ..Config::default() }).await;
    let folder = service.folder.path().to_owned();
    let sound = folder.join("a");

    // Another vocabulary of the same size: other words.
    model(&folder.join("vocabulary"), 3, &["Chile", "Quito"]);
    // The same shape with two tokens exchanged in the tokenizer alone.
    copy(&sound, &folder.join("tokenizer"));
    let path = folder.join("tokenizer/tokenizer.json");
    let text = std::fs::read_to_string(&path).expect("reads");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let names: Vec<String> = vocabulary.keys().take(2).cloned().collect();
    let (first, second) = (vocabulary[&names[0]].clone(), vocabulary[&names[1]].clone());
    vocabulary[&names[0]] = second;
    vocabulary[&names[1]] = first;
    std::fs::write(&path, tokenizer.to_string()).expect("writes");
    // A weight that is none.
    let nan = folder.join("nan");
    let (config, mut weights) = parts(&nan, 1, &["Peru", "Lima"]);
    let tensor: &mut HostTensor = weights.values_mut().next().expect("there are tensors");
    tensor.values[3] = f32::NAN;
    write(&nan, &config, &weights);
    // Weights that are finite, but whose log-probs are not.
    let huge = folder.join("huge");
    let (config, mut weights) = parts(&huge, 1, &["Peru", "Lima"]);
    weights.values_mut().for_each(|tensor| tensor.values.iter_mut().for_each(|value| *value *= 1e30));
    write(&huge, &config, &weights);
    // A file that was cut off.
    copy(&sound, &folder.join("cut"));
    let path = folder.join("cut/model.safetensors");
    let bytes = std::fs::read(&path).expect("reads");
    std::fs::write(&path, &bytes[..bytes.len() - 100]).expect("writes");

    let cases = [
        ("vocabulary", "another vocabulary"),
        ("tokenizer", "another vocabulary"),
        ("nan", "holds NaN"),
        ("huge", "golden prompt"),
        ("cut", "safetensors"),
        ("nothing", "config.json"),
    ];
    for (name, part) in cases {
        let error = service.load(name, name).await.expect_err(name);
        assert!(error.refused && error.message.contains(part) && error.message.contains(name), "{name}: {error}");
        let error = service.peer.promote(&name.into(), PATIENCE).await.expect_err(name);
        assert!(error.message.contains("no model"), "{error}");
    }

    let digest = service.peer.roster(PATIENCE).await.expect("lists").models[0].card.clone().expect("verified").digest;
    let load = |id: &str, digest: String| Load { source: sound.display().to_string(), id: id.into(), digest, background: false };
    let error = service.peer.load(load("digest", "0".repeat(64)), PATIENCE).await.expect_err("not its digest");
    assert!(error.message.contains(&digest), "{error}");
    let error = service.peer.load(load("digest", "short".into()), PATIENCE).await.expect_err("no digest");
    assert!(error.message.contains("hex"), "{error}");
    service.peer.load(load("second", digest), PATIENCE).await.expect("that is its digest, and there is room");
    let error = service.load("third", "a").await.expect_err("there is no room");
    assert!(error.message.contains("MiB are left") && error.message.contains("model_bytes"), "{error}");
    for source in ["ftp://x/y", "sglang+http://127.0.0.1:1", "s3://user:secret@bucket/x"] {
        let error = service.load("odd", source).await.expect_err(source);
        assert!(error.refused && !error.message.contains("secret"), "{error}");
    }

    let roster = service.peer.roster(PATIENCE).await.expect("lists");
    let failed = roster.models.iter().filter(|model| matches!(model.state, ModelState::Failed(_))).count();
    assert_eq!(failed, cases.len() + 2, "{roster:?}");
    assert_eq!(service.score(&[plain(0)], None).await.expect("the old one serves").0.id, "a".into());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_behind_ones_back_ends_in_the_list() {
    let service = Running::start(Config::default()).await;
    let load = |id: &str, source: &str| Load {
        source: service.folder.path().join(source).display().to_string(),
        id: id.into(),
        digest: String::new(),
        background: true,
    };
    let info = service.peer.load(load("b", "a"), PATIENCE).await.expect("begins");
    assert_eq!(info.state, ModelState::Loading);
    service.peer.load(load("c", "nowhere"), PATIENCE).await.expect("begins");
    let ended = async {
        loop {
            let models = service.peer.roster(PATIENCE).await.expect("lists").models;
            if models.iter().all(|model| model.state != ModelState::Loading) {
                return models;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let models = tokio::time::timeout(PATIENCE, ended).await.expect("both end");
    assert_eq!(models[1].state, ModelState::Ready);
    assert!(matches!(&models[2].state, ModelState::Failed(reason) if reason.contains("nowhere")), "{models:?}");
    service.stop().await;
}
