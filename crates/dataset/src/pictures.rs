//! Pictures of a set, one at a time: none is held that nobody needs now. In: files, or bytes that came in a row. Out: a picture by its
//! name, its content checked against the name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hypereyes_domain::{PictureId, Task};
use hypereyes_pictures::{Limits, Picture};
use tempfile::TempDir;

use crate::error::{DataError, file};

/// The pictures' folder.
pub const PICTURES: &str = "pictures";

/// Where the pictures of a set lie.
#[derive(Debug, Default)]
pub struct PictureFiles {
    limits: Limits,
    paths: BTreeMap<PictureId, PathBuf>,
    /// Pictures that were no files; they go when this does.
    unpacked: Option<TempDir>,
}

impl PictureFiles {
    /// None yet; larger ones than `limits` are refused.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The pictures that the tasks of a folder name. Each is looked at once.
    ///
    /// # Errors
    /// [`DataError`] for the first that is missing or damaged.
    pub fn of_tasks(folder: &Path, tasks: &[Task], limits: Limits) -> Result<Self, DataError> {
        let mut pictures = Self::new(limits);
        for id in tasks.iter().flat_map(|task| &task.pictures) {
            if !pictures.paths.contains_key(id) {
                load_picture(folder, id, &pictures.limits)?;
                pictures.paths.insert(id.clone(), path_of(folder, id));
            }
        }
        Ok(pictures)
    }

    /// Reads a picture.
    ///
    /// # Errors
    /// When it is none of these, cannot be read, or is another by now.
    pub fn load(&self, id: &PictureId) -> Result<Picture, DataError> {
        let unknown = || DataError::File { path: id.as_str().into(), reason: "the set has no such picture".into() };
        named(self.paths.get(id).ok_or_else(unknown)?, id, &self.limits)
    }

    /// Takes a file in; it stays where it is.
    ///
    /// # Errors
    /// When it is no picture.
    pub(crate) fn add_file(&mut self, path: PathBuf) -> Result<PictureId, DataError> {
        let id = read(&path, &self.limits)?.id;
        self.paths.insert(id.clone(), path);
        Ok(id)
    }

    /// Takes in a picture that is no file, and makes one of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn unpack(&mut self, picture: &Picture) -> Result<PictureId, DataError> {
        let id = &picture.id;
        if !self.paths.contains_key(id) {
            let path = self.unpacked()?.join(id.as_str());
            std::fs::write(&path, &picture.bytes).map_err(|error| file(&path, &error))?;
            self.paths.insert(id.clone(), path);
        }
        Ok(id.clone())
    }

    /// Pictures beyond which are refused.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The folder for what is no file.
    fn unpacked(&mut self) -> Result<&Path, DataError> {
        let folder = match self.unpacked.take() {
            Some(folder) => folder,
            None => tempfile::Builder::new().prefix("hypereyes-").tempdir().map_err(|error| file(&std::env::temp_dir(), &error))?,
        };
        Ok(self.unpacked.insert(folder).path())
    }
}

/// One picture of a folder; its bytes must hash to its name.
pub fn load_picture(folder: &Path, id: &PictureId, limits: &Limits) -> Result<Picture, DataError> {
    let path = path_of(folder, id);
    if !is_hash(id) {
        return Err(DataError::File { path, reason: "a picture id has 64 hex digits".into() });
    }
    named(&path, id, limits)
}

/// Where a folder has a picture.
pub(crate) fn path_of(folder: &Path, id: &PictureId) -> PathBuf {
    folder.join(PICTURES).join(format!("{id}.png"))
}

fn named(path: &Path, id: &PictureId, limits: &Limits) -> Result<Picture, DataError> {
    let picture = read(path, limits)?;
    if &picture.id != id {
        let reason = format!("its content hashes to {}; the file is damaged", picture.id);
        return Err(DataError::File { path: path.to_owned(), reason });
    }
    Ok(picture)
}

fn read(path: &Path, limits: &Limits) -> Result<Picture, DataError> {
    let fault = |reason: String| DataError::File { path: path.to_owned(), reason };
    let bytes = hypereyes_outside::files::read(path, limits.max_bytes as u64).map_err(|error| fault(error.to_string()))?;
    Picture::from_bytes(bytes.into(), limits).map_err(|error| fault(error.to_string()))
}

/// Whether an id is what names of pictures are: 64 hex digits.
pub(crate) fn is_hash(id: &PictureId) -> bool {
    id.as_str().len() == 64 && id.as_str().bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use std::fs;

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
}
