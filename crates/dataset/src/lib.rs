//! A data set folder: `tasks.jsonl`, `pictures/<id>.png`, `demonstrations.jsonl`, and in `about.json` which tokenizer made these, and
//! of which format they are.
//!
//! In: tasks, pictures and demonstrations, or such a folder. Out: the other. It knows nothing of how tasks are made.
//!
//! Every file is replaced in one step, and `tasks.jsonl` last: whoever reads while a set is replaced gets the old tasks or
//! the new ones, and in both cases all pictures that they name.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use hypereyes_domain::{PictureId, Task, TaskId, TaskKind, Trajectory};
use hypereyes_outside::atomic;
use hypereyes_outside::jsonl::Lines;
use hypereyes_pictures::{Limits, Picture};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The tasks' file.
pub const TASKS: &str = "tasks.jsonl";
/// The demonstrations' file.
pub const DEMONSTRATIONS: &str = "demonstrations.jsonl";
/// What is said of the set as a whole.
pub const ABOUT: &str = "about.json";
/// The format that is written. Readers take this one and every earlier one; 1 is what has no number.
pub const FORMAT: u32 = 2;
/// Longest of those that is read.
const MAX_ABOUT: u64 = 64 << 10;
/// The pictures' folder.
pub const PICTURES: &str = "pictures";
/// The most rows of one file; a set is held in memory.
pub const MAX_TASKS: usize = 1_000_000;
/// Longest line read, in bytes; a trajectory of 38,000 tokens has about 2 MB.
const MAX_LINE: usize = 16 << 20;
/// A larger file is no task set; its lines are streamed.
const MAX_FILE: u64 = 64 << 30;

/// Why a data set cannot be read or written.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file cannot be read or written.
    #[error("{path}: {reason}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A line of a file cannot be used.
    #[error("{path}, line {line}: {reason}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// One cold-start example.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demonstration {
    /// What it solves.
    pub task: TaskId,
    /// How. Log-probs are 0: nobody sampled it.
    pub trajectory: Trajectory,
}

/// A data set in memory.
#[derive(Clone, Debug, Default)]
pub struct DataSet {
    /// Tasks in the order of their making.
    pub tasks: Vec<Task>,
    /// Pictures that tasks and demonstrations name.
    pub pictures: BTreeMap<PictureId, Picture>,
    /// At most one per task.
    pub demonstrations: Vec<Demonstration>,
    /// Digest of the vocabulary in which the demonstrations are written; `None` for a set that does not say.
    pub tokenizer: Option<String>,
    /// Draws that were passed over while it was made, by reason; empty for a set that was read.
    pub dropped: BTreeMap<&'static str, usize>,
}

/// `about.json`; keys of later versions are passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    #[serde(default = "first")]
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenizer: Option<String>,
}

fn first() -> u32 {
    1
}

/// What is said of a set as a whole; nothing in sets of before it was said.
fn about(folder: &Path) -> Result<About, DataError> {
    let path = folder.join(ABOUT);
    let bytes = match hypereyes_outside::files::read(&path, MAX_ABOUT) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(About { format: first(), tokenizer: None }),
        read => read.map_err(|error| file(&path, &error))?,
    };
    let about: About = serde_json::from_slice(&bytes).map_err(|error| DataError::File { path: path.clone(), reason: error.to_string() })?;
    if about.format > FORMAT {
        let release = env!("CARGO_PKG_VERSION");
        let (format, most) = (about.format, FORMAT);
        let reason =
            format!("is of format {format}, and this release ({release}) reads formats up to {most}: use the release that wrote the set");
        return Err(DataError::File { path, reason });
    }
    Ok(about)
}

/// What a data set holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Tasks.
    pub tasks: usize,
    /// Tasks by kind.
    pub visual_select: usize,
    /// As above.
    pub visual_hop: usize,
    /// As above.
    pub textual: usize,
    /// Tasks of every kind, by its name.
    pub kinds: BTreeMap<TaskKind, usize>,
    /// Pictures.
    pub pictures: usize,
    /// Demonstrations.
    pub demonstrations: usize,
    /// Mean rounds of a demonstration; 0 without any.
    pub mean_rounds: f64,
    /// Mean searches of a demonstration.
    pub mean_searches: f64,
    /// Mean tokens of a demonstration, prompt included.
    pub mean_tokens: f64,
    /// Tokens of the longest demonstration.
    pub longest: usize,
    /// Demonstrations by number of rounds; the last entry counts all that have more.
    pub by_rounds: Vec<usize>,
    /// Draws that were passed over while it was made, by reason.
    pub dropped: BTreeMap<&'static str, usize>,
}

