//! Saved folders: whatever the start's folder and the target held, what is read back is what was trained.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use hypereyes_policy::checkpoint::save::{Place, keep_apart};
use hypereyes_policy::checkpoint::{self, HostTensor, HostWeights, Saver, StoredDtype};
use hypereyes_policy::config::{ExpertsConfig, ModelConfig, SmallShape};
use hypereyes_policy::init;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

const INDEX: &str = "model.safetensors.index.json";

fn model(tied: bool, experts: Option<usize>) -> (ModelConfig, HostWeights) {
    let tiny = SmallShape { width: 16, layers: 2, heads: 2, inner: 12, vision_width: 16, vision_depth: 1 };
    let mut config = tiny.model(40, 36, 37, 38);
    config.tie_word_embeddings = tied;
    config.text.experts =
        experts.map(|inner| ExpertsConfig { count: 3, per_token: 2, intermediate_size: inner, every: 1, dense_layers: vec![0] });
    let weights = init::fresh(&config, &Default::default(), 3);
    (config, weights)
}

/// Other weights of the same model, as training makes them.
fn trained(weights: &HostWeights) -> HostWeights {
    let mut trained = weights.clone();
    trained.values_mut().for_each(|tensor| tensor.values.iter_mut().for_each(|value| *value = *value * 0.5 + 0.125));
    trained
}

