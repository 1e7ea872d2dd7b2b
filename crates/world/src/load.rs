//! Reads a pack's files and checks that they fit together; every error names the file, the place and what to do.
//! Knows no layer.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use hypereyes_domain::EntityId;
use hypereyes_outside::text::unprintable;
use hypereyes_pictures::{Limits, decode};
use serde::Deserialize;

use super::{Entity, Pack, Relation, fold};

/// Bounds of a pack: far above any sensible one, far below what would exhaust memory.
const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_ENTITIES: usize = 20_000;
const MAX_RELATIONS: usize = 32;
const MAX_TEXT: usize = 200;
const PICTURE_LIMITS: Limits = Limits { max_bytes: 1 << 20, max_side: 512, max_pixels: 512 * 512 };

/// Why a world pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The folder is no world pack.
    #[error(
        "no world pack at {}: world.toml is not there; name a folder with world.toml, entities.jsonl and pictures/, \
         or leave the world out to use the embedded countries",
        .dir.display()
    )]
    Missing {
        /// The folder named.
        dir: PathBuf,
    },
    /// A file of the pack cannot be read.
    #[error("{}: {source}; a world pack needs this file", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file says something that does not fit.
    #[error("{}: {reason}", .place.display())]
    Invalid {
        /// Which file.
        place: PathBuf,
        /// What does not fit, and where.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldFile {
    name: String,
    #[serde(default)]
    description: String,
    noun: String,
    #[serde(default)]
    look_alikes: Vec<(EntityId, EntityId)>,
    /// A table in the order of the file (the `preserve_order` feature of toml).
    relations: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RelationRow {
    label: String,
    unique: bool,
    askable: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntityRow {
    id: EntityId,
    name: String,
    #[serde(default)]
    aliases: Vec<String>,
    facts: BTreeMap<String, String>,
    #[serde(default)]
    neighbours: Vec<EntityId>,
}

pub(super) fn from_dir(dir: &Path) -> Result<Pack, WorldError> {
    if !dir.join("world.toml").is_file() {
        return Err(WorldError::Missing { dir: dir.to_owned() });
    }
    let (world, entities) = (read(&dir.join("world.toml"))?, read(&dir.join("entities.jsonl"))?);
    from_texts(dir, &world, &entities, |id| {
        let path = dir.join("pictures").join(format!("{id}.png"));
        // One byte more than allowed is enough for the decoder to refuse a file by its size.
        let mut bytes = Vec::new();
        let file = hypereyes_outside::files::open(&path, u64::MAX).ok()?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, PICTURE_LIMITS.max_bytes as u64 + 1), &mut bytes).ok()?;
        Some(bytes)
    })
}

fn read(path: &Path) -> Result<String, WorldError> {
    let error = |source| WorldError::Read { path: path.to_owned(), source };
    hypereyes_outside::files::read_to_string(path, MAX_FILE_BYTES).map_err(error)
}