impl DataSet {
    /// Writes the set, replacing what was there. Pictures that no longer belong to it are removed at last.
    pub fn write(&self, folder: &Path) -> Result<(), DataError> {
        let pictures = folder.join(PICTURES);
        fs::create_dir_all(&pictures).map_err(|error| file(&pictures, &error))?;
        for (id, picture) in &self.pictures {
            let path = pictures.join(format!("{id}.png"));
            // Named by content: if it is there it is right.
            if !path.is_file() {
                replace(&path, |out| out.write_all(&picture.bytes))?;
            }
        }
        // The pictures are there for good before the tasks name them.
        sync(&pictures)?;
        // Never a new set under an old set's word: taken away first, said again at last.
        let about = folder.join(ABOUT);
        match fs::remove_file(&about) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(&about, &error)),
            _ => {}
        }
        replace(&folder.join(DEMONSTRATIONS), |out| write_lines(out, &self.demonstrations))?;
        let said = About { format: FORMAT, tokenizer: self.tokenizer.clone() };
        replace(&about, |out| write_lines(out, &[said]))?;
        replace(&folder.join(TASKS), |out| write_lines(out, &self.tasks))?;
        sync(folder)?;
        self.sweep(&pictures)
    }

    /// Reads a set with all its pictures and demonstrations; a folder without demonstrations is one with none.
    pub fn load(folder: &Path, limits: &Limits) -> Result<Self, DataError> {
        let tasks = load_tasks(folder)?;
        let demonstrations = load_demonstrations(folder)?;
        let known: HashSet<&TaskId> = tasks.iter().map(|task| &task.id).collect();
        for (at, demonstration) in demonstrations.iter().enumerate() {
            if !known.contains(&demonstration.task) {
                let reason = format!("there is no task {}", demonstration.task);
                return Err(DataError::Line { path: folder.join(DEMONSTRATIONS), line: at + 1, reason });
            }
        }
        let mut pictures = BTreeMap::new();
        let named = tasks.iter().flat_map(|task| &task.pictures).chain(demonstrations.iter().flat_map(|one| &one.trajectory.pictures));
        for id in named {
            if !pictures.contains_key(id) {
                pictures.insert(id.clone(), load_picture(folder, id, limits)?);
            }
        }
        Ok(Self { tasks, pictures, demonstrations, tokenizer: about(folder)?.tokenizer, dropped: BTreeMap::new() })
    }

    /// Counts.
    pub fn stats(&self) -> Stats {
        let mut kinds = BTreeMap::new();
        self.tasks.iter().for_each(|task| *kinds.entry(task.kind.clone()).or_default() += 1);
        let kind = |kind: TaskKind| kinds.get(&kind).copied().unwrap_or(0);
        let mean = |value: &dyn Fn(&Trajectory) -> f64| {
            let sum: f64 = self.demonstrations.iter().map(|one| value(&one.trajectory)).sum();
            sum / self.demonstrations.len().max(1) as f64
        };
        let mut by_rounds = vec![0; 10];
        for demonstration in &self.demonstrations {
            by_rounds[demonstration.trajectory.summary.rounds.len().min(9)] += 1;
        }
        Stats {
            tasks: self.tasks.len(),
            visual_select: kind(TaskKind::VISUAL_SELECT),
            visual_hop: kind(TaskKind::VISUAL_HOP),
            textual: kind(TaskKind::TEXTUAL_CONSTRAINTS),
            kinds: kinds.clone(),
            pictures: self.pictures.len(),
            demonstrations: self.demonstrations.len(),
            mean_rounds: mean(&|trajectory| f64::from(trajectory.summary.round_count())),
            mean_searches: mean(&|trajectory| f64::from(trajectory.summary.searches())),
            mean_tokens: mean(&|trajectory| trajectory.tokens() as f64),
            longest: self.demonstrations.iter().map(|one| one.trajectory.tokens()).max().unwrap_or(0),
            by_rounds,
            dropped: self.dropped.clone(),
        }
    }

    fn sweep(&self, pictures: &Path) -> Result<(), DataError> {
        for entry in fs::read_dir(pictures).map_err(|error| file(pictures, &error))? {
            let path = entry.map_err(|error| file(pictures, &error))?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let ours = path.extension().is_some_and(|extension| extension == "png") && name.len() == 64;
            if ours && !self.pictures.contains_key(&PictureId::new(name)) {
                fs::remove_file(&path).map_err(|error| file(&path, &error))?;
            }
        }
        Ok(())
    }
}

