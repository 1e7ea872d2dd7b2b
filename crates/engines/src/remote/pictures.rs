//! Pictures as servers take them. In: names, a store, how a model cuts pictures. Out: encoded bytes as data URIs, with how many
//! placeholders each has; nobody's pixels are touched but those of pictures that are to be turned. Work for threads that may be busy.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypereyes_domain::PictureId;
use hypereyes_pictures::{Processor, Store};

use super::request::Shown;

/// Why a picture cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unshown {
    /// Nobody has it.
    Missing(PictureId),
    /// It cannot be written.
    Broken(String),
}

impl std::fmt::Display for Unshown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(id) => write!(f, "picture {id} is named and is not here: it was never put, or others drove it out"),
            Self::Broken(reason) => write!(f, "a picture could not be written for a server: {reason}"),
        }
    }
}

/// The pictures of these names, in order.
///
/// # Errors
/// [`Unshown`], for the first that cannot be.
pub fn shown(ids: &[PictureId], store: &Store, processor: &Processor) -> Result<Vec<Shown>, Unshown> {
    let one = |id: &PictureId| {
        let picture = store.get(id).ok_or_else(|| Unshown::Missing(id.clone()))?;
        // Servers read pixels as they are stored: one that says how it is to be turned is sent upright.
        let bytes = picture.upright_bytes().map_err(|error| Unshown::Broken(error.to_string()))?;
        let kind = if bytes.starts_with(&[0xFF, 0xD8]) { "jpeg" } else { "png" };
        let uri = format!("data:image/{kind};base64,{}", STANDARD.encode(&bytes)).into();
        Ok(Shown { id: id.clone(), uri, tokens: processor.tokens(processor.grid(picture.image.dimensions())) })
    };
    ids.iter().map(one).collect()
}
