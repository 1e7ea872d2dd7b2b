//! Policy versions as folders for inference servers: what is in them, what they share, and who may write them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hypereyes_domain::PolicyVersion;
use hypereyes_policy::checkpoint::{self, Generation, HostWeights, PolicyFolder, Saver, Snapshot, StoredDtype, TensorPlace};
use hypereyes_policy::config::{ExpertsConfig, ModelConfig, SmallShape};
use hypereyes_policy::init;
use metrics::Unit;
use metrics_util::debugging::DebuggingRecorder;

const FILE_BYTES: u64 = 4000;
const EMBEDDINGS: &str = "model.language_model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

fn model(tied: bool, experts: Option<usize>) -> (ModelConfig, HostWeights) {
    let tiny = SmallShape { width: 16, layers: 2, heads: 2, inner: 12, vision_width: 16, vision_depth: 1 };
    let mut config = tiny.model(40, 36, 37, 38);
    config.tie_word_embeddings = tied;
    config.text.experts =
        experts.map(|inner| ExpertsConfig { count: 3, per_token: 2, intermediate_size: inner, every: 1, dense_layers: vec![0] });
    let weights = init::fresh(&config, &Default::default(), 3);
    (config, weights)
}

/// A start with what lies beside weights.
fn start(folder: &Path, (config, weights): &(ModelConfig, HostWeights)) {
    checkpoint::save(folder, None, config, weights, StoredDtype::F32).unwrap();
    fs::create_dir(folder.join("additional_chat_templates")).unwrap();
    for name in ["tokenizer.json", "preprocessor_config.json", "additional_chat_templates/tool.jinja"] {
        fs::write(folder.join(name), name).unwrap();
    }
}

/// The weights with every tensor changed whose name holds `part`.
fn changed(weights: &HostWeights, part: &str) -> HostWeights {
    let mut changed = weights.clone();
    changed.iter_mut().filter(|(name, _)| name.contains(part)).for_each(|(_, tensor)| tensor.values[0] += 0.5);
    changed
}

fn open(root: &Path, start: &Path) -> PolicyFolder {
    PolicyFolder::open(root, start).unwrap().in_files_of(FILE_BYTES)
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path()).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes))),
            false => drop(found.insert(name, fs::read(entry.path()).unwrap())),
        }
    }
    found
}

fn weights_of(folder: &Path) -> BTreeMap<String, u64> {
    let weights = fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "safetensors"));
    weights.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino())).collect()
}

/// The tensors of all files of weights: shape and bytes.
fn tensors_of(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let mut tensors = BTreeMap::new();
    for bytes in files.iter().filter(|(name, _)| name.ends_with(".safetensors")).map(|(_, bytes)| bytes) {
        for (name, tensor) in safetensors::SafeTensors::deserialize(bytes).unwrap().tensors() {
            tensors.insert(name, (tensor.shape().to_vec(), tensor.data().to_vec()));
        }
    }
    tensors
}

#[test]
fn a_generation_has_the_files_that_a_save_writes_byte_for_byte() {
    // Square experts read both ways and stay as they are.
    for model in [model(true, None), model(false, None), model(true, Some(4)), model(false, Some(12)), model(false, Some(16))] {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        start(&at("start"), &model);
        let (config, weights) = &model;
        for dtype in [StoredDtype::F32, StoredDtype::Bf16] {
            let saver = Saver::new(&at("saved"), Some(&at("start"))).unwrap().in_shards_of(FILE_BYTES);
            let digest = saver.save(config, weights, dtype).unwrap().digest;
            let snapshot = Snapshot::stored(weights, PolicyVersion(4), dtype);
            let generation = open(&at("root"), &at("start")).write(&snapshot).unwrap();
            let mut found = files(&generation.path);
            assert!(found.remove("generation.json").is_some());
            let saved = files(&at("saved"));
            // A tied table is there once more as the head: the files with weights of such a model are cut elsewhere.
            let tied = config.tie_word_embeddings;
            let of_both = |name: &String| !tied || !(name.ends_with(".safetensors") || name == "model.safetensors.index.json");
            let beside = |files: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
                files.clone().into_iter().filter(|(name, _)| of_both(name)).collect()
            };
            assert_eq!(beside(&found).keys().collect::<Vec<_>>(), beside(&saved).keys().collect::<Vec<_>>());
            assert!(beside(&found) == beside(&saved), "{dtype:?}");
            let (tensors, mut wanted) = (tensors_of(&found), tensors_of(&saved));
            if tied {
                wanted.insert(HEAD.into(), wanted[EMBEDDINGS].clone());
            }
            assert!(tensors == wanted, "{dtype:?}");
            assert_eq!(checkpoint::digest(&generation.path).unwrap() == digest, !tied);
            assert!(checkpoint::read(&generation.path).unwrap() == checkpoint::read(&at("saved")).unwrap());
            assert_eq!((generation.version, generation.digest), (PolicyVersion(4), snapshot.digest));
            assert_eq!(generation.label(), format!("v4-{}", &snapshot.digest.to_hex()[..16]));
            let table = if tied { wanted[HEAD].1.len() } else { 0 };
            assert_eq!(generation.bytes_written, (snapshot.payload.len() + table) as u64);
            let opened = Generation::open(&at("root").join("current")).unwrap();
            assert_eq!((opened.version, opened.digest), (generation.version, generation.digest));
        }
    }
}

