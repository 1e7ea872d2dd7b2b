//! The embedded search: a world answers by itself, without any service. In: a world; out: a [`Search`]. Indexes of layers
//! are built when first asked for and kept within a bound. Knows no turn.

pub mod bm25;
pub mod image;

use std::sync::Arc;

use futures::future::join_all;
use hypereyes_environment::{Fault, Hit, Outcome, Query, Search, SearchFuture};
use hypereyes_pictures::RgbImage;
use hypereyes_world::cache::Cache;
use hypereyes_world::{Document, Layer, World};

use super::{Kind, Open};
use crate::asked::InProcess;
use bm25::Bm25;
use image::ImageIndex;

/// What settings call it.
pub(crate) const NAME: &str = "world";
/// The world as a back end.
pub(super) const KIND: Kind = Kind {
    name: NAME,
    text: true,
    image: true,
    pages: true,
    layers: true,
    scores: true,
    by_address: false,
    is_open: false,
    is_service: false,
    is_paid: false,
    is_restricted: false,
    url: "",
    key: None,
    parameters: &[],
    check: |_| Ok(()),
    open: Open::Here(|here| {
        let world = (here.world)()?;
        let of = world.clone();
        Ok(Box::new(InProcess::new(NAME, move || of.digest(), Arc::new(EmbeddedSearch::new(world)))))
    }),
};

/// Hits that a search gives at most; episodes show fewer.
const HITS: usize = 10;
/// Text indexes kept: more than the tasks of one training step have layers.
const INDEXES_KEPT: usize = 64;

/// The texts of one layer, to be searched. An index is a file beside `bm25.rs` and a line in [`index`].
trait TextIndex: Send + Sync {
    /// The `limit` best documents, best first; the same query gives the same list. A text of which nothing can be searched gives none.
    /// It runs on the runtime's threads and takes far less than a millisecond.
    fn search(&self, query: &str, limit: usize) -> Result<Vec<Hit>, String>;
}

/// Indexes a layer.
fn index(layer: Arc<Layer>) -> Built {
    Ok(Arc::new(Bm25::new(layer).map_err(|error| error.to_string())?))
}

/// A built index, or why it could not be built.
type Built = Result<Arc<dyn TextIndex>, String>;

/// Searches a world in memory. Cheap to clone.
#[derive(Clone)]
pub struct EmbeddedSearch {
    inner: Arc<Inner>,
}

struct Inner {
    world: Arc<World>,
    images: ImageIndex,
    texts: Cache<Built>,
}

impl EmbeddedSearch {
    /// Makes a world searchable: describes its pictures now, indexes its layers when asked.
    pub fn new(world: Arc<World>) -> Self {
        let images = ImageIndex::new(world.pictures());
        Self { inner: Arc::new(Inner { world, images, texts: Cache::new(INDEXES_KEPT, "text_index") }) }
    }

    /// The world searched.
    pub fn world(&self) -> &Arc<World> {
        &self.inner.world
    }
}

impl Inner {
    fn index(&self, layer: u64) -> Built {
        self.texts.get(layer, || index(self.world.layer(layer)))
    }

    fn search_image(&self, layer: u64, picture: &RgbImage) -> Vec<Hit> {
        let layer = self.world.layer(layer);
        let found = self.images.search(picture, HITS);
        found
            .into_iter()
            .map(|(entity, relevance)| Hit { title: layer.name_at(entity).to_owned(), score: Some(relevance), ..Hit::default() })
            .collect()
    }
}

impl EmbeddedSearch {
    async fn text(&self, layer: u64, query: &str) -> Result<Vec<Hit>, String> {
        // A query takes far less than a millisecond; only the first one of a layer, which builds the index, leaves the runtime.
        let built = match self.inner.texts.ready(layer) {
            Some(built) => built,
            None => {
                let inner = self.inner.clone();
                tokio::task::spawn_blocking(move || inner.index(layer)).await.map_err(|error| error.to_string())?
            }
        };
        built.and_then(|index| index.search(query, HITS))
    }

    async fn image(&self, layer: u64, picture: Arc<RgbImage>) -> Result<Vec<Hit>, String> {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.search_image(layer, &picture)).await.map_err(|error| error.to_string())
    }

    /// An entity's page, by its name: everything that is said of it.
    fn page(&self, layer: u64, address: &str) -> Vec<Hit> {
        let layer = self.inner.world.layer(layer);
        let named = layer.entity_named(address).and_then(|id| layer.entities().position(|known| known == id));
        let page = named.map(|entity| {
            let facts = (0..layer.relations().len()).map(|relation| Document::of_fact(&layer, entity, relation).content);
            Hit { title: layer.name_at(entity).to_owned(), content: facts.collect::<Vec<_>>().join("\n"), ..Hit::default() }
        });
        page.into_iter().collect()
    }

    async fn one(&self, layer: u64, query: &Query) -> Outcome {
        let found = match query {
            Query::Text(text) => self.text(layer, text).await,
            Query::Picture(picture) => self.image(layer, picture.clone()).await,
            Query::Page(address) => Ok(self.page(layer, address)),
        };
        found.map_err(|reason| query.failed(Fault::Unavailable, reason))
    }
}

impl Search for EmbeddedSearch {
    fn search<'a>(&'a self, layer: u64, queries: &'a [Query]) -> SearchFuture<'a> {
        Box::pin(join_all(queries.iter().map(move |query| self.one(layer, query))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pictures_bear_the_names_of_the_layer() {
        let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
        let search = EmbeddedSearch::new(world.clone());
        let picture = Arc::new(world.picture(&"mx".into()).expect("has a picture").clone());
        for seed in [0, 9] {
            let hits = search.image(seed, picture.clone()).await.expect("searches");
            assert_eq!(Some(hits[0].title.as_str()), world.layer(seed).name(&"mx".into()));
        }
    }

    #[tokio::test]
    async fn an_entity_has_a_page_by_its_name_in_the_layer() {
        let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
        let search = EmbeddedSearch::new(world.clone());
        let page = search.page(0, "mexico");
        assert_eq!((page.len(), page[0].title.as_str()), (1, "Mexico"));
        assert_eq!(page[0].content.lines().count(), world.relations().len());
        assert!(page[0].content.contains("peso is Mexico's currency"), "{}", page[0].content);
        assert!(search.page(0, "Atlantis").is_empty());
    }

    #[tokio::test]
    async fn siblings_that_ask_at_once_share_one_index() {
        let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
        let search = EmbeddedSearch::new(world);
        let all = futures::future::join_all((0..16).map(|_| search.text(4, "peso currency"))).await;
        let first = all[0].as_ref().expect("searches");
        assert!(all.iter().all(|hits| hits.as_ref() == Ok(first)) && first.len() == HITS);
    }
}