/// The tensors of one file in a type of its own; values are such that every type holds them.
fn file(tensors: &BTreeMap<&String, &HostTensor>, dtype: Dtype) -> Vec<u8> {
    let bytes = |value: &f32| match dtype {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
        _ => half::f16::from_f32(*value).to_le_bytes().to_vec(),
    };
    let stored: Vec<(&String, &HostTensor, Vec<u8>)> =
        tensors.iter().map(|(name, tensor)| (*name, *tensor, tensor.values.iter().flat_map(bytes).collect())).collect();
    let views = stored.iter().map(|(name, tensor, data)| (*name, TensorView::new(dtype, tensor.shape.clone(), data).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Writes a model as one of the ways in which they are published. Returns what it holds.
fn publish(random: &mut ChaCha8Rng, folder: &Path, config: &ModelConfig, weights: &HostWeights) -> Value {
    let dtype = *[Dtype::F32, Dtype::BF16, Dtype::F16].choose(random).unwrap();
    let mut weights = weights.clone();
    if config.tie_word_embeddings && random.random_bool(0.5) {
        weights.insert("lm_head.weight".into(), weights["model.language_model.embed_tokens.weight"].clone());
    }
    if random.random_bool(0.5) {
        for (_, tensor) in weights.iter_mut().filter(|(name, _)| name.contains(".mlp.experts.")) {
            *tensor = transposed(tensor);
        }
    }
    let mut json = config.to_json(StoredDtype::F32);
    if random.random_bool(0.5) {
        let text = json["text_config"].as_object_mut().unwrap();
        let mut rope = text.shift_remove("rope_parameters").unwrap();
        text.insert("rope_theta".into(), rope.as_object_mut().unwrap().shift_remove("rope_theta").unwrap());
        text.insert("rope_scaling".into(), rope);
    }
    if random.random_bool(0.3) {
        json["torch_dtype"] = json.as_object_mut().unwrap().shift_remove("dtype").unwrap();
    }
    for number in 0..random.random_range(0..5) {
        let place = ["", "/text_config", "/vision_config"].choose(random).unwrap();
        let value = [json!(262_144), json!([1, 2]), json!("text"), json!({"deep": {"er": null}}), json!(1e-6), json!(false)];
        json.pointer_mut(place).unwrap()[format!("unknown_{number}")] = value.choose(random).unwrap().clone();
    }
    put(folder, "config.json", json.to_string().as_bytes());
    let shards = random.random_range(1..=5);
    if shards == 1 {
        put(folder, "model.safetensors", &file(&weights.iter().collect(), dtype));
        return json;
    }
    let mut names: Vec<&String> = weights.keys().collect();
    names.shuffle(random);
    let mut map = serde_json::Map::new();
    for (at, part) in names.chunks(names.len().div_ceil(shards)).enumerate() {
        let shard = format!("model-{:05}-of-{shards:05}.safetensors", at + 1);
        put(folder, &shard, &file(&part.iter().map(|name| (*name, &weights[*name])).collect(), dtype));
        map.extend(part.iter().map(|name| ((*name).clone(), shard.clone().into())));
    }
    put(folder, INDEX, json!({"metadata": {"total_size": 7}, "weight_map": map}).to_string().as_bytes());
    json
}

fn transposed(tensor: &HostTensor) -> HostTensor {
    let [count, rows, columns] = tensor.shape[..] else { panic!("experts have three dimensions") };
    let at = |place: usize| {
        let (expert, column, row) = (place / (rows * columns), place / rows % columns, place % rows);
        tensor.values[(expert * rows + row) * columns + column]
    };
    HostTensor { shape: vec![count, columns, rows], values: (0..count * rows * columns).map(at).collect() }
}

/// Files that may lie beside weights, and such as hold them in any format.
const KEPT: [&str; 9] = [
    "tokenizer.json",
    "notes.txt",
    "chat_template.jinja",
    "additional_chat_templates/tool.jinja",
    "vocab.bin",
    "README.md",
    "LICENSE",
    "code/model.py",
    ".gitattributes",
];
const WEIGHTS: [&str; 12] = [
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model.bin.index.json",
    "model-00009-of-00009.safetensors",
    "model.gguf",
    "optimizer.pt",
    "adapter_config.json",
    "adapter_model.safetensors",
    "original/consolidated.00.pth",
    "consolidated.safetensors",
    "checkpoint-3/model.safetensors",
    "tf_model.h5",
];

/// Every file below a folder, by its path in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, below: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder.join(below)).unwrap().flatten() {
            let inner = below.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => walk(folder, &inner, found),
                false => drop(found.insert(inner.display().to_string(), fs::read(folder.join(&inner)).unwrap())),
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(folder, Path::new(""), &mut found);
    found
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What of the keys of one JSON is not in another with the same value.
fn lost(old: &Value, new: &Value, at: &str, found: &mut Vec<String>) {
    for (key, value) in old.as_object().into_iter().flatten() {
        let place = format!("{at}/{key}");
        match (value, new.get(key)) {
            _ if ["dtype", "torch_dtype"].contains(&key.as_str()) => {}
            (Value::Object(_), Some(inner)) => lost(value, inner, &place, found),
            (_, Some(same)) if same == value => {}
            _ => found.push(place),
        }
    }
}

#[test]
fn whatever_start_and_target_held_what_is_read_back_is_what_was_trained() {
    let kinds = [(true, None), (false, None), (true, Some(4)), (false, Some(12)), (false, Some(8)), (false, Some(16))];
    let models: Vec<_> = kinds.into_iter().map(|(tied, experts)| model(tied, experts)).collect();
    for number in 0..150u64 {
        let mut random = ChaCha8Rng::seed_from_u64(number);
        let root = tempfile::tempdir().unwrap();
        let (start, out) = (root.path().join("start"), root.path().join("out"));
        let (config, weights) = models.choose(&mut random).unwrap();
        let json = publish(&mut random, &start, config, weights);
        let some = |random: &mut ChaCha8Rng, list: &[&'static str]| -> Vec<&'static str> {
            let count = random.random_range(0..=list.len());
            list.choose_multiple(random, count).copied().collect()
        };
        let (kept, foreign) = (some(&mut random, &KEPT), some(&mut random, &WEIGHTS));
        for name in kept.iter().chain(&foreign) {
            put(&start, name, format!("of the start: {name}").as_bytes());
        }
        let (mut model, read) = checkpoint::read(&start).unwrap();
        assert_eq!(&model, config, "case {number}");
        let trained = trained(&read);
        // The target: not there, empty, the start's copy, or another model with all that such a folder may hold.
        match random.random_range(0..4) {
            0 => {}
            1 => fs::create_dir(&out).unwrap(),
            2 => files(&start).iter().for_each(|(name, bytes)| put(&out, name, bytes)),
            _ => {
                let (other, weights) = models.choose(&mut random).unwrap();
                publish(&mut random, &out, other, weights);
                some(&mut random, &WEIGHTS).iter().for_each(|name| put(&out, name, b"old"));
                put(&out, "vocab.json", b"{}");
            }
        }
        let dtype = if random.random_bool(0.5) { StoredDtype::F32 } else { StoredDtype::Bf16 };
        let shard_bytes = if random.random_bool(0.5) { 1 << 40 } else { random.random_range(1..20_000) };
        let saver = Saver::new(&out, Some(&start)).unwrap().in_shards_of(shard_bytes);
        model.clone_from(config);
        let saved = saver.save(&model, &trained, dtype).unwrap();

        let (after, got) = checkpoint::read(&out).unwrap();
        assert_eq!(after, model, "case {number}");
        let rounded = |value: &f32| if dtype == StoredDtype::F32 { *value } else { half::bf16::from_f32(*value).to_f32() };
        assert_eq!(got.keys().collect::<Vec<_>>(), trained.keys().collect::<Vec<_>>(), "case {number}");
        for (name, tensor) in &trained {
            let wanted: Vec<f32> = tensor.values.iter().map(rounded).collect();
            assert!(got[name].shape == tensor.shape && got[name].values == wanted, "case {number}: {name}");
        }
        assert_eq!(checkpoint::digest(&out).unwrap(), saved.digest, "case {number}");
        // Config, files, and nothing else.
        let written: Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        let mut gone = vec![];
        lost(&json, &written, "", &mut gone);
        assert_eq!(gone, Vec::<String>::new(), "case {number}");
        let found = files(&out);
        for name in &kept {
            assert_eq!(found[*name], format!("of the start: {name}").as_bytes(), "case {number}: {name}");
        }
        let whole = found.contains_key("model.safetensors");
        assert!(whole != found.contains_key(INDEX), "case {number}: one of the two says where the tensors are");
        let shards = found.keys().filter(|name| name.starts_with("model-")).count();
        let own = if whole { 1 } else { 1 + shards };
        assert_eq!(found.len(), kept.len() + 1 + own, "case {number}: {:?}", found.keys());
        let held: usize = found
            .iter()
            .filter(|(name, _)| name.ends_with(".safetensors"))
            .map(|(_, bytes)| SafeTensors::deserialize(bytes).unwrap().len())
            .sum();
        assert_eq!(held, trained.len(), "case {number}: each tensor once");
        // Nothing is left beside it; what belongs to no model was not deleted.
        let aside = saved.aside.map(|aside| aside.file_name().unwrap().to_str().unwrap().to_owned());
        let wanted: BTreeSet<String> = ["start", "out"].map(str::to_owned).into_iter().chain(aside).collect();
        assert_eq!(names(root.path()), wanted, "case {number}");
    }
}

/// A start of one file with a tokenizer beside it.
fn start(folder: &Path) -> (ModelConfig, HostWeights) {
    let (config, weights) = model(true, None);
    checkpoint::save(folder, None, &config, &weights, StoredDtype::F32).unwrap();
    put(folder, "tokenizer.json", b"{}");
    (config, weights)
}

#[test]
fn one_folder_under_two_names_is_refused_and_nothing_is_touched() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    start(&at("model"));
    symlink(at("model"), at("link")).unwrap();
    symlink("link", at("second")).unwrap();
    symlink(root.path(), at("here")).unwrap();
    fs::create_dir(at("model/inner")).unwrap();
    put(&at("family/child"), "config.json", &fs::read(at("model/config.json")).unwrap());
    let before = (files(&at("model")), files(&at("family")));
    for (target, from) in [
        ("model", "model"),
        ("link", "model"),
        ("model", "link"),
        ("second", "model"),
        ("here/model", "model"),
        ("model/", "model"),
        ("model/inner/..", "model"),
        ("./model", "second"),
        ("family", "family/child"),
        ("here/family", "family/child"),
    ] {
        let error = Saver::new(&at(target), Some(&at(from))).unwrap_err().to_string();
        assert!(error.contains("one folder") || error.contains("in each other"), "{target} from {from}: {error}");
    }
    symlink("nowhere", at("broken")).unwrap();
    assert!(Saver::new(&at("broken"), None).unwrap_err().to_string().contains("link to nowhere"));
    assert!(keep_apart(&at("family"), "--data", &at("family/child")).is_err());
    assert!(keep_apart(&at("family/child"), "--data", &at("family")).is_ok(), "what lies around it is not replaced");
    assert_eq!(before, (files(&at("model")), files(&at("family"))));
    assert_eq!(names(root.path()), ["broken", "family", "here", "link", "model", "second"].map(str::to_owned).into());
}

#[test]
fn a_target_within_its_start_or_of_the_same_files_takes_nothing_from_it() {
    let root = tempfile::tempdir().unwrap();
    let from = root.path().join("start");
    let (config, weights) = start(&from);
    let hard = root.path().join("hard");
    fs::create_dir(&hard).unwrap();
    for name in names(&from) {
        fs::hard_link(from.join(&name), hard.join(&name)).unwrap();
    }
    let before = files(&from);
    checkpoint::save(&hard, Some(&from), &config, &trained(&weights), StoredDtype::F32).unwrap();
    assert_eq!(files(&from), before, "a file with two names has changed under one of them only");
    let within = from.join("trained/again");
    for _ in 0..2 {
        checkpoint::save(&within, Some(&from), &config, &trained(&weights), StoredDtype::F32).unwrap();
        assert_eq!(names(&within), ["config.json", "model.safetensors", "tokenizer.json"].map(str::to_owned).into());
    }
    assert_eq!(checkpoint::read(&within).unwrap().1, trained(&weights));
    let after = files(&from);
    assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)));
}

