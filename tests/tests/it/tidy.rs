//! Architecture, as tests: layers hold, the reward service is light, protobuf stays at the doors, `unsafe` has its places.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use hypereyes_tests::root;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;

/// Every crate's layer; arrows point to lower numbers only.
const LAYERS: &[(u8, &[&str])] = &[
    (1, &["hypereyes-domain", "hypereyes-outside"]),
    (2, &["hypereyes-pictures", "hypereyes-chassis", "hypereyes-collective", "hypereyes-tables"]),
    (
        3,
        &[
            "hypereyes-policy",
            "hypereyes-proto",
            "hypereyes-world",
            "hypereyes-environment",
            "hypereyes-chat",
            "hypereyes-openai",
            "hypereyes-scoring",
            "hypereyes-objective",
            "hypereyes-run",
        ],
    ),
    (
        4,
        &[
            "hypereyes-dataset",
            "hypereyes-engines",
            "hypereyes-judge",
            "hypereyes-rollout",
            "hypereyes-search",
            "hypereyes-trainer",
            "hypereyes-weights",
        ],
    ),
    (
        5,
        &[
            "hypereyes-actor",
            "hypereyes-learner",
            "hypereyes-reward-service",
            "hypereyes-teacher-service",
            "hypereyes-corpus",
            "hypereyes-synth",
            "hypereyes-eval",
            "hypereyes-miniature",
        ],
    ),
    (6, &["hypereyes-bench", "hypereyes-evaluator", "hypereyes-offline", "hypereyes-report"]),
    (7, &["hypereyes-study"]),
    (8, &["hypereyes"]),
    (9, &["hypereyes-tests", "hypereyes-kubesim", "hypereyes-standin"]),
];

/// Of what was built for this machine: nothing is fetched for it.
fn metadata() -> Value {
    let rustc = Command::new("rustc").arg("-vV").current_dir(root()).output().unwrap();
    let host = String::from_utf8_lossy(&rustc.stdout).lines().find_map(|line| Some(line.strip_prefix("host: ")?.to_owned())).unwrap();
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host];
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Normal and build dependencies of every package, by package name.
fn edges(metadata: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let mut edges = BTreeMap::<String, BTreeSet<String>>::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let targets = edges.entry(names[node["id"].as_str().unwrap()].to_owned()).or_default();
        for dependency in node["deps"].as_array().unwrap() {
            let normal = dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev");
            if normal {
                targets.insert(names[dependency["pkg"].as_str().unwrap()].to_owned());
            }
        }
    }
    edges
}

#[test]
fn layers_hold() {
    let layer: BTreeMap<&str, u8> = LAYERS.iter().flat_map(|(layer, crates)| crates.iter().map(move |name| (*name, *layer))).collect();
    let edges = edges(&metadata());
    let ours: Vec<_> = edges.keys().filter(|name| name.starts_with("hypereyes")).collect();
    assert_eq!(ours.len(), layer.len(), "every crate has a layer: {ours:?}");
    for (from, targets) in edges.iter().filter(|(name, _)| name.starts_with("hypereyes")) {
        for to in targets.iter().filter(|name| name.starts_with("hypereyes")) {
            assert!(
                layer[from.as_str()] > layer[to.as_str()],
                "{from} (layer {}) uses {to} (layer {})",
                layer[from.as_str()],
                layer[to.as_str()]
            );
        }
    }
}

