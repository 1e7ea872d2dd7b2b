//! Compiles the default world pack in: writes `embedded.rs`, which includes every file of `worlds/countries` that a
//! world is made of. Fails with the folder's name when the pack is not there.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    if let Err(message) = generate() {
        eprintln!("the default world pack cannot be embedded: {message}");
        std::process::exit(1);
    }
}

fn generate() -> Result<(), String> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(|error| error.to_string())?;
    let pack = Path::new(&root).join("../../worlds/countries");
    let pack = pack.canonicalize().map_err(|error| format!("{}: {error}", pack.display()))?;
    println!("cargo::rerun-if-changed={}", pack.display());
    println!("cargo::rerun-if-changed=build.rs");

    let mut pictures: Vec<PathBuf> = fs::read_dir(pack.join("pictures"))
        .map_err(|error| format!("{}: {error}", pack.join("pictures").display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .collect();
    pictures.sort();
    let mut code = format!(
        "const WORLD: &str = include_str!({:?});\nconst ENTITIES: &str = include_str!({:?});\nconst PICTURES: &[(&str, &[u8])] = &[\n",
        pack.join("world.toml"),
        pack.join("entities.jsonl")
    );
    for path in &pictures {
        let id = path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(|| format!("{}: not a UTF-8 name", path.display()))?;
        code.push_str(&format!("    ({id:?}, include_bytes!({path:?})),\n"));
    }
    code.push_str("];\n");
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|error| error.to_string())?).join("embedded.rs");
    fs::write(&out, code).map_err(|error| format!("{}: {error}", out.display()))
}
