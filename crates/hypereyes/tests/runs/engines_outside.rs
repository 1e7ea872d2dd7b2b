//! The rendered `vllm` overlay samples from a server in the actor's pod: the real binary, its real settings, probes and volumes; a
//! stand-in for vLLM, started with the words that the manifests have for vLLM. Skipped, with the reason, where namespaces are not
//! permitted.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use hypereyes_kubesim::{Options, Snapshot};
use hypereyes_standin::{Dialect, LogprobsMode, Options as Served, Standin};

use crate::Machine;
use crate::kubernetes::{ACTORS, DEADLINE, Run, rendered};
use crate::support;

/// In the environment of a process that is the server: what `vllm` was started with.
const WORDS: &str = "HYPEREYES_TEST_SERVER";

#[test]
#[ignore = "is the server of the test below, in a process of its own"]
fn serves() {
    let Ok(words) = std::env::var(WORDS) else { return };
    let value = |name: &str| words.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    assert_eq!(value("--host"), Some("127.0.0.1"), "it listens nowhere else");
    assert!(words.contains("--enable-scale-out"), "{words}");
    let number = |name: &str| value(name).and_then(|value| value.parse::<usize>().ok()).expect("the manifests say so");
    let options = Served {
        port: u16::try_from(number("--port")).expect("a port"),
        name: value("--served-model-name").expect("a name").to_owned(),
        max_model_len: number("--max-model-len"),
        max_sequences: number("--max-num-seqs"),
        logprobs: if value("--logprobs-mode") == Some("processed_logprobs") { LogprobsMode::Processed } else { LogprobsMode::Raw },
        ..Served::new(words.split_whitespace().nth(1).expect("serve MODEL"), Dialect::Vllm)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("starts");
    runtime.block_on(async {
        // Process 1 of a container hears only what it listens for.
        let mut told = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("listens");
        let server = Standin::start(options).await.expect("serves");
        tokio::select! { _ = told.recv() => {} () = server.forever() => {} }
    });
}

/// The overlay with the shipped policy, its bounds, and one actor, on a machine without a GPU.
fn manifests() -> String {
    let small = rendered("vllm")
        .replace("cuda-bf16", "cpu")
        .replace("=38000", "=768")
        .replace("\"38000\"", "\"768\"")
        .replace("minReplicas: 2", "minReplicas: 1")
        .replace("maxReplicas: 2", "maxReplicas: 1");
    let toy: Vec<serde_json::Value> = serde_saphyr::from_multiple(&rendered("dev-cpu")).expect("YAML");
    let mut objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&small).expect("YAML");
    for file in ["actor.toml", "learner.toml"] {
        let text = toy.iter().find_map(|object| object["data"][file].as_str()).expect("settings");
        let mut settings: toml::Table = text.parse().expect("TOML");
        settings.remove("engine");
        if file == "learner.toml" {
            settings.insert("steps".to_owned(), 1_000_000.into());
        }
        let map = objects.iter_mut().find(|object| object["data"][file].is_string()).expect("settings");
        map["data"][file] = settings.to_string().into();
    }
    objects.iter().map(|object| format!("{object}\n---\n")).collect()
}

/// What stands for the image's program `vllm`: hands its words to this test's binary.
fn program(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("vllm");
    let script = format!("#!/bin/sh\n{WORDS}=\"$*\" exec /image/server --ignored --exact engines_outside::serves --nocapture\n");
    std::fs::write(&path, script).expect("writes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("is ours");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_trains_from_a_server_in_its_pod_that_nobody_else_reaches() {
    let _machine = Machine::alone();
    let (scratch, programs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    // What somebody has put on the claim before.
    let models = scratch.path().join("claims/hypereyes/models");
    std::fs::create_dir_all(&models).expect("makes");
    let made = support::run(&["prepare", "--out", models.to_str().expect("text")]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let options = Options {
        binaries: [
            ("hypereyes".to_owned(), env!("CARGO_BIN_EXE_hypereyes").into()),
            ("server".to_owned(), std::env::current_exe().expect("it runs")),
            ("vllm".to_owned(), program(programs.path())),
        ]
        .into(),
        scratch: Some(scratch.path().join(".")),
        // A probe here is a Python.
        probe_period: Some(Duration::from_secs(2)),
        ..Options::default()
    };
    let Some(run) = Run::with(&manifests(), options).await else { return };
    run.ready("app.kubernetes.io/part-of=hypereyes").await;
    run.reach(2).await;
    let actor = run.actors().await.remove(0);
    let counted = async |name: &str, label: &str| {
        let page = run.cluster.metrics(&actor).await.expect("is scraped");
        let line = page.lines().find(|line| line.starts_with(name) && line.contains(label));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).unwrap_or(0.0)
    };
    assert!(counted("hypereyes_engine_answers_total", "\"ok\"").await > 0.0, "the server samples");
    assert!(counted("hypereyes_engine_server_swaps_total", "\"ok\"").await > 0.0, "new weights reach it");

    // Its own actor reaches it, and no other pod does.
    let ip = run.cluster.snapshot().await.expect("looks").pod(&actor).and_then(|pod| pod.ip).expect("an address");
    let reaches = async |pod: &str, host: &str| {
        let words = ["timeout", "5", "bash", "-c", &format!("exec 3<>/dev/tcp/{host}/8000")];
        run.cluster.exec(pod, &words).await.expect("runs").status.success()
    };
    assert!(reaches(&actor, "127.0.0.1").await);
    assert!(!reaches("reward-0", &ip.to_string()).await && !reaches(&run.learner().await, &ip.to_string()).await);

    // Each container comes back by itself, and training goes on: the server with the newest weights, the actor with its folder.
    for container in ["engine", "actor"] {
        let restarts = |snapshot: &Snapshot| snapshot.pod(&actor).map_or(0, |pod| pod.restarts);
        let before = restarts(&run.cluster.snapshot().await.expect("looks"));
        run.cluster.kill_container(&actor, container).await.expect("kills");
        let restarted = |snapshot: &Snapshot| (restarts(snapshot) > before).then_some(());
        run.cluster.wait("a restart", DEADLINE, restarted).await.expect("it is started again");
        run.ready(ACTORS).await;
        run.reach(run.step() + 2).await;
    }
    let kept = run.cluster.exec(&actor, &["ls", "/policy/generations"]).await.expect("runs");
    let kept = String::from_utf8_lossy(&kept.stdout).lines().count();
    assert!((1..=3).contains(&kept), "{kept} versions lie in the folder");
    run.audited();
}
