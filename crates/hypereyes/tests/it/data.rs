//! `data import`, `inspect` and `export` as a person uses them: files in, a set that others read, wrong names.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::support::run;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dataset/tests/data/import").join(name)
}

fn said(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), errors)
}

#[test]
fn files_become_sets_and_sets_files() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (rows, set) = (fixture("hypereyes.parquet"), at("set"));
    let rows = rows.to_str().unwrap();
    let (code, seen, errors) = said(&["data", "inspect", rows, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(
        (&seen["rows"], &seen["tasks"], &seen["pictures"], &seen["duplicates"], &seen["format"]),
        (&json!(5), &json!(4), &json!(2), &json!(1), &json!("hypereyes"))
    );
    assert_eq!((&seen["refused"][0]["row"], &seen["refused"][0]["file"]), (&json!(4), &json!(rows)));
    let (code, told, errors) = said(&["data", "import", rows, "--out", &set, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    for key in ["rows", "tasks", "pictures", "refused", "duplicates", "format"] {
        assert_eq!(told[key], seen[key], "{key}");
    }
    assert!(errors.contains("row 4: the same question and pictures are in row 0"), "{errors}");
    let file = at("out.parquet");
    let (code, told, errors) = said(&["data", "export", &set, "--out", &file, "--json"]);
    assert_eq!((code, &told["rows"], &told["references"]), (Some(0), &json!(4), &json!(3)), "{errors}");
    let again = at("again");
    let (code, _, errors) = said(&["data", "import", &file, "--out", &again, "--held-out", &set, "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("4 of 4 tasks are held out as well"), "{errors}");
    let lines = |folder: &str| std::fs::read_to_string(Path::new(folder).join("tasks.jsonl")).unwrap();
    assert_eq!(lines(&again), lines(&set));
    // People are told, too.
    let output = run(&["data", "inspect", &set]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("tasks, 4 rows, 4 tasks") && text.contains("4 rows (tasks), 4 tasks, 2 pictures, 3 references, 0 refused"),
        "{text}"
    );
    // And `up` takes it.
    let (tasks, held_out) = (format!("up.tasks={set}"), format!("up.held_out={again}"));
    let (code, intent, errors) =
        said(&["up", "--dry-run", "--json", "--set", &tasks, "--set", &held_out, "--set", &format!("run_dir={}", at("run"))]);
    assert_eq!((code, &intent["train_tasks"], &intent["held_out_tasks"]), (Some(0), &json!(4), &json!(4)), "{errors}");
}

#[test]
fn what_cannot_be_read_or_written_is_wrong_input_in_one_line() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let rows = fixture("plain.parquet");
    let rows = rows.to_str().unwrap();
    let cut = at("cut.parquet");
    std::fs::write(&cut, &std::fs::read(rows).unwrap()[..2000]).unwrap();
    std::fs::write(at("full"), "x").unwrap();
    for (arguments, says) in [
        (vec!["inspect", &cut], "cut.parquet: cannot be read as parquet"),
        (vec!["import", &cut, "--out", &at("set")], "cut.parquet: cannot be read as parquet"),
        (vec!["import", rows, "--out", &at("full")], "is there already"),
        (vec!["import", rows, "--out", &at("set"), "--format", "csv"], "there is no format \"csv\""),
        (vec!["import", rows, "--out", &at("set"), "--held-out", &at("none")], "there is no such task set"),
        (vec!["import", &format!("{rows}@[a:b]"), "--out", &at("set")], "are no rows"),
        (vec!["export", &at("none"), "--out", &at("x.parquet")], "there is no such task set"),
        (vec!["inspect", rows, "--format", "plain", "--label-key", "gold"], "--label-key is read with --format slime, not with plain"),
        (vec!["inspect", &format!("{rows}@[7:7]")], "has no row"),
        (vec!["inspect"], "<FILE>..."),
    ] {
        let (code, _, errors) = said(&[&["data"], &arguments[..]].concat());
        assert!(code == Some(2) && errors.contains(says), "{arguments:?}: {code:?} {errors}");
    }
    assert!(!Path::new(&at("set")).exists());
}

#[test]
fn columns_are_called_as_flags_say_and_paths_lead_out_only_where_that_is_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join("rows")).unwrap();
    std::fs::copy(fixture("red.png"), scratch.path().join("red.png")).unwrap();
    let file = scratch.path().join("rows/rows.jsonl");
    let row =
        json!({"ask": "<image>Which?", "gold": "red", "about": {"index": "r-1"}, "shot": "../red.png", "label": "blue", "images": []});
    std::fs::write(&file, row.to_string()).unwrap();
    let (file, set) = (file.to_str().unwrap(), scratch.path().join("set"));
    let flags = ["--input-key", "ask", "--label-key", "gold", "--metadata-key", "about", "--images-key", "shot"];
    let (code, told, errors) = said(&[&["data", "inspect", file, "--json"], &flags[..]].concat());
    assert_eq!((code, &told["tasks"], &told["format"]), (Some(0), &json!(0), &json!("slime")), "{errors}");
    assert!(told["refused"][0]["reason"].as_str().unwrap().contains("not below the folder"), "{told}");
    let (code, told, errors) =
        said(&[&["data", "import", file, "--any-path", "--out", set.to_str().unwrap(), "--json"], &flags[..]].concat());
    assert_eq!((code, &told["tasks"], &told["pictures"]), (Some(0), &json!(1), &json!(1)), "{errors}");
    let task: Value = serde_json::from_str(&std::fs::read_to_string(set.join("tasks.jsonl")).unwrap()).unwrap();
    assert_eq!((&task["id"], &task["question"], &task["answers"]), (&json!("r-1"), &json!("Which?"), &json!(["red"])));
}

#[test]
fn pictures_are_fetched_from_public_addresses_and_those_that_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let red = std::fs::read(fixture("red.png")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 1024];
            let read = stream.read(&mut asked).unwrap();
            let asked = String::from_utf8_lossy(&asked[..read]).to_lowercase();
            let head = if !asked.contains("user-agent: hypereyes/") {
                "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
            } else if asked.starts_with("get /moved") {
                "HTTP/1.1 302 Found\r\nLocation: /red.png\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
            } else if asked.starts_with("get /red.png") {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", red.len())
            } else {
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
            };
            let body = if head.contains("200") { &red[..] } else { &[] };
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
        }
    });
    let row = |path: &str| json!({"question": path, "answer": "a", "image": format!("http://{host}/{path}")}).to_string() + "\n";
    let file = scratch.path().join("rows.jsonl");
    std::fs::write(&file, row("moved") + &row("none.png")).unwrap();
    let file = file.to_str().unwrap();
    let refused = |more: &[&str]| {
        let (code, told, errors) = said(&[&["data", "inspect", file, "--json"], more].concat());
        assert_eq!(code, Some(0), "{errors}");
        (
            told["tasks"].clone(),
            told["refused"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        )
    };
    let (tasks, why) = refused(&[]);
    assert!(tasks == 0 && why.iter().all(|why| why.contains("nothing is fetched")), "{why:?}");
    let (tasks, why) = refused(&["--fetch-pictures"]);
    assert!(tasks == 0 && why.iter().all(|why| why.contains("not public")), "{why:?}");
    let (tasks, why) = refused(&["--fetch-pictures", "--fetch-host", "127.0.0.1"]);
    assert!(tasks == 1 && why[0].contains("HTTP 404"), "{why:?}");
}
