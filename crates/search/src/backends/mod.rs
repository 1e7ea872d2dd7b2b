//! Back ends by name. A back end is one file of this folder with a [`BackEnd`], and a line in [`ALL`].
//!
//! In: names from settings. Out: what opens them. It knows no bounds: those are around every back end alike.

pub mod world;

use std::sync::Arc;

use hypereyes_environment::Search;
use hypereyes_world::{World, WorldError};

use crate::{OpenError, SearchConfig};

/// Every back end there is.
const ALL: &[BackEnd] = &[world::BACK_END];

/// Something that can be searched, before it is opened.
pub(crate) struct BackEnd {
    /// What settings call it.
    pub(crate) name: &'static str,
    /// Whether it searches texts.
    pub(crate) text: bool,
    /// Whether it searches pictures.
    pub(crate) image: bool,
    /// Opens it. It calls nobody: a service that is away makes searches fail, not starts.
    pub(crate) open: fn(&Opening<'_>) -> Result<Arc<dyn Search>, OpenError>,
}

/// What a back end is opened with.
pub(crate) struct Opening<'a> {
    /// The whole `[search]` table.
    pub(crate) config: &'a SearchConfig,
    /// Reads the world pack.
    pub(crate) world: &'a dyn Fn() -> Result<Arc<World>, WorldError>,
}

/// The back end of this name that searches texts, or a sentence that begins with the key.
pub(crate) fn of_text(name: &str) -> Result<&'static BackEnd, String> {
    named("text", "texts", name, |back_end| back_end.text)
}

/// The back end of this name that searches pictures, or a sentence that begins with the key.
pub(crate) fn of_image(name: &str) -> Result<&'static BackEnd, String> {
    named("image", "pictures", name, |back_end| back_end.image)
}

fn named(table: &str, what: &str, name: &str, can: fn(&BackEnd) -> bool) -> Result<&'static BackEnd, String> {
    let able = || ALL.iter().filter(|back_end| can(back_end));
    able().find(|back_end| back_end.name == name).ok_or_else(|| {
        let names: Vec<&str> = able().map(|back_end| back_end.name).collect();
        let are = if names.len() == 1 { "is" } else { "are" };
        format!("{table}.backend is {name:?}: there is no such back end for {what}; there {are} {}", names.join(", "))
    })
}
