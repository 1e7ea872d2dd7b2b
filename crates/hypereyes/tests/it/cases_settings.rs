//! Settings that cannot work are refused before anything is made, by whoever is asked: cases as people typed them.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;

use crate::support::{hypereyes, lines, run, signal, wait_for};

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases").join(name)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends with 2 and one line that mentions all of this.
fn refused(arguments: &[&str], mentions: &[&str]) -> String {
    let began = Instant::now();
    let output = run(arguments);
    let (said, seconds) = (said(&output), began.elapsed().as_secs_f64());
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    let line = said.lines().last().unwrap_or_default().to_owned();
    for word in mentions {
        assert!(line.contains(word), "{arguments:?}: {line:?} does not mention {word:?}");
    }
    println!("{seconds:.2} s  {line}");
    line
}

/// Refused by `up`, which writes nothing, by its dry run and by the doctor.
fn refused_everywhere(config: &Path, sets: &[&str], mentions: &[&str]) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run");
    let (run_dir, config) = (format!("run_dir={}", folder.display()), config.to_str().unwrap());
    for command in [&["up"][..], &["up", "--dry-run"], &["doctor"]] {
        let mut arguments = [command, &["--config", config, "--set", run_dir.as_str()]].concat();
        arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
        refused(&arguments, mentions);
    }
    assert!(!folder.exists(), "{sets:?}: nothing was made");
}

#[test]
fn case_group_larger_than_the_engine() {
    let config = case("group-larger-than-the-engine").join("up.toml");
    for size in ["40", "64"] {
        let set = format!("learner.group_size={size}");
        let would_do = format!("actor.engine.max_sequences = {}", size.parse::<u32>().unwrap() + 1);
        refused_everywhere(&config, &[&set], &["learner.group_size", &would_do, "at most 32"]);
    }
    // The cache as well, by the shape of the policy.
    refused_everywhere(&config, &["actor.engine.cache_bytes=9000000"], &["learner.group_size is 8", "actor.engine.cache_bytes = "]);
    // What would do does.
    let sized = ["learner.group_size=40", "actor.engine.max_sequences=41"];
    let arguments: Vec<&str> =
        ["up", "--dry-run", "--config", config.to_str().unwrap()].into_iter().chain(sized.iter().flat_map(|set| ["--set", *set])).collect();
    let output = run(&arguments);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn case_refused_after_the_work() {
    let case = case("refused-after-the-work");
    let lines = std::fs::read_to_string(case.join("settings.txt")).unwrap();
    let nothing = case.join("../nothing-to-learn/up.toml");
    let mut seen = 0;
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        refused_everywhere(&nothing, &[line], &[line.split('=').next().unwrap()]);
        seen += 1;
    }
    assert!(seen >= 6, "{seen} lines");
}

