//! What is said of a folder as a whole, in `about.json`: of which format it is, and which tokenizer made its demonstrations. In: a
//! folder. Out: that, or why this release cannot read it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{DataError, file};

/// What is said of the set as a whole.
pub const ABOUT: &str = "about.json";
/// The format that is written. Readers take this one and every earlier one; 1 is what has no number.
pub const FORMAT: u32 = 2;
/// Longest of those that is read.
const MAX_ABOUT: u64 = 64 << 10;

/// `about.json`; keys of later versions are passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    #[serde(default = "first")]
    pub(crate) format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tokenizer: Option<String>,
}

fn first() -> u32 {
    1
}

/// What is said of a set as a whole; nothing in sets of before it was said.
pub(crate) fn about(folder: &Path) -> Result<About, DataError> {
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
