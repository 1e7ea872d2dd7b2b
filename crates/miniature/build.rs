//! Lists the files of `assets/policy` and `assets/teacher`, so that `shipped.rs` can compile them in.
//!
//! In: the folders, which may be absent. Out: `shipped_files.rs` with one `include_bytes!` and one digest per file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Models: folder under `assets/` and the constant that lists its files.
const MODELS: [(&str, &str); 2] = [("policy", "POLICY"), ("teacher", "TEACHER")];

fn main() {
    let assets = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../../assets");
    println!("cargo:rerun-if-changed={}", assets.display());
    let mut code = String::new();
    for (folder, constant) in MODELS {
        writeln!(code, "static {constant}: &[File] = &[").expect("memory");
        for path in files(&assets.join(folder)) {
            let bytes = fs::read(&path).expect("a listed file is readable");
            let name = path.file_name().and_then(|name| name.to_str()).expect("asset names are UTF-8");
            let digest = blake3::hash(&bytes).to_hex();
            let path = path.canonicalize().expect("a listed file exists");
            writeln!(code, "    File {{ name: {name:?}, digest: \"{digest}\", bytes: include_bytes!({path:?}) }},").expect("memory");
        }
        code.push_str("];\n");
    }
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("shipped_files.rs"), code).expect("OUT_DIR is writable");
}

/// Plain, visible files of a folder, sorted; none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let visible = |path: &PathBuf| path.is_file() && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(visible).collect();
    paths.sort();
    paths
}
