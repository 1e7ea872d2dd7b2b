//! An index that is not what was written is not opened, whichever byte it is.

use std::path::{Path, PathBuf};

use hypereyes_corpus::{Corpus, Error, Sight};
use hypereyes_policy::device::Device;

use crate::rig::{built, file, pictures, sight, texts};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("is there").map(|entry| entry.expect("reads").path());
    let mut all: Vec<PathBuf> = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    all.sort();
    all
}

fn small(folder: &Path) -> PathBuf {
    let rows: Vec<String> = (0..200).map(|at| format!(r#"{{"title": "t{at}", "text": "word{} stands here"}}"#, at % 17)).collect();
    let documents = file(folder, "rows.jsonl", rows.join("\n"));
    let out = folder.join("index");
    built(&[&documents], Some(&pictures(folder, 6)), &out).expect("builds");
    out
}

#[test]
fn a_byte_that_changed_a_file_that_was_cut_and_one_that_is_gone_are_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = small(folder.path());
    let all = files(&index);
    assert!(all.len() >= 8, "{all:?}");
    for path in &all {
        let whole = std::fs::read(path).expect("reads");
        let mut changed = whole.clone();
        let mut damaged = vec![];
        if let Some(middle) = changed.len().checked_sub(1).map(|last| last / 2) {
            changed[middle] ^= 0x04;
            damaged.extend([changed, whole[..middle].to_vec()]);
        }
        damaged.push([&whole[..], b" "].concat());
        for bytes in damaged {
            // Blanks at the end of JSON say nothing.
            if path.ends_with("index.json") && bytes.len() > whole.len() {
                continue;
            }
            std::fs::write(path, bytes).expect("written");
            let error = Corpus::open(&index, sight).map(|_| ()).expect_err("damaged");
            assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains("build it again"), "{}: {error}", path.display());
        }
        std::fs::remove_file(path).expect("removed");
        assert!(Corpus::open(&index, sight).is_err(), "{}", path.display());
        std::fs::write(path, whole).expect("written");
    }
    let corpus = Corpus::open(&index, sight).expect("whole again");
    assert_eq!((corpus.documents(), corpus.pictures()), (200, 6));
}

#[test]
fn another_format_another_tower_and_no_index_are_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = small(folder.path());
    let teacher = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/teacher");
    let error = Corpus::open(&index, || Sight::load(&teacher, Device::Cpu)).map(|_| ()).expect_err("other eyes");
    assert!(matches!(error, Error::Input(_)) && error.to_string().contains("another vision tower"), "{error}");
    let manifest = index.join("index.json");
    let text = std::fs::read_to_string(&manifest).expect("reads");
    std::fs::write(&manifest, text.replace("\"format\": 2", "\"format\": 3")).expect("written");
    let error = Corpus::open(&index, sight).map(|_| ()).expect_err("another format");
    assert!(error.to_string().contains("format 3") && error.to_string().contains("reads 2"), "{error}");
    std::fs::write(&manifest, text.replace("\"documents\": 200", "\"documents\": 20")).expect("written");
    let error = Corpus::open(&index, sight).map(|_| ()).expect_err("not what was sealed");
    assert!(error.to_string().contains("sealed"), "{error}");
    std::fs::write(&manifest, text.replace("\"texts/meta.json\"", "\"../rows.jsonl\"")).expect("written");
    assert!(matches!(Corpus::open(&index, sight), Err(Error::Damaged { .. })));
    let error = Corpus::open(folder.path(), sight).map(|_| ()).expect_err("no index");
    assert!(matches!(error, Error::Input(_)) && error.to_string().contains("holds no index"), "{error}");
}

#[test]
fn an_index_is_searched_where_nothing_can_be_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = small(folder.path());
    let mode = |mode: u32| {
        for path in [index.join("texts"), index.clone()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
        }
    };
    let before: Vec<_> =
        files(&index).into_iter().map(|path| (std::fs::metadata(&path).expect("is there").modified().ok(), path)).collect();
    mode(0o555);
    let corpus = Corpus::open(&index, sight).expect("opens");
    assert_eq!(texts(&corpus, "word3")[0].title, "t3");
    mode(0o755);
    let after: Vec<_> = files(&index).into_iter().map(|path| (std::fs::metadata(&path).expect("is there").modified().ok(), path)).collect();
    assert_eq!(before, after, "nothing was written, though the superuser could");
}