/// Builds a pack from the two texts and a way to find a picture; `dir` only serves error messages.
pub(super) fn from_texts(dir: &Path, world: &str, entities: &str, picture: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Pack, WorldError> {
    let in_world = |reason: String| WorldError::Invalid { place: dir.join("world.toml"), reason };
    let in_entities = |reason: String| WorldError::Invalid { place: dir.join("entities.jsonl"), reason };
    let file: WorldFile = toml::from_str(world).map_err(|error| in_world(error.to_string()))?;
    let relations = relations(file.relations).map_err(in_world)?;
    let entities = read_entities(entities, &relations).map_err(in_entities)?;

    let by_id = index_ids(&entities).map_err(in_entities)?;
    let by_name = index_names(&entities).map_err(in_entities)?;
    check_unique(&entities, &relations).map_err(in_entities)?;
    let borders = borders(&entities, &by_id).map_err(in_entities)?;
    if let Some((a, b)) = file.look_alikes.iter().find(|(a, b)| !by_id.contains_key(a) || !by_id.contains_key(b)) {
        return Err(in_world(format!("look_alikes names ({a}, {b}), but entities.jsonl has not both")));
    }
    let mut pictures = Vec::with_capacity(entities.len());
    for entity in &entities {
        let place = dir.join("pictures").join(format!("{}.png", entity.id));
        let invalid = |reason: String| WorldError::Invalid { place: place.clone(), reason };
        let bytes = picture(entity.id.as_str()).ok_or_else(|| invalid("not there; every entity needs a picture".into()))?;
        pictures.push(decode(&bytes, &PICTURE_LIMITS).map_err(|error| invalid(error.to_string()))?);
    }
    Ok(Pack {
        name: file.name,
        description: file.description,
        noun: file.noun,
        relations,
        entities,
        pictures,
        look_alikes: file.look_alikes,
        by_id,
        by_name,
        borders,
    })
}

fn relations(table: toml::Table) -> Result<Vec<Relation>, String> {
    if table.is_empty() || table.len() > MAX_RELATIONS {
        return Err(format!("{} relations; a world has 1..={MAX_RELATIONS}", table.len()));
    }
    table
        .into_iter()
        .map(|(key, value)| {
            let row: RelationRow = value.try_into().map_err(|error| format!("relations.{key}: {error}"))?;
            check_text(&row.label, || format!("relations.{key}.label"))?;
            Ok(Relation { key, label: row.label, unique: row.unique, askable: row.askable })
        })
        .collect()
}

fn read_entities(text: &str, relations: &[Relation]) -> Result<Vec<Entity>, String> {
    let mut entities = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let entity = read_entity(line, relations).map_err(|reason| format!("line {}: {reason}", number + 1))?;
        entities.push(entity);
        if entities.len() > MAX_ENTITIES {
            return Err(format!("more than {MAX_ENTITIES} entities"));
        }
    }
    if entities.len() < 2 {
        return Err(format!("{} entities; a world has at least 2", entities.len()));
    }
    Ok(entities)
}

fn read_entity(line: &str, relations: &[Relation]) -> Result<Entity, String> {
    let mut row: EntityRow = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let id = row.id.as_str();
    // The id becomes a file name.
    if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        return Err(format!("id {id:?}; use 1..=64 letters, digits, '-' and '_'"));
    }
    check_text(&row.name, || format!("name of {id}"))?;
    for alias in &row.aliases {
        check_text(alias, || format!("alias of {id}"))?;
    }
    let mut facts = Vec::with_capacity(relations.len());
    for relation in relations {
        let value = row.facts.remove(&relation.key).ok_or_else(|| format!("{id} has no fact {:?}", relation.key))?;
        check_text(&value, || format!("fact {:?} of {id}", relation.key))?;
        facts.push(value);
    }
    if let Some(key) = row.facts.keys().next() {
        return Err(format!("{id} has a fact {key:?} that is no relation of world.toml"));
    }
    Ok(Entity { id: row.id, name: row.name, aliases: row.aliases, facts, neighbours: row.neighbours })
}

fn check_text(text: &str, what: impl Fn() -> String) -> Result<(), String> {
    if text.trim().is_empty() || text.trim() != text || text.len() > MAX_TEXT || unprintable(text).is_some() {
        return Err(format!("{} is {text:?}; it must be 1..={MAX_TEXT} bytes on one line without outer blanks", what()));
    }
    Ok(())
}

fn index_ids(entities: &[Entity]) -> Result<HashMap<EntityId, usize>, String> {
    let mut by_id = HashMap::new();
    for (at, entity) in entities.iter().enumerate() {
        if by_id.insert(entity.id.clone(), at).is_some() {
            return Err(format!("the id {} is there twice", entity.id));
        }
    }
    Ok(by_id)
}

fn index_names(entities: &[Entity]) -> Result<HashMap<String, (usize, bool)>, String> {
    let mut by_name: HashMap<String, (usize, bool)> = HashMap::new();
    for (at, entity) in entities.iter().enumerate() {
        let names = std::iter::once((&entity.name, false)).chain(entity.aliases.iter().map(|alias| (alias, true)));
        for (name, alias) in names {
            if let Some((other, _)) = by_name.insert(fold(name), (at, alias)) {
                return Err(format!("{} and {} are both called {name:?}", entities[other].id, entity.id));
            }
        }
    }
    Ok(by_name)
}