#[test]
fn a_start_that_is_only_to_be_read_makes_no_folder_that_cannot_be_written_again() {
    let root = tempfile::tempdir().unwrap();
    let (from, out) = (root.path().join("start"), root.path().join("out"));
    let (config, weights) = start(&from);
    put(&from, "code/model.py", b"pass");
    let read_only = |folder: &Path| {
        files(folder).keys().for_each(|name| fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o444)).unwrap());
        [folder.join("code"), folder.to_owned()]
            .iter()
            .for_each(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap());
    };
    read_only(&from);
    for _ in 0..2 {
        checkpoint::save(&out, Some(&from), &config, &weights, StoredDtype::F32).unwrap();
        for name in files(&out).keys() {
            assert_eq!(fs::metadata(out.join(name)).unwrap().mode() & 0o200, 0o200, "{name} can be written");
        }
        // Whoever makes it read-only himself, as `cp -r` of a start would, can still save there.
        read_only(&out);
    }
    assert_eq!(names(root.path()), ["out", "start"].map(str::to_owned).into());
    [&from, &out].iter().for_each(|folder| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap());
}

#[test]
fn what_belongs_to_no_model_is_moved_aside_and_a_folder_of_other_things_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (from, out) = (root.path().join("start"), root.path().join("out"));
    let (config, weights) = start(&from);
    let save = || checkpoint::save(&out, Some(&from), &config, &weights, StoredDtype::F32).unwrap();
    assert_eq!(save().aside, None);
    put(&out, "my notes.txt", b"mine");
    put(&out, "checkpoint-3/model.safetensors", b"older");
    let aside = save().aside.unwrap();
    assert_eq!(files(&aside).keys().collect::<Vec<_>>(), ["checkpoint-3/model.safetensors", "my notes.txt"]);
    assert_eq!(save().aside, None);
    put(&out, "my notes.txt", b"more");
    assert_eq!(files(&save().aside.unwrap())["my notes.txt"], b"more", "the first ones are not replaced");
    assert_eq!(files(&aside)["my notes.txt"], b"mine");

    let data = root.path().join("data");
    put(&data, "tasks.jsonl", b"{}");
    let refused = |target: &Path| Saver::new(target, Some(&from)).unwrap_err().to_string();
    assert!(refused(&data).contains("holds no model, but other files (tasks.jsonl)"));
    assert!(refused(&data.join("tasks.jsonl")).contains("there is a file of that name"));
    assert!(refused(&data.join("tasks.jsonl/out")).contains("cannot be written"));
    assert!(Saver::new(Path::new("/"), None).unwrap_err().to_string().contains("no folder that could be replaced"));
    assert!(refused(Path::new("/")).contains("lie in each other"));
    assert!(refused(Path::new("/proc/self/out")).contains("cannot be written"));
    assert_eq!(files(&data).len(), 1);
}