#[test]
fn the_reward_service_has_no_tensor_library_in_its_tree() {
    let edges = edges(&metadata());
    let (mut seen, mut todo) = (BTreeSet::new(), vec!["hypereyes-reward-service".to_owned()]);
    while let Some(name) = todo.pop() {
        if seen.insert(name.clone()) {
            todo.extend(edges.get(&name).into_iter().flatten().cloned());
        }
    }
    assert!(seen.len() > 10);
    assert!(!seen.iter().any(|name| name.starts_with("burn") || name.starts_with("cubecl")), "burn reaches the reward service");
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && name != ".git" && name != "runs" {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = vec![];
    walk(&root(), &mut found);
    assert!(found.len() > 100);
    found
}

/// Lines of code before the tests, without comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[cfg(test)]").next().unwrap_or("").lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

/// The path to the messages in code that is no test: `v1` as a name of its own, however it is reached or renamed, or all that the
/// wire's crate has at once. Comments and texts are no code.
fn speaks_protobuf(text: &str) -> Option<String> {
    fn search(tokens: TokenStream) -> Option<String> {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.to_string() == text);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let shown =
                || tokens[at.saturating_sub(6)..tokens.len().min(at + 7)].iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            match token {
                // What an item of tests holds is passed over, up to its end.
                TokenTree::Punct(mark) if mark.as_char() == '#' && is(at + 1, "[cfg (test)]") => {
                    let ends = |token: &TokenTree| match token {
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        other => other.to_string() == ";",
                    };
                    at += tokens[at..].iter().position(ends)?;
                }
                TokenTree::Ident(name) if name == "v1" => return Some(shown()),
                TokenTree::Ident(name) if name == "hypereyes_proto" && is(at + 3, "*") => return Some(shown()),
                TokenTree::Group(group) => {
                    if let Some(found) = search(group.stream()) {
                        return Some(found);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        None
    }
    search(text.parse().expect("it compiles, so that it can be read"))
}

#[test]
fn protobuf_types_stay_at_the_doors() {
    for (path, text) in sources() {
        let relative = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        let test = relative.contains("/tests/") || relative.starts_with("tests/") || relative.contains("/examples/");
        let door = relative.starts_with("proto/") || relative == "crates/weights/src/grpc.rs" || relative.ends_with("/service.rs");
        if !test && !door {
            let leak = speaks_protobuf(&text);
            assert!(leak.is_none(), "{relative} speaks protobuf: {}", leak.unwrap_or_default());
        }
    }
}

#[test]
fn no_way_to_name_a_protobuf_type_is_missed() {
    for leak in [
        "use hypereyes_proto::{client, v1};",
        "use hypereyes_proto::{self, client::{self}, v1 as wire};",
        "use hypereyes_proto::*;",
        "fn f(tasks: Vec<v1::Task>) {}",
        "fn f(task: &v1::Task) {}",
        "fn f() { let x = [v1::Task::default()]; }",
        "macro_rules! m { () => { hypereyes_proto::v1::Task } }",
        "#[cfg(test)]\nmod tests { use hypereyes_proto::v1; }\nfn late(task: v1::Task) {}",
        "#[cfg(test)] use std::fs; use hypereyes_proto::v1;",
    ] {
        assert!(speaks_protobuf(leak).is_some(), "{leak}");
    }
    for sound in [
        "use hypereyes_proto::{client, convert};",
        "/// As [`v1::Task`] says.\nfn f() -> &'static str { \"v1::Task\" } // v1::Task",
        "#[cfg(test)]\nmod tests { use hypereyes_proto::v1; }\nfn late() {}",
        "const PACKAGE: &str = \"hypereyes.v1\"; fn build_v1() {}",
    ] {
        assert_eq!(speaks_protobuf(sound), None, "{sound}");
    }
}

#[test]
fn unsafe_code_has_no_place_yet() {
    // This file names what it looks for.
    for (path, text) in sources().into_iter().filter(|(path, _)| !path.ends_with("tidy.rs")) {
        let found = code(&text).find(|line| line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl"));
        assert!(found.is_none(), "{}: {}", path.display(), found.unwrap_or_default());
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not open with what it is for", path.display());
    }
}

/// `tests/cases/a-name` is run by a test called `case_a_name`.
#[test]
fn every_case_has_a_test_of_its_name() {
    let sources = sources();
    let mut folders = 0;
    for entry in std::fs::read_dir(root().join("tests/cases")).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let test = format!("fn case_{}()", name.replace('-', "_"));
        assert!(entry.path().join("README.md").is_file(), "tests/cases/{name} does not say what it is");
        assert!(sources.iter().any(|(_, text)| text.contains(&test)), "tests/cases/{name} has no test `{test}`");
        folders += 1;
    }
    assert!(folders > 0, "tests/cases is empty");
}
