//! What goes with the weights: everything small that lies beside those of the start, known or not.
//!
//! In: a start's folder. Out: its `config.json`, and its files in memory, so that nothing depends on the start's folder after hours
//! of training; and what is left out, in words. Weights and indexes of the start, in whatever format, never go with new ones.

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{paths, place};
use crate::Error;
use crate::checkpoint::StoredDtype;
use crate::config::ModelConfig;

/// Largest file that goes along, which is the largest tokenizer that is read.
pub const MAX_BYTES: u64 = 128 << 20;
/// Most bytes of all of them together.
const MAX_TOTAL: u64 = 256 << 20;
/// Most files, and how deep folders go.
const MAX_FILES: usize = 4096;
const MAX_DEPTH: usize = 4;
/// Most things that are said not to go along.
const MAX_SAID: usize = 64;

/// Suffixes of files that hold weights, or a training's state.
const WEIGHTS: [&str; 20] = [
    "safetensors",
    "gguf",
    "ggml",
    "pt",
    "pth",
    "ckpt",
    "h5",
    "hdf5",
    "msgpack",
    "onnx",
    "onnx_data",
    "npz",
    "npy",
    "tflite",
    "ot",
    "pdparams",
    "distcp",
    "nemo",
    "mlmodel",
    "keras",
];
/// How files with the suffix `bin` begin that hold weights, or a training's state.
const BINARIES: [&str; 11] = [
    "pytorch_model",
    "model",
    "adapter",
    "consolidated",
    "diffusion",
    "flax",
    "tf_model",
    "ggml",
    "optimizer",
    "scheduler",
    "training_args",
];
/// Files that a published model consists of besides weights: those of another model may be deleted when it is replaced.
const OF_A_MODEL: [&str; 18] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "configuration.json",
    ".gitattributes",
];
/// Templates beside the one that is called `chat_template`.
const TEMPLATES: &str = "additional_chat_templates";
/// Folders of a start that are none of the model's files: what training and publishing have left.
const LEFT_BY_OTHERS: [&str; 3] = ["original", "runs", "__pycache__"];

/// Whether a file of this name holds weights or says where they are, in any format.
pub fn holds_weights(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    // `model.safetensors.index.json`, `pytorch_model.bin.index.fp16.json`.
    if name.contains(".index.") && name.ends_with(".json") || name.contains(".safetensors") {
        return true;
    }
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((&name, ""));
    let binary = suffix == "bin" && (BINARIES.iter().any(|start| stem.starts_with(start)) || stem.contains("-of-"));
    // What belongs to an adapter would be applied to the new weights by who reads them.
    binary || WEIGHTS.contains(&suffix) || stem.starts_with("adapter_") || (stem.starts_with("rng_state") && suffix == "pth")
}

/// Whether a file of this name belongs to a published model.
pub fn belongs_to_a_model(name: &OsStr) -> bool {
    OF_A_MODEL.iter().any(|known| name == *known) || holds_weights(name)
}

/// Whether a folder of this name does.
pub fn is_folder_of_a_model(name: &OsStr) -> bool {
    name == TEMPLATES
}

/// Whether a file of this name says that its folder holds a model.
pub fn marks_a_model(name: &OsStr) -> bool {
    name == "config.json" || holds_weights(name)
}

/// What was found beside the weights of a start.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Its `config.json`; none where the start has no weights yet.
    pub config: Option<Value>,
    /// Its files, by their path in it.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// What does not go along, and why; weights in the formats that are read are not worth a word.
    pub left_out: Vec<String>,
    total: u64,
}

impl Extras {
    /// Reads what is beside the weights of `start`. `target` is where it will go, and is none of it.
    ///
    /// # Errors
    /// [`Error`] when the folder or its `config.json` cannot be read.
    pub fn of(start: &Path, target: &Path) -> Result<Self, Error> {
        let config = if start.join("config.json").exists() { Some(ModelConfig::load_json(start)?) } else { None };
        let mut found = Self { config, ..Self::default() };
        found.walk(start, Path::new(""), target, MAX_DEPTH).map_err(|error| Error::io(start, error))?;
        Ok(found)
    }

    /// The text of `config.json` for weights stored as `dtype`: that of the start with what a save changes.
    ///
    /// # Errors
    /// A text, when `config` and the start's describe different models.
    pub fn config_of(&self, config: &ModelConfig, dtype: StoredDtype) -> Result<String, String> {
        let json = config.to_json_over(self.config.as_ref(), dtype)?;
        Ok(serde_json::to_string_pretty(&json).expect("JSON of plain values") + "\n")
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.total
    }

