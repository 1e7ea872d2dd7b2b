//! Published folders of the tests: where they lie, and copies of them with other rows.

use std::path::{Path, PathBuf};

use hypereyes_dataset::DataError;
use hypereyes_dataset::loaders::{Benchmark, Rows};
use hypereyes_pictures::Limits;
use hypereyes_tables::{Cell, Shape, Table, Writer};
use tempfile::TempDir;

/// A benchmark, the folder of `tests/data` that it is read from, and the file whose rows are changed.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    pub benchmark: &'static str,
    pub folder: &'static str,
    pub file: &'static str,
}

const fn published(benchmark: &'static str, folder: &'static str, file: &'static str) -> Published {
    Published { benchmark, folder, file }
}

/// Every layout that a loader reads.
pub const ALL: [Published; 10] = [
    published("browsecomp-vl@level1", "browsecomp-vl", "bc_vl_level1.jsonl"),
    published("fvqa", "fvqa", "fvqa_test.parquet"),
    published("fvqa@train", "fvqa", "fvqa_train.parquet"),
    published("hle-vl", "hle-vl", "infer/vl_search_r1/eval_data/hle.jsonl"),
    published("imeb", "imeb", "IMEB_demo.parquet"),
    published("infoseek", "infoseek", "mmsearch_r1_infoseek_sub_2k.parquet"),
    published("livevqa", "livevqa", "infer/vl_search_r1/eval_data/livevqa.jsonl"),
    published("mmsearch", "mmsearch", "end2end.parquet"),
    published("mmsearch-plus", "mmsearch-plus", "data-00000-of-00002.arrow"),
    published("simplevqa", "simplevqa", "infer/vl_search_r1/eval_data/simplevqa.jsonl"),
];

impl Published {
    /// The one of a name.
    pub fn of(benchmark: &str) -> Self {
        ALL.into_iter().find(|one| one.benchmark == benchmark).expect("a layout")
    }

    /// Whether the file says beforehand which columns it has.
    pub fn has_schema(&self) -> bool {
        !self.file.ends_with(".jsonl")
    }

    /// The benchmark.
    pub fn named(&self) -> Benchmark {
        Benchmark::named(self.benchmark).expect("there is one")
    }

    /// Reads the benchmark from a folder.
    pub fn read(&self, folder: &Path) -> Result<Rows, DataError> {
        self.named().read(folder, &Limits::default())
    }

    /// The folder of the tests.
    pub fn here(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(self.folder)
    }

    /// A copy of it in which the file has other rows. An Arrow file is written as parquet: what it is stands in the file, not in its name.
    pub fn with_rows(&self, change: impl Fn(usize, &mut Cell)) -> TempDir {
        let copy = tempfile::tempdir().expect("a temporary folder");
        copy_all(&self.here(), copy.path());
        let path = copy.path().join(self.file);
        let mut rows = cells(&path);
        rows.iter_mut().enumerate().for_each(|(at, row)| change(at, row));
        if self.has_schema() {
            write_parquet(&path, rows)
        } else {
            write_lines(&path, rows)
        }
        copy
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}

fn cells(path: &Path) -> Vec<Cell> {
    let mut table = Table::open(path, &hypereyes_tables::Limits::default()).expect("a table");
    let mut rows = vec![];
    while let Some(row) = table.next_row().expect("sound") {
        rows.push(row.cells.expect("a row"));
    }
    rows
}

fn write_lines(path: &Path, rows: Vec<Cell>) {
    let lines: String = rows.into_iter().map(|row| row.into_json().expect("no bytes").to_string() + "\n").collect();
    std::fs::write(path, lines).expect("written");
}

fn write_parquet(path: &Path, rows: Vec<Cell>) {
    let Some(Shape::Struct(columns)) = shape(&rows.iter().collect::<Vec<_>>()) else { panic!("rows have columns") };
    let mut writer = Writer::create(path, &columns).expect("created");
    rows.into_iter().for_each(|row| writer.push(row).expect("of the shape"));
    writer.finish().expect("written");
}

/// The shape that values have together; none of nulls alone.
fn shape(cells: &[&Cell]) -> Option<Shape> {
    Some(match cells.iter().find(|cell| !cell.is_null())? {
        Cell::Null => return None,
        Cell::Bool(_) => Shape::Bool,
        Cell::Int(_) | Cell::UInt(_) => Shape::Int,
        Cell::Float(_) => Shape::Float,
        Cell::Text(_) => Shape::Text,
        Cell::Bytes(_) => Shape::Bytes,
        Cell::List(_) => {
            let mut items = vec![];
            for cell in cells {
                let Cell::List(some) = cell else { continue };
                items.extend(some);
            }
            Shape::List(Box::new(shape(&items).unwrap_or(Shape::Text)))
        }
        Cell::Struct(_) => {
            let mut names: Vec<&str> = vec![];
            for cell in cells {
                let Cell::Struct(fields) = cell else { continue };
                names.extend(fields.iter().map(|(name, _)| name.as_str()).filter(|name| !names.contains(name)).collect::<Vec<_>>());
            }
            let field = |name: &str| {
                let values: Vec<&Cell> = cells.iter().filter_map(|cell| cell.get(name)).collect();
                // Names live as long as the tests do.
                (&*name.to_owned().leak(), shape(&values).unwrap_or(Shape::Text))
            };
            Shape::Struct(names.into_iter().map(field).collect())
        }
    })
}

/// The value at a place such as `reward_model.ground_truth`.
pub fn at<'a>(row: &'a mut Cell, place: &str) -> &'a mut Cell {
    place.split('.').fold(row, |cell, name| match cell {
        Cell::Struct(fields) => fields.iter_mut().find(|(field, _)| field == name).map(|(_, cell)| cell).expect(name),
        Cell::List(items) => &mut items[name.parse::<usize>().expect("a number")],
        other => panic!("{name}: {}", other.kind()),
    })
}

/// Takes a column out of a row, or calls it otherwise.
pub fn lose(row: &mut Cell, column: &str, renamed: bool) {
    let Cell::Struct(fields) = row else { panic!("a row has columns") };
    let found = fields.iter().position(|(name, _)| name == column).expect("it was there");
    if renamed { fields[found].0.push('_') } else { drop(fields.remove(found)) }
}
