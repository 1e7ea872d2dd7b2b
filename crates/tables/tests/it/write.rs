//! Parquet that is written here is what it was made of, and can be read in parts.

use hypereyes_tables::{Cell, Limits, Shape, Table, Writer};

use crate::cells;

fn columns() -> Vec<(&'static str, Shape)> {
    let picture = Shape::Struct(vec![("bytes", Shape::Bytes), ("path", Shape::Text)]);
    vec![
        ("id", Shape::Int),
        ("right", Shape::Bool),
        ("weight", Shape::Float),
        ("images", Shape::List(Box::new(picture))),
        ("words", Shape::List(Box::new(Shape::List(Box::new(Shape::Text))))),
    ]
}

fn row(at: i64) -> Cell {
    let text = |text: String| if at % 3 == 0 { Cell::Null } else { Cell::Text(text) };
    let picture = |size: i64| {
        Cell::Struct(vec![("bytes".into(), Cell::Bytes(vec![at as u8; size as usize])), ("path".into(), text(format!("{at}.png")))])
    };
    let images = match at % 4 {
        0 => Cell::Null,
        1 => Cell::List(vec![]),
        _ => Cell::List(vec![picture(at), Cell::Null, picture(0)]),
    };
    let words = Cell::List(vec![Cell::List(vec![text("a".into()), Cell::Text("é".into())]), Cell::Null, Cell::List(vec![])]);
    Cell::Struct(vec![
        ("id".into(), Cell::Int(at)),
        ("right".into(), if at % 2 == 0 { Cell::Bool(at % 4 == 0) } else { Cell::Null }),
        ("weight".into(), Cell::Float(at as f64 / 7.0)),
        ("images".into(), images),
        ("words".into(), words),
    ])
}

#[test]
fn rows_are_read_back_as_they_were_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.parquet");
    let mut writer = Writer::create(&path, &columns()).expect("begins");
    let rows: Vec<Cell> = (0..10_000).map(row).collect();
    for row in &rows {
        writer.push(row.clone()).expect("writes");
    }
    assert_eq!(writer.finish().expect("ends").1, 10_000);
    assert!(cells(&path) == rows);
    assert_eq!(Table::open(&path, &Limits::default()).expect("opens").rows(), Some(10_000));
}

#[test]
fn no_rows_are_a_file_too_and_what_does_not_fit_is_refused_by_its_column() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.parquet");
    Writer::create(&path, &columns()).expect("begins").finish().expect("ends");
    assert_eq!(cells(&path), []);
    let mut writer = Writer::new(Vec::new(), &columns()).expect("begins");
    assert_eq!(writer.push(Cell::Struct(vec![("name".into(), Cell::Null)])), Err("there is no column name".into()));
    let picture = Cell::Struct(vec![("path".into(), Cell::Int(1))]);
    writer.push(Cell::Struct(vec![("images".into(), Cell::List(vec![picture]))])).expect("held");
    assert_eq!(writer.finish().map(|_| ()), Err("images: path: a whole number does not fit into it".into()));
}
