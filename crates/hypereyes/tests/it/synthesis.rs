//! Tasks and demonstrations by models that are served, as users make them: `synth` with `--tasks`, `--triples` and `--entities`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hypereyes_miniature::shipped::Shipped;
use hypereyes_pictures::RgbImage;
use hypereyes_standin::{Dialect, Options, Standin};
use serde_json::{Value, json};

use crate::chat_endpoint::refused;
use crate::chat_endpoint::server::{Asked, Reply, Server};
use crate::support::{self, lines, wait_for};

/// Settings with which a dialogue of a large model fits in.
const LARGE: [&str; 4] = ["--set", "rollout.max_context_tokens=38000", "--set", "rollout.max_turn_tokens=1524"];
/// Nobody waits long for a server that fails.
const HASTY: [&str; 2] = ["--set", "rollout.turn_timeout_s=4"];
const SMALL: [&str; 6] = ["--set", "synth.max_budget=3", "--set", "synth.samples=2", "--set", "synth.served.again=1"];

async fn run(arguments: &[&str]) -> Output {
    let mut command = support::hypereyes(arguments);
    command.env_remove("OPENAI_API_KEY");
    tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A folder of textual tasks; each question says how the explorer below goes about it.
fn tasks(folder: &Path, questions: &[&str]) {
    let task = |(at, question): (usize, &&str)| {
        let task = json!({"id": format!("t{at}"), "kind": "own", "question": question, "answers": ["Mexico"], "metadata": {"row": at}});
        format!("{task}\n")
    };
    std::fs::create_dir_all(folder).expect("made");
    std::fs::write(folder.join("tasks.jsonl"), questions.iter().enumerate().map(task).collect::<String>()).expect("written");
}

fn policy(folder: &Path) -> PathBuf {
    let policy = folder.join("policy");
    std::fs::create_dir_all(&policy).expect("made");
    Shipped::Policy.unpack(&policy).expect("the shipped policy");
    policy
}

fn told(asked: &Asked) -> String {
    let content = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
    asked.body["messages"].as_array().into_iter().flatten().map(content).collect::<Vec<_>>().join("\n")
}

/// An explorer that searches as often as it is told it may, and is right from the budget on that the question names; `ill` fails as long
/// as it is to.
fn explorer(ill: Arc<AtomicBool>) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    move |asked| {
        if asked.body.is_null() {
            return Reply::Json(json!({"object": "list", "data": [{"id": "the-model"}]}));
        }
        let (told, messages) = (told(asked), asked.body["messages"].as_array().map_or(0, Vec::len));
        if told.contains("(ill)") && ill.load(Ordering::SeqCst) {
            return Reply::refuse(500, "down");
        }
        if told.contains("(prose)") {
            return Reply::say("I believe that it is Mexico, but I am not sure.");
        }
        let budget = if told.contains("You have one call in all") {
            1
        } else {
            told.split("You have ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
        };
        // System, question, and two messages for every call.
        let calls = (messages - 2) / 2;
        if calls < budget && !told.contains("(guess)") {
            return Reply::Message(
                json!({"role": "assistant", "content": "Both at once.", "tool_calls": [{"id": "c", "type": "function", "function": {
                    "name": "text_search", "arguments": json!({"input": [format!("currency {calls}"), "Peru currency"]}).to_string(),
                }}]}),
                "tool_calls",
            );
        }
        let from = (1..=9).find(|from| told.contains(&format!("(from {from})"))).unwrap_or(99);
        Reply::say(if budget >= from || told.contains("(guess)") { "So.<answer>mexico</answer>" } else { "<answer>Peru</answer>" })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_right_and_shortest_is_kept_and_its_yield_is_exact() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (given, out, policy) = (scratch.path().join("given"), scratch.path().join("out"), policy(scratch.path()));
    tasks(&given, &["Who? (from 1)", "Who? (from 2)", "Who? (from 9)", "Who? (prose)", "Who? (guess)", "Who? (ill) (from 1)"]);
    let ill = Arc::new(AtomicBool::new(true));
    let server = Server::start(explorer(ill.clone())).await;
    let command = [
        "synth",
        "--tasks",
        text(&given),
        "--model",
        text(&policy),
        "--engine",
        "openai",
        "--url",
        &server.url,
        "--out",
        text(&out),
        "--json",
    ];
    let all = [&command[..], &LARGE, &SMALL, &["--set", "synth.served.prompt_usd=2", "--set", "synth.served.completion_usd=10"]].concat();
    let output = run(&[&all[..], &HASTY].concat()).await;
    let line = said(&output);
    assert!(output.status.code() == Some(1) && line.contains("1 tasks of 6 failed for reasons outside") && line.contains("t5"), "{line}");
    let first = report(&output);
    assert_eq!(
        [&first["kept"], &first["unsolved"], &first["failed"], &first["open"], &first["known_by_heart"]].map(Value::as_u64),
        [2, 3, 1, 0, 0].map(Some)
    );
    let rows: Vec<[Option<f64>; 8]> = first["budgets"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| ["tried", "attempts", "right", "wrong", "no_answer", "unsearched", "share", "rounds"].map(|key| row[key].as_f64()))
        .collect();
    // Under each budget two tries: t0 is right at its first; t1 at its first under 2; t2 is wrong, t3 says prose, t4 guesses for ever.
    assert_eq!(rows[0], [Some(5.0), Some(9.0), Some(1.0), Some(4.0), Some(2.0), Some(2.0), Some(0.2), Some(1.0)]);
    assert_eq!(rows[1], [Some(4.0), Some(7.0), Some(1.0), Some(2.0), Some(2.0), Some(2.0), Some(0.4), Some(2.0)]);
    assert_eq!(rows[2], [Some(3.0), Some(6.0), Some(0.0), Some(2.0), Some(2.0), Some(2.0), Some(0.4), None]);
    assert_eq!((&first["budgets"][1]["searches"], &first["model"]), (&json!(4.0), &json!(format!("the-model at {}", server.url))));
    let (sent, told_tokens) = (first["bill"]["sent"].as_f64().expect("a number"), first["bill"]["said"].as_f64().expect("a number"));
    assert!((first["usd"].as_f64().expect("a number") - (2.0 * sent + 10.0 * told_tokens) / 1e6).abs() < 1e-12, "{first}");
    // Every answer of the server is 100 tokens sent and 10 said, and everybody is paid for once.
    let answers = server.asked().iter().filter(|asked| !asked.body.is_null() && !told(asked).contains("(ill)")).count() as f64;
    assert_eq!((sent, told_tokens), (100.0 * answers, 10.0 * answers));

    let kept = lines(&out.join("tasks.jsonl"));
    assert_eq!(kept.iter().map(|task| task["id"].as_str().expect("an id")).collect::<Vec<_>>(), ["t0", "t1"]);
    assert_eq!(
        kept.iter().map(|task| &task["reference"]).collect::<Vec<_>>(),
        [&json!({"rounds": 1, "searches": 2}), &json!({"rounds": 2, "searches": 4})]
    );
    assert_eq!(kept[1]["metadata"]["row"], 1, "what came with a task stays with it");
    let demonstrations = lines(&out.join("demonstrations.jsonl"));
    assert_eq!(demonstrations.len(), 2);
    let trajectory = &demonstrations[1]["trajectory"];
    let response = trajectory["response"].as_array().expect("tokens").len();
    assert!(response > 20 && trajectory["mask"].as_array().map(Vec::len) == Some(response) && trajectory["spoken"].is_null());
    assert!(trajectory["logprobs"].as_array().expect("numbers").iter().all(|logprob| logprob.as_f64() == Some(0.0)));
    let written = lines(&out.join("written.jsonl"));
    assert_eq!(written.len(), 9 + 7 + 6 + 2, "every try that was played, and the two that failed");
    assert!(
        written.iter().all(|one| one["purpose"] == "explore" && one["model"].as_str().is_some_and(|model| model.starts_with("the-model")))
    );
    assert!(written.iter().any(|one| one["turns"][0].as_str().is_some_and(|turn| turn.contains("Both at once."))));

    // The same command, with more patience: only what failed is asked for, and the set becomes whole.
    ill.store(false, Ordering::SeqCst);
    let before = server.count();
    let output = run(&all).await;
    assert!(output.status.success(), "{}", said(&output));
    let second = report(&output);
    assert_eq!((&second["kept"], &second["failed"], &second["unsolved"]), (&json!(3), &json!(0), &json!(3)));
    assert!(server.asked()[before..].iter().all(|asked| asked.body.is_null() || told(asked).contains("(ill)")), "nobody is asked twice");
    let output = run(&all).await;
    assert_eq!((output.status.code(), report(&output)["kept"].as_u64()), (Some(0), Some(3)));

    // A cold start learns from it, whoever explored.
    let cold = scratch.path().join("cold");
    let steps = ["--set", "sft.steps=2", "--set", "sft.batch_tokens=2048", "--json"];
    let output = run(&[&["sft", "--data", text(&out), "--model", text(&policy), "--out", text(&cold)][..], &steps].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    let trained = report(&output);
    assert!(trained["last"]["sequences"].as_u64() > trained["last"]["passes"].as_u64(), "short demonstrations share passes: {trained}");

    // Other terms are another folder's.
    refused(&run(&[&all[..], &["--set", "synth.samples=4"]].concat()).await, &["--out", "other terms", "synth.samples is 4 and was 2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_goes_on_and_pays_for_nothing_twice() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (given, policy) = (scratch.path().join("given"), policy(scratch.path()));
    let questions: Vec<String> = (0..8).map(|at| format!("Who is number {at}? (from {})", 1 + at % 3)).collect();
    tasks(&given, &questions.iter().map(String::as_str).collect::<Vec<_>>());
    let explore = explorer(Arc::default());
    let server = Server::start(move |asked| Reply::Slow(Duration::from_millis(60), Box::new(explore(asked)))).await;
    let command = |out: &Path| -> Vec<String> {
        let command =
            ["synth", "--tasks", text(&given), "--model", text(&policy), "--engine", "openai", "--url", &server.url, "--out", text(out)];
        [&command[..], &LARGE, &SMALL, &["--set", "synth.served.concurrency=2"]].concat().into_iter().map(str::to_owned).collect()
    };
    let whole = scratch.path().join("whole");
    let arguments = command(&whole);
    let output = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(output.status.success(), "{}", said(&output));
    let out = scratch.path().join("cut");
    let mut done: Vec<String> = vec![];
    for kill in 1..=3 {
        let (out, arguments, before) = (out.clone(), command(&out), server.count());
        let known = done.clone();
        let more = known.len();
        done = tokio::task::spawn_blocking(move || {
            let mut child = support::hypereyes(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).spawn().expect("starts");
            let ids = || {
                lines(&out.join("attempts.jsonl")).iter().map(|line| line["task"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
            };
            let done = wait_for("a task", &mut child, || Some(ids()).filter(|ids| ids.len() > more));
            child.kill().expect("killed");
            child.wait().expect("gone");
            done
        })
        .await
        .expect("no panic");
        for id in &known {
            let again = server.asked()[before..].iter().filter(|asked| told(asked).contains(&format!("number {}?", &id[1..]))).count();
            assert_eq!(again, 0, "{id} was done with before kill {kill}");
        }
    }
    let before = server.count();
    let arguments = command(&out);
    let output = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(output.status.success(), "{}", said(&output));
    for id in &done {
        let again = server.asked()[before..].iter().filter(|asked| told(asked).contains(&format!("number {}?", &id[1..]))).count();
        assert_eq!(again, 0, "{id} was done with");
    }
    for file in ["tasks.jsonl", "demonstrations.jsonl", "about.json"] {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(file)).expect(file);
        assert_eq!(read(&out), read(&whole), "{file} is as if nobody had been killed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_teacher_behind_vllm_demonstrates_in_the_tokens_of_its_family() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let teacher = scratch.path().join("teacher");
    std::fs::create_dir_all(&teacher).expect("made");
    Shipped::Teacher.unpack(&teacher).expect("the shipped teacher");
    let server = Standin::start(Options::new(&teacher, Dialect::Vllm)).await.expect("serves");
    let (out, policies) = (scratch.path().join("out"), scratch.path().join("policies"));
    let folder = format!("engine.policy_folder={}", text(&policies));
    let command =
        ["synth", "--model", text(&teacher), "--engine", "vllm", "--url", server.url(), "--out", text(&out), "--json", "--set", &folder];
    let small =
        ["--set", "synth.tasks=6", "--set", "synth.max_budget=4", "--set", "synth.samples=2", "--set", "synth.layers={first=1,count=2}"];
    let output = run(&[&command[..], &small].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    let made = report(&output);
    let kept = made["kept"].as_u64().expect("a number");
    assert!(kept >= 2 && kept + made["unsolved"].as_u64().expect("a number") == 6, "{made}");
    let demonstrations = lines(&out.join("demonstrations.jsonl"));
    assert_eq!(demonstrations.len() as u64, kept);
    for (task, one) in lines(&out.join("tasks.jsonl")).iter().zip(&demonstrations) {
        assert_eq!(task["reference"]["rounds"].as_u64(), one["trajectory"]["rounds"].as_array().map(|rounds| rounds.len() as u64));
    }
    let output = run(&[
        "sft",
        "--data",
        text(&out),
        "--model",
        text(&teacher),
        "--out",
        text(&scratch.path().join("cold")),
        "--set",
        "sft.steps=1",
        "--json",
    ])
    .await;
    assert!(output.status.success(), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_in_a_line_that_names_it() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (given, out) = (scratch.path().join("given"), scratch.path().join("out"));
    tasks(&given, &["Who? (from 1)"]);
    let (given, out) = (text(&given), text(&out));
    let engine = ["--engine", "openai", "--url", "http://127.0.0.1:1/v1"];
    let with = |more: &[&str]| [&["synth", "--out", out][..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let cases: [(Vec<String>, &[&str]); 13] = [
        (with(&[&["--tasks", given][..], &engine].concat()), &["--model", "tokenizer"]),
        (with(&["--tasks", given]), &["--model", "local"]),
        (with(&["--tasks", given, "--explorer", "scripted"]), &["--tasks", "--explorer engine"]),
        (with(&["--explorer", "scripted", "--model", given]), &["--model", "--explorer scripted"]),
        (with(&[&["--set", "synth.max_budget=9"][..], &engine].concat()), &["synth.max_budget is 9", "rollout.env.max_rounds = 8"]),
        (with(&[&["--set", "rollout.env.box_units=pixels"][..], &engine].concat()), &["rollout.env.box_units", "engine.kind is openai"]),
        (with(&[&["--need-search", "p", "--explorer", "engine"][..], &engine].concat()), &["--need-search", "leave the folder out"]),
        (with(&[&["--tasks", given, "--out", given, "--model", given][..], &engine].concat()), &["--out"]),
        (with(&["--entities", given]), &["--entities", "--engine openai"]),
        (with(&["--triples", given, "--reword"]), &["--reword", "--engine openai"]),
        (with(&[&["--triples", given][..], &engine].concat()), &["--reword"]),
        (with(&["--triples", given]), &["given"]),
        (with(&["--tasks", given, "--triples", given]), &["--triples"]),
    ];
    for (arguments, mentions) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = run(&arguments).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(mentions.iter().all(|word| said.contains(word)), "{arguments:?}: {said}");
    }
    let policy = policy(scratch.path());
    let output = run(&[&["synth", "--tasks", given, "--model", text(&policy), "--out", given][..], &engine].concat()).await;
    refused(&output, &["--out is the folder of --tasks"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn triples_become_tasks_that_a_model_may_word() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (file, out) = (scratch.path().join("facts.tsv"), scratch.path().join("out"));
    let mut facts = String::from("no triple\n");
    for at in 0..30 {
        facts.push_str(&format!("person {at}\tmother\tperson {}\nperson {at}\tborn in\ttown {}\n", (at * 7 + 3) % 30, (at * 11) % 13));
        facts.push_str(&format!("person {at}\ttrade\ttrade {}\n", at % 5));
    }
    std::fs::write(&file, facts).expect("written");
    let command = ["synth", "--triples", text(&file), "--out", text(&out), "--set", "synth.tasks=12", "--json"];
    let output = run(&command).await;
    assert!(output.status.success(), "{}", said(&output));
    let made = report(&output);
    assert_eq!((&made["tasks"], &made["triples"], &made["refused"][0]["line"]), (&json!(12), &json!(90), &json!(1)));
    assert!(said(&output).contains("line 1: it has 1 columns"), "{}", said(&output));
    let first = std::fs::read_to_string(out.join("tasks.jsonl")).expect("written");
    assert!(run(&command).await.status.success());
    assert_eq!(std::fs::read_to_string(out.join("tasks.jsonl")).expect("written"), first, "one seed, one set");
    // Words of a model: every second question well, the others without a name.
    let server = Server::start(|asked| {
        if asked.body.is_null() {
            return Reply::Json(json!({"data": [{"id": "writer"}]}));
        }
        let order: Value = serde_json::from_str(asked.body["messages"][1]["content"].as_str().expect("a text")).expect("JSON");
        let question = order["question"].as_str().expect("a question");
        let is_walk = question.contains("mother of");
        Reply::say(&json!({"question": if is_walk { format!("Please: {question}") } else { "Who?".to_owned() }}).to_string())
    })
    .await;
    let output = run(&[&command[..], &["--reword", "--engine", "openai", "--url", &server.url]].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    let made = report(&output);
    let tasks = lines(&out.join("tasks.jsonl"));
    let please = tasks.iter().filter(|task| task["question"].as_str().is_some_and(|question| question.starts_with("Please: "))).count();
    assert!(
        please > 0 && made["reworded"]["reworded"] == please && made["reworded"]["kept"]["it leaves out a name"] == 12 - please,
        "{made}"
    );
    assert!(!lines(&out.join("written.jsonl")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn named_pictures_become_tasks_that_have_no_shortcut() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (folder, out) = (scratch.path().join("photos"), scratch.path().join("out"));
    std::fs::create_dir_all(&folder).expect("made");
    for (at, name) in ["Ant", "Bee", "Cat", "Dog", "Eel", "Fox"].iter().enumerate() {
        RgbImage::new(80 + 10 * at as u32, 60).save(folder.join(format!("{name}.png"))).expect("written");
        std::fs::write(folder.join(format!("{name}.txt")), format!("It weighs {at} pounds. It is {} years old.", 10 + at))
            .expect("written");
    }
    std::fs::write(folder.join("Ghost.txt"), "Nobody has a picture.").expect("written");
    // What it writes depends on who is meant: of an ant nothing but prose, of a bee a question that names it first, of a cat one that is
    // answered from the names, of a dog one of which a constraint suffices.
    let server = Server::start(|asked| {
        if asked.body.is_null() {
            return Reply::Json(json!({"data": [{"id": "writer"}]}));
        }
        let messages = asked.body["messages"].as_array().expect("messages");
        let order = messages[1]["content"].as_str().expect("a text");
        let data: Value = serde_json::from_str(order.split("\n\n").next().expect("data")).expect("JSON");
        if let Some(target) = data["target"].as_str() {
            let names = messages.len() == 2 && target == "Bee";
            let question =
                format!("Which heavy old one is meant, number {}?", target.len() + target.bytes().map(usize::from).sum::<usize>());
            let question = if names { "Is it the bee?".to_owned() } else { question };
            let attribute = order.contains("one more thing that is known");
            let known = data["things"].as_array().expect("things").iter().find(|one| one["name"] == target).expect("it")["known"].as_str();
            let answer = if attribute { known.and_then(|known| known.split(' ').nth(2)).expect("pounds") } else { target };
            let constraints = json!([format!("heavy as {}", &target[..1]), "old"]);
            return if target == "Ant" {
                Reply::say("What a nice picture!")
            } else {
                Reply::say(&json!({"constraints": constraints, "question": question, "answer": answer}).to_string())
            };
        }
        let knows = |name: &str| data["things"].as_array().expect("things").iter().any(|one| one == name || one["name"] == name);
        let number = |name: &str| name.len() + name.bytes().map(usize::from).sum::<usize>();
        let by_name = data["question"].as_str().is_some_and(|question| question.contains(&number("Cat").to_string())) && knows("Cat");
        let by_one = data["constraint"] == "heavy as D";
        let answer = if by_name {
            "Cat"
        } else if by_one {
            "Dog"
        } else {
            "unknown"
        };
        Reply::say(&json!({"answer": answer}).to_string())
    })
    .await;
    let command = ["synth", "--entities", text(&folder), "--engine", "openai", "--url", &server.url, "--out", text(&out), "--json"];
    let small = [
        "--set",
        "synth.tasks=30",
        "--set",
        "synth.entities.attributes=0",
        "--set",
        "synth.entities.replies=2",
        "--set",
        "synth.entities.constraints=[2, 2]",
    ];
    let output = run(&[&command[..], &small].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    let made = report(&output);
    let count = |key: &str| made["dropped"][key].as_u64().unwrap_or(0);
    assert_eq!(
        (made["entities"].as_u64(), made["tried"].as_u64(), made["refused"][0]["file"].as_str()),
        (Some(6), Some(30), Some("Ghost.txt"))
    );
    assert!(count("no_question") > 0 && count("names_only") > 0 && count("one_constraint") > 0, "{made}");
    let tasks = lines(&out.join("tasks.jsonl"));
    assert_eq!(tasks.len() as u64 + count("no_question") + count("names_only") + count("one_constraint"), 30);
    let targets: BTreeMap<&str, usize> = tasks.iter().fold(BTreeMap::new(), |mut counts, task| {
        *counts.entry(task["answers"][0].as_str().expect("an answer")).or_default() += 1;
        counts
    });
    assert!(targets.contains_key("Bee") && !["Ant", "Cat", "Dog"].iter().any(|name| targets.contains_key(name)), "{targets:?}");
    for task in &tasks {
        let shown = task["shown"].as_array().expect("who is shown");
        assert!((2..=6).contains(&shown.len()) && shown.iter().any(|one| one["entity"] == task["answers"][0]));
        assert!(out.join("pictures").join(format!("{}.png", task["pictures"][0].as_str().expect("an id"))).is_file());
        assert!(task["metadata"]["writer"].as_str().is_some_and(|writer| writer.starts_with("writer at")));
    }
    // Nobody is asked again, and more of them are made with a larger number.
    let before = server.count();
    assert!(run(&[&command[..], &small].concat()).await.status.success());
    assert_eq!(server.count(), before + 1, "the list of models");
    let output = run(&[&command[..], &small, &["--set", "synth.tasks=33"]].concat()).await;
    assert_eq!(report(&output)["tried"], 33);
    refused(&run(&[&command[..], &small, &["--set", "seed=5"]].concat()).await, &["other terms", "seed is 5 and was 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_a_server_went_is_kept_and_paid_for() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let (folder, out) = (scratch.path().join("photos"), scratch.path().join("out"));
    std::fs::create_dir_all(&folder).expect("made");
    for name in ["Ant", "Bee"] {
        RgbImage::new(80, 60).save(folder.join(format!("{name}.png"))).expect("written");
        std::fs::write(folder.join(format!("{name}.txt")), "It is small.").expect("written");
    }
    // Prose, and then nothing: the second reply to a question does not come.
    let server = Server::start(|asked| match asked.body["messages"].as_array().map(Vec::len) {
        None => Reply::Json(json!({"data": [{"id": "writer"}]})),
        Some(2) => Reply::say("What a nice picture!"),
        Some(_) => Reply::refuse(500, "down"),
    })
    .await;
    let command = ["synth", "--entities", text(&folder), "--engine", "openai", "--url", &server.url, "--out", text(&out), "--json"];
    let output = run(&[&command[..], &["--set", "synth.tasks=1"], &HASTY].concat()).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let made = report(&output);
    assert_eq!((&made["tried"], &made["failed"], &made["bill"]["sent"]), (&json!(0), &json!(1), &json!(100)));
    let written = lines(&out.join("written.jsonl"));
    assert!(written.len() == 1 && written[0]["said"] == "What a nice picture!", "{written:?}");
    assert!(lines(&out.join("questions.jsonl")).is_empty() && lines(&out.join("tasks.jsonl")).is_empty());
}
