//! Counterfactual layers: the same pictures under other names, with facts dealt anew, so that nothing a model already
//! knows helps it and only searching does. In: a pack and a seed; out: names and facts. The same seed gives the same layer
//! on every machine. Knows no index.

use std::sync::Arc;

use hypereyes_domain::EntityId;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::{Pack, Relation, fold};

/// One layer of a world. Entities keep their ids and pictures; all else is asked here.
#[derive(Debug)]
pub struct Layer {
    pack: Arc<Pack>,
    seed: u64,
    /// Entity to the entity whose name it bears.
    names: Vec<usize>,
    /// The other way round.
    bearers: Vec<usize>,
    /// Per relation: entity to the entity whose value it has.
    facts: Vec<Vec<usize>>,
    borders: Vec<Vec<usize>>,
}

impl Layer {
    pub(super) fn new(pack: Arc<Pack>, seed: u64) -> Self {
        let count = pack.entities.len();
        let deal = |what: &str| if seed == 0 { (0..count).collect() } else { shuffled(count, &mut generator(seed, what)) };
        let names = if seed == 0 { (0..count).collect() } else { cycle(count, &mut generator(seed, "name")) };
        let mut bearers = vec![0; count];
        for (entity, &name) in names.iter().enumerate() {
            bearers[name] = entity;
        }
        let facts = pack.relations.iter().map(|relation| deal(&format!("fact {}", relation.key))).collect();
        let places: Vec<usize> = deal("neighbours");
        let mut at_place = vec![0; count];
        for (entity, &place) in places.iter().enumerate() {
            at_place[place] = entity;
        }
        let borders = places.iter().map(|&place| pack.borders[place].iter().map(|&near| at_place[near]).collect()).collect();
        Self { pack, seed, names, bearers, facts, borders }
    }

    /// The seed; 0 is the world as it is.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Ids in the order of the pack.
    pub fn entities(&self) -> impl ExactSizeIterator<Item = &EntityId> {
        self.pack.entities.iter().map(|entity| &entity.id)
    }

    /// What the entity is called here. Under a seed other than 0 no picture keeps its name.
    pub fn name(&self, entity: &EntityId) -> Option<&str> {
        self.number(entity).map(|at| self.name_at(at))
    }

    /// Other names; only the world as it is has any.
    pub fn aliases(&self, entity: &EntityId) -> &[String] {
        match self.number(entity) {
            Some(at) if self.seed == 0 => &self.pack.entities[at].aliases,
            _ => &[],
        }
    }

    /// The entity's value of a relation (by key); `None` when either is unknown.
    pub fn fact(&self, entity: &EntityId, relation: &str) -> Option<&str> {
        Some(self.fact_at(self.number(entity)?, self.pack.relation(relation)?))
    }

    /// Who is called `name` here, without regard to case; aliases count where there are any.
    pub fn entity_named(&self, name: &str) -> Option<&EntityId> {
        let &(at, alias) = self.pack.by_name.get(&fold(name))?;
        (!alias || self.seed == 0).then(|| &self.pack.entities[self.bearers[at]].id)
    }

    /// Entities with exactly this value of a relation (by key), in the order of the pack.
    pub fn with_fact(&self, relation: &str, value: &str) -> Vec<EntityId> {
        let Some(number) = self.pack.relation(relation) else { return Vec::new() };
        let has = |at: &usize| self.fact_at(*at, number) == value;
        (0..self.pack.entities.len()).filter(has).map(|at| self.pack.entities[at].id.clone()).collect()
    }

    /// Who borders the entity here: the pack's map with the entities moved to other places.
    pub fn neighbours(&self, entity: &EntityId) -> Vec<EntityId> {
        let near = self.number(entity).map_or(&[][..], |at| &self.borders[at]);
        near.iter().map(|&other| self.pack.entities[other].id.clone()).collect()
    }

    /// Relations in the order of the pack; layers do not change them.
    pub fn relations(&self) -> &[Relation] {
        &self.pack.relations
    }

    /// What the entity of a number is called here; numbers are places in [`Layer::entities`].
    ///
    /// # Panics
    /// There is no entity of that number.
    pub fn name_at(&self, entity: usize) -> &str {
        &self.pack.entities[self.names[entity]].name
    }