#[test]
fn case_nothing_to_learn() {
    let config = case("nothing-to-learn").join("up.toml");
    refused_everywhere(&config, &["up.distill=false", "learner.group_size=1"], &["learner.group_size", "nothing", "at least 2"]);
    refused_everywhere(&config, &["up.distill=false", "learner.objective.opd_only=true"], &["learner.objective.opd_only", "up.distill"]);
    refused_everywhere(&config, &["rollout.temperature=0.5"], &["rollout.temperature", "sampling.train.temperature"]);
    refused_everywhere(&config, &["rollout.top_p=0.5"], &["rollout.top_p", "sampling.train.top_p"]);
    refused_everywhere(&config, &[r#"learner.optim.groups=[{prefix="",rate=0}]"#], &["learner.optim.groups", "freezes every parameter"]);
    // With a teacher it may be meant, and is said.
    let warned = run(&["up", "--dry-run", "--config", config.to_str().unwrap(), "--set", "learner.group_size=1"]);
    assert!(warned.status.success(), "{}", said(&warned));
    assert!(said(&warned).contains("warning: learner.group_size is 1"), "{}", said(&warned));

    // A learning rate of 0 is a canary that people run: it ends well and says what it was.
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run");
    let run_dir = format!("run_dir={}", folder.display());
    let still = run(&["up", "--json", "--config", config.to_str().unwrap(), "--set", &run_dir, "--set", "learner.lr=0"]);
    assert!(still.status.success(), "{}", said(&still));
    let result: serde_json::Value = serde_json::from_slice(&still.stdout).unwrap();
    assert!(result["learned_nothing"].as_str().unwrap().contains("learning rate was 0"), "{result}");
    assert!(said(&still).contains("nothing was learned: the learning rate was 0"), "{}", said(&still));
    assert!(std::fs::read_to_string(folder.join("report.html")).unwrap().contains("nothing was learned"));
    // Groups whose rollouts were rewarded alike are counted whatever their size.
    assert!(lines(&folder.join("learner/metrics.jsonl")).iter().all(|line| line["zero_variance_groups"].is_u64()));
}

#[test]
fn case_resume_with_other_tasks() {
    let config = case("resume-with-other-tasks").join("up.toml");
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("again");
    let run_dir = format!("run_dir={}", folder.display());
    let mut up = hypereyes(&["up", "--config", config.to_str().unwrap(), "--set", &run_dir]).spawn().unwrap();
    let metrics = folder.join("learner/metrics.jsonl");
    wait_for("checkpoint after step 2", &mut up, || (lines(&metrics).len() >= 3).then_some(()));
    signal("KILL", up.id().into());
    let _ = up.wait();

    let before = std::fs::read(folder.join("config.toml")).unwrap();
    let resume = |sets: &[&str], dry: bool| {
        let mut arguments = vec!["up", "--resume", "--set", &run_dir];
        arguments.extend(sets.iter().flat_map(|set| ["--set", *set]));
        arguments.extend(dry.then_some("--dry-run"));
        arguments.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (set, mentions) in [
        ("synth.tasks=8", ["synth.tasks is 16", "the tasks are made already"]),
        ("synth.held_out=4", ["synth.held_out is 8", "the tasks are made already"]),
        ("seed=3", ["seed is 0", "the tasks are made already"]),
        ("policy=/nowhere", ["policy is", "a resumed run keeps its policy"]),
        ("teacher=/nowhere", ["teacher is", "hypereyes teacher load"]),
        ("sampling.eval.temperature=0.1", ["sampling.eval.temperature is", "measured alike"]),
    ] {
        for dry in [false, true] {
            let arguments = resume(&[set], dry);
            refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &mentions);
        }
    }
    assert_eq!(std::fs::read(folder.join("config.toml")).unwrap(), before, "nothing was written");

    // What can change is said, takes effect, and both are kept.
    let arguments = resume(&["learner.steps=5", "learner.lr=0.0001"], false);
    let went_on = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(went_on.status.success(), "{}", said(&went_on));
    let told = String::from_utf8_lossy(&went_on.stdout);
    assert!(told.contains("learner.steps = 5 (was 12)") && told.contains("learner.lr = 0.0001 (was 0.0003)"), "{told}");
    let kept =
        |number: u32| -> toml::Table { std::fs::read_to_string(folder.join(format!("attempts/{number}.toml"))).unwrap().parse().unwrap() };
    let steps = |number: u32| kept(number)["learner"]["steps"].as_integer();
    assert_eq!((steps(1), steps(2)), (Some(12), Some(5)));
    let attempts = lines(&folder.join("attempts.jsonl"));
    assert_eq!((attempts.len(), attempts[1]["changes"].as_array().unwrap().len()), (2, 2), "{attempts:?}");
    assert!(attempts[1]["step"].as_u64().unwrap() >= 2);
    let now: toml::Table = std::fs::read_to_string(folder.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!((now["synth"]["tasks"].as_integer(), now["learner"]["steps"].as_integer()), (Some(16), Some(5)));
    let result: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("result.json")).unwrap()).unwrap();
    assert_eq!(
        (result["before"]["tasks"].as_u64(), result["after"]["tasks"].as_u64(), result["steps"].as_u64()),
        (Some(8), Some(8), Some(5))
    );
    assert!(std::fs::read_to_string(folder.join("report.html")).unwrap().contains("learner.lr = 0.0001 (was 0.0003)"));
}

#[test]
fn what_is_no_run_or_of_another_version_is_one_clear_line() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run");
    let run_dir = format!("run_dir={}", folder.display());
    refused(&["up", "--resume", "--set", &run_dir], &["holds no run that could be resumed"]);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("cat.png"), "x").unwrap();
    refused(&["up", "--resume", "--set", &run_dir], &["holds no run"]);
    for (text, says) in [("seed = 1\n[learner]\ncolour = 3\n", "learner.colour"), ("not toml", "is not TOML")] {
        std::fs::write(folder.join("config.toml"), text).unwrap();
        refused(&["up", "--resume", "--set", &run_dir], &["cannot be resumed", says]);
    }
}

