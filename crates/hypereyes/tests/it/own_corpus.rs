//! `index build` and `index serve --index` as a person uses them: files in, an address that answers, wrong names.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::support::{hypereyes, run, signal};
use serde_json::{Value, json};

fn rows(folder: &Path) -> String {
    let rows = folder.join("rows.jsonl");
    std::fs::write(&rows, "{\"title\": \"Lima\", \"text\": \"Lima is the capital of Peru.\", \"url\": \"https://x.test/lima\"}\n{}\n")
        .unwrap();
    rows.to_str().unwrap().to_owned()
}

fn said(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), errors)
}

/// The body of an answer.
fn asked(url: &str, path: &str, body: &Value) -> Value {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let body = body.to_string();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn files_become_an_index_that_answers() {
    let scratch = tempfile::tempdir().unwrap();
    let (documents, out) = (rows(scratch.path()), scratch.path().join("corpus"));
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../worlds/countries/pictures");
    let some = scratch.path().join("pictures");
    std::fs::create_dir(&some).unwrap();
    for name in ["mx.png", "pe.png", "jp.png"] {
        std::fs::copy(pictures.join(name), some.join(name)).unwrap();
    }
    let (out, some) = (out.to_str().unwrap(), some.to_str().unwrap());
    let (code, told, errors) = said(&["index", "build", "--json", "--documents", &documents, "--pictures", some, "--out", out]);
    assert_eq!(
        (code, &told["documents"], &told["pictures"], &told["refused"]),
        (Some(0), &json!(1), &json!(3), &json!({"no_text": 1})),
        "{errors}"
    );
    assert!(errors.contains("rows.jsonl row 2: it has neither text nor contents") && errors.contains("refused.jsonl"), "{errors}");
    assert_eq!((told["digest"].as_str().map(str::len), &told["out"]), (Some(64), &json!(out)));
    let mut serving = hypereyes(&["index", "serve", "--json", "--index", out, "--listen", "127.0.0.1:0"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = serde_json::from_str::<Value>(&line).unwrap()["url"].as_str().unwrap().to_owned();
    let answer = asked(&url, "/layers/0/search", &json!({"queries": [{"text": "capital of Peru"}, {"page": "lima"}], "hits": 3}));
    assert_eq!(answer["results"][0]["hits"][0]["url"], "https://x.test/lima", "{answer}");
    assert_eq!(answer["results"][1]["hits"][0]["content"], "Lima is the capital of Peru.");
    signal("TERM", serving.id().into());
    assert!(serving.wait().unwrap().success());
}

#[test]
fn what_cannot_be_built_or_served_is_said_in_a_line() {
    let scratch = tempfile::tempdir().unwrap();
    let documents = rows(scratch.path());
    let here = scratch.path().to_str().unwrap();
    let refused = |arguments: &[&str], mentions: &[&str]| {
        let (code, _, errors) = said(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {errors}");
        assert!(mentions.iter().all(|word| errors.contains(word)), "{arguments:?}: {errors} lacks one of {mentions:?}");
    };
    refused(&["index", "build", "--documents", &documents, "--out", here], &["is there already"]);
    refused(&["index", "build", "--documents", "/nowhere/x.jsonl", "--out", &format!("{here}/a")], &["/nowhere/x.jsonl"]);
    refused(&["index", "build", "--pictures", "/nowhere", "--out", &format!("{here}/a")], &["/nowhere"]);
    refused(&["index", "build", "--pictures", here, "--out", &format!("{here}/a"), "--set", "policy=/nowhere"], &["/nowhere"]);
    refused(&["index", "build", "--out", here], &["--documents"]);
    refused(&["index", "serve", "--index", here], &["holds no index"]);
    refused(&["index", "serve", "--index", here, "--world"], &["--world"]);
    assert!(!scratch.path().join("a").exists());
}
