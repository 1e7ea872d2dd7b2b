//! A set that is written while it is made: pictures as they come, rows at last. In: pictures, and then tasks and demonstrations one by one.
//! Out: a folder as [`crate::DataSet`] writes it. Nothing but the names of pictures is held, and a run that is cut leaves pictures and
//! no rows: whoever goes on writes the rest.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hypereyes_domain::{PictureId, Task};
use hypereyes_outside::atomic;
use hypereyes_pictures::Picture;
use serde::Serialize;

use crate::PICTURES;
use crate::TASKS;
use crate::about::{ABOUT, About, FORMAT};
use crate::demonstrations::{DEMONSTRATIONS, Demonstration};
use crate::error::{DataError, file};

/// A folder that becomes a set.
#[derive(Debug)]
pub struct Growing {
    folder: PathBuf,
}

impl Growing {
    /// Makes the folder, unless it is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(folder: &Path) -> Result<Self, DataError> {
        let pictures = folder.join(PICTURES);
        fs::create_dir_all(&pictures).map_err(|error| file(&pictures, &error))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Writes a picture, unless it is there. A power cut may take it back until a set is finished or [`Growing::sync`] was called.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn picture(&self, picture: &Picture) -> Result<(), DataError> {
        let path = self.folder.join(PICTURES).join(format!("{}.png", picture.id));
        // Named by content: if it is there it is right.
        if path.is_file() {
            return Ok(());
        }
        atomic::replace(&path, |out| out.write_all(&picture.bytes)).map_err(|error| file(&path, &error))
    }

    /// Puts the names of pictures on disk.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn sync(&self) -> Result<(), DataError> {
        let pictures = self.folder.join(PICTURES);
        atomic::sync(&pictures).map_err(|error| file(&pictures, &error))
    }

    /// Writes the rows, which replace those that were there, and removes pictures that none of them names. `tokenizer` is the digest of
    /// the vocabulary that demonstrations are written in. How many demonstrations there are.
    ///
    /// # Errors
    /// Those of the file system, and what the demonstrations come with.
    pub fn finish<E: From<DataError>>(
        self,
        tasks: &[Task],
        demonstrations: impl Iterator<Item = Result<Demonstration, E>>,
        tokenizer: Option<String>,
    ) -> Result<usize, E> {
        self.sync()?;
        let mut named: BTreeSet<PictureId> = tasks.iter().flat_map(|task| task.pictures.iter().cloned()).collect();
        // Never a new set under an old set's word: taken away first, said again at last.
        let about = self.folder.join(ABOUT);
        match fs::remove_file(&about) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(&about, &error).into()),
            _ => {}
        }
        let path = self.folder.join(DEMONSTRATIONS);
        let (mut count, mut failed) = (0, None);
        let written = atomic::replace(&path, |out| {
            for one in demonstrations {
                match one {
                    Ok(one) => {
                        line(out, &one)?;
                        named.extend(one.trajectory.pictures);
                        count += 1;
                    }
                    Err(error) => {
                        failed = Some(error);
                        return Err(io::Error::other("a demonstration cannot be had"));
                    }
                }
            }
            Ok(())
        });
        if let Some(error) = failed {
            return Err(error);
        }
        written.map_err(|error| file(&path, &error))?;
        let about_it = About { format: FORMAT, tokenizer };
        atomic::replace(&about, |out| line(out, &about_it)).map_err(|error| file(&about, &error))?;
        let path = self.folder.join(TASKS);
        atomic::replace(&path, |out| tasks.iter().try_for_each(|task| line(out, task))).map_err(|error| file(&path, &error))?;
        atomic::sync(&self.folder).map_err(|error| file(&self.folder, &error))?;
        self.sweep(&named)?;
        Ok(count)
    }

    fn sweep(&self, named: &BTreeSet<PictureId>) -> Result<(), DataError> {
        let pictures = self.folder.join(PICTURES);
        for entry in fs::read_dir(&pictures).map_err(|error| file(&pictures, &error))? {
            let path = entry.map_err(|error| file(&pictures, &error))?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let ours = path.extension().is_some_and(|extension| extension == "png") && name.len() == 64;
            if ours && !named.contains(&PictureId::new(name)) {
                fs::remove_file(&path).map_err(|error| file(&path, &error))?;
            }
        }
        Ok(())
    }
}

fn line(out: &mut dyn Write, row: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, row)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::{Ending, RolloutSummary, Round, TaskKind, Trajectory};
    use hypereyes_pictures::{Limits, RgbImage};

    use super::*;
    use crate::DataSet;

    #[test]
    fn what_grew_is_read_as_a_set_and_what_nobody_names_goes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [shown, crop, stray] =
            [1, 2, 3].map(|shade| Picture::from_image(RgbImage::from_pixel(32, 32, image::Rgb([shade, 7, 9]))).expect("a small picture"));
        let growing = Growing::new(folder.path()).expect("made");
        [&shown, &crop, &stray, &crop].into_iter().for_each(|picture| growing.picture(picture).expect("written"));
        let task = Task {
            id: "t".into(),
            kind: TaskKind::VISUAL_SELECT,
            question: "Which one?".into(),
            answers: vec!["Peru".into()],
            pictures: vec![shown.id.clone()],
            layer: None,
            metadata: Default::default(),
            shown: vec![],
            reference: None,
        };
        let summary = RolloutSummary { rounds: vec![Round::counted(2, 0)], ending: Ending::Answered, answer: Some("Peru".into()) };
        let trajectory = Trajectory { pictures: vec![shown.id.clone(), crop.id.clone()], ..Trajectory::from(summary) };
        let one = Demonstration { task: task.id.clone(), trajectory };
        let tasks = [task];
        let broken: Result<usize, DataError> = Growing::new(folder.path()).expect("there").finish(
            &tasks,
            [Ok(one.clone()), Err(DataError::File { path: "x".into(), reason: "gone".into() })].into_iter(),
            None,
        );
        assert!(broken.expect_err("a demonstration is missing").to_string().contains("gone"));
        assert!(DataSet::load(folder.path(), &Limits::default()).is_err(), "no rows yet");
        let count: Result<usize, DataError> = growing.finish(&tasks, [Ok(one.clone())].into_iter(), Some("digest".into()));
        assert_eq!(count.expect("finished"), 1);
        let set = DataSet::load(folder.path(), &Limits::default()).expect("a set");
        assert_eq!((&set.tasks[..], &set.demonstrations[..], set.tokenizer.as_deref()), (&tasks[..], &[one][..], Some("digest")));
        assert_eq!(fs::read_dir(folder.path().join(PICTURES)).expect("a folder").count(), 2);
    }
}
