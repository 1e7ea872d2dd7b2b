//! Stores of other releases: those of earlier ones are read, those of later ones are refused in a line.

use std::io::Read as _;

use hypereyes_reward_service::store::Store;
use redb::{Database, TableDefinition};

#[test]
fn a_store_of_an_earlier_release_is_read_and_one_of_a_later_is_refused_in_a_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let packed: &[u8] = include_bytes!("../../../tests/data/format-1/references.redb.gz");
    let mut bytes = vec![];
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("packed");
    let path = folder.path().join("references.redb");
    std::fs::write(&path, bytes).expect("written");
    let (known, epoch, changes) = Store::open(folder.path()).expect("an earlier release's").read().expect("sound");
    assert!(known.len() > 10 && changes >= known.len() as u64, "{} tasks, {changes} changes, epoch {epoch}", known.len());

    let database = Database::open(&path).expect("nobody else has it");
    let writing = database.begin_write().expect("begins");
    let meta: TableDefinition<&str, u64> = TableDefinition::new("meta");
    writing.open_table(meta).expect("a table").insert("format", 9).expect("inserted");
    writing.commit().expect("committed");
    drop(database);
    let error = Store::open(folder.path()).expect_err("of a later release").to_string();
    assert!(error.contains("format 9") && error.contains("up to 1") && !error.contains('\n'), "{error}");
}