#[test]
fn a_save_that_fails_or_is_cut_off_leaves_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    let (from, out) = (root.path().join("start"), root.path().join("out"));
    let (config, weights) = start(&from);
    let save = |weights: &HostWeights| checkpoint::save(&out, Some(&from), &config, weights, StoredDtype::F32);
    save(&weights).unwrap();
    let before = files(&out);
    let mut broken = weights.clone();
    broken.values_mut().next().unwrap().values[0] = f32::NAN;
    assert!(save(&broken).unwrap_err().to_string().contains("NaN"));
    // Half written, or damaged on its way to the disk.
    let place = Place::new(&out).unwrap();
    let failure = || hypereyes_policy::Error::Input("no space left".into());
    let written = |fresh: &Path| fs::write(fresh.join("model.safetensors"), b"half").map_err(|_| failure());
    let error = place.fill(|fresh| written(fresh).and(Err(failure())), |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("no space left") && error.contains("as it was"), "{error}");
    assert!(place.fill(written, |_| Err(failure())).is_err());
    assert_eq!((files(&out), names(root.path())), (before.clone(), ["out", "start"].map(str::to_owned).into()));

    // Killed at any moment: half a place beside it; a whole one that was not moved in; the old one that was moved out.
    let beside = |name: &str| root.path().join(name);
    put(&beside(".out.saving-01"), ".unfinished", b"");
    put(&beside(".out.saving-01"), "model.safetensors", b"half");
    save(&weights).unwrap();
    assert_eq!(names(root.path()), ["out", "start"].map(str::to_owned).into());
    for left in [".out.saving-02", ".out.old-03"] {
        fs::rename(&out, beside(left)).unwrap();
        let error = checkpoint::read(&out).unwrap_err().to_string();
        assert!(error.contains(left) && error.contains("cut off"), "{error}");
        Saver::new(&out, Some(&from)).unwrap();
        assert_eq!((files(&out), names(root.path())), (before.clone(), ["out", "start"].map(str::to_owned).into()), "{left}");
    }
    // Moved out and the new one whole: the new one counts.
    checkpoint::save(&beside("new"), Some(&from), &config, &trained(&weights), StoredDtype::F32).unwrap();
    fs::rename(&out, beside(".out.old-04")).unwrap();
    fs::rename(beside("new"), beside(".out.saving-05")).unwrap();
    Saver::new(&out, Some(&from)).unwrap();
    assert_eq!(checkpoint::read(&out).unwrap().1, trained(&weights));
    assert_eq!(names(root.path()), ["out", "start"].map(str::to_owned).into());
}

