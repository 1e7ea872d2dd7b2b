//! The command line as a person uses it: whole runs, kills, questions, wrong input. Every command here is the real binary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::{hypereyes, kill_9, lines, run, wait_for};
use hypereyes_run::audit;
use serde_json::Value;

#[track_caller]
fn refused(arguments: &[&str], mentions: &[&str]) {
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    let line = said.lines().last().unwrap_or_default();
    for word in mentions {
        assert!(line.contains(word), "{arguments:?}: {line:?} does not mention {word:?}");
    }
}

#[test]
fn a_run_survives_kill_9_of_an_actor_the_reward_and_the_teacher_and_counts_every_task_once() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run");
    let run_dir = format!("run_dir={}", folder.display());
    let sets = [
        "synth.tasks=12",
        "synth.held_out=12",
        "learner.steps=30",
        "learner.groups_per_step=3",
        "learner.group_size=4",
        "learner.checkpoint_every=100",
        "learner.lease_s=5",
    ];
    let mut arguments = vec!["up", "--json", "--set", &run_dir];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    let mut up = hypereyes(&arguments).spawn().unwrap();
    let metrics = folder.join("learner/metrics.jsonl");
    wait_for("first step", &mut up, || (!lines(&metrics).is_empty()).then_some(()));
    kill_9("actor-0", &folder, &mut up);
    kill_9("reward", &folder, &mut up);
    kill_9("teacher", &folder, &mut up);
    let output = up.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    let result: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    for when in ["before", "after"] {
        for key in ["tasks", "accuracy", "rounds", "searches", "kilotokens", "cas"] {
            assert!(result[when][key].is_number(), "{when}.{key} in {result}");
        }
    }
    assert_eq!((&result["steps"], &result["seed"]), (&30.into(), &0.into()));
    assert!(result["closed_book_accuracy"].as_f64().unwrap() <= 0.25, "facts are re-dealt: nothing can be known");

    // The ledger: nothing trained twice; every complete epoch trained every task exactly once.
    let summary = audit::audit(&folder.join("learner/groups.jsonl")).unwrap().summary;
    assert_eq!(summary.trained_twice, 0);
    assert_eq!(Some(summary.trained), result["groups_trained"].as_u64());
    let mut trained = BTreeMap::<String, Vec<String>>::new();
    let events = lines(&folder.join("learner/groups.jsonl"));
    for event in events.iter().filter(|event| event["event"] == "trained") {
        let (task, lease) = event["group"].as_str().unwrap().split_once('@').unwrap();
        trained.entry(lease.split('.').next().unwrap().to_owned()).or_default().push(task.to_owned());
    }
    let committed = events.iter().filter(|event| event["event"] == "committed").count();
    assert!(committed >= 2, "30 steps of 3 groups over 12 tasks are seven epochs");
    for epoch in 0..committed {
        let tasks = &trained[&epoch.to_string()];
        let distinct: BTreeSet<_> = tasks.iter().collect();
        assert_eq!((tasks.len(), distinct.len()), (12, 12), "epoch {epoch}");
    }

    // What a person looks at afterwards.
    let report = std::fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(report.contains("data:image/png;base64,") && report.contains("<svg"));
    for file in
        ["config.toml", "result.json", "learner/trajectories.jsonl", "learner/checkpoint/manifest.json", "learner/policy/config.json"]
    {
        assert!(folder.join(file).exists(), "{file}");
    }
    // The trained policy is a model folder like any other.
    let policy = folder.join("learner/policy");
    let eval = run(&["eval", "--json", "--model", policy.to_str().unwrap(), "--set", "synth.held_out=12"]);
    let eval: Value = serde_json::from_slice(&eval.stdout).expect("eval prints one JSON object");
    assert!(eval["cas"].is_number() && eval["accuracy"].is_number());
}