#[test]
fn files_in_which_nothing_changed_are_shared_and_nobody_notices_when_the_one_before_is_removed() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let model = model(true, Some(12));
    start(&at("start"), &model);
    let mut folder = open(&at("root"), &at("start"));
    let of = |part: &str, version| Snapshot::stored(&changed(&model.1, part), PolicyVersion(version), StoredDtype::Bf16);
    let first = folder.write(&of("no such", 0)).unwrap();
    let second = folder.write(&of("q_proj", 1)).unwrap();
    let (before, after) = (weights_of(&first.path), weights_of(&second.path));
    let shared = after.iter().filter(|(name, inode)| before.get(*name) == Some(*inode)).count();
    assert!(shared >= 3 && shared < after.len(), "{shared} of {}", after.len());
    let table = model.1[EMBEDDINGS].values.len() * StoredDtype::Bf16.bytes();
    assert_eq!(second.bytes_linked + second.bytes_written, (of("q_proj", 1).payload.len() + table) as u64);
    assert!(second.bytes_linked > second.bytes_written);
    // The same weights under another number are links alone; the same again is the same.
    let third = folder.write(&of("q_proj", 2)).unwrap();
    assert_eq!((third.bytes_written, weights_of(&third.path)), (0, after));
    assert_eq!(folder.write(&of("q_proj", 2)).unwrap(), third);

    let there = |generation: &Generation| generation.path.exists();
    folder.retain(std::slice::from_ref(&first)).unwrap();
    assert_eq!([&first, &second, &third].map(there), [true, false, true]);
    // A learner that went back: what is still there is in force again.
    assert_eq!(folder.write(&of("no such", 0)).unwrap(), first);
    assert_eq!(folder.newest(), Some(&first));
    assert_eq!(fs::canonicalize(at("root/current")).unwrap(), fs::canonicalize(&first.path).unwrap());
    let fourth = folder.write(&of("", 3)).unwrap();
    assert_eq!((fourth.bytes_linked, there(&third)), (0, true));
    // A file with nothing but the tied head changes with the embeddings.
    let fifth =
        folder.write(&Snapshot::stored(&changed(&changed(&model.1, ""), "embed_tokens"), PolicyVersion(4), StoredDtype::Bf16)).unwrap();
    let tensors = tensors_of(&files(&fifth.path));
    assert!(tensors[HEAD] == tensors[EMBEDDINGS] && tensors[HEAD] != tensors_of(&files(&fourth.path))[HEAD]);
    folder.retain(std::slice::from_ref(&fourth)).unwrap();
    let fourth = folder.write(&of("", 3)).unwrap();
    folder.retain(&[]).unwrap();
    assert_eq!([&first, &third, &fourth].map(there), [false, false, true]);
    assert_eq!(Generation::open(&fourth.path).unwrap().digest, of("", 3).digest);
    assert_eq!(checkpoint::read(&fourth.path).unwrap().1, of("", 3).weights().unwrap());
}

