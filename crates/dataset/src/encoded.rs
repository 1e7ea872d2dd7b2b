//! Pictures as rows of tables have them, of any form that is in use. In: a cell. Out: what [`Encoded`] has: bytes, or a file that is
//! there. Nothing is decoded, and nothing is fetched here.

use std::path::Path;

use hypereyes_tables::Cell;
use serde::{Deserialize, Deserializer};

use crate::loaders::gather::Encoded;

/// A picture in a row, not looked at yet: `{bytes, path}` with either null, `{image: ..}`, bytes, a list of whole numbers, an object of
/// digits (`{"0": 137, ..}`), a data URI, a path, or an address. Where a struct has an `Option<PictureCell>`, null is none.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureCell(pub Cell);

impl<'de> Deserialize<'de> for PictureCell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cell::deserialize(deserializer).map(Self)
    }
}

/// Where pictures may lie that a row only names.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The folder that relative paths begin in. No path leads out of it, unless `anywhere`.
    pub folder: &'a Path,
    /// Whether absolute paths, and those that lead out of the folder, are followed.
    pub anywhere: bool,
}

impl PictureCell {
    /// Whether it says nothing: null, or a struct of nulls.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Cell::Null => true,
            Cell::Struct(fields) => fields.iter().all(|(_, cell)| cell.is_null()),
            _ => false,
        }
    }

    /// The picture. An address (`http://`, `https://`) is refused: whoever fetches does it before.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that names the column.
    pub fn resolve(self, _places: Places<'_>) -> Result<Encoded, String> {
        Err("not yet".into())
    }
}
