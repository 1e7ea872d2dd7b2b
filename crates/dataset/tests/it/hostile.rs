//! Files and rows that are cut, damaged or lie: an error for the file or a reason for the row, and nothing left behind.

use std::path::{Path, PathBuf};

use hypereyes_dataset::export::{Options, export};
use hypereyes_dataset::import::{Format, Request, Source, import};
use hypereyes_dataset::load_tasks;
use hypereyes_pictures::Limits;
use hypereyes_tables::{Cell, Shape, Writer};
use serde_json::{Value, json};

use crate::{data, imported, inspected, quiet, request, tasks};

fn file(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("written");
    path
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("is there")
        .map(|entry| entry.expect("reads").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn files_that_cannot_be_read_are_named_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let work = folder.path().join("work");
    std::fs::create_dir(&work).expect("made");
    let whole = std::fs::read(data("hypereyes.parquet")).expect("reads");
    let rows = r#"[{"question": "q", "answer": "a"}, {"question": "r""#;
    for (path, says) in [
        (file(folder.path(), "cut.parquet", &whole[..whole.len() - 100]), "cut.parquet: cannot be read as parquet"),
        (file(folder.path(), "text.parquet", "no parquet"), "text.parquet: cannot be read as parquet: it begins with"),
        (file(folder.path(), "empty.arrow", ""), "empty.arrow: cannot be read as Arrow: it is empty"),
        (file(folder.path(), "cut.json", rows), "cut.json: breaks off within row 1"),
        (file(folder.path(), "rows.csv", "a,b"), "rows.csv: is of no kind that is read"),
        (file(folder.path(), "other.jsonl", r#"{"a": 1, "b": 2}"#), "other.jsonl: its columns (a, b) are those of no layout"),
        (folder.path().join("none.parquet"), "none.parquet: "),
    ] {
        let error = imported(&[&path], &work.join("set")).expect_err(says).to_string();
        assert!(error.contains(says) && !error.contains('\n'), "{error}");
        assert_eq!(names(&work), [""; 0], "{says}: something is left");
    }
}

#[test]
fn sets_take_the_place_of_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (full, empty, link) = (folder.path().join("full"), folder.path().join("empty"), folder.path().join("link"));
    std::fs::create_dir(&full).and_then(|()| std::fs::create_dir(&empty)).expect("made");
    file(&full, "mine.txt", "x");
    std::os::unix::fs::symlink(&empty, &link).expect("linked");
    let rows = file(folder.path(), "rows.jsonl", r#"{"question": "q", "answer": "a"}"#);
    for (out, says) in [(&full, "not empty"), (&link, "is a link"), (&rows, "no folder")] {
        let error = imported(&[&rows], out).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
    imported(&[&rows], &empty).expect("an empty folder is as good as none");
    assert_eq!(names(&empty), ["about.json", "pictures", "tasks.jsonl"]);
    assert_eq!(names(&full), ["mine.txt"]);
    let error = export(&empty, &rows, &Options::default(), &mut |_, _| {}).expect_err("is there").to_string();
    assert!(error.contains("is there already"), "{error}");
}

#[test]
fn rows_are_refused_by_themselves_each_with_its_number_and_reason() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let red = std::fs::read(data("red.png")).expect("reads");
    // A header that claims 60,000 pixels a side.
    let mut bomb = red.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    bomb[29..33].copy_from_slice(&0x0fb0_e215_u32.to_be_bytes());
    let row = |question: Value, answer: Value, images: Value| json!({"question": question, "answer": answer, "images": images}).to_string();
    let rows = [
        (row("good".into(), "a".into(), json!([red])), ""),
        (row(" ".into(), "a".into(), json!([])), "has no question"),
        (row("q".into(), json!([" "]), json!([])), "has no answer"),
        (row("q".into(), json!({"x": 1}), json!([])), "answer is an object without target"),
        (row(7.into(), "a".into(), json!([])), "it has no text as question"),
        (row("q".into(), "a".into(), json!([&red[..40]])), "its picture cannot be used: the picture cannot be decoded"),
        (row("q".into(), "a".into(), json!([red, bomb])), "picture 1 cannot be used: picture of 60000x60000 pixels"),
        (row("q".into(), "a".into(), json!(["GIF89a"])), "its picture"),
        (row("q".into(), "a".into(), json!(["https://example.org/a.png"])), "nothing is fetched"),
        ("{\"question\": ".to_owned(), "EOF"),
        ("[1]".to_owned(), "is a list"),
        (row("good".into(), "b".into(), json!([red])), "the same question and pictures are in row 0"),
        (row("last".into(), "a".into(), json!(null)), ""),
    ];
    let text: String = rows.iter().map(|(row, _)| format!("{row}\n")).collect();
    let path = file(folder.path(), "rows.jsonl", text);
    let out = folder.path().join("set");
    let summary = imported(&[&path], &out).expect("reads");
    assert_eq!((summary.rows, summary.tasks, summary.duplicates), (13, 2, 1));
    let wrong: Vec<(usize, &str)> =
        rows.iter().enumerate().filter(|(_, (_, says))| !says.is_empty()).map(|(at, (_, says))| (at, *says)).collect();
    assert_eq!(summary.refused.len(), wrong.len(), "{:?}", summary.refused);
    for (refused, (at, says)) in summary.refused.iter().zip(wrong) {
        assert!(refused.row == at as u64 && refused.reason.contains(says), "{at}, {says}: {refused:?}");
    }
    assert!(summary.refused.iter().any(|refused| refused.reason.ends_with("with other answers")));
    // The others' pictures are not left in the folder.
    assert_eq!((names(&out.join("pictures")).len(), tasks(&out)[1].0.id.as_str()), (1, "rows/12"));
    let listed = std::fs::read_to_string(out.join("refused.jsonl")).expect("listed");
    assert_eq!(listed.lines().count(), 11);
}

#[test]
fn what_could_not_be_read_again_is_refused_and_the_set_is_sound() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let good = r#"{"question": "q", "answer": "a"}"#;
    let long = json!({"question": "x".repeat(17 << 20), "answer": "a"});
    let lines = file(folder.path(), "rows.jsonl", format!("{long}\n{good}"));
    // An area without a number, which JSON cannot say.
    let text = |text: &str| Cell::Text(text.into());
    let shown = Shape::Struct(vec![("entity", Shape::Text), ("area", Shape::List(Box::new(Shape::Float)))]);
    let columns = [
        ("id", Shape::Text),
        ("kind", Shape::Text),
        ("question", Shape::Text),
        ("answers", Shape::List(Box::new(Shape::Text))),
        ("shown", Shape::List(Box::new(shown))),
    ];
    let path = folder.path().join("rows.parquet");
    let mut writer = Writer::create(&path, &columns).expect("begins");
    for (id, left) in [("a", f64::NAN), ("b", 0.0)] {
        let area = Cell::List([left, 0.0, 1.0, 1.0].map(Cell::Float).to_vec());
        let shown = Cell::Struct(vec![("entity".into(), text("pe")), ("area".into(), area)]);
        let row = [
            ("id", text(id)),
            ("kind", text("k")),
            ("question", text(id)),
            ("answers", Cell::List(vec![text("1")])),
            ("shown", Cell::List(vec![shown])),
        ];
        writer.push(Cell::Struct(row.map(|(name, cell)| (name.to_owned(), cell)).to_vec())).expect("writes");
    }
    writer.finish().expect("ends");
    let out = folder.path().join("set");
    let summary = imported(&[&lines, &path], &out).expect("reads");
    let said: Vec<(u64, &str)> = summary.refused.iter().map(|refused| (refused.row, refused.reason.as_str())).collect();
    assert!(said[0].0 == 0 && said[0].1.contains("/0 would be a line of "), "{}", said[0].1);
    assert!(said[1].0 == 0 && said[1].1.starts_with("task a cannot be written as JSON"), "{}", said[1].1);
    assert_eq!((said.len(), load_tasks(&out).expect("sound").len()), (2, 2));
}

#[test]
fn a_row_has_no_more_pictures_than_memory_should_hold() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let red = std::fs::read(data("red.png")).expect("reads");
    file(folder.path(), "red.png", &red);
    let row = |count: usize| json!({"question": count.to_string(), "answer": "a", "images": vec!["red.png"; count]}).to_string();
    // Sixteen pictures of the largest size.
    let limits = Limits { max_bytes: red.len(), ..Limits::default() };
    let path = file(folder.path(), "rows.jsonl", format!("{}\n{}", row(16), row(17)));
    let summary = hypereyes_dataset::import::inspect(&Request { limits, ..request(&[&path]) }, &mut quiet).expect("reads");
    assert_eq!((summary.tasks, summary.refused_total, summary.refused[0].row), (1, 1, 1));
    assert!(summary.refused[0].reason.contains("its pictures have more than"), "{:?}", summary.refused);
}

#[test]
fn parts_of_files_names_and_forced_layouts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lines: String = (0..10).map(|at| json!({"index": at % 4, "question": format!("q{at}"), "answer": at}).to_string() + "\n").collect();
    let path = file(folder.path(), "rows.jsonl", lines);
    let part = Request { sources: vec![Source { path: path.clone(), from: 2, to: Some(8) }], ..request(&[]) };
    let out = folder.path().join("set");
    let summary = import(&part, &out, &mut quiet).expect("reads");
    let ids: Vec<String> = load_tasks(&out).expect("a set").iter().map(|task| task.id.to_string()).collect();
    // Numbers that come twice are told apart by the row.
    assert_eq!(ids, ["rows/2", "rows/3", "rows/0", "rows/1", "rows/2#6", "rows/3#7"]);
    assert_eq!((summary.rows, summary.warnings_total), (6, 2));
    let forced = Request { format: Some(Format::Verl), ..request(&[&path]) };
    let summary = hypereyes_dataset::import::inspect(&forced, &mut quiet).expect("reads");
    assert_eq!((summary.tasks, summary.refused_total, summary.refused[0].reason.as_str()), (0, 10, "it has no prompt"));
    let own = r#"{"id": "a", "kind": "k", "question": "q", "answers": ["1"]}"#;
    let twice = file(folder.path(), "own.jsonl", format!("{own}\n{}", own.replace("\"q\"", "\"r\"")));
    let summary = inspected(&twice).expect("reads");
    assert_eq!((summary.refused[0].row, summary.refused[0].reason.as_str()), (1, "task a was there before"));
}

#[test]
fn pictures_are_fetched_only_where_somebody_does() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = r#"{"question": "q", "answer": "a", "image": "https://example.org/red.png"}
{"question": "r", "answer": "a", "image": {"url": "https://example.org/none.png"}}"#;
    let path = file(folder.path(), "rows.jsonl", rows);
    let red = std::fs::read(data("red.png")).expect("reads");
    let fetch = |address: &str| if address.ends_with("red.png") { Ok(red.clone()) } else { Err("HTTP 404".to_owned()) };
    let request = Request { fetch: Some(&fetch), ..request(&[&path]) };
    let out = folder.path().join("set");
    let summary = import(&request, &out, &mut quiet).expect("reads");
    assert_eq!((summary.tasks, &tasks(&out)[0].1[0]), (1, &red));
    assert_eq!(summary.refused[0].reason, "its picture cannot be fetched: HTTP 404");
}