fn check_unique(entities: &[Entity], relations: &[Relation]) -> Result<(), String> {
    for (number, relation) in relations.iter().enumerate().filter(|(_, relation)| relation.unique) {
        let mut holders: HashMap<&str, &EntityId> = HashMap::new();
        for entity in entities {
            if let Some(other) = holders.insert(&entity.facts[number], &entity.id) {
                return Err(format!("{other} and {} share the {} {:?}, which is unique", entity.id, relation.key, entity.facts[number]));
            }
        }
    }
    Ok(())
}

fn borders(entities: &[Entity], by_id: &HashMap<EntityId, usize>) -> Result<Vec<Vec<usize>>, String> {
    entities
        .iter()
        .map(|entity| {
            let mut numbers = Vec::with_capacity(entity.neighbours.len());
            for neighbour in &entity.neighbours {
                let at = *by_id.get(neighbour).ok_or_else(|| format!("{} borders {neighbour}, which is no entity", entity.id))?;
                if !entities[at].neighbours.contains(&entity.id) {
                    return Err(format!("{} borders {neighbour}, but not the other way round", entity.id));
                }
                numbers.push(at);
            }
            Ok(numbers)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = "name = 'w'\nnoun = 'thing'\n[relations.b]\nlabel = 'bee'\nunique = true\naskable = true\n\
                         [relations.a]\nlabel = 'ay'\nunique = false\naskable = true\n";

    fn rows(second: &str) -> String {
        format!("{{\"id\":\"x\",\"name\":\"X\",\"facts\":{{\"a\":\"1\",\"b\":\"2\"}},\"neighbours\":[\"y\"]}}\n{second}\n")
    }

    fn build(second: &str) -> Result<Pack, WorldError> {
        let png = hypereyes_pictures::encode_png(&hypereyes_pictures::RgbImage::new(4, 3)).expect("encodes");
        from_texts(Path::new("w"), WORLD, &rows(second), |id| (id != "nopicture").then(|| png.to_vec()))
    }

    #[test]
    fn relations_keep_the_order_of_the_file() {
        let pack = build(r#"{"id":"y","name":"Y","facts":{"a":"1","b":"3"},"neighbours":["x"]}"#).expect("sound");
        assert_eq!(pack.relations.iter().map(|relation| relation.key.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!((pack.entities[1].facts.as_slice(), pack.borders[0].as_slice()), (&["3".to_owned(), "1".to_owned()][..], &[1][..]));
    }

    #[test]
    fn each_misfit_is_named() {
        for (row, part) in [
            ("{", "line 2"),
            (r#"{"id":"y","name":"x","facts":{"a":"1","b":"3"},"neighbours":["x"]}"#, "both called"),
            (r#"{"id":"x","name":"Y","facts":{"a":"1","b":"3"}}"#, "twice"),
            (r#"{"id":"../y","name":"Y","facts":{"a":"1","b":"3"}}"#, "letters"),
            (r#"{"id":"y","name":"Y","facts":{"a":"1"}}"#, "no fact \"b\""),
            (r#"{"id":"y","name":"Y","facts":{"a":"1","b":"3","c":"4"}}"#, "no relation"),
            (r#"{"id":"y","name":"Y","facts":{"a":"1","b":"2"},"neighbours":["x"]}"#, "which is unique"),
            (r#"{"id":"y","name":"Y","facts":{"a":"1","b":"3"}}"#, "other way round"),
            (r#"{"id":"y","name":"Y","facts":{"a":"1","b":"3"},"neighbours":["x","z"]}"#, "no entity"),
        ] {
            let text = build(row).expect_err(part).to_string();
            assert!(text.contains(part) && text.starts_with("w/entities.jsonl"), "{text}");
        }
        let row = rows(r#"{"id":"y","name":"Y","facts":{"a":"1","b":"3"},"neighbours":["x"]}"#);
        let text = from_texts(Path::new("w"), WORLD, &row, |_| None).map(|_| ()).expect_err("no picture").to_string();
        assert!(text.contains("pictures/x.png"), "{text}");
    }

    #[test]
    fn a_missing_world_says_what_to_do() {
        let text = from_dir(Path::new("/nowhere/moon")).map(|_| ()).expect_err("not there").to_string();
        assert!(text.contains("/nowhere/moon") && text.contains("world.toml") && text.contains("embedded"), "{text}");
    }
}
