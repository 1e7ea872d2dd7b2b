//! What is saved is what was trained, and nothing is lost on the way: the cases of `tests/cases` about model folders, with the
//! real binary, and cold starts that are cut.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::support::{hypereyes, lines, run, signal, wait_for};
use safetensors::SafeTensors;
use serde_json::{Value, json};

const IDS: [u32; 7] = [5, 9, 11, 41, 77, 9, 12];
const INDEX: &str = "model.safetensors.index.json";

fn policy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Cuts `model.safetensors` of a folder into two shards with an index.
fn shard(folder: &Path) {
    let whole = folder.join("model.safetensors");
    let bytes = fs::read(&whole).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
    names.sort();
    let mut map = serde_json::Map::new();
    for part in 0..2 {
        let file = format!("model-0000{}-of-00002.safetensors", part + 1);
        let own: Vec<&String> = names.iter().skip(part).step_by(2).collect();
        let views = own.iter().map(|name| (name.as_str(), tensors.tensor(name).unwrap()));
        fs::write(folder.join(&file), safetensors::serialize(views, None).unwrap()).unwrap();
        map.extend(own.into_iter().map(|name| (name.clone(), file.clone().into())));
    }
    fs::write(folder.join(INDEX), json!({"metadata": {"total_size": bytes.len()}, "weight_map": map}).to_string()).unwrap();
    fs::remove_file(whole).unwrap();
}

fn logprobs(folder: &Path) -> Vec<f64> {
    let mut child = hypereyes(&["logprobs", "--model", folder.to_str().unwrap()]).stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", json!({"id": 1, "input_ids": IDS})).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(answer["next_logprobs"].clone()).unwrap()
}

