//! What a model folder says before its weights are read: shape, vocabulary, how pictures are cut. In: a folder, and what may be
//! read. Out: a [`Survey`], or which file is wrong. It asks the disk: whoever serves others calls it on a thread apart.

use std::path::{Path, PathBuf};

use hypereyes_outside::files;
use hypereyes_pictures::Processor;
use hypereyes_policy::config::ModelConfig;

use crate::access::Access;
use crate::source::Source;
use crate::vocabulary::Vocabulary;

/// Largest file beside the weights; the published tokenizers have 11 MB.
const MAX_SMALL: u64 = 128 << 20;
/// Most entries of a folder that are looked at.
const MAX_ENTRIES: usize = 4096;
/// What a file of weights may have beyond what the config describes: its header, and tensors that nobody asked for.
const SLACK: u64 = 256 << 20;
/// Most bytes that a number of weights takes on a disk.
const WIDEST: u64 = 8;

/// What a folder says.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Where it is, without links.
    pub folder: PathBuf,
    /// The model's shape.
    pub config: ModelConfig,
    /// What its token ids mean: a digest.
    pub vocabulary: String,
    /// How it cuts pictures; an error where the folder does not say.
    pub processor: Result<Processor, String>,
}

/// Looks at a folder of a source. With `weights`, files of weights are looked at as well; none is read.
///
/// # Errors
/// A text that names the file.
pub fn survey(folder: &Path, source: &Source, access: &Access, weights: bool) -> Result<Survey, String> {
    let folder = access.folder(source, folder)?;
    let mut heaviest = 0;
    let mut entries = 0;
    let listed =
        std::fs::read_dir(&folder).map_err(|error| format!("no model at {}: cannot read config.json ({error})", folder.display()))?;
    for entry in listed {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(format!("{}: more than {MAX_ENTRIES} entries; this is no folder of one model", folder.display()));
        }
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let limit = match ending {
            "safetensors" if weights => u64::MAX,
            "json" | "jinja" | "txt" => MAX_SMALL,
            _ => continue,
        };
        let fault = |error: std::io::Error| format!("{}: {error}", path.display());
        // A folder of templates, say, is not ours to judge.
        if path.is_dir() {
            continue;
        }
        let file = match files::open(&path, limit) {
            // A link to nowhere: what is needed is missed by whoever reads it, by its name.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            opened => opened.map_err(fault)?,
        };
        access.file(source, &path)?;
        if ending == "safetensors" {
            heaviest = heaviest.max(file.metadata().map_err(fault)?.len());
        }
    }
    let config = ModelConfig::load(&folder).map_err(|error| error.to_string())?;
    let parameters = u64::try_from(config.parameters()).unwrap_or(u64::MAX);
    if heaviest > parameters.saturating_mul(WIDEST).saturating_add(SLACK) {
        return Err(format!(
            "{}: a file of weights has {heaviest} bytes, for {parameters} parameters that config.json describes",
            folder.display()
        ));
    }
    let vocabulary = Vocabulary::load(&folder, config.image_token_id)?.digest();
    let processor = Processor::load(&folder).map_err(|error| error.to_string());
    Ok(Survey { folder, config, vocabulary, processor })
}