#[test]
fn a_link_stays_a_link_and_readers_and_savers_at_once_see_whole_folders() {
    let root = tempfile::tempdir().unwrap();
    let (from, real, out) = (root.path().join("start"), root.path().join("disk/real"), root.path().join("out"));
    let (config, weights) = start(&from);
    fs::create_dir_all(&real).unwrap();
    symlink(&real, &out).unwrap();
    let kinds = [weights.clone(), trained(&weights)];
    let save = |which: usize| checkpoint::save(&out, Some(&from), &config, &kinds[which], StoredDtype::F32).unwrap();
    let digests = [save(0).digest, save(1).digest];
    std::thread::scope(|scope| {
        let savers: Vec<_> = [0, 1].map(|which| scope.spawn(move || (0..15).for_each(|_| drop(save(which))))).into();
        while !savers.iter().all(|saver| saver.is_finished()) {
            let found = checkpoint::digest(&out).unwrap();
            assert!(digests.contains(&found));
        }
    });
    assert!(fs::symlink_metadata(&out).unwrap().is_symlink());
    assert_eq!(names(&root.path().join("disk")), ["real".to_owned()].into());
}

#[test]
fn readers_take_what_transformers_takes_and_an_index_that_does_not_match_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let from: PathBuf = root.path().join("start");
    let (config, weights) = start(&from);
    let sharded = root.path().join("sharded");
    Saver::new(&sharded, Some(&from)).unwrap().in_shards_of(4000).save(&config, &trained(&weights), StoredDtype::F32).unwrap();
    let shards: Vec<String> = names(&sharded).into_iter().filter(|name| name.starts_with("model-")).collect();
    assert!(shards.len() > 3, "{shards:?}");
    // A whole file beside an index that is left over: the file.
    for name in shards.iter().map(String::as_str).chain([INDEX]) {
        fs::copy(sharded.join(name), from.join(name)).unwrap();
    }
    assert_eq!(checkpoint::read(&from).unwrap().1, weights);
    // The same index without it, and with a shard that is not there, is another's, or is cut short.
    fs::remove_file(from.join("model.safetensors")).unwrap();
    assert_eq!(checkpoint::read(&from).unwrap().1, trained(&weights));
    let sound = fs::read(from.join(&shards[1])).unwrap();
    fs::remove_file(from.join(&shards[1])).unwrap();
    let error = || (checkpoint::read(&from).unwrap_err().to_string(), checkpoint::digest(&from).unwrap_err().to_string());
    assert!(error().0.contains(&shards[1]) && error().1.contains(&shards[1]), "{:?}", error());
    fs::copy(from.join(&shards[0]), from.join(&shards[1])).unwrap();
    assert!(error().0.contains("tensor"), "{:?}", error());
    fs::write(from.join(&shards[1]), &sound[..sound.len() / 2]).unwrap();
    assert!(error().0.contains("sound") && error().1.contains("sound"), "{:?}", error());
    fs::write(from.join(&shards[1]), &sound).unwrap();
    assert_eq!(checkpoint::read(&from).unwrap().1, trained(&weights));
}