fn far(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// A set of demonstrations.
fn data(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let made = run(&["synth", "--out", data.to_str().unwrap(), "--set", "synth.tasks=8"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    data
}

fn sft<'a>(data: &'a Path, model: &'a Path, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["sft", "--data", data.to_str().unwrap(), "--model", model.to_str().unwrap(), "--out", out.to_str().unwrap()];
    arguments.extend(["--set", "sft.lr=0.01", "--set", "sft.batch_tokens=400"]);
    arguments.extend(more);
    arguments
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// The files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// The folder must be the trained model to every reader, and hold nothing of the start's weights.
#[track_caller]
fn is_trained(name: &str, folder: &Path, before: &[f64]) {
    let alone = tempfile::tempdir().unwrap();
    for (file, bytes) in files(folder).into_iter().filter(|(file, _)| file != INDEX && !file.starts_with("model-0")) {
        fs::write(alone.path().join(file), bytes).unwrap();
    }
    let trained = logprobs(alone.path());
    assert!(far(before, &trained) > 1e-3, "{name}: training changed nothing");
    assert!(far(&logprobs(folder), &trained) < 1e-4, "{name}: the folder is not its model.safetensors");
    let left: Vec<String> = files(folder).into_keys().filter(|file| file == INDEX || file.starts_with("model-0")).collect();
    assert_eq!(left, Vec::<String>::new(), "{name}");
}

#[test]
fn case_trained_from_shards() {
    let root = tempfile::tempdir().unwrap();
    let start = root.path().join("start");
    copy(&policy(), &start);
    shard(&start);
    let before = logprobs(&start);
    let folder = root.path().join("run");
    let (from, to) = (format!("policy={}", start.display()), format!("run_dir={}", folder.display()));
    let sets = [
        "synth.tasks=24",
        "synth.held_out=4",
        "learner.steps=3",
        "learner.groups_per_step=2",
        "learner.group_size=4",
        "learner.lr=0.003",
        "up.actors=1",
        &from,
        &to,
    ];
    let mut arguments = vec!["up"];
    arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
    said(&run(&arguments), 0);
    is_trained("up", &folder.join("learner/policy"), &before);
    let receipt: Value = serde_json::from_slice(&fs::read(folder.join("learner/policy.json")).unwrap()).unwrap();
    assert_eq!(receipt["step"], 3);

    // Into a folder that holds an older model of several files; from shards, in bf16.
    let data = data(root.path());
    let out = root.path().join("out");
    copy(&start, &out);
    said(&run(&sft(&data, &policy(), &out, &["--set", "sft.steps=4"])), 0);
    is_trained("sft", &out, &before);
    copy(&start, &out);
    said(&run(&sft(&data, &start, &out, &["--set", "sft.steps=4", "--bf16"])), 0);
    is_trained("sft --bf16", &out, &before);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 4, "nothing is left beside start, run, data and out");
}

#[test]
fn case_sft_onto_its_own_folder() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let data = data(root.path());
    copy(&policy(), &at("model"));
    symlink(at("model"), at("link")).unwrap();
    symlink(root.path(), at("around")).unwrap();
    fs::create_dir(at("model-1")).unwrap();
    copy(&policy(), &at("model-1"));
    let names = || fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>();
    let (before, beside) = (files(&at("model")), names());
    let refused = |model: &str, out: &str, more: &[&str], mentions: &str| {
        let (model, out) = (at(model), at(out));
        let output = run(&sft(&data, &model, &out, &[&["--set", "sft.steps=1"], more].concat()));
        let said = said(&output, 2);
        assert!(said.lines().last().unwrap_or_default().contains(mentions), "{} from {}: {said}", out.display(), model.display());
        assert_eq!((files(&at("model")), names()), (before.clone(), beside.clone()), "{} from {}", out.display(), model.display());
    };
    for (model, out) in [("model", "model"), ("model", "link"), ("link", "model"), ("model", "data/../model"), ("model/", "around/model/")]
    {
        refused(model, out, &[], "are one folder");
    }
    // A policy that is kept on the way has a name of its own.
    refused("model-1", "model", &["--keep", "1"], "are one folder");
    refused("model", "data", &[], "are one folder");
    refused("model", "around", &[], "lie in each other");
    // A folder within the start, and one whose files are the start's under other names, take nothing from it.
    let within = at("model").join("trained");
    said(&run(&sft(&data, &at("model"), &within, &["--set", "sft.steps=1"])), 0);
    fs::create_dir(at("hard")).unwrap();
    before.keys().for_each(|name| fs::hard_link(at("model").join(name), at("hard").join(name)).unwrap());
    said(&run(&sft(&data, &at("model"), &at("hard"), &["--set", "sft.steps=1"])), 0);
    assert_eq!(files(&at("model")), before);
    assert_eq!(files(&within)["model.safetensors"], files(&at("hard"))["model.safetensors"]);
}

/// Keys of one JSON that are not in another with the same value.
fn lost(old: &Value, new: &Value, at: &str, found: &mut Vec<String>) {
    const MAY_CHANGE: [&str; 6] = ["dtype", "torch_dtype", "transformers_version", "rope_parameters", "rope_scaling", "rope_theta"];
    for (key, value) in old.as_object().into_iter().flatten().filter(|(key, _)| !MAY_CHANGE.contains(&key.as_str())) {
        match (value, &new[key]) {
            (Value::Object(_), inner) => lost(value, inner, &format!("{at}{key}."), found),
            (value, same) if value == same => {}
            _ => found.push(format!("{at}{key}")),
        }
    }
}

#[test]
fn case_what_a_save_forgets() {
    let root = tempfile::tempdir().unwrap();
    let (start, out) = (root.path().join("start"), root.path().join("out"));
    let data = data(root.path());
    copy(&policy(), &start);
    let mut config: Value = serde_json::from_slice(&fs::read(start.join("config.json")).unwrap()).unwrap();
    config["video_token_id"] = json!(262);
    config["my_note"] = json!("kept");
    for (key, value) in [("max_position_embeddings", 262_144), ("eos_token_id", 258), ("bos_token_id", 256)] {
        config["text_config"][key] = json!(value);
    }
    fs::write(start.join("config.json"), config.to_string()).unwrap();
    let settings = fs::read_to_string(start.join("preprocessor_config.json")).unwrap();
    let processor = json!({"image_processor": serde_json::from_str::<Value>(&settings).unwrap()}).to_string();
    let more = [
        ("video_preprocessor_config.json", settings.as_str()),
        ("chat_template.json", r#"{"chat_template": "x"}"#),
        ("processor_config.json", &processor),
        ("notes of mine.txt", "kept"),
    ];
    more.iter().for_each(|(name, text)| fs::write(start.join(name), text).unwrap());
    fs::create_dir(start.join("assets")).unwrap();
    fs::write(start.join("assets/kept.txt"), "kept").unwrap();
    fs::File::create(start.join("talk.mp4")).unwrap().set_len(200 << 20).unwrap();
    // As a store that is only to be read has it.
    files(&start).keys().for_each(|name| fs::set_permissions(start.join(name), fs::Permissions::from_mode(0o444)).unwrap());
    for turn in 0..2 {
        let output = run(&sft(&data, &start, &out, &["--set", "sft.steps=1"]));
        assert!(said(&output, 0).contains("talk.mp4 (200 MiB"), "what is left out is said");
        let after: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        let mut gone = vec![];
        lost(&config, &after, "", &mut gone);
        assert_eq!(gone, Vec::<String>::new(), "turn {turn}");
        let (old, new) = (files(&start), files(&out));
        for (name, bytes) in old.iter().filter(|(name, _)| !["config.json", "model.safetensors", "talk.mp4"].contains(&name.as_str())) {
            assert_eq!(new.get(name), Some(bytes), "turn {turn}: {name}");
        }
        assert_eq!(new.len(), old.len() - 1);
        assert_eq!(fs::read(out.join("assets/kept.txt")).unwrap(), b"kept");
    }
}

const STEPS: [&str; 8] =
    ["--recipe", "miniature", "--set", "sft.steps=40", "--set", "miniature.blind_steps=10", "--set", "sft.checkpoint_every=3"];

/// Waits for a checkpoint of a cold start.
fn kept(out: &Path, child: &mut std::process::Child) {
    let mut name = out.as_os_str().to_owned();
    name.push(".checkpoint/manifest.json");
    wait_for("a checkpoint", child, || PathBuf::from(&name).exists().then_some(()));
}

#[test]
fn a_cold_start_that_is_cut_goes_on_and_ends_with_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path());
    for (kind, more) in [("whole", &[][..]), ("adapters", &["--set", "sft_optim.lora.rank=2"])] {
        let at = |name: &str| root.path().join(format!("{kind}-{name}"));
        let model = policy();
        let arguments = |out: &Path, last: &[&str]| {
            let list = sft(&data, &model, out, &[&STEPS, more, last].concat());
            list.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let start = |out: &Path, last: &[&str]| {
            let list = arguments(out, last);
            hypereyes(&list.iter().map(String::as_str).collect::<Vec<_>>())
        };
        said(&start(&at("uncut"), &[]).output().unwrap(), 0);
        let wanted = files(&at("uncut"));
        let mut cuts = 0;
        for name in ["TERM", "KILL", "INT"] {
            let out = at(name);
            let mut cut = start(&out, &[]).spawn().unwrap();
            kept(&out, &mut cut);
            signal(name, u64::from(cut.id()));
            let output = cut.wait_with_output().unwrap();
            if output.status.success() {
                // It was through before the signal came.
                assert_eq!(files(&out), wanted);
                continue;
            }
            cuts += 1;
            assert!(!out.exists(), "{name}: nothing is where the policy will be");
            if name != "KILL" {
                let said = said(&output, 1);
                let line = said.lines().last().unwrap();
                assert!(line.contains("stopped by a signal after step") && line.ends_with("--resume"), "{line}");
            }
            // Started once more as it was, it does not destroy what was trained.
            let again = said(&start(&out, &[]).output().unwrap(), 2);
            assert!(again.contains("was cut after step") && again.contains("--resume"), "{again}");
            let resumed = said(&start(&out, &["--resume"]).output().unwrap(), 0);
            assert!(resumed.contains("goes on after step"), "{resumed}");
            assert_eq!(files(&out), wanted, "{kind}, {name}: the bits of the run that was not cut");
            assert!(!at(&format!("{name}.checkpoint")).exists(), "what is no longer needed is gone");
        }
        assert!(cuts > 0, "no signal came in time");
        let nothing = said(&start(&at("uncut"), &["--resume"]).output().unwrap(), 2);
        assert!(nothing.contains("leave --resume out"), "{nothing}");
    }
}

#[test]
fn a_resume_with_other_settings_is_refused_or_says_what_takes_effect() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path());
    let (model, out) = (policy(), root.path().join("out"));
    let start = |more: &[&str]| hypereyes(&sft(&data, &model, &out, &[&STEPS, more].concat()));
    let mut cut = start(&["--set", "sft.steps=100000"]).spawn().unwrap();
    kept(&out, &mut cut);
    signal("KILL", u64::from(cut.id()));
    cut.wait().unwrap();
    let other = root.path().join("other");
    let made = run(&["synth", "--out", other.to_str().unwrap(), "--set", "synth.tasks=8", "--set", "seed=5"]);
    assert!(made.status.success());
    for (more, key) in [
        (&["--set", "sft.batch_tokens=500"][..], "sft.batch_tokens is 500 and was 400"),
        (&["--set", "seed=4"], "seed is 4 and was 0"),
        (&["--data", other.to_str().unwrap()], "the demonstrations"),
        (&["--set", "sft_optim.lora.rank=2"], "sft_optim.lora"),
        (&["--set", "rollout.system_prompt=hello"], "the drills"),
        (&["--model", Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/teacher").to_str().unwrap()], "the start's weights"),
    ] {
        // A later `--data` or `--model` in the place of the first.
        let mut arguments = sft(&data, &model, &out, &[&STEPS[..], &["--resume"]].concat());
        match more {
            ["--set", ..] => arguments.extend(more),
            _ => {
                let place = arguments.iter().position(|word| word == &more[0]).unwrap();
                arguments[place + 1] = more[1];
            }
        }
        let said = said(&run(&arguments), 2);
        assert!(said.lines().last().unwrap().contains(key), "{key}: {said}");
    }
    let said = said(&start(&["--resume", "--set", "sft.lr=0.005"]).output().unwrap(), 0);
    assert!(said.contains("takes effect from the next step on: sft.lr is 0.005 and was 0.01"), "{said}");
    assert!(said.contains("takes effect from the next step on: sft.steps is 40 and was 100000"), "{said}");
    assert!(out.join("model.safetensors").exists());
}

#[test]
fn what_cannot_be_written_is_said_before_anything_is_trained() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path());
    let model = policy();
    fs::write(root.path().join("file"), "x").unwrap();
    symlink("nowhere", root.path().join("broken")).unwrap();
    for (out, mentions) in [
        (root.path().join("file"), "a file of that name"),
        (root.path().join("file/out"), "cannot be written"),
        (root.path().join("broken"), "link to nowhere"),
        (PathBuf::from("/proc/out"), "cannot be written"),
        (PathBuf::from("/"), "lie in each other"),
    ] {
        let said = said(&run(&sft(&data, &model, &out, &["--set", "sft.steps=100000"])), 2);
        assert!(said.lines().last().unwrap().contains(mentions), "{}: {said}", out.display());
    }
    let keep = said(&run(&sft(&data, &model, &root.path().join("out"), &["--set", "sft.steps=3", "--keep", "4"])), 2);
    assert!(keep.contains("--keep 4"), "{keep}");
    assert!(lines(&data.join("tasks.jsonl")).len() == 8 && !root.path().join("out").exists());
    // A slash at the end belongs to no name.
    let out = root.path().join("cold");
    said(&run(&sft(&data, &model, Path::new(&format!("{}/", out.display())), &["--set", "sft.steps=2", "--keep", "1"])), 0);
    assert!(out.join("model.safetensors").exists() && root.path().join("cold-1/tokenizer.json").exists());
}

#[test]
fn a_given_model_is_trained_plainly_and_a_fresh_one_by_the_miniatures_recipe() {
    let root = tempfile::tempdir().unwrap();
    let data = data(root.path());
    let (model, at) = (policy(), |name: &str| root.path().join(name));
    let last = |arguments: &[&str], name: &str| -> Value {
        let out = at(name);
        let fixed = ["sft", "--json", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
        let small = ["--set", "sft.steps=2", "--set", "sft.batch_tokens=400", "--set", "sft.warmup=0"];
        let output = run(&[&fixed[..], &small, arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["last"].clone()
    };
    let given = ["--model", model.to_str().unwrap()];
    let plain = last(&given, "plain");
    assert!(plain["note"].is_null() && plain["lr"].as_f64().unwrap() <= 1e-5, "{plain}");
    let curriculum = last(&[&given[..], &["--recipe", "miniature"]].concat(), "curriculum");
    let fresh = last(&["--set", "tiny.layers=1"], "fresh");
    for shown in [curriculum, fresh] {
        assert!(shown["note"] == "blind" && shown["lr"].as_f64().unwrap() > 1e-4, "{shown}");
    }
}
