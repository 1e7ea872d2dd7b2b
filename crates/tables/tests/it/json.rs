//! JSON lines and arrays, packed or not.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use hypereyes_tables::{Cell, Limits};

use crate::{rows, rows_within};

fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("written");
    path
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(vec![], Compression::fast());
    out.write_all(text).expect("packs");
    out.finish().expect("packs")
}

/// A row's number, and what it says.
type Numbered = (u64, Result<i64, String>);

/// Numbers of rows, and what is in their column `a` or wrong with them.
fn read(path: &Path) -> Result<Vec<Numbered>, String> {
    let value = |cell: Cell| match cell.get("a") {
        Some(Cell::Int(value)) => Ok(*value),
        other => Err(format!("{other:?}")),
    };
    Ok(rows(path)?.into_iter().map(|row| (row.number, row.cells.and_then(value))).collect())
}

fn good(pairs: &[(u64, i64)]) -> Vec<Numbered> {
    pairs.iter().map(|(row, value)| (*row, Ok(*value))).collect()
}

#[test]
fn lines_and_arrays_are_rows_whatever_they_are_called() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lines = b"{\"a\": 1}\n\n{\"a\": 2}\r\n{\"a\": 3}";
    let array = br#" [ {"a": 1} , {"a":2,"b":"],}\"[","c":[{}]},{"a": 3}] "#;
    for (name, content, rows) in [
        ("a.jsonl", lines.to_vec(), [0, 2, 3]),
        ("a.data", lines.to_vec(), [0, 2, 3]),
        ("a.jsonl.gz", packed(lines), [0, 2, 3]),
        ("a.packed", packed(lines), [0, 2, 3]),
        ("mark.jsonl", [b"\xef\xbb\xbf".as_slice(), lines].concat(), [0, 2, 3]),
        ("a.json", array.to_vec(), [0, 1, 2]),
        ("b.jsonl", array.to_vec(), [0, 1, 2]),
        ("a.json.gz", packed(array), [0, 1, 2]),
    ] {
        let path = file(folder.path(), name, &content);
        assert_eq!(read(&path), Ok(good(&[(rows[0], 1), (rows[1], 2), (rows[2], 3)])), "{name}");
    }
    for (name, content) in [("empty.jsonl", &b""[..]), ("empty.json", b"[]"), ("blank.json", b"[ \n ]\n")] {
        assert_eq!(read(&file(folder.path(), name, content)), Ok(vec![]), "{name}");
    }
}

#[test]
fn rows_that_are_none_are_refused_by_themselves() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lines = file(folder.path(), "a.jsonl", b"{\"a\": 1}\n{\"a\": \n[1]\n7 8\n{\"a\": 2}\n{\"a\"");
    let array = file(folder.path(), "a.json", br#"[{"a": 1}, {"a" 7}, [1], , {"a": 2}, ]"#);
    let of = |path: &Path| read(path).expect("reads").into_iter().map(|(row, read)| (row, read.is_ok())).collect::<Vec<_>>();
    assert_eq!(of(&lines), [(0, true), (1, false), (2, false), (3, false), (4, true), (5, false)]);
    assert_eq!(of(&array), [(0, true), (1, false), (2, false), (3, false), (4, true), (5, false)]);
    let why = read(&lines).expect("reads").remove(2).1;
    assert_eq!(why, Err("is a list, not an object with columns".into()));
}

#[test]
fn files_that_break_off_are_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let array = file(folder.path(), "a.json", br#"[{"a": 1}, {"a": 2"#);
    assert_eq!(read(&array), Err("breaks off within row 1".into()));
    let more = file(folder.path(), "b.json", br#"[{"a": 1}] {"a": 2}"#);
    assert_eq!(read(&more), Err("has more behind its array".into()));
    let whole = packed("{\"a\": 1}\n".repeat(5000).as_bytes());
    assert!(read(&file(folder.path(), "cut.jsonl.gz", &whole[..whole.len() / 2])).is_err());
    assert!(read(&file(folder.path(), "plain.jsonl.gz", b"{\"a\": 1}")).is_err());
    assert!(read(&file(folder.path(), "rows.csv", b"a\n1")).is_err_and(|why| why.contains("is of no kind that is read")));
    assert!(read(folder.path()).is_err_and(|why| why.contains("a folder")));
}

#[test]
fn rows_beyond_a_limit_are_passed_over_without_being_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let limits = Limits { cell: 100, row: 1000, ..Limits::default() };
    let text = |count: usize| "x".repeat(count);
    let many: Vec<String> = (0..200).map(|at| at.to_string()).collect();
    let objects = [
        r#"{"a": 1}"#.to_owned(),
        format!(r#"{{"a": "{}"}}"#, text(101)),
        format!(r#"{{"a": "{}"}}"#, text(2000)),
        format!(r#"{{"a": [{}]}}"#, many.join(",")),
        r#"{"a": 2}"#.into(),
    ];
    let lines = file(folder.path(), "a.jsonl", objects.join("\n").as_bytes());
    let array = file(folder.path(), "a.json", format!("[{}]", objects.join(",")).as_bytes());
    for path in [lines, array] {
        let rows = rows_within(&path, &limits).expect("reads");
        assert_eq!(
            rows.iter().map(|row| (row.cells.is_ok(), row.too_large)).collect::<Vec<_>>(),
            [(true, false), (false, true), (false, true), (false, true), (true, false)]
        );
        assert!(rows[1].cells.as_ref().is_err_and(|why| why.contains("101 bytes, at most 100")), "{:?}", rows[1]);
        assert!(rows[2].cells.as_ref().is_err_and(|why| why.contains("more than 1000 bytes")), "{:?}", rows[2]);
    }
}
