//! As many rows as are published, written by the libraries that the authors use.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use hypereyes_dataset::loaders::{Benchmark, Rows};
use hypereyes_pictures::Limits;

/// The most memory that the process has had, in MB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1024
}

/// Reads a benchmark, and says what of it there is.
fn read(name: &str, folder: &Path) -> Rows {
    let started = Instant::now();
    let rows = Benchmark::named(name).expect(name).read(folder, &Limits::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let seconds = started.elapsed().as_secs_f64();
    let (tasks, refused) = (rows.tasks.len(), rows.refused.len());
    println!("{name:<22} {tasks:>6} {refused:>7} {:>9} {seconds:>8.2} {:>8}", pictures(&rows), peak());
    rows
}

fn pictures(rows: &Rows) -> usize {
    rows.tasks.iter().map(|task| task.pictures.len()).sum()
}

fn heading() {
    println!("{:<22} {:>6} {:>7} {:>9} {:>8} {:>8}", "benchmark", "rows", "refused", "pictures", "seconds", "peak MB");
}

#[test]
#[ignore = "needs published files: HYPEREYES_BENCHMARKS=DIR, which holds those of a benchmark in DIR/NAME"]
fn files_that_are_here_are_read_and_no_row_is_refused() {
    let folder = std::env::var("HYPEREYES_BENCHMARKS").expect("HYPEREYES_BENCHMARKS names a folder");
    heading();
    for benchmark in Benchmark::all() {
        let folder = Path::new(&folder).join(benchmark.name());
        if folder.is_dir() {
            assert_eq!(read(benchmark.name(), &folder).refused, [], "{}", benchmark.name());
        }
    }
}

#[test]
#[ignore = "slow: writes 11,000 rows with Python: HYPEREYES_DATASETS_PYTHON=VENV/bin/python (it has datasets, pyarrow and pillow), and \
            `cargo test --release -p hypereyes-dataset --test it benchmark_counts -- --ignored --nocapture`"]
fn every_benchmark_is_read_whole_at_its_published_size() {
    let python = std::env::var("HYPEREYES_DATASETS_PYTHON").expect("HYPEREYES_DATASETS_PYTHON names an interpreter");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/make.py");
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let made = Command::new(python).arg(script).arg(scratch.path()).arg("--published").status().expect("Python runs");
    assert!(made.success(), "{made}");
    heading();
    for (name, rows, seen) in [
        ("browsecomp-vl@level1", 199, 199),
        ("browsecomp-vl@level2", 200, 200),
        ("browsecomp-vl", 399, 399),
        ("fvqa", 1_800, 1_800),
        ("fvqa@train", 4_856, 4_856),
        ("hle-vl", 330, 330),
        ("imeb", 300, 300),
        ("infoseek", 2_000, 2_000),
        ("livevqa", 300, 300),
        ("mmsearch@171", 171, 171),
        ("mmsearch@300", 300, 171),
        // Of three rows in turn, with one, five and two pictures.
        ("mmsearch-plus", 311, 104 + 5 * 104 + 2 * 103),
        ("simplevqa", 300, 300),
    ] {
        let folder = scratch.path().join(name.split('@').next().expect("a name"));
        let read = read(name, &folder);
        assert_eq!(read.refused, [], "{name}");
        assert_eq!((read.tasks.len(), pictures(&read)), (rows, seen), "{name}");
        assert!(read.tasks.iter().all(|task| !task.answers.is_empty()), "{name}");
    }
}