#[test]
fn a_teacher_of_another_vocabulary_is_refused_before_anything_is_made() {
    let scratch = tempfile::tempdir().unwrap();
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/teacher");
    let teacher = scratch.path().join("teacher");
    std::fs::create_dir(&teacher).unwrap();
    for file in std::fs::read_dir(assets).unwrap().flatten() {
        std::fs::copy(file.path(), teacher.join(file.file_name())).unwrap();
    }
    // Two words change places: as many tokens as before, other meanings.
    let path = teacher.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let swapped =
        text.replace("\"content\": \"Mexico\"", "\"content\": \"Peru?\"").replace("\"content\": \"Peru\"", "\"content\": \"Mexico\"");
    let swapped = swapped.replace("\"content\": \"Peru?\"", "\"content\": \"Peru\"");
    assert_ne!(text, swapped, "both are words of the world");
    std::fs::write(&path, swapped).unwrap();
    let set = format!("teacher={}", teacher.display());
    let config = case("nothing-to-learn").join("up.toml");
    refused_everywhere(&config, &[&set], &["teacher", "different vocabularies", "up.distill = false"]);
    let without = run(&["up", "--dry-run", "--config", config.to_str().unwrap(), "--set", &set, "--set", "up.distill=false"]);
    assert!(without.status.success(), "{}", said(&without));
}

#[test]
fn a_judge_that_does_not_answer_is_found_first_and_a_dry_run_calls_nobody() {
    let config = case("nothing-to-learn").join("up.toml");
    let config = config.to_str().unwrap();
    // A port that nobody listens at, and one where nobody ever says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for (address, says) in [(closed, "nobody listens"), (silent.local_addr().unwrap(), "within 5 s")] {
        let folder = scratch.path().join("run");
        let sets = [
            "reward_service.judge=model".to_owned(),
            "reward_service.judge_model.model=m".to_owned(),
            format!("reward_service.judge_model.url=http://{address}/v1"),
            format!("run_dir={}", folder.display()),
        ];
        let with = |command: &[&str]| -> Vec<String> {
            let sets = sets.iter().flat_map(|set| ["--set".to_owned(), set.clone()]);
            command.iter().map(|word| (*word).to_owned()).chain(["--config".to_owned(), config.to_owned()]).chain(sets).collect()
        };
        let of = |command: &[&str], mentions: &[&str]| {
            let arguments = with(command);
            refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), mentions);
        };
        of(&["up"], &["reward_service.judge_model.url", says]);
        of(&["doctor"], &["reward_service.judge_model.url", says]);
        assert!(!folder.exists(), "nothing was made");
        let arguments = with(&["up", "--dry-run"]);
        let dry = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(dry.status.success(), "{}", said(&dry));
    }
    let key = ["reward_service.judge=model", "reward_service.judge_model.model=m", "reward_service.judge_model.url=http://127.0.0.1:1/v1"];
    let mut arguments =
        vec!["up", "--dry-run", "--config", config, "--set", "reward_service.judge_model.api_key_env=NO_SUCH_VARIABLE_HERE"];
    arguments.extend(key.iter().flat_map(|set| ["--set", *set]));
    refused(&arguments, &["reward_service.judge_model.api_key_env", "NO_SUCH_VARIABLE_HERE"]);
}

#[test]
fn demonstrations_of_another_tokenizer_are_refused_and_those_that_do_not_say_are_read_back() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let data = path("data");
    let made = run(&["synth", "--out", &data, "--set", "synth.tasks=4"]);
    assert!(made.status.success(), "{}", said(&made));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy").display().to_string();
    let sft = |model: &str, out: &str| run(&["sft", "--data", &data, "--model", model, "--out", &path(out), "--set", "sft.steps=1"]);
    // The same words in another order: a tokenizer of its own.
    let other = path("other");
    std::fs::create_dir(&other).unwrap();
    for file in std::fs::read_dir(&own).unwrap().flatten() {
        std::fs::copy(file.path(), Path::new(&other).join(file.file_name())).unwrap();
    }
    let tokenizer = Path::new(&other).join("tokenizer.json");
    let text = std::fs::read_to_string(&tokenizer).unwrap();
    let renamed = [("What is the ", "Where is it "), ("Which one has ", "Which ones do ")];
    let text = renamed.iter().fold(text, |text, (from, to)| {
        let (from, to) = (format!("\"content\": \"{from}\""), format!("\"content\": \"{to}\""));
        assert!(text.contains(&from));
        text.replace(&from, &to)
    });
    std::fs::write(&tokenizer, text).unwrap();
    let refused = |model: &str| {
        let refused = sft(model, "refused");
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        assert!(said(&refused).contains("made with another tokenizer"), "{}", said(&refused));
        assert!(!Path::new(&path("refused")).exists());
    };
    refused(&other);

    let trained = sft(&own, "trained");
    assert!(trained.status.success() && !said(&trained).contains("warning"), "{}", said(&trained));
    // A set of before it was said: read back.
    std::fs::remove_file(Path::new(&data).join("about.json")).unwrap();
    let told = sft(&own, "told");
    assert!(told.status.success() && said(&told).contains("does not say which tokenizer made it"), "{}", said(&told));
    refused(&other);
}
