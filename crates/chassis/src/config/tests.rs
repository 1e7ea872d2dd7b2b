//! What users of the configuration rely on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(deny_unknown_fields, default)]
struct Run {
    name: String,
    seed: u64,
    learner: Learner,
    backend: Backend,
    labels: BTreeMap<String, String>,
    announce: Option<PathBuf>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct Learner {
    lr: f64,
    group_size: usize,
    betas: Vec<f64>,
    resume: Option<String>,
}

impl Settings for Run {
    fn moved() -> Vec<Moved> {
        let own = vec![Moved::gone("rate", "every learner has its own")];
        own.into_iter().chain(Moved::under("learner", vec![Moved::to("learning_rate", "lr"), Moved::to("adam", "betas")])).collect()
    }
}

impl Default for Learner {
    fn default() -> Self {
        Self { lr: 1e-6, group_size: 8, betas: vec![0.9, 0.95], resume: None }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Backend {
    Local { threads: usize },
    Remote { url: String },
}

impl Default for Backend {
    fn default() -> Self {
        Self::Local { threads: 2 }
    }
}

fn toml_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("it can be written");
    file
}

fn load_all(file: Option<&str>, env: &[(&str, &str)], sets: &[&str]) -> Result<Run, ConfigError> {
    let file = file.map(toml_file);
    let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load_from(Run::default(), file.as_ref().map(|file| file.path()), "HYPEREYES", env, &sets)
}

fn problems(result: Result<Run, ConfigError>) -> Vec<Problem> {
    match result {
        Err(ConfigError::Problems(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn later_layers_win_key_by_key() {
    let file = "name = 'file'\nseed = 1\n[learner]\nlr = 1e-5\ngroup_size = 4\n";
    let env = [("HYPEREYES__LEARNER__LR", "2e-5"), ("HYPEREYES__SEED", "2")];
    let run = load_all(Some(file), &env, &["seed=3", "learner.betas=[0.5]"]).expect("all is well");
    let learner = Learner { lr: 2e-5, group_size: 4, betas: vec![0.5], resume: None };
    assert_eq!(run, Run { name: "file".into(), seed: 3, learner, ..Run::default() });
}

#[test]
fn nothing_said_means_defaults() {
    assert_eq!(load_all(None, &[], &[]).expect("defaults are sound"), Run::default());
}

#[test]
fn keys_without_a_default_value_can_be_set() {
    let run = load_all(Some("announce = '/tmp/a'"), &[("HYPEREYES__LEARNER__RESUME", "latest")], &[]).expect("both keys exist");
    assert_eq!((run.announce, run.learner.resume), (Some(PathBuf::from("/tmp/a")), Some("latest".into())));
}

#[test]
fn text_that_reads_as_a_number_stays_text_where_text_is_wanted() {
    let run =
        load_all(None, &[("HYPEREYES__NAME", "1e3")], &["announce=2024-01-01", "learner.resume=007", "labels.zone=1"]).expect("texts");
    assert_eq!(run.name, "1e3");
    assert_eq!(run.announce, Some(PathBuf::from("2024-01-01")));
    assert_eq!(run.learner.resume.as_deref(), Some("007"));
    assert_eq!(run.labels["zone"], "1");
}

#[test]
fn whole_numbers_are_fine_where_fractions_are_wanted() {
    assert_eq!(load_all(None, &[], &["learner.lr=1"]).expect("1 is a number").learner.lr, 1.0);
}

#[test]
fn an_unknown_key_is_named_with_its_layer_and_the_nearest_key() {
    let found = problems(load_all(None, &[], &["learner.gruop_size=4"]));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].key, "learner.gruop_size");
    assert_eq!(found[0].layer, "--set learner.gruop_size=4");
    assert_eq!(found[0].suggestion.as_deref(), Some("learner.group_size"));

    let found = problems(load_all(None, &[("HYPEREYES__LEARNR__LR", "1")], &[]));
    assert_eq!((found[0].key.as_str(), found[0].layer.as_str()), ("learnr", "environment HYPEREYES__LEARNR__LR"));
    assert_eq!(found[0].suggestion.as_deref(), Some("learner"));
}

#[test]
fn a_key_in_the_wrong_table_is_found_in_the_right_one() {
    let found = problems(load_all(None, &[], &["lr=1e-5"]));
    assert_eq!(found[0].suggestion.as_deref(), Some("learner.lr"));
}

#[test]
fn a_former_key_is_refused_with_the_key_of_today() {
    let said = |set: &str| problems(load_all(None, &[], &[set]))[0].to_string();
    assert_eq!(
        said("learner.learning_rate=1e-5"),
        "learner.learning_rate (from --set learner.learning_rate=1e-5): is called learner.lr now"
    );
    // A table that is gone is named, whatever of it was said.
    assert_eq!(said("learner.adam.beta1=0.5"), "learner.adam (from --set learner.adam.beta1=0.5): is called learner.betas now");
    assert_eq!(said("rate=1"), "rate (from --set rate=1): is no key any more: every learner has its own");
    let found = problems(load_all(Some("rate = 1\n[learner]\nlearning_rate = 2"), &[("HYPEREYES__LEARNER__ADAM", "1")], &[]));
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn all_mistakes_of_all_layers_are_one_error() {
    let file = "nmae = 'x'\nseed = 'many'\n[learner]\nlr = 'fast'\nmomentum = 0.9\n";
    let error = load_all(Some(file), &[("HYPEREYES__SEEED", "1")], &["learner.lr=slow", "nonsense"]).expect_err("much is wrong");
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    let found = problems(Err(error));
    let mut keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["", "learner.lr", "learner.lr", "learner.momentum", "nmae", "seed", "seeed"], "{text}");
    for problem in &found {
        assert!(text.contains(&problem.layer), "{text}");
    }
}

#[test]
fn a_wrong_type_is_named_with_what_was_expected() {
    let found = problems(load_all(None, &[], &["learner.group_size=-1"]));
    assert_eq!(found[0].key, "learner.group_size");
    let found = problems(load_all(None, &[], &["learner.lr=fast"]));
    assert!(found[0].message.contains("fast") && found[0].message.contains("f64"), "{}", found[0].message);
    let found = problems(load_all(None, &[], &["learner.betas=[1, 'x']"]));
    assert_eq!(found[0].key, "learner.betas");
    let found = problems(load_all(None, &[], &["learner=5"]));
    assert_eq!(found[0].key, "learner");
}

#[test]
fn choosing_another_variant_drops_the_defaults_of_the_first() {
    let run = load_all(Some("[backend]\nkind = 'remote'\nurl = 'http://x'"), &[], &[]).expect("a whole variant");
    assert_eq!(run.backend, Backend::Remote { url: "http://x".into() });
    let run = load_all(None, &[], &["backend={kind='remote', url='http://y'}", "backend.url=http://z"]).expect("in two steps");
    assert_eq!(run.backend, Backend::Remote { url: "http://z".into() });
    let found = problems(load_all(Some("[backend]\nkind = 'remote'\nurll = 'http://x'"), &[], &[]));
    assert!(found.iter().any(|problem| problem.key == "backend.urll"), "{found:?}");
}

#[test]
fn broken_files_are_reported_by_name_and_line() {
    let found = problems(load_all(Some("seed = 1\nname = \n"), &[], &[]));
    assert!(found[0].message.contains("line 2"), "{}", found[0].message);
    let missing = load_from(Run::default(), Some(Path::new("/nonexistent/run.toml")), "HYPEREYES", [], &[]);
    assert!(problems(missing)[0].to_string().contains("/nonexistent/run.toml"));
}

#[test]
fn settings_come_through_a_pipe_that_a_shell_hands_over_and_through_no_other() {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    // What `--config <(make settings)` is to this process.
    let through = |text: &str| {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let text = text.to_owned();
        let writing = std::thread::spawn(move || {
            // Whoever reads may have had enough.
            let _ = writer.write_all(text.as_bytes());
        });
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        let read = load_from(Run::default(), Some(&path), "HYPEREYES", [], &[]);
        drop(reader);
        writing.join().expect("no panic");
        read
    };
    assert_eq!(through("seed = 7\n").expect("sound").seed, 7);
    let long = format!("name = '{}'\n", "x".repeat(MAX_FILE_BYTES as usize));
    assert!(problems(through(&long))[0].message.contains("bytes"), "it ends at the limit of files");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("a pipe");
    let named = load_from(Run::default(), Some(&path), "HYPEREYES", [], &[]);
    assert!(problems(named)[0].message.contains("is a pipe"), "nobody may ever write into it");
}

#[test]
fn a_dump_can_be_loaded_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run.toml");
    let run = Run { name: "again".into(), seed: 9, labels: BTreeMap::from([("a".into(), "b".into())]), ..Run::default() };
    dump(&run, &path).expect("the folder exists");
    assert_eq!(load_from(Run::default(), Some(&path), "HYPEREYES", [], &[]).expect("it was just written"), run);
    assert!(dump(&run, Path::new("/nonexistent/run.toml")).is_err());
}
