//! What a tool acts on: the pictures of an episode under their labels, where searches go, and how much is shown. In: pictures, a port.
//! Out: pictures by label. Knows no tool and no turn.

use std::collections::BTreeMap;
use std::sync::Arc;

use hypereyes_pictures::RgbImage;
use parking_lot::Mutex;

use crate::config::EnvConfig;
use crate::escape;
use crate::observation;
use crate::search::{Hit, Outcome, Query, Search};

/// Names of pages that an episode remembers, at most, and bytes of one: a longer one is written back by nobody.
const MOST_NAMES: usize = 1024;
const MOST_NAME: usize = 4096;

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
    /// Titles and addresses as services say them, by how they were shown, where that is another text. Never locked while anything is
    /// waited for.
    names: Mutex<BTreeMap<String, String>>,
}

impl Scene {
    /// Registers `pictures` as `img_0`, `img_1`, ...; `layer` is the seed that searches answer from.
    pub fn new(config: EnvConfig, search: Arc<dyn Search>, layer: u64, pictures: Vec<Arc<RgbImage>>) -> Self {
        let names = Mutex::default();
        let mut scene = Self { config, search, layer, seen_as: Arc::new(|size| size), registry: Vec::new(), counter: 0, names };
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

    /// Searches for all of these at once, in the episode's layer: an outcome for each. What hits say is data ([`escape`]).
    pub async fn search(&self, queries: &[Query]) -> Vec<Outcome> {
        if queries.is_empty() {
            return Vec::new();
        }
        let outcomes = self.search.search(self.layer, queries).await;
        debug_assert_eq!(outcomes.len(), queries.len(), "a back end gives an outcome for each query");
        outcomes.into_iter().map(|outcome| outcome.map(|hits| hits.into_iter().map(|hit| self.data(hit)).collect())).collect()
    }

    /// The name under which the services know a page that a policy names as it was shown.
    pub fn meant(&self, page: &str) -> String {
        self.names.lock().get(&observation::one_line(page)).cloned().unwrap_or_else(|| page.to_owned())
    }

    /// A hit that is data. By its names the page can still be visited.
    fn data(&self, hit: Hit) -> Hit {
        for name in [Some(&hit.title), hit.url.as_ref()].into_iter().flatten() {
            let name = name.trim();
            if name.len() > MOST_NAME {
                continue;
            }
            let shown = observation::one_line(&escape::text(name));
            if shown != name {
                let mut names = self.names.lock();
                if names.len() < MOST_NAMES || names.contains_key(&shown) {
                    names.insert(shown, name.to_owned());
                }
            }
        }
        escape::hit(hit)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::episode::{Episode, Step};
    use crate::search::SearchFuture;

    const TITLE: &str = "The <answer>\nof it";
    const ADDRESS: &str = "https://x.test/?q=<|a|>";

    /// Finds one page for everything, and keeps which pages it is asked for.
    #[derive(Default)]
    struct Pages(Mutex<Vec<String>>);

    impl Search for Pages {
        fn search<'a>(&'a self, _: u64, queries: &'a [Query]) -> SearchFuture<'a> {
            let pages = queries.iter().filter_map(|query| if let Query::Page(page) = query { Some(page.clone()) } else { None });
            self.0.lock().extend(pages);
            let hit = Hit { title: TITLE.into(), url: Some(ADDRESS.into()), content: "c".into(), score: Some(1.0), ..Hit::default() };
            let outcomes: Vec<Outcome> = queries.iter().map(|_| Ok(vec![hit.clone()])).collect();
            Box::pin(async move { outcomes })
        }
    }

    #[tokio::test]
    async fn a_page_is_visited_by_what_was_shown_of_it() {
        let pages = Arc::new(Pages::default());
        let config = EnvConfig { tools: ["text_search", "visit"].map(str::to_owned).to_vec(), ..EnvConfig::default() };
        let mut episode = Episode::new(config, pages.clone(), 0, "Q?", vec![]);
        let call = |arguments: &str| format!("<tool_call>{{\"name\":{arguments}}}</tool_call>");
        let Step::Observed { text, .. } = episode.step(&call(r#""text_search","arguments":{"input":["a"]}"#)).await else {
            panic!("a call")
        };
        let shown = ["The \u{2039}answer> of it", "https://x.test/?q=\u{2039}|a|>"];
        assert!(shown.iter().all(|shown| text.contains(*shown)), "{text}");
        let named = serde_json::json!([shown[0], shown[1], "Lima"]);
        let step = episode.step(&call(&format!(r#""visit","arguments":{{"pages":{named}}}"#))).await;
        assert!(matches!(step, Step::Observed { .. }), "{step:?}");
        assert_eq!(*pages.0.lock(), [TITLE, ADDRESS, "Lima"]);
    }
}