/// The tasks of a folder. Ids must be unique, answers present, pictures plain hex names.
pub fn load_tasks(folder: &Path) -> Result<Vec<Task>, DataError> {
    let path = folder.join(TASKS);
    if !path.is_file() {
        return Err(DataError::File { path, reason: "there is no such task set; make one with `hypereyes synth`".into() });
    }
    // Before the rows: those of a later release may hold what is not known here.
    about(folder)?;
    let tasks = read_lines(&path, task_of)?;
    let mut seen = HashSet::new();
    for (at, task) in tasks.iter().enumerate() {
        let reason = if !seen.insert(&task.id) {
            format!("task {} was there before", task.id)
        } else if task.answers.iter().all(|answer| answer.trim().is_empty()) {
            format!("task {} has no answer", task.id)
        } else if let Err((what, reason)) = task.check() {
            format!("task {}: {what} {reason}", task.id)
        } else if let Some(id) = task.pictures.iter().find(|id| !is_hash(id)) {
            format!("{id} is no picture id (64 hex digits)")
        } else if let Some(Err((what, reason))) = task.reference.map(|reference| reference.check()) {
            format!("task {}: reference.{what} {reason}", task.id)
        } else {
            continue;
        };
        return Err(DataError::Line { path, line: at + 1, reason });
    }
    Ok(tasks)
}

