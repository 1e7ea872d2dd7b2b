//! What several tests of the whole workspace share: where it is, what its files say, what its manifests for Kubernetes say, and which
//! settings its sources read.

pub mod k8s;
pub mod keys;
pub mod pages;
pub mod skips;

use std::path::{Path, PathBuf};

pub use skips::skip;

/// The root of the workspace.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_owned()
}

/// Every text file of the workspace whose name ends in one of `extensions` (without the dot), with what it says; paths are relative to
/// the root. Build output, runs and what begins with a dot (`.github` apart) are no part of it.
pub fn texts(extensions: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).expect("the folder can be listed").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let skipped = ["target", "runs"].contains(&name.as_str()) || name.starts_with('.') && name != ".github";
            if skipped || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                walk(&path, extensions, found);
            } else if path.extension().is_some_and(|own| extensions.iter().any(|extension| own == *extension)) {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    let mut found = vec![];
    walk(&root(), extensions, &mut found);
    found.sort();
    found
}
