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
/// Crops whose nearest pictures are kept: rollouts of a task draw the same boxes again and again. A few hundred bytes each.
const CROPS_KEPT: usize = 8192;

/// Entities with their relevance, nearest first.
type Nearest = Arc<[(usize, f64)]>;
/// Which crop: a digest of its size and pixels.
type CropKey = [u8; 32];

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
    crops: Cache<Nearest, CropKey>,
}

impl EmbeddedSearch {
    /// Makes a world searchable: describes its pictures now, indexes its layers when asked.
    pub fn new(world: Arc<World>) -> Self {
        let images = ImageIndex::new(world.pictures());
        let (texts, crops) = (Cache::new(INDEXES_KEPT, "text_index"), Cache::new(CROPS_KEPT, "crop"));
        Self { inner: Arc::new(Inner { world, images, texts, crops }) }
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

    /// What the nearest pictures are called in a layer.
    fn named(&self, layer: u64, found: &[(usize, f64)]) -> Vec<Hit> {
        let layer = self.world.layer(layer);
        let hit = |(entity, relevance): &(usize, f64)| Hit {
            title: layer.name_at(*entity).to_owned(),
            score: Some(*relevance),
            ..Hit::default()
        };
        found.iter().map(hit).collect()
    }
}

impl EmbeddedSearch {
    async fn text(&self, layer: u64, query: &str) -> Result<Vec<Hit>, String> {
        // A query takes far less than a millisecond; only the first one of a layer, which builds the index, leaves the runtime.
        let built = match self.inner.texts.ready(&layer) {
            Some(built) => built,
            None => {
                let inner = self.inner.clone();
                tokio::task::spawn_blocking(move || inner.index(layer)).await.map_err(|error| error.to_string())?
            }
        };
        built.and_then(|index| index.search(query, HITS))
    }

    async fn image(&self, layer: u64, picture: Arc<RgbImage>) -> Result<Vec<Hit>, String> {
        let key = key_of(&picture);
        let found = match self.inner.crops.ready(&key) {
            Some(found) => found,
            None => {
                let inner = self.inner.clone();
                let search = move || inner.crops.get(key, || inner.images.search(&picture, HITS).into());
                tokio::task::spawn_blocking(search).await.map_err(|error| error.to_string())?
            }
        };
        Ok(self.inner.named(layer, &found))
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

fn key_of(picture: &RgbImage) -> CropKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&picture.width().to_le_bytes()).update(&picture.height().to_le_bytes()).update(picture.as_raw());
    hasher.finalize().into()
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
    async fn a_crop_that_was_searched_before_has_the_names_of_the_layer_that_asks() {
        let world = Arc::new(World::embedded().expect("the embedded pack is sound"));
        let (search, fresh) = (EmbeddedSearch::new(world.clone()), EmbeddedSearch::new(world.clone()));
        let wide = Arc::new(world.picture(&"mx".into()).expect("has a picture").clone());
        // The same pixels in another shape are another crop.
        let tall = Arc::new(RgbImage::from_raw(wide.height(), wide.width(), wide.as_raw().clone()).expect("as many pixels"));
        for (layer, picture) in [(3, &wide), (3, &wide), (8, &wide), (8, &tall), (3, &tall)] {
            let again = search.image(layer, picture.clone()).await.expect("searches");
            assert_eq!(again, EmbeddedSearch::new(world.clone()).image(layer, picture.clone()).await.expect("searches"));
        }
        assert_eq!(search.image(5, wide.clone()).await, fresh.image(5, wide).await);
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
