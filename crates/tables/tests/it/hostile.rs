//! Files that are cut, damaged or lie: an error in a sentence, never a crash, and never more memory than the file is worth.

use std::path::{Path, PathBuf};

use hypereyes_tables::{Cell, Limits, Shape, Table, Writer};

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

/// A file of two rows whose footer says 10^9 in every place where it says 2, or in the first alone.
fn lying(everywhere: bool) -> Vec<u8> {
    // Of Thrift: field after field, a number of 64 bits, and 2 and 10^9 as it writes them.
    const TWO: [u8; 2] = [0x16, 0x04];
    const MANY: [u8; 6] = [0x16, 0x80, 0xa8, 0xd6, 0xb9, 0x07];
    let mut writer = Writer::new(Vec::new(), &[("id", Shape::Int)]).expect("begins");
    for at in 0..2 {
        writer.push(Cell::Struct(vec![("id".into(), Cell::Int(at))])).expect("writes");
    }
    let whole = writer.finish().expect("ends").0;
    let length = u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().expect("four")) as usize;
    let (pages, footer) = whole[..whole.len() - 8].split_at(whole.len() - 8 - length);
    let (mut lies, mut at, mut told) = (Vec::new(), 0, 0);
    while at < footer.len() {
        if footer[at..].starts_with(&TWO) && (everywhere || told == 0) {
            lies.extend_from_slice(&MANY);
            (at, told) = (at + 2, told + 1);
        } else {
            lies.push(footer[at]);
            at += 1;
        }
    }
    assert!(told >= 1);
    [pages, &lies, &(lies.len() as u32).to_le_bytes(), b"PAR1"].concat()
}

#[test]
fn rows_that_are_declared_and_not_there_are_missed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file(folder.path(), "a.parquet", &lying(false));
    let error = rows(&path).expect_err("a lie");
    assert!(error.contains("it says that it has 1000000000 rows, and its parts have 2"), "{error}");
    let path = file(folder.path(), "b.parquet", &lying(true));
    assert_eq!(Table::open(&path, &Limits::default()).expect("opens").rows(), Some(1_000_000_000));
    let error = rows(&path).expect_err("a lie");
    assert!(error.contains("ends after 2 of 1000000000 rows") || error.contains("is damaged behind row"), "{error}");
}
