//! The format of a run folder: a number in `format.json`, in the folder of `up` and in the learner's.
//!
//! In: a folder. Out: its format, or a refusal of what a later release wrote. A folder without a number is of format 1, which releases
//! wrote before there was one; it is read like any other.

use std::io;
use std::path::Path;

use hypereyes_chassis::BadInput;
use hypereyes_outside::atomic;
use serde::{Deserialize, Serialize};

/// The format that is written. Readers take this one and every earlier one.
pub const FORMAT: u32 = 2;
/// Where it stands.
pub const FILE: &str = "format.json";
/// Largest such file that is read.
const MAX_BYTES: u64 = 64 << 10;

/// The file's content; keys of later releases are passed over.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    #[serde(default)]
    written_by: String,
}

/// The format of a folder; 1 where it does not say.
///
/// # Errors
/// [`BadInput`] when the file cannot be read, holds something else, or names a format of a later release.
pub fn admit(folder: &Path) -> Result<u32, BadInput> {
    let path = folder.join(FILE);
    let bytes = match hypereyes_outside::files::read(&path, MAX_BYTES) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(1),
        read => read.map_err(|error| BadInput::new(format!("cannot read {}: {error}", path.display())))?,
    };
    let mark: Mark = serde_json::from_slice(&bytes).map_err(|error| BadInput::new(format!("{} is damaged: {error}", path.display())))?;
    if mark.format > FORMAT {
        let by = if mark.written_by.is_empty() { "a later release".to_owned() } else { format!("hypereyes {}", mark.written_by) };
        let text = format!(
            "{} is a run folder of format {}, written by {by}; this release ({}) reads formats up to {FORMAT}: use that release, or another folder",
            folder.display(),
            mark.format,
            env!("CARGO_PKG_VERSION")
        );
        return Err(BadInput::new(text));
    }
    Ok(mark.format)
}

/// Says in the folder that what is written from here on has the format of this release.
///
/// # Errors
/// Those of the file system; the folder must exist.
pub fn mark(folder: &Path) -> io::Result<()> {
    let mark = Mark { format: FORMAT, written_by: env!("CARGO_PKG_VERSION").to_owned() };
    let mut text = serde_json::to_vec(&mark).expect("plain values");
    text.push(b'\n');
    atomic::write(&folder.join(FILE), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_number_is_of_the_release_before_and_a_later_one_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(admit(folder.path()).expect("no number"), 1);
        assert_eq!(admit(&folder.path().join("nowhere")).expect("nothing there"), 1);
        mark(folder.path()).expect("written");
        assert_eq!(admit(folder.path()).expect("ours"), FORMAT);
        std::fs::write(folder.path().join(FILE), r#"{"format":99,"written_by":"9.0.0","more":[1]}"#).expect("written");
        let error = admit(folder.path()).expect_err("of a later release").to_string();
        assert!(error.contains("format 99, written by hypereyes 9.0.0") && error.contains("up to 2"), "{error}");
        std::fs::write(folder.path().join(FILE), "2").expect("written");
        assert!(admit(folder.path()).expect_err("no object").to_string().contains("is damaged"));
    }
}