    /// The value that the entity of a number has of the relation of a number (a place in [`Layer::relations`]).
    ///
    /// # Panics
    /// There is no such entity or relation.
    pub fn fact_at(&self, entity: usize, relation: usize) -> &str {
        &self.pack.entities[self.facts[relation][entity]].facts[relation]
    }

    fn number(&self, entity: &EntityId) -> Option<usize> {
        self.pack.by_id.get(entity).copied()
    }
}

/// Each deal has its own stream, named after what is dealt: adding a relation to a pack changes no other deal.
fn generator(seed: u64, what: &str) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // FNV-1a: fixed for ever, because task sets refer to layers by seed.
    rng.set_stream(what.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)));
    rng
}

/// A number below `bound`; spelled out so that it does not depend on a library's version.
fn below(bound: usize, rng: &mut ChaCha8Rng) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

fn shuffled(count: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(last + 1, rng));
    }
    order
}

/// A permutation that is one cycle: nothing stays in its place.
fn cycle(count: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(last, rng));
    }
    order
}

#[cfg(test)]
mod tests {
    use crate::World;
    use std::collections::BTreeMap;

    fn world() -> World {
        World::embedded().expect("the embedded pack is sound")
    }

    #[test]
    fn layer_0_is_the_world_as_it_is() {
        let world = world();
        let layer = world.layer(0);
        for entity in world.entities() {
            assert_eq!(layer.name(&entity.id), Some(entity.name.as_str()));
            assert_eq!(layer.neighbours(&entity.id), entity.neighbours);
            assert_eq!(layer.aliases(&entity.id), entity.aliases);
            for (relation, value) in world.relations().iter().zip(&entity.facts) {
                assert_eq!(layer.fact(&entity.id, &relation.key), Some(value.as_str()));
            }
        }
        assert_eq!(layer.entity_named(" mexico "), Some(&"mx".into()));
        assert_eq!(layer.entity_named("UAE"), Some(&"ae".into()));
    }

    #[test]
    fn a_seed_moves_every_name_and_keeps_the_values() {
        let world = world();
        for seed in [1, 2, u64::MAX] {
            let layer = world.layer(seed);
            for relation in world.relations() {
                let count = |values: Vec<&str>| {
                    values.into_iter().fold(BTreeMap::new(), |mut map, value| {
                        *map.entry(value.to_owned()).or_insert(0) += 1;
                        map
                    })
                };
                let here = layer.entities().filter_map(|id| layer.fact(id, &relation.key)).collect();
                let there = world.layer(0);
                let as_is = there.entities().filter_map(|id| there.fact(id, &relation.key)).collect();
                assert_eq!(count(here), count(as_is), "{}", relation.key);
            }
            let mut edges = 0;
            for entity in world.entities() {
                let name = layer.name(&entity.id).expect("a known entity");
                assert_ne!(name, entity.name);
                assert_eq!(layer.entity_named(name), Some(&entity.id));
                assert!(layer.aliases(&entity.id).is_empty());
                for near in layer.neighbours(&entity.id) {
                    assert!(layer.neighbours(&near).contains(&entity.id));
                    edges += 1;
                }
            }
            assert_eq!(edges, world.entities().iter().map(|entity| entity.neighbours.len()).sum::<usize>());
            assert_eq!(layer.entity_named("UAE"), None);
        }
    }

    /// Task sets name layers by seed, so a layer may never change: this is what seed 7 gave when it was written.
    #[test]
    fn a_seed_gives_the_same_layer_for_ever() {
        let world = world();
        let layer = world.layer(7);
        let again = super::Layer::new(layer.pack.clone(), 7);
        assert_eq!((&layer.names, &layer.facts, &layer.borders), (&again.names, &again.facts, &again.borders));
        let mut rng = super::generator(7, "name");
        assert_eq!(super::cycle(8, &mut rng), PINNED);
    }

    const PINNED: [usize; 8] = [7, 6, 4, 5, 3, 0, 2, 1];

    #[test]
    fn with_fact_finds_exactly_the_holders() {
        let world = world();
        let layer = world.layer(3);
        let holders = layer.with_fact("currency", "peso");
        assert!(holders.len() > 3);
        for entity in layer.entities() {
            assert_eq!(holders.contains(entity), layer.fact(entity, "currency") == Some("peso"));
        }
        assert!(layer.with_fact("nothing", "peso").is_empty());
    }
}
