//! Every type that pyarrow writes, in parquet and in Arrow.

use hypereyes_tables::{Cell, Limits, Table};

use crate::{cells, data, rows};

fn text(text: &str) -> Cell {
    Cell::Text(text.into())
}

fn fields(fields: &[(&str, Cell)]) -> Cell {
    Cell::Struct(fields.iter().map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect())
}

#[test]
fn values_of_every_type_are_what_was_written() {
    let list = |cells: &[Cell]| Cell::List(cells.to_vec());
    let first = [
        ("bool", Cell::Bool(true)),
        ("i8", Cell::Int(-1)),
        ("u64", Cell::UInt(u64::MAX)),
        ("f16", Cell::Float(0.5)),
        ("f32", Cell::Float(0.25)),
        ("f64", Cell::Float(0.1)),
        ("text", text("é")),
        ("bytes", Cell::Bytes(vec![0, 255])),
        ("fixed", Cell::Bytes(b"abc".to_vec())),
        ("word", text("x")),
        ("date", text("2026-11-30")),
        ("time", text("01:02:03.004")),
        ("naive", text("2026-11-30T01:02:03")),
        ("utc", text("2026-11-30T01:02:03.000500Z")),
        ("decimal", text("-12.50")),
        ("null", Cell::Null),
        ("list", list(&[Cell::Int(1), Cell::Null])),
        ("lists", list(&[list(&[Cell::Int(1)]), list(&[])])),
        ("pair", list(&[Cell::Float(1.0), Cell::Float(2.0)])),
        ("struct", fields(&[("a", fields(&[("b", list(&[fields(&[("c", Cell::Int(1))])]))]))])),
        ("map", fields(&[("k", Cell::Int(1)), ("l", Cell::Int(2))])),
        ("numbers", list(&[fields(&[("key", Cell::Int(1)), ("value", text("one"))])])),
    ];
    for name in ["types.parquet", "types.arrow", "types.stream.arrow"] {
        let rows = cells(&data(name));
        assert_eq!(rows.len(), 2, "{name}");
        for (column, want) in &first {
            assert_eq!(rows[0].get(column), Some(want), "{name}: {column}");
        }
        let Cell::Struct(second) = &rows[1] else { panic!("{name}: no row") };
        assert_eq!(second.len(), first.len());
        for (column, cell) in second {
            match (column.as_str(), cell) {
                ("f64", Cell::Float(value)) => assert!(value.is_nan()),
                ("u64", cell) => assert_eq!(*cell, Cell::Int(7), "{name}"),
                ("text", cell) => assert_eq!(*cell, text(""), "{name}"),
                ("word", cell) => assert_eq!(*cell, text("x"), "{name}"),
                ("list", cell) => assert_eq!(*cell, Cell::List(vec![]), "{name}"),
                (_, cell) => assert_eq!(*cell, Cell::Null, "{name}: {column}"),
            }
        }
    }
}

#[test]
fn files_say_what_they_are_and_what_columns_they_have() {
    for (name, kind, declared) in
        [("types.parquet", "parquet", Some(2)), ("types.arrow", "arrow", None), ("types.stream.arrow", "arrow", None)]
    {
        let table = Table::open(&data(name), &Limits::default()).expect(name);
        assert_eq!((table.kind(), table.rows()), (kind, declared));
        let columns = table.columns().expect("said beforehand");
        assert_eq!((columns.len(), columns[0].as_str(), columns[21].as_str()), (22, "bool", "numbers"));
    }
}

#[test]
fn columns_that_nobody_wants_are_not_read() {
    let mut table = Table::of_columns(&data("types.parquet"), &Limits::default(), Some(&["text", "map", "nobody"])).expect("opens");
    let row = table.next_row().expect("reads").expect("a row").cells.expect("sound");
    assert_eq!(row, fields(&[("text", text("é")), ("map", fields(&[("k", Cell::Int(1)), ("l", Cell::Int(2))]))]));
}

#[test]
fn packed_arrow_files_are_refused_in_a_sentence() {
    let error = rows(&data("packed.arrow")).expect_err("packed by lz4");
    assert!(error.contains("lz4") && !error.contains('\n'), "{error}");
}

#[test]
fn what_is_over_a_limit_is_refused_by_row() {
    let limits = Limits { cell: 2, ..Limits::default() };
    let rows = crate::rows_within(&data("types.parquet"), &limits).expect("reads");
    assert!(rows[0].too_large, "{:?}", rows[0]);
    assert_eq!(rows[0].cells, Err("fixed: has 3 bytes, at most 2 are read".into()));
    assert!(rows[1].cells.is_ok());
    let limits = Limits { row: 100, ..Limits::default() };
    let rows = crate::rows_within(&data("types.arrow"), &limits).expect("reads");
    assert!(rows.iter().all(|row| row.too_large && row.cells.as_ref().is_err_and(|why| why.contains("more than 100 bytes of memory"))));
}