#[test]
fn a_question_about_a_mosaic_is_answered_in_rounds() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let made =
        run(&["synth", "--held-out", "--out", data.to_str().unwrap(), "--set", "synth.held_out=6", "--set", "synth.kinds.textual=0"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let task = lines(&data.join("tasks.jsonl")).remove(0);
    let picture = data.join("pictures").join(format!("{}.png", task["pictures"][0].as_str().unwrap()));
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy");
    let question = task["question"].as_str().unwrap();
    let asked = run(&["ask", picture.to_str().unwrap(), question, "--json", "--model", policy.to_str().unwrap()]);
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let answer: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert!(answer["rounds"].as_u64().is_some_and(|rounds| rounds >= 2), "{answer}");
    assert_eq!(answer["steps"][0]["call"]["tool"], "image_search");
}

#[test]
fn tasks_are_filtered_by_what_a_policy_knows_by_heart() {
    let scratch = tempfile::tempdir().unwrap();
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy");
    let made = |name: &str, more: &[&str]| {
        let out = scratch.path().join(name);
        let mut arguments = vec!["synth", "--json", "--set", "synth.tasks=6", "--out", out.to_str().unwrap()];
        arguments.extend(more);
        let output = run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stats: Value = serde_json::from_slice(&output.stdout).unwrap();
        (stats, std::fs::read(out.join("tasks.jsonl")).unwrap())
    };
    let (plain, all) = made("all", &[]);
    let (filtered, kept) = made("kept", &["--need-search", policy.to_str().unwrap()]);
    assert!(plain["dropped"].get("known_by_heart").is_none());
    // Facts are re-dealt in every layer: the policy was asked, and knew nothing.
    assert_eq!((filtered["dropped"]["known_by_heart"].as_u64(), &filtered["tasks"]), (Some(0), &Value::from(6)));
    assert_eq!(all, kept);
    let nowhere = scratch.path().join("nowhere");
    refused(&["synth", "--out", nowhere.to_str().unwrap(), "--need-search", "/nonexistent"], &["/nonexistent"]);
    assert!(!nowhere.exists());
}

#[test]
fn a_pod_is_given_only_what_it_asks_for() {
    let scratch = tempfile::tempdir().unwrap();
    let folders = || {
        let mut names: Vec<String> =
            std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let prepare = |only: &[&str]| {
        let mut arguments = vec!["prepare", "--json", "--out", scratch.path().to_str().unwrap()];
        arguments.extend(["--set", "synth.tasks=4", "--set", "synth.held_out=2"]);
        arguments.extend(only);
        let output = run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["parts"].clone()
    };
    assert_eq!(prepare(&["--only", "policy"]), serde_json::json!(["policy"]));
    assert_eq!(folders(), ["policy"]);
    prepare(&["--only", "teacher,train"]);
    assert_eq!(folders(), ["policy", "teacher", "train"]);
    let made = std::fs::read(scratch.path().join("train/tasks.jsonl")).unwrap();
    prepare(&[]);
    assert_eq!(folders(), ["held_out", "policy", "teacher", "train"]);
    assert_eq!(std::fs::read(scratch.path().join("train/tasks.jsonl")).unwrap(), made, "what is there stays");
    let unknown = run(&["prepare", "--out", "/nonexistent", "--only", "tasks"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("possible values: policy, teacher, train, held-out"));
}

#[test]
fn wrong_input_is_one_clear_line_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let run_dir = format!("run_dir={}", path("run"));

    refused(&["up", "--set", &run_dir, "--set", "learner.stesp=3"], &["learner.stesp", "steps"]);
    refused(&["up", "--set", &run_dir, "--set", &format!("world={}", path("nowhere"))], &["nowhere"]);
    refused(&["eval", "--model", &path("no-model")], &["no-model"]);
    refused(&["prepare", "--out", &path("prepared"), "--set", "up.tasks=/a"], &["up.tasks", "leave it out"]);
    refused(&["prepare", "--out", &path("prepared"), "--only", "held-out", "--set", "up.held_out=/a"], &["up.held_out", "leave it out"]);
    // With these nothing would ever happen, or something nobody wants.
    for (setting, says) in [
        ("sampling.train.top_p=nan", "sampling.train.top_p is NaN"),
        ("sampling.train.temperature=0", "sampling.train.temperature is 0"),
        ("learner.lease_s=0", "lease_s is 0"),
        ("learner.lr=-1", "lr is -1"),
        ("learner.threads=100000", "threads is 100000"),
        ("actor.engine.max_rows=0", "actor.engine.max_rows"),
        ("engine.max_sequences=0", "engine.max_sequences"),
        ("rollout.max_turn_tokens=0", "rollout.max_turn_tokens is 0"),
        ("sampling.eval.temperature=nan", "sampling.eval.temperature is NaN"),
        ("eval.samples=100000000000000000", "eval.samples"),
        ("synth.held_out=0", "synth.held_out"),
    ] {
        refused(&["up", "--set", &run_dir, "--set", setting], &[says]);
        refused(&["up", "--dry-run", "--set", setting], &[says]);
        refused(&["doctor", "--set", setting], &["1 of 9 checks failed"]);
    }
    refused(&["up", "--set", &run_dir, "--set", "up.ports.learner=7001", "--set", "up.ports.reward=7001"], &["up.ports"]);
    refused(&["eval", "--set", "sampling.eval.top_p=-3"], &["sampling.eval.top_p is -3"]);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/data/qwen3vl-tiny").display().to_string();
    let prompt = path("prompt.jsonl");
    std::fs::write(&prompt, "{\"id\": 1, \"input_ids\": [5, 9]}\n").unwrap();
    refused(&["generate", "--model", &model, "--set", "engine.max_rows=0", &prompt], &["max_rows is 0"]);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(&["up", "--set", &run_dir, "--set", &format!("up.ports.learner={port}")], &[&port]);

    let model = scratch.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy");
    for file in std::fs::read_dir(shipped).unwrap().flatten() {
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let weights = model.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    refused(&["up", "--set", &run_dir, "--set", &format!("policy={}", model.display())], &["model.safetensors"]);

    let huge = path("huge.png");
    std::fs::write(&huge, png_header(100_000, 100_000)).unwrap();
    refused(&["ask", &huge, "Which one has currency sol?"], &["100000"]);

    assert!(!scratch.path().join("run").exists(), "nothing half-written");
}

/// A PNG whose header claims a size; there are hardly any pixels behind it.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = vec![];
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", header), (b"IDAT", vec![0x78, 0x9c, 0x03, 0x00]), (b"IEND", vec![])] {
        png.extend((data.len() as u32).to_be_bytes());
        let chunk: Vec<u8> = kind.iter().copied().chain(data).collect();
        let mut crc = u32::MAX;
        for byte in &chunk {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        png.extend(chunk);
        png.extend((!crc).to_be_bytes());
    }
    png
}