#[test]
fn a_folder_is_one_process_s_and_one_start_s() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let (one, other) = (model(true, None), model(true, Some(4)));
    start(&at("start"), &one);
    start(&at("other"), &other);
    let refused = |root: &str, start: &str| PolicyFolder::open(&at(root), &at(start)).unwrap_err().to_string();
    let mut folder = open(&at("root"), &at("start"));
    let kept = folder.write(&Snapshot::new(&one.1, PolicyVersion(1))).unwrap();
    let error = refused("root", "start");
    assert!(error.contains("root/.lock") && error.contains("another process"), "{error}");
    drop(folder);
    assert_eq!(open(&at("root"), &at("start")).newest().map(|newest| &newest.path), Some(&kept.path));
    // A generation is a model folder like any other.
    let copied = open(&at("second"), &kept.path).write(&Snapshot::new(&changed(&one.1, ""), PolicyVersion(2))).unwrap();
    assert_eq!(Generation::open(&copied.path).unwrap().version, PolicyVersion(2));
    assert!(refused("root", "root/current").contains("lie in each other"));
    assert!(refused("root", "nowhere").contains("nowhere"));
    fs::write(at("file"), b"").unwrap();
    assert!(refused("file", "start").contains("file/generations"));
    // Another tokenizer, another model: what was written for the one before is no generation of this start.
    for name in ["tokenizer.json", "merges.txt"] {
        fs::write(at("start").join(name), b"other").unwrap();
        let mut folder = open(&at("root"), &at("start"));
        assert_eq!((folder.newest(), kept.path.exists()), (None, false));
        folder.write(&Snapshot::new(&one.1, PolicyVersion(1))).unwrap();
    }
    let mut folder = open(&at("root"), &at("other"));
    assert_eq!(folder.newest(), None);
    folder.write(&Snapshot::new(&other.1, PolicyVersion(1))).unwrap();
}

#[test]
fn weights_that_no_server_could_load_are_refused_with_the_path_and_the_one_before_stays() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let model = model(true, None);
    start(&at("start"), &model);
    let mut folder = open(&at("root"), &at("start"));
    let sound = Snapshot::new(&model.1, PolicyVersion(1));
    let kept = folder.write(&sound).unwrap();
    let before = files(&at("root"));
    let name = sound.tensors[3].name.clone();
    let mut infinite = model.1.clone();
    infinite.get_mut(&name).unwrap().values[0] = f32::INFINITY;
    let infinite = Snapshot::new(&infinite, PolicyVersion(2));
    let change = |change: fn(&mut Snapshot)| {
        let mut snapshot = Snapshot { digest: infinite.digest, ..sound.clone() };
        change(&mut snapshot);
        snapshot
    };
    let cases = [
        (infinite.clone(), "inf at index 0"),
        (change(|snapshot| drop(snapshot.tensors.pop())), "is missing"),
        (change(|snapshot| snapshot.tensors[3].name = "other".into()), "other is not of the model"),
        (change(|snapshot| snapshot.tensors[3] = snapshot.tensors[2].clone()), "is there twice"),
        (change(|snapshot| snapshot.tensors[3].offset = 1 << 40), "of a payload of"),
        (
            change(|snapshot| snapshot.tensors[3] = TensorPlace { shape: vec![1], bytes: 4, ..snapshot.tensors[3].clone() }),
            "the config describes",
        ),
    ];
    for (snapshot, why) in cases {
        let error = folder.write(&snapshot).unwrap_err().to_string();
        assert!(error.contains("root/generations/") && error.contains(why), "{error}");
    }
    assert_eq!((folder.newest(), files(&at("root")) == before), (Some(&kept), true));
}

#[test]
fn what_a_folder_counts_is_described_and_has_units() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let model = model(true, None);
    start(&at("start"), &model);
    let recorder = DebuggingRecorder::new();
    let seen = metrics::with_local_recorder(&recorder, || {
        hypereyes_policy::metrics::describe();
        let mut folder = open(&at("root"), &at("start"));
        folder.write(&Snapshot::new(&model.1, PolicyVersion(1))).unwrap();
        folder.write(&Snapshot::new(&changed(&model.1, "q_proj"), PolicyVersion(2))).unwrap();
        folder.retain(&[]).unwrap();
        recorder.snapshotter().snapshot().into_vec()
    });
    let of = |name: &str| {
        let (_, unit, description, _) = seen.iter().find(|(key, ..)| key.key().name() == name).expect(name);
        assert!(description.is_some(), "{name}");
        *unit
    };
    assert_eq!(of("hypereyes_policy_folder_bytes_total"), Some(Unit::Bytes));
    assert_eq!(of("hypereyes_policy_folder_write_seconds"), Some(Unit::Seconds));
    assert_eq!(of("hypereyes_policy_folder_removed_total"), None);
}
