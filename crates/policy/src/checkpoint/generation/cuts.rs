//! Writes that are cut: between any two changes of the disk, and within every file. Whoever opens the folder afterwards finds one
//! version, whole, or the one before.

use std::fs;
use std::path::{Path, PathBuf};

use hypereyes_domain::PolicyVersion;

use super::steps::{Bytes, Step};
use super::{Generation, PolicyFolder, name};
use crate::checkpoint::{self, HostWeights, Snapshot, StoredDtype};
use crate::config::{ExpertsConfig, ModelConfig, SmallShape};
use crate::init;

fn model() -> (ModelConfig, HostWeights) {
    let shape = SmallShape { width: 16, layers: 2, heads: 2, inner: 12, vision_width: 16, vision_depth: 1 };
    let mut config = shape.model(40, 36, 37, 38);
    config.text.experts = Some(ExpertsConfig { count: 3, per_token: 2, intermediate_size: 12, every: 1, dense_layers: vec![0] });
    let weights = init::fresh(&config, &Default::default(), 3);
    (config, weights)
}

fn start(folder: &Path) -> HostWeights {
    let (config, weights) = model();
    checkpoint::save(folder, None, &config, &weights, StoredDtype::F32).unwrap();
    fs::create_dir(folder.join("templates")).unwrap();
    fs::write(folder.join("tokenizer.json"), b"{}").unwrap();
    fs::write(folder.join("templates/tool.jinja"), b"{{ tool }}").unwrap();
    weights
}

/// The weights with every tensor changed whose name holds `part`.
fn changed(weights: &HostWeights, part: &str) -> HostWeights {
    let mut changed = weights.clone();
    changed.iter_mut().filter(|(name, _)| name.contains(part)).for_each(|(_, tensor)| tensor.values[0] += 0.5);
    changed
}

fn open(root: &Path, start: &Path) -> PolicyFolder {
    PolicyFolder::open(root, start).unwrap().in_files_of(900)
}

/// A copy of all that is in a folder, links as links.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&source, &target),
            kind if kind.is_symlink() => std::os::unix::fs::symlink(fs::read_link(&source).unwrap(), target).unwrap(),
            _ => drop(fs::copy(&source, &target).unwrap()),
        }
    }
}

/// The one version that a folder has, if it has one; the payload is made once more of what a reader of models finds.
fn only(root: &Path, start: &Path) -> Option<Generation> {
    let folder = open(root, start);
    let there: Vec<PathBuf> = fs::read_dir(root.join("generations")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let Some(newest) = folder.newest().cloned() else {
        assert_eq!(there, Vec::<PathBuf>::new());
        assert!(fs::symlink_metadata(root.join("current")).is_err());
        return None;
    };
    assert_eq!(there, std::slice::from_ref(&newest.path));
    assert_eq!(fs::canonicalize(root.join("current")).unwrap(), fs::canonicalize(&newest.path).unwrap());
    let dtype = fs::read_to_string(newest.path.join("config.json")).unwrap().contains("bfloat16");
    let dtype = if dtype { StoredDtype::Bf16 } else { StoredDtype::F32 };
    let (_, read) = checkpoint::read(&newest.path).unwrap();
    assert_eq!(Snapshot::stored(&read, newest.version, dtype).digest, newest.digest, "the files hold what was published");
    Some(newest)
}

/// Lengths at which a file may have been cut.
fn lengths(bytes: u64) -> Vec<u64> {
    let mut lengths = vec![0, 1, 8, 100, bytes / 4, bytes / 2, bytes * 3 / 4, bytes.saturating_sub(1)];
    lengths.retain(|length| *length < bytes);
    lengths.dedup();
    lengths
}

#[test]
fn a_write_that_is_cut_anywhere_leaves_one_version_and_the_next_write_succeeds() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (from, root, left) = (at("start"), at("root"), at("left"));
    let first = start(&from);
    let snapshot = |weights: &HostWeights, version, dtype| Snapshot::stored(weights, PolicyVersion(version), dtype);
    let (exact, short) = (StoredDtype::F32, StoredDtype::Bf16);
    let cases = [
        ("the first", None, snapshot(&first, 0, exact)),
        ("every file", Some(snapshot(&first, 0, short)), snapshot(&changed(&first, ""), 1, short)),
        ("a few files", Some(snapshot(&first, 0, short)), snapshot(&changed(&first, "q_proj"), 1, short)),
        ("another type", Some(snapshot(&first, 7, exact)), snapshot(&first, 7, short)),
    ];
    let mut cuts = 0;
    for (case, before, after) in &cases {
        let _ = fs::remove_dir_all(&root);
        let mut folder = open(&root, &from);
        let before = before.as_ref().map(|before| folder.write(before).unwrap());
        let path = folder.generations().join(name(after.version, &after.digest));
        let (steps, _) = folder.plan(after, &path).unwrap();
        let mut found_after = false;
        let mut look = |what: &str| {
            let found = only(&left, &from);
            let is_after = found.as_ref().is_some_and(|found| (found.version, found.digest) == (after.version, after.digest));
            let is_before = found.as_ref().map(|found| found.digest) == before.as_ref().map(|before| before.digest);
            assert!(is_after || (is_before && !found_after), "{case}, {what}: {found:?}");
            found_after = is_after;
            cuts += 1;
        };
        for (number, step) in steps.iter().enumerate() {
            copy(&root, &left);
            look(&format!("before step {number}"));
            // Whatever was left, what was to be written can be; every file waits for the disk, so that some must do.
            if number % 8 == 0 || number + 8 > steps.len() {
                let written = open(&left, &from).write(after).unwrap();
                assert_eq!(Generation::open(&written.path).unwrap().digest, after.digest, "{case}, again after step {number}");
            }
            step.take(&mut Bytes::default()).unwrap();
            let (Step::Weights(file, _) | Step::Bytes(file, _)) = step else { continue };
            for length in lengths(fs::metadata(file).unwrap().len()) {
                copy(&root, &left);
                let torn = left.join(file.strip_prefix(&root).unwrap());
                fs::OpenOptions::new().write(true).open(&torn).unwrap().set_len(length).unwrap();
                look(&format!("{} cut at {length}", torn.display()));
            }
        }
        copy(&root, &left);
        look("at the end");
        assert!(found_after, "{case}");
    }
    assert!(cuts >= 1000, "{cuts} cuts");
}