/// The demonstrations of a folder; none if it has no such file.
pub fn load_demonstrations(folder: &Path) -> Result<Vec<Demonstration>, DataError> {
    let path = folder.join(DEMONSTRATIONS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let demonstrations: Vec<Demonstration> = read_lines(&path, |line| serde_json::from_slice(line))?;
    for (at, demonstration) in demonstrations.iter().enumerate() {
        let line = |reason: String| DataError::Line { path: path.clone(), line: at + 1, reason };
        demonstration.trajectory.check().map_err(|error| line(error.to_string()))?;
        demonstration.trajectory.summary.check().map_err(|error| line(error.to_string()))?;
        if let Some(id) = demonstration.trajectory.pictures.iter().find(|id| !is_hash(id)) {
            return Err(line(format!("{id} is no picture id (64 hex digits)")));
        }
    }
    Ok(demonstrations)
}

/// One picture of a folder; its bytes must hash to its name.
pub fn load_picture(folder: &Path, id: &PictureId, limits: &Limits) -> Result<Picture, DataError> {
    let path = folder.join(PICTURES).join(format!("{id}.png"));
    let fault = |reason: String| DataError::File { path: path.clone(), reason };
    if !is_hash(id) {
        return Err(fault("a picture id has 64 hex digits".into()));
    }
    let bytes = hypereyes_outside::files::read(&path, limits.max_bytes as u64).map_err(|error| fault(error.to_string()))?;
    let picture = Picture::from_bytes(bytes.into(), limits).map_err(|error| fault(error.to_string()))?;
    if &picture.id != id {
        return Err(fault(format!("its content hashes to {}; the file is damaged", picture.id)));
    }
    Ok(picture)
}

fn is_hash(id: &PictureId) -> bool {
    id.as_str().len() == 64 && id.as_str().bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn write_lines<T: Serialize>(out: &mut dyn Write, rows: &[T]) -> std::io::Result<()> {
    for row in rows {
        serde_json::to_writer(&mut *out, row)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// What a row of tasks may hold beside the task; any other key that a task has not is refused.
const FREE_KEYS: [&str; 3] = ["expected", "note", "notes"];

/// A row of tasks.
fn task_of(line: &[u8]) -> serde_json::Result<Task> {
    let mut row: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)?;
    row.retain(|key, _| !FREE_KEYS.contains(&key.as_str()));
    serde_json::from_value(row.into())
}

fn read_lines<T>(path: &Path, parse: impl Fn(&[u8]) -> serde_json::Result<T>) -> Result<Vec<T>, DataError> {
    let input = hypereyes_outside::files::open(path, MAX_FILE).map_err(|error| file(path, &error))?;
    let mut rows = Vec::new();
    for row in Lines::new(input, MAX_LINE).rows(parse) {
        let row = row.map_err(|error| file(path, &error))?;
        let fault =
            |reason: String| DataError::Line { path: path.to_owned(), line: usize::try_from(row.number).unwrap_or(usize::MAX), reason };
        let value = row.value.map_err(fault)?;
        if rows.len() == MAX_TASKS {
            return Err(fault(format!("more than {MAX_TASKS} rows")));
        }
        rows.push(value);
    }
    Ok(rows)
}

fn replace(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), DataError> {
    atomic::replace(path, content).map_err(|error| file(path, &error))
}

/// Puts the names of what was replaced in a folder on disk.
fn sync(folder: &Path) -> Result<(), DataError> {
    atomic::sync(folder).map_err(|error| file(folder, &error))
}

fn file(path: &Path, error: &std::io::Error) -> DataError {
    DataError::File { path: path.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Ending, RolloutSummary, Round};
    use hypereyes_pictures::RgbImage;

    use super::*;

    /// Pictures of data sets are read as every other: cut short they are none, turned they stand upright.
    #[test]
    fn pictures_of_a_folder_are_whole_and_upright() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cases");
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join(PICTURES)).expect("made");
        let load = |file: &str| {
            let bytes = fs::read(cases.join(file)).expect("a case");
            let id = hypereyes_pictures::picture_id(&bytes);
            fs::write(folder.path().join(PICTURES).join(format!("{id}.png")), &bytes).expect("written");
            load_picture(folder.path(), &id, &Limits::default())
        };
        assert!(load("jpeg-cut-short/whole.jpg").is_ok());
        for file in ["jpeg-cut-short/cut20.jpg", "jpeg-cut-short/cut97.jpg"] {
            let error = load(file).expect_err(file).to_string();
            assert!(error.contains(".png") && error.contains("cut short"), "{error}");
        }
        let upright = load("exif-orientation/upright.png").expect("a picture").image;
        assert_eq!(load("exif-orientation/turn6.png").expect("a picture").image, upright);
    }

    /// `count` tasks, each with a picture of its own and a demonstration that saw a second one.
    fn set(count: u8) -> DataSet {
        let mut set = DataSet::default();
        for at in 0..count {
            let [shown, crop] = [at, 100 + at]
                .map(|shade| Picture::from_image(RgbImage::from_pixel(32, 32, image::Rgb([shade, 7, 9]))).expect("a small picture"));
            let task = Task {
                id: TaskId::new(format!("t-{at}")),
                kind: TaskKind::VISUAL_SELECT,
                question: "Which one?".into(),
                answers: vec!["Peru".into()],
                pictures: vec![shown.id.clone()],
                layer: Some(1),
                metadata: Default::default(),
                shown: vec![],
                reference: None,
            };
            let trajectory = Trajectory {
                prompt: vec![1],
                response: vec![2, 3],
                mask: vec![true, false],
                logprobs: vec![0.0; 2],
                versions: vec![Default::default(); 2],
                pictures: vec![shown.id.clone(), crop.id.clone()],
                summary: RolloutSummary { rounds: vec![Round::counted(2, 0)], ending: Ending::Answered, answer: Some("Peru".into()) },
            };
            set.demonstrations.push(Demonstration { task: task.id.clone(), trajectory });
            set.tasks.push(task);
            set.pictures.extend([shown, crop].map(|picture| (picture.id.clone(), picture)));
        }
        set
    }

    #[test]
    fn a_set_is_read_back_as_it_was_written_and_replaced_whole() {
        let (first, second) = (set(5), set(3));
        let folder = tempfile::tempdir().expect("a temporary folder");
        first.write(folder.path()).expect("written");
        second.write(folder.path()).expect("replaced");
        let read = DataSet::load(folder.path(), &Limits::default()).expect("sound");
        assert_eq!((&read.tasks, &read.demonstrations), (&second.tasks, &second.demonstrations));
        assert_eq!(read.pictures, second.pictures);
        assert_eq!(fs::read_dir(folder.path().join(PICTURES)).expect("a folder").count(), 6);
        let stats = read.stats();
        assert_eq!((stats.tasks, stats.pictures, stats.mean_searches, stats.longest), (3, 6, 2.0, 3));
    }

    #[test]
    fn sets_of_before_formats_were_counted_are_read_and_those_of_later_refused_in_a_line() {
        let old = load_tasks(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/format-1/tasks")).expect("an earlier release's");
        assert_eq!(old.iter().map(|task| task.layer).collect::<Vec<_>>(), [Some(1), Some(3), Some(2)]);
        assert_eq!(old.iter().map(|task| task.kind.as_str()).collect::<HashSet<_>>(), ["textual_constraints", "visual_select"].into());
        assert!(old.iter().all(|task| task.metadata.is_empty() && task.reference.is_some()));
        let folder = tempfile::tempdir().expect("a temporary folder");
        set(1).write(folder.path()).expect("written");
        assert_eq!(about(folder.path()).expect("said").format, FORMAT);
        fs::write(folder.path().join(ABOUT), r#"{"format":9,"more":[1]}"#).expect("overwritten");
        let error = load_tasks(folder.path()).expect_err("of later").to_string();
        assert!(error.contains("format 9") && error.contains("up to 2") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn damage_is_named_with_its_place() {
        let set = set(6);
        let folder = tempfile::tempdir().expect("a temporary folder");
        set.write(folder.path()).expect("written");
        let (id, other) = (&set.tasks[0].pictures[0], &set.tasks[1].pictures[0]);
        fs::write(folder.path().join(PICTURES).join(format!("{id}.png")), &set.pictures[other].bytes).expect("overwritten");
        let error = DataSet::load(folder.path(), &Limits::default()).expect_err("a wrong picture").to_string();
        assert!(error.contains("damaged") && error.contains(id.as_str()), "{error}");

        let mut lines = fs::read_to_string(folder.path().join(TASKS)).expect("written");
        lines.push_str("{\"id\":\"x\"}\n");
        fs::write(folder.path().join(TASKS), &lines).expect("overwritten");
        let error = load_tasks(folder.path()).expect_err("a short row").to_string();
        assert!(error.contains("line 7"), "{error}");
        let first = lines.lines().next().expect("a row").to_owned();
        fs::write(folder.path().join(TASKS), format!("{first}\n{first}\n")).expect("overwritten");
        assert!(load_tasks(folder.path()).expect_err("twice").to_string().contains("was there before"));
        let bought = first.replace("\"reference\":null", "\"reference\":{\"rounds\":1,\"searches\":0}");
        fs::write(folder.path().join(TASKS), bought).expect("overwritten");
        let error = load_tasks(folder.path()).expect_err("nobody can have reached it").to_string();
        assert!(error.contains("line 1: task t-0: reference.searches is 0"), "{error}");
        assert!(load_picture(folder.path(), &PictureId::new("../../etc/passwd"), &Limits::default()).is_err());
        let with = |more: &str| format!("{}, {more}}}\n", first.trim_end_matches('}'));
        fs::write(folder.path().join(TASKS), with(r#""note": "n", "metadata": {"source": 1}, "expected": 7"#)).expect("overwritten");
        let metadata = hypereyes_domain::Metadata::from_iter([("source".to_owned(), 1.into())]);
        let kept = [Task { metadata, ..set.tasks[0].clone() }];
        assert_eq!(load_tasks(folder.path()).expect("what people keep beside a task is theirs"), kept);
        fs::write(folder.path().join(TASKS), with(r#""refrence": null"#)).expect("overwritten");
        let error = load_tasks(folder.path()).expect_err("a misspelt key").to_string();
        assert!(error.contains("line 1") && error.contains("`refrence`"), "{error}");
        let number = first.replace("\"answers\":[\"Peru\"]", "\"answers\":[7, 2.5]");
        fs::write(folder.path().join(TASKS), &number).expect("overwritten");
        assert_eq!(load_tasks(folder.path()).expect("numbers are answers")[0].answers, ["7", "2.5"]);
        let nowhere = load_tasks(&folder.path().join("nowhere")).expect_err("no folder").to_string();
        assert!(nowhere.contains("nowhere") && nowhere.contains("hypereyes synth"), "{nowhere}");
    }
}
