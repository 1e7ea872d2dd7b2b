//! World packs: a closed world of entities, facts about them and one picture of each. In: a folder (its `README.md` in
//! `worlds/countries` describes the format) or the pack compiled in; out: entities, relations, pictures and seeded
//! counterfactual layers. Knows no question, no index and no search.

pub mod cache;
pub mod document;
mod layer;
mod load;
pub mod metrics;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use hypereyes_domain::EntityId;
use hypereyes_pictures::RgbImage;

use crate::cache::Cache;

pub use document::Document;
pub use layer::Layer;
pub use load::WorldError;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

    /// (world.toml, entities.jsonl, pictures by id).
    pub(super) fn files() -> (&'static str, &'static str, &'static [(&'static str, &'static [u8])]) {
        (WORLD, ENTITIES, PICTURES)
    }
}

/// Layers kept by a world; one is numbers only, some ten kilobytes for two hundred entities.
const LAYERS_KEPT: usize = 256;

/// One relation of the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    /// As the facts spell it, such as `capital`.
    pub key: String,
    /// As sentences spell it.
    pub label: String,
    /// No two entities share a value.
    pub unique: bool,
    /// A question may ask for its exact value.
    pub askable: bool,
    /// The question for who has a value, with `{value}` in it; none for `Which one has LABEL VALUE?`.
    pub question: Option<String>,
    /// What follows "the one" in a question that goes on, with `{value}` in it; none for `whose LABEL is VALUE`.
    pub clause: Option<String>,
}

/// One entity as the pack describes it. What it is called in a layer, ask the [`Layer`].
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Unique in the pack.
    pub id: EntityId,
    /// Unique in the pack without regard to case.
    pub name: String,
    /// Other names of the same entity.
    pub aliases: Vec<String>,
    /// One value per relation, in the order of the relations.
    pub facts: Vec<String>,
    /// Entities that border it; symmetric.
    pub neighbours: Vec<EntityId>,
}

/// What a pack's files say, checked.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) noun: String,
    pub(crate) relations: Vec<Relation>,
    pub(crate) entities: Vec<Entity>,
    /// In the order of the entities.
    pub(crate) pictures: Vec<RgbImage>,
    pub(crate) look_alikes: Vec<(EntityId, EntityId)>,
    pub(crate) by_id: HashMap<EntityId, usize>,
    /// Folded name or alias to entity, and whether it is an alias.
    pub(crate) by_name: HashMap<String, (usize, bool)>,
    /// `neighbours` as numbers of entities.
    pub(crate) borders: Vec<Vec<usize>>,
}

/// A world: a checked pack and its layers.
pub struct World {
    pack: Arc<Pack>,
    layers: Cache<Arc<Layer>>,
}

