//! Which settings there are, and whether product code reads each, by reading the sources.
//!
//! In: the workspace's Rust files, or texts. Out: every key of a settings struct with its documentation, and who of them nobody reads.
//! Types are followed as far as signatures, struct fields and patterns tell them, so that a read of another struct's `seed` is not taken
//! for this one's. It runs nothing: a key that is read and then makes no difference is not found.

mod calls;
pub mod program;
mod reader;
pub mod reads;
mod types;

use std::collections::BTreeSet;

pub use program::Program;
pub use reads::Reads;
pub use types::{Name, Ty};

/// One key of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// With dots, from the root.
    pub path: String,
    /// The struct, or the variant of an enum, whose field it is.
    pub owner: Name,
    /// The field in Rust.
    pub field: String,
    /// Its documentation, on one line.
    pub docs: String,
    /// Whether other keys lie in it.
    pub is_table: bool,
}

/// Every key below a struct, tables before what lies in them.
///
/// # Panics
/// When the struct is not there.
pub fn keys(program: &Program, root: &Name) -> Vec<Key> {
    let mut found = Vec::new();
    walk(program, root, "", &[], &mut found);
    assert!(!found.is_empty(), "{root} has no keys");
    found
}

/// `above` are the structs that `owner` lies in: a list of tables like one of these is a value, and has no keys of its own.
fn walk(program: &Program, owner: &Name, prefix: &str, above: &[Name], found: &mut Vec<Key>) {
    let Some(shape) = program.shape(owner) else { return };
    let within = [above, std::slice::from_ref(owner)].concat();
    for field in shape.fields.iter().filter(|field| !field.skipped) {
        let path = format!("{prefix}{}", field.key);
        let inner = match &field.ty {
            Ty::Named(inner) if program.is_settings(inner) && !within.contains(inner) => Some(inner.clone()),
            _ => None,
        };
        let (docs, name) = (field.docs.clone(), field.name.clone());
        found.push(Key { path: path.clone(), owner: owner.clone(), field: name, docs, is_table: inner.is_some() });
        if let Some(inner) = inner {
            walk(program, &inner, &format!("{path}."), &within, found);
            for variant in program.variants(&inner) {
                walk(program, &variant, &format!("{path}."), &within, found);
            }
        }
    }
}

/// The keys that no product code reads.
pub fn unread(keys: &[Key], reads: &Reads) -> Vec<String> {
    let dead: BTreeSet<String> = keys
        .iter()
        .filter(|key| !reads.has(&key.owner, &key.field))
        .map(|key| format!("{} ({}::{})", key.path, key.owner, key.field))
        .collect();
    dead.into_iter().collect()
}
