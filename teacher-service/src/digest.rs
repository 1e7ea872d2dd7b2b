//! One name for the contents of a model folder. In: a folder. Out: BLAKE3 over the names and contents of the files that make the
//! model what it is.

use std::path::Path;

/// Files that count beside the weights, where they are.
const BESIDE: [&str; 5] =
    ["config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json", "model.safetensors.index.json"];

/// A larger file is none of a model.
const MAX_BYTES: u64 = 64 << 30;

/// The digest, hex.
///
/// # Errors
/// A text that names the file that cannot be read.
pub fn of(folder: &Path) -> Result<String, String> {
    let fault = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map_err(|error| fault(folder, error))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors") || BESIDE.contains(&name.as_str()))
        .collect();
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        let path = folder.join(&name);
        let file = hypereyes_outside::files::open(&path, MAX_BYTES).map_err(|error| fault(&path, error))?;
        let length = file.metadata().map_err(|error| fault(&path, error))?.len();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&length.to_le_bytes());
        hasher.update_reader(file).map_err(|error| fault(&path, error))?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_count_and_strangers_do_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("writes");
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let first = of(folder.path()).expect("reads");
        write("README.md", "hello");
        assert_eq!(of(folder.path()).expect("reads"), first);
        write("model.safetensors", "weightS");
        assert_ne!(of(folder.path()).expect("reads"), first);
        assert!(of(Path::new("/nowhere")).expect_err("no folder").contains("/nowhere"));
    }
}