#[test]
fn a_removal_that_is_cut_leaves_the_one_in_force() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (from, root, left) = (at("start"), at("root"), at("left"));
    let weights = start(&from);
    let mut folder = open(&root, &from);
    let older = folder.write(&Snapshot::new(&weights, PolicyVersion(0))).unwrap();
    let newer = folder.write(&Snapshot::new(&changed(&weights, "q_proj"), PolicyVersion(1))).unwrap();
    let gone = super::folder::partial(&older.path);
    let files = fs::read_dir(&older.path).unwrap().count();
    fs::rename(&older.path, &gone).unwrap();
    for _ in 0..=files {
        copy(&root, &left);
        assert_eq!(only(&left, &from).unwrap().digest, newer.digest);
        if let Some(entry) = fs::read_dir(&gone).unwrap().flatten().next() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }
}

#[test]
fn damage_is_found_in_every_file_and_the_one_before_comes_back_in_force() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (from, root, left) = (at("start"), at("root"), at("left"));
    let weights = start(&from);
    let mut folder = open(&root, &from);
    let older = folder.write(&Snapshot::new(&weights, PolicyVersion(0))).unwrap();
    let newer = folder.write(&Snapshot::new(&changed(&weights, ""), PolicyVersion(1))).unwrap();
    let names: Vec<_> = fs::read_dir(&newer.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() > 10, "{names:?}");
    for file in names.iter().filter(|name| *name != "templates") {
        let sound = fs::read(newer.path.join(file)).unwrap();
        for at in (0..sound.len()).step_by(sound.len().div_ceil(5)) {
            copy(&root, &left);
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            let damaged = left.join("generations").join(newer.path.file_name().unwrap());
            fs::write(damaged.join(file), bytes).unwrap();
            let error = Generation::open(&damaged).map(|found| (found.version, found.digest));
            assert_ne!(error.ok(), Some((newer.version, newer.digest)), "{file:?} at {at}");
            assert_eq!(only(&left, &from).unwrap().digest, older.digest, "{file:?} at {at}");
        }
    }
    // Without one before there is none, and the next write makes one.
    folder.retain(&[]).unwrap();
    drop(folder);
    fs::remove_file(newer.path.join("tokenizer.json")).unwrap();
    assert_eq!(only(&root, &from), None);
    let again = open(&root, &from).write(&Snapshot::new(&weights, PolicyVersion(2))).unwrap();
    assert_eq!(only(&root, &from).unwrap().digest, again.digest);
}
