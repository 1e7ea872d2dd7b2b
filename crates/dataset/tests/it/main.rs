//! Rows that others published: made into task sets and back, and read as benchmarks.

mod benchmark_counts;
mod benchmark_files;
mod benchmark_layouts;
mod fixtures;
mod hostile;
mod layouts;
mod roundtrip;

use std::path::{Path, PathBuf};

use hypereyes_dataset::import::{Keys, Progress, Request, Source, Summary, import, inspect};
use hypereyes_dataset::{DataError, load_tasks};
use hypereyes_domain::Task;
use hypereyes_pictures::Limits;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(name)
}

fn request(paths: &[&Path]) -> Request<'static> {
    let sources = paths.iter().map(|path| Source { path: path.to_path_buf(), from: 0, to: None }).collect();
    Request { sources, format: None, keys: Keys::default(), anywhere: false, fetch: None, held_out: None, limits: Limits::default() }
}

fn quiet(_: Progress<'_>) {}

fn imported(paths: &[&Path], out: &Path) -> Result<Summary, DataError> {
    import(&request(paths), out, &mut quiet)
}

fn inspected(path: &Path) -> Result<Summary, DataError> {
    inspect(&request(&[path]), &mut quiet)
}

/// Tasks, and the bytes of each one's pictures.
type Shown = Vec<(Task, Vec<Vec<u8>>)>;

/// The tasks of a set.
fn tasks(folder: &Path) -> Shown {
    let picture = |id: &hypereyes_domain::PictureId| std::fs::read(folder.join("pictures").join(format!("{id}.png"))).expect("a picture");
    let tasks = load_tasks(folder).expect("a sound set");
    tasks.into_iter().map(|task| (task.clone(), task.pictures.iter().map(picture).collect())).collect()
}
