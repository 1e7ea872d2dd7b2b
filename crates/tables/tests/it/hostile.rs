//! Files that are cut, damaged or lie: an error in a sentence, never a crash, and never more memory than the file is worth.

use std::path::{Path, PathBuf};

use crate::{data, rows};

fn file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).expect("written");
    path
}

#[test]
fn files_that_are_cut_anywhere_are_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["types.parquet", "types.stream.arrow", "types.arrow"] {
        let whole = std::fs::read(data(name)).expect("reads");
        // Behind its end an Arrow file has a directory, which is not read.
        let read = if name == "types.arrow" { whole.len() / 2 } else { whole.len() };
        for at in (0..read).step_by(97).chain([read - 1]) {
            let cut = rows(&file(folder.path(), name, &whole[..at]));
            let error = cut.expect_err("cut");
            assert!(!error.contains('\n'), "{name} cut at {at}: {error}");
        }
    }
}

#[test]
fn files_with_a_byte_that_changed_are_read_or_refused_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["types.parquet", "types.stream.arrow"] {
        let whole = std::fs::read(data(name)).expect("reads");
        for at in (0..whole.len()).step_by(13) {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                if let Err(error) = rows(&file(folder.path(), name, &changed)) {
                    assert!(!error.is_empty(), "{name} changed at {at}");
                }
            }
        }
    }
}

#[test]
fn claims_are_compared_with_what_is_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = |name: &str, content: &[u8]| rows(&file(folder.path(), name, content)).expect_err("a lie");
    let parquet = std::fs::read(data("types.parquet")).expect("reads");
    let length = parquet.len() - 8;
    let mut claims = parquet.clone();
    claims[length..length + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(said("a.parquet", &claims).contains("what it says of itself has 4294967295 bytes"));
    assert!(said("a.parquet", b"PAR1").contains("it has 4 bytes"));
    assert!(said("a.parquet", b"PK\x03\x04").contains("cannot be read as parquet: it begins with"));
    assert!(said("a.parquet", b"").contains("is empty"));
    assert!(said("a.parquet", &parquet[..parquet.len() - 1]).contains("cut short"));
    let arrow = std::fs::read(data("types.stream.arrow")).expect("reads");
    let mut claims = arrow.clone();
    claims[4..8].copy_from_slice(&0x7fff_fff8_u32.to_le_bytes());
    assert!(said("a.arrow", &claims).contains("a part's description claims 2147483640 bytes where"), "{}", said("a.arrow", &claims));
    assert!(said("a.arrow", b"ARROW").contains("cannot be read as Arrow"));
    assert!(said("b.arrow", &arrow[..arrow.len() - 8]).contains("breaks off"), "the end is said, or the file is cut");
}
