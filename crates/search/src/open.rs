//! From settings to one searchable thing: each side opened by its name, both within the bounds.

use std::sync::Arc;

use hypereyes_environment::{Search, SearchFuture};
use hypereyes_pictures::RgbImage;
use hypereyes_world::{World, WorldError};

use crate::backends::{self, BackEnd, Opening};
use crate::{Limited, SearchConfig};

/// Why nothing can be searched.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The `[search]` table names what does not exist, or what is not complete: a sentence that begins with the key within the table.
    #[error("{0}")]
    Settings(String),
    /// The world that a back end answers from cannot be read.
    #[error(transparent)]
    World(#[from] WorldError),
}

impl OpenError {
    /// The setting or table that it is about.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Settings(_) => "search",
            Self::World(_) => "world",
        }
    }
}

/// Opens what `config` names. `world` is asked for the world pack only by back ends that answer from one.
///
/// # Errors
/// [`OpenError`]; a service that does not answer is none: its searches fail one by one.
pub fn open(config: &SearchConfig, world: impl Fn() -> Result<Arc<World>, WorldError>) -> Result<Arc<dyn Search>, OpenError> {
    config.check().map_err(OpenError::Settings)?;
    let of_text = backends::of_text(&config.text.backend).map_err(OpenError::Settings)?;
    let of_image = backends::of_image(&config.image.backend).map_err(OpenError::Settings)?;
    let opening = Opening { config, world: &world };
    let open = |back_end: &BackEnd| (back_end.open)(&opening);
    let text = open(of_text)?;
    let image = if of_image.name == of_text.name { text.clone() } else { open(of_image)? };
    Ok(Arc::new(Limited::new(Sides { text, image }, opening.config)))
}

/// Texts searched in one place, pictures in another.
struct Sides {
    text: Arc<dyn Search>,
    image: Arc<dyn Search>,
}

impl Search for Sides {
    fn text<'a>(&'a self, layer: u64, query: &'a str) -> SearchFuture<'a> {
        self.text.text(layer, query)
    }

    fn image(&self, layer: u64, picture: Arc<RgbImage>) -> SearchFuture<'_> {
        self.image.image(layer, picture)
    }

    /// Pages are read where texts are searched: its hits name them.
    fn page<'a>(&'a self, layer: u64, address: &'a str) -> SearchFuture<'a> {
        self.text.page(layer, address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_world_is_opened_by_its_name_and_an_unreadable_one_is_told_from_settings() {
        let world = || World::embedded().map(Arc::new);
        let search = open(&SearchConfig::default(), world).expect("opens");
        assert_eq!(search.text(0, "Mexico currency").await.expect("searches")[0].title, "currency");
        let error = open(&SearchConfig::default(), || World::load("/nowhere".as_ref()).map(Arc::new)).map(|_| ()).expect_err("none");
        assert_eq!(error.key(), "world");
        let error = open(&SearchConfig { concurrency: 0, ..SearchConfig::default() }, world).map(|_| ()).expect_err("bounds");
        assert!(error.key() == "search" && error.to_string().starts_with("concurrency"), "{error}");
    }
}
