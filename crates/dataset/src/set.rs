//! A set in memory, and as a folder. In: tasks, pictures and demonstrations, or such a folder. Out: the other. It knows nothing of how
//! tasks are made.
//!
//! Every file is replaced in one step, and `tasks.jsonl` last: whoever reads while a set is replaced gets the old tasks or
//! the new ones, and in both cases all pictures that they name.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::Path;

use hypereyes_domain::{PictureId, Task, TaskId};
use hypereyes_outside::atomic;
use hypereyes_pictures::{Limits, Picture};

use crate::about::{ABOUT, About, FORMAT, about};
use crate::demonstrations::{DEMONSTRATIONS, Demonstration, load_demonstrations};
use crate::error::{DataError, file};
use crate::lines::write_lines;
use crate::pictures::{PICTURES, load_picture};
use crate::tasks::{TASKS, load_tasks};

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

fn replace(path: &Path, content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), DataError> {
    atomic::replace(path, content).map_err(|error| file(path, &error))
}

/// Puts the names of what was replaced in a folder on disk.
fn sync(folder: &Path) -> Result<(), DataError> {
    atomic::sync(folder).map_err(|error| file(folder, &error))
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Ending, RolloutSummary, Round, TaskKind, Trajectory};
    use hypereyes_pictures::RgbImage;

    use super::*;

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
                spoken: None,
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