impl World {
    /// Reads and checks the pack in `dir`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(dir: &Path) -> Result<Self, WorldError> {
        Self::check(dir).map_err(first)
    }

    /// The same, and everything that is wrong with it.
    ///
    /// # Errors
    /// At least one problem; of many the first dozens.
    pub fn check(dir: &Path) -> Result<Self, Vec<WorldError>> {
        load::from_dir(dir).map(Self::new)
    }

    /// The pack that is compiled in: the countries of the world.
    pub fn embedded() -> Result<Self, WorldError> {
        let (world, entities, pictures) = embedded::files();
        let find = |id: &str| {
            let found = pictures.iter().find(|(name, _)| *name == id).map(|(_, bytes)| bytes.to_vec());
            found.ok_or_else(|| format!("there is no picture of {id}"))
        };
        load::from_texts(Path::new("worlds/countries (embedded)"), world, entities, find).map(Self::new).map_err(first)
    }

    fn new(pack: Pack) -> Self {
        Self { pack: Arc::new(pack), layers: Cache::new(LAYERS_KEPT, "layer") }
    }

    /// The pack's name, such as `countries`.
    pub fn name(&self) -> &str {
        &self.pack.name
    }

    /// One sentence for people.
    pub fn description(&self) -> &str {
        &self.pack.description
    }

    /// What one entity is called, such as `country`.
    pub fn noun(&self) -> &str {
        &self.pack.noun
    }

    /// Entities in the order of the file.
    pub fn entities(&self) -> &[Entity] {
        &self.pack.entities
    }

    /// The entity called `id`.
    pub fn entity(&self, id: &EntityId) -> Option<&Entity> {
        self.pack.by_id.get(id).map(|at| &self.pack.entities[*at])
    }

    /// Relations in the order of `world.toml`.
    pub fn relations(&self) -> &[Relation] {
        &self.pack.relations
    }

    /// What is searched, in one name: BLAKE3 of everything that answers follow from.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut put = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        };
        // How questions are worded is none of it.
        for Relation { key, label, unique, askable, .. } in self.relations() {
            [key.as_str(), label, if *unique { "unique" } else { "" }, if *askable { "askable" } else { "" }]
                .into_iter()
                .for_each(&mut put);
        }
        for Entity { id, name, aliases, facts, neighbours } in self.entities() {
            let neighbours = neighbours.iter().map(EntityId::as_str);
            [id.as_str(), name].into_iter().chain(aliases.iter().chain(facts).map(String::as_str)).chain(neighbours).for_each(&mut put);
        }
        for picture in self.pictures() {
            hasher.update(&picture.width().to_le_bytes()).update(picture.as_raw());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Pictures in the order of the entities; layers do not change them.
    pub fn pictures(&self) -> &[RgbImage] {
        &self.pack.pictures
    }

    /// The picture of `id`.
    pub fn picture(&self, id: &EntityId) -> Option<&RgbImage> {
        self.pack.by_id.get(id).map(|at| &self.pack.pictures[*at])
    }

    /// Pairs whose pictures cannot fairly be told apart.
    pub fn look_alikes(&self) -> &[(EntityId, EntityId)] {
        &self.pack.look_alikes
    }

    /// True when `a` and `b` are one of the [`World::look_alikes`].
    pub fn alike(&self, a: &EntityId, b: &EntityId) -> bool {
        self.pack.look_alikes.iter().any(|(one, other)| (one, other) == (a, b) || (one, other) == (b, a))
    }

    /// Everything that documents and questions are made of: names, distinct values of facts, labels of relations; each
    /// once, in order of first appearance. The same in every layer. A tokenizer can be made of it.
    pub fn terms(&self) -> Vec<&str> {
        let names = self.pack.entities.iter().map(|entity| entity.name.as_str());
        let values = self.pack.entities.iter().flat_map(|entity| entity.facts.iter().map(String::as_str));
        let labels = self.pack.relations.iter().map(|relation| relation.label.as_str());
        let mut seen = std::collections::HashSet::new();
        names.chain(values).chain(labels).filter(|term| seen.insert(*term)).collect()
    }

    /// What questions are worded with beyond labels and the usual words: the parts of a relation's own wording around its value, each
    /// once. Empty where no relation has any.
    pub fn phrases(&self) -> Vec<&str> {
        let wordings = self.pack.relations.iter().flat_map(|relation| [&relation.question, &relation.clause]).flatten();
        let mut seen = std::collections::HashSet::new();
        wordings.flat_map(|wording| wording.split("{value}")).filter(|part| !part.trim().is_empty() && seen.insert(*part)).collect()
    }

    /// The counterfactual layer of a seed; 0 is the world as it is. Kept, within a bound.
    pub fn layer(&self, seed: u64) -> Arc<Layer> {
        self.layers.get(seed, || Arc::new(Layer::new(self.pack.clone(), seed)))
    }
}

/// Of several problems the one that is told where there is room for one.
fn first(mut problems: Vec<WorldError>) -> WorldError {
    problems.swap_remove(0)
}

impl Pack {
    pub(crate) fn relation(&self, key: &str) -> Option<usize> {
        self.relations.iter().position(|relation| relation.key == key)
    }
}

/// Names are compared without regard to case and outer blanks.
pub(crate) fn fold(name: &str) -> String {
    name.trim().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_world_is_whole() {
        let world = World::embedded().expect("the embedded pack is sound");
        assert!(world.entities().len() >= 150);
        assert_eq!(world.entities().len(), world.pictures().len());
        assert_eq!((world.name(), world.noun()), ("countries", "country"));
        let keys: Vec<&str> = world.relations().iter().map(|relation| relation.key.as_str()).collect();
        assert_eq!(keys, ["capital", "continent", "currency", "language", "population", "area"]);
        assert!(world.alike(&"td".into(), &"ro".into()) && world.alike(&"ro".into(), &"td".into()));
    }

    #[test]
    fn a_folder_loads_as_the_embedded_world_does() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../worlds/countries");
        let (loaded, embedded) = (World::load(&folder).expect("the folder is sound"), World::embedded().expect("sound"));
        assert_eq!(loaded.entities(), embedded.entities());
        assert!(loaded.pictures() == embedded.pictures());
    }

    #[test]
    fn terms_hold_names_values_and_labels_once() {
        let world = World::embedded().expect("the embedded pack is sound");
        let terms = world.terms();
        for term in ["Mexico", "peso", "currency", "North America"] {
            assert_eq!(terms.iter().filter(|known| **known == term).count(), 1, "{term}");
        }
    }
}