    fn walk(&mut self, start: &Path, below: &Path, target: &Path, depth: usize) -> io::Result<()> {
        let mut names: Vec<OsString> = fs::read_dir(start.join(below))?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let inner = below.join(&name);
            let path = start.join(&inner);
            // Models in a cache are links to files: what they lead to counts. Nothing that is no file is ever opened.
            let kind = match fs::metadata(&path) {
                Ok(meta) => meta,
                Err(error) => {
                    self.leave(&inner, &error.to_string());
                    continue;
                }
            };
            if name == place::UNFINISHED {
                self.leave(&inner, "the mark of a save that is under way");
            } else if kind.is_dir() {
                self.folder(start, &inner, target, depth)?;
            } else if below.as_os_str().is_empty() && (name == "config.json" || holds_weights(&name)) {
                let read = name == "config.json" || name.to_string_lossy().contains(".safetensors");
                if !read || name.to_string_lossy().starts_with("adapter_") {
                    self.leave(&inner, "weights, or a training's state, of the start");
                }
            } else if !kind.is_file() {
                self.leave(&inner, "no regular file");
            } else if kind.len() > MAX_BYTES || self.total + kind.len() > MAX_TOTAL {
                self.leave(
                    &inner,
                    &format!("{} MiB; {} each and {} together go along", kind.len() >> 20, MAX_BYTES >> 20, MAX_TOTAL >> 20),
                );
            } else if self.files.len() >= MAX_FILES {
                self.leave(&inner, &format!("{MAX_FILES} files go along, not this one and those after it"));
                return Ok(());
            } else {
                match read(&path) {
                    Ok(bytes) => {
                        self.total += bytes.len() as u64;
                        self.files.push((inner, bytes));
                    }
                    Err(error) => self.leave(&inner, &error.to_string()),
                }
            }
        }
        Ok(())
    }

    fn folder(&mut self, start: &Path, inner: &Path, target: &Path, depth: usize) -> io::Result<()> {
        let path = start.join(inner);
        let name = inner.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let linked = fs::symlink_metadata(&path)?.is_symlink();
        let why = if paths::is_within(target, &path) {
            Some("the new folder lies in it")
        } else if linked {
            Some("a link to a folder")
        } else if name.starts_with('.') || LEFT_BY_OTHERS.contains(&name.as_str()) {
            Some("what publishing or training has left")
        } else if depth == 0 {
            Some("too deep")
        } else if has_weights(&path, depth) {
            Some("it holds weights")
        } else {
            None
        };
        match why {
            Some(why) => {
                self.leave(inner, why);
                Ok(())
            }
            None => self.walk(start, inner, target, depth - 1),
        }
    }

    fn leave(&mut self, inner: &Path, why: &str) {
        match self.left_out.len().cmp(&MAX_SAID) {
            Ordering::Less => self.left_out.push(format!("{} ({why})", inner.display())),
            Ordering::Equal => self.left_out.push("and more".into()),
            Ordering::Greater => {}
        }
    }
}

/// Whether weights lie in a folder, as in one that is a model of its own.
fn has_weights(folder: &Path, depth: usize) -> bool {
    let within = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => depth > 0 && has_weights(&entry.path(), depth - 1),
        _ => holds_weights(&entry.file_name()),
    };
    fs::read_dir(folder).into_iter().flatten().flatten().any(within)
}

/// The bytes of a file that does not grow beyond what it may have.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    hypereyes_outside::files::open(path, MAX_BYTES)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES { Err(io::Error::other("it grows while it is read")) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn weights_are_known_by_name_in_every_format_and_nothing_else_is() {
        for name in [
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "model.safetensors.index.fp16.json",
            "pytorch_model.bin",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model.bin.index.json",
            "model.fp16.safetensors",
            "x.gguf",
            "consolidated.00.pth",
            "optimizer.pt",
            "adapter_config.json",
            "adapter_model.bin",
            "tf_model.h5",
            "flax_model.msgpack",
            "model.safetensors.bak",
            "MODEL.SAFETENSORS",
            "training_args.bin",
            "part-1-of-9.bin",
        ] {
            assert!(holds_weights(OsStr::new(name)), "{name}");
        }
        for name in [
            "tokenizer.json",
            "config.json",
            "vocab.bin",
            "notes.txt",
            "README.md",
            "index.json",
            "modeling_x.py",
            "model_index.json",
            "chat_template.jinja",
            "LICENSE",
            "spiece.model",
            "adapters.txt",
        ] {
            assert!(!holds_weights(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn what_is_small_goes_along_and_what_does_not_is_said() {
        let root = tempfile::tempdir().unwrap();
        let start = root.path().join("start");
        let put = |name: &str, text: &str| {
            let path = start.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for name in ["notes.txt", "additional_chat_templates/tool.jinja", ".gitattributes", "code/modeling.py"] {
            put(name, name);
        }
        for name in [
            "model.safetensors",
            "model.safetensors.index.json",
            "x.gguf",
            "original/params.json",
            "checkpoint-5/model.safetensors",
            ".git/HEAD",
        ] {
            put(name, name);
        }
        File::create(start.join("video.mp4")).unwrap().set_len(MAX_BYTES + 1).unwrap();
        put("out/config.json", "{}");
        std::os::unix::fs::symlink(start.join("notes.txt"), start.join("linked.txt")).unwrap();
        std::os::unix::fs::symlink(&start, start.join("loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", start.join("broken.txt")).unwrap();
        let found = Extras::of(&start, &start.join("out")).unwrap();
        let names: Vec<&str> = found.files.iter().map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(names, [".gitattributes", "additional_chat_templates/tool.jinja", "code/modeling.py", "linked.txt", "notes.txt"]);
        assert_eq!(found.files[3].1, b"notes.txt");
        let said = found.left_out.join("\n");
        for (name, why) in [
            (".git", "left"),
            ("broken.txt", "No such"),
            ("checkpoint-5", "weights"),
            ("loop", "in it"),
            ("original", "left"),
            ("out", "in it"),
            ("video.mp4", "128 MiB"),
            ("x.gguf", "of the start"),
        ] {
            assert!(found.left_out.iter().any(|line| line.starts_with(name) && line.contains(why)), "{name}: {said}");
        }
        assert_eq!(found.left_out.len(), 8, "{said}");
    }
}
