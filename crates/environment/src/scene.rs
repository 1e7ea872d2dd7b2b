//! What a tool acts on: the pictures of an episode under their labels, where searches go, and how much is shown. In: pictures, a port.
//! Out: pictures by label. Knows no tool and no turn.

use std::sync::Arc;

use hypereyes_pictures::RgbImage;

use crate::config::EnvConfig;
use crate::search::{Outcome, Query, Search};

/// The size (width, height) in which the policy sees a picture of a size.
pub(crate) type SeenAs = Arc<dyn Fn((u32, u32)) -> (u32, u32) + Send + Sync>;

/// One episode's pictures and where its searches go.
pub struct Scene {
    config: EnvConfig,
    search: Arc<dyn Search>,
    layer: u64,
    pub(crate) seen_as: SeenAs,
    /// Label and picture, in order of registration.
    registry: Vec<(String, Arc<RgbImage>)>,
    /// The number of the next label. Failed crops use one up, too.
    counter: u32,
}

impl Scene {
    /// Registers `pictures` as `img_0`, `img_1`, ...; `layer` is the seed that searches answer from.
    pub fn new(config: EnvConfig, search: Arc<dyn Search>, layer: u64, pictures: Vec<Arc<RgbImage>>) -> Self {
        let mut scene = Self { config, search, layer, seen_as: Arc::new(|size| size), registry: Vec::new(), counter: 0 };
        for picture in pictures {
            let label = scene.next_label();
            scene.register(label, picture);
        }
        scene
    }

    /// Limits and wording.
    pub fn config(&self) -> &EnvConfig {
        &self.config
    }

    /// Searches for all of these at once, in the episode's layer: an outcome for each.
    pub async fn search(&self, queries: &[Query]) -> Vec<Outcome> {
        if queries.is_empty() {
            return Vec::new();
        }
        let outcomes = self.search.search(self.layer, queries).await;
        debug_assert_eq!(outcomes.len(), queries.len(), "a back end gives an outcome for each query");
        outcomes
    }

    /// Labels of the registered pictures in order.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.registry.iter().map(|(label, _)| label.as_str())
    }

    /// A registered picture.
    pub fn picture(&self, label: &str) -> Option<&Arc<RgbImage>> {
        self.registry.iter().find(|(known, _)| known == label).map(|(_, picture)| picture)
    }

    /// Width and height of a registered picture as the policy sees it.
    pub fn seen_size(&self, label: &str) -> Option<(u32, u32)> {
        Some((self.seen_as)(self.picture(label)?.dimensions()))
    }

    /// The number that the next label will have.
    pub fn next_number(&self) -> u32 {
        self.counter
    }

    /// Takes the next label. One that no picture is registered under is used up.
    pub fn next_label(&mut self) -> String {
        let label = format!("img_{}", self.counter);
        self.counter += 1;
        label
    }

    /// Makes a picture known under a label that [`Scene::next_label`] gave.
    pub fn register(&mut self, label: String, picture: Arc<RgbImage>) {
        self.registry.push((label, picture));
    }
}
