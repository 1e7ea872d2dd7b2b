//! Reads a pack's files and checks that they fit together; every error names the file, the place and what to do.
//! Knows no layer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use hypereyes_domain::EntityId;
use hypereyes_outside::text::unprintable;
use hypereyes_pictures::{Filter, Limits, RgbImage, decode, resize};
use serde::Deserialize;

use super::{Entity, Pack, Relation, fold};

/// Bounds of a pack: far above any sensible one, far below what would exhaust memory.
const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_ENTITIES: usize = 20_000;
const MAX_RELATIONS: usize = 32;
const MAX_TEXT: usize = 200;
/// A photograph as cameras write it.
const PICTURE_LIMITS: Limits = Limits { max_bytes: 32 << 20, max_side: 16_384, max_pixels: 100_000_000 };
/// Longest side of a picture as it is kept: larger ones are made smaller, for a tile of a mosaic is.
const KEPT_SIDE: u32 = 512;
/// Bytes of all pictures as they are kept.
const KEPT_BYTES: usize = 2 << 30;
/// Endings of a picture's file.
const ENDINGS: [&str; 3] = ["png", "jpg", "jpeg"];
/// Problems of one pack that are listed; behind them there are more of the same.
const MOST_PROBLEMS: usize = 50;

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
    #[serde(default)]
    question: Option<String>,
    #[serde(default)]
    clause: Option<String>,
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

/// Reads the pack in a folder.
///
/// # Errors
/// Everything that is wrong with it, up to [`MOST_PROBLEMS`]; at least one.
pub(super) fn from_dir(dir: &Path) -> Result<Pack, Vec<WorldError>> {
    if !dir.join("world.toml").is_file() {
        return Err(vec![WorldError::Missing { dir: dir.to_owned() }]);
    }
    let one = |error: WorldError| vec![error];
    let (world, entities) = (read(&dir.join("world.toml")).map_err(one)?, read(&dir.join("entities.jsonl")).map_err(one)?);
    from_texts(dir, &world, &entities, |id| {
        let files: Vec<PathBuf> =
            ENDINGS.iter().map(|ending| dir.join("pictures").join(format!("{id}.{ending}"))).filter(|path| path.exists()).collect();
        let [path] = &files[..] else {
            return Err(match files.len() {
                0 => format!("there is no {id}.png, {id}.jpg or {id}.jpeg; every entity needs a picture"),
                _ => format!("{id} has {} pictures; leave one", files.len()),
            });
        };
        // One byte more than allowed is enough for the decoder to refuse a file by its size.
        let mut bytes = Vec::new();
        let file = hypereyes_outside::files::open(path, u64::MAX).map_err(|error| error.to_string())?;
        let limited = &mut std::io::Read::take(file, PICTURE_LIMITS.max_bytes as u64 + 1);
        std::io::Read::read_to_end(limited, &mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    })
}

fn read(path: &Path) -> Result<String, WorldError> {
    let error = |source| WorldError::Read { path: path.to_owned(), source };
    hypereyes_outside::files::read_to_string(path, MAX_FILE_BYTES).map_err(error)
}

/// Builds a pack from the two texts and a way to find a picture; `dir` only serves error messages.
///
/// # Errors
/// As [`from_dir`].
pub(super) fn from_texts(
    dir: &Path,
    world: &str,
    entities: &str,
    picture: impl Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Pack, Vec<WorldError>> {
    let in_world = |reason: String| WorldError::Invalid { place: dir.join("world.toml"), reason };
    let in_entities = |reason: String| WorldError::Invalid { place: dir.join("entities.jsonl"), reason };
    let file: WorldFile = toml::from_str(world).map_err(|error| vec![in_world(error.to_string())])?;
    let relations = relations(file.relations).map_err(|reason| vec![in_world(reason)])?;
    let (entities, mut problems) = read_entities(entities, &relations);
    let by_id = index_ids(&entities, &mut problems);
    let by_name = index_names(&entities, &mut problems);
    check_unique(&entities, &relations, &mut problems);
    let borders = borders(&entities, &by_id, &mut problems);
    let mut problems: Vec<WorldError> = problems.into_iter().map(in_entities).collect();
    for (a, b) in file.look_alikes.iter().filter(|(a, b)| !by_id.contains_key(a) || !by_id.contains_key(b)) {
        problems.push(in_world(format!("look_alikes names ({a}, {b}), but entities.jsonl has not both")));
    }
    let (mut pictures, mut kept) = (Vec::with_capacity(entities.len()), 0);
    for entity in &entities {
        let decoded = picture(entity.id.as_str())
            .and_then(|bytes| decode(&bytes, &PICTURE_LIMITS).map_err(|error| format!("the picture of {}: {error}", entity.id)));
        match decoded {
            Ok(picture) => {
                pictures.push(small(picture));
                kept += pictures.last().map_or(0, |picture| picture.as_raw().len());
            }
            Err(reason) => problems.push(WorldError::Invalid { place: dir.join("pictures"), reason }),
        }
        if kept > KEPT_BYTES || problems.len() >= MOST_PROBLEMS {
            break;
        }
    }
    if kept > KEPT_BYTES {
        let reason =
            format!("the pictures take more than {} MiB, each at most {KEPT_SIDE} pixels wide and high: leave some out", KEPT_BYTES >> 20);
        problems.push(WorldError::Invalid { place: dir.join("pictures"), reason });
    }
    if !problems.is_empty() {
        problems.truncate(MOST_PROBLEMS);
        return Err(problems);
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

/// A picture whose sides are at most [`KEPT_SIDE`], of its own shape.
fn small(picture: RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let longest = width.max(height);
    if longest <= KEPT_SIDE {
        return picture;
    }
    let side = |side: u32| ((u64::from(side) * u64::from(KEPT_SIDE) + u64::from(longest) / 2) / u64::from(longest)).max(1) as u32;
    resize(&picture, side(width), side(height), Filter::Bicubic)
}

fn relations(table: toml::Table) -> Result<Vec<Relation>, String> {
    if table.is_empty() || table.len() > MAX_RELATIONS {
        return Err(format!("{} relations; a world has 1..={MAX_RELATIONS}", table.len()));
    }
    let mut labels = HashSet::new();
    table
        .into_iter()
        .map(|(key, value)| {
            let row: RelationRow = value.try_into().map_err(|error| format!("relations.{key}: {error}"))?;
            check_text(&row.label, || format!("relations.{key}.label"))?;
            if !labels.insert(fold(&row.label)) {
                return Err(format!(
                    "relations.{key}.label is {:?}, as another relation's: nobody could tell which is asked for",
                    row.label
                ));
            }
            for (name, wording) in [("question", &row.question), ("clause", &row.clause)] {
                let Some(wording) = wording else { continue };
                check_text(wording, || format!("relations.{key}.{name}"))?;
                if wording.matches("{value}").count() != 1 || wording.matches(['{', '}']).count() != 2 {
                    return Err(format!("relations.{key}.{name} is {wording:?}: give it {{value}} once, and no other braces"));
                }
            }
            let RelationRow { label, unique, askable, question, clause } = row;
            Ok(Relation { key, label, unique, askable, question, clause })
        })
        .collect()
}

/// The entities of all lines that are sound, and what is wrong with the others.
fn read_entities(text: &str, relations: &[Relation]) -> (Vec<Entity>, Vec<String>) {
    let (mut entities, mut problems) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match read_entity(line, relations) {
            Ok(entity) => entities.push(entity),
            Err(reason) => problems.push(format!("line {}: {reason}", number + 1)),
        }
        if entities.len() > MAX_ENTITIES {
            problems.push(format!("more than {MAX_ENTITIES} entities"));
            break;
        }
    }
    if entities.len() < 2 && problems.is_empty() {
        problems.push(format!("{} entities; a world has at least 2", entities.len()));
    }
    (entities, problems)
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

fn index_ids(entities: &[Entity], problems: &mut Vec<String>) -> HashMap<EntityId, usize> {
    let mut by_id = HashMap::new();
    for (at, entity) in entities.iter().enumerate() {
        if by_id.insert(entity.id.clone(), at).is_some() {
            problems.push(format!("the id {} is there twice", entity.id));
        }
    }
    by_id
}

fn index_names(entities: &[Entity], problems: &mut Vec<String>) -> HashMap<String, (usize, bool)> {
    let mut by_name: HashMap<String, (usize, bool)> = HashMap::new();
    for (at, entity) in entities.iter().enumerate() {
        let names = std::iter::once((&entity.name, false)).chain(entity.aliases.iter().map(|alias| (alias, true)));
        for (name, alias) in names {
            if let Some((other, _)) = by_name.insert(fold(name), (at, alias)) {
                problems.push(format!("{} and {} are both called {name:?}", entities[other].id, entity.id));
            }
        }
    }
    by_name
}

fn check_unique(entities: &[Entity], relations: &[Relation], problems: &mut Vec<String>) {
    for (number, relation) in relations.iter().enumerate().filter(|(_, relation)| relation.unique) {
        let mut holders: HashMap<&str, &EntityId> = HashMap::new();
        for entity in entities {
            if let Some(other) = holders.insert(&entity.facts[number], &entity.id) {
                problems.push(format!("{other} and {} share the {} {:?}, which is unique", entity.id, relation.key, entity.facts[number]));
            }
        }
    }
}

fn borders(entities: &[Entity], by_id: &HashMap<EntityId, usize>, problems: &mut Vec<String>) -> Vec<Vec<usize>> {
    let of = |entity: &Entity| {
        let numbers = entity.neighbours.iter().filter_map(|neighbour| {
            let Some(at) = by_id.get(neighbour).copied() else {
                problems.push(format!("{} borders {neighbour}, which is no entity", entity.id));
                return None;
            };
            if !entities[at].neighbours.contains(&entity.id) {
                problems.push(format!("{} borders {neighbour}, but not the other way round", entity.id));
            }
            Some(at)
        });
        numbers.collect()
    };
    entities.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = "name = 'w'\nnoun = 'thing'\n[relations.b]\nlabel = 'bee'\nunique = true\naskable = true\n\
                         [relations.a]\nlabel = 'ay'\nunique = false\naskable = true\n";

    fn rows(second: &str) -> String {
        format!("{{\"id\":\"x\",\"name\":\"X\",\"facts\":{{\"a\":\"1\",\"b\":\"2\"}},\"neighbours\":[\"y\"]}}\n{second}\n")
    }

    fn png() -> Vec<u8> {
        hypereyes_pictures::encode_png(&RgbImage::new(4, 3)).expect("encodes").to_vec()
    }

    fn build(second: &str) -> Result<Pack, Vec<WorldError>> {
        from_texts(Path::new("w"), WORLD, &rows(second), |_| Ok(png()))
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
            let text = build(row).map(|_| ()).expect_err(part).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(text.contains(part) && text.starts_with("w/entities.jsonl"), "{text}");
        }
    }

    #[test]
    fn every_problem_is_listed() {
        let rows = rows(r#"{"id":"y","name":"X","facts":{"a":"1","b":"2"}}"#) + "{}\n";
        let problems =
            from_texts(Path::new("w"), WORLD, &rows, |id| if id == "x" { Ok(b"no picture".to_vec()) } else { Err("gone".into()) });
        let text: Vec<String> = problems.map(|_| ()).expect_err("six problems").iter().map(ToString::to_string).collect();
        for part in ["line 3: missing field", "both called", "which is unique", "other way round", "the picture of x", "w/pictures: gone"] {
            assert!(text.iter().any(|line| line.contains(part)), "{part}: {text:?}");
        }
    }

    #[test]
    fn pictures_may_be_photographs_of_any_size_and_are_kept_small() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path();
        let row = r#"{"id":"y","name":"Y","facts":{"a":"1","b":"3"},"neighbours":["x"]}"#;
        std::fs::write(dir.join("world.toml"), WORLD).expect("written");
        std::fs::write(dir.join("entities.jsonl"), rows(row)).expect("written");
        std::fs::create_dir(dir.join("pictures")).expect("made");
        image::RgbImage::from_pixel(2000, 1000, image::Rgb([200, 10, 10])).save(dir.join("pictures/x.jpg")).expect("written");
        let missing = from_dir(dir).map(|_| ()).expect_err("y has none");
        assert!(missing[0].to_string().contains("there is no y.png, y.jpg or y.jpeg"), "{missing:?}");
        std::fs::write(dir.join("pictures/y.png"), png()).expect("written");
        let pack = from_dir(dir).map_err(|problems| problems[0].to_string()).expect("sound");
        assert_eq!(pack.pictures.iter().map(RgbImage::dimensions).collect::<Vec<_>>(), [(512, 256), (4, 3)]);
        std::fs::write(dir.join("pictures/x.png"), png()).expect("written");
        assert!(from_dir(dir).map(|_| ()).expect_err("two").iter().any(|problem| problem.to_string().contains("x has 2 pictures")));
    }

    #[test]
    fn wordings_of_a_relation_have_its_value_in_them() {
        let world = |wording: &str| WORLD.replace("label = 'ay'", &format!("label = 'ay'\n{wording}"));
        let row = r#"{"id":"y","name":"Y","facts":{"a":"1","b":"3"},"neighbours":["x"]}"#;
        let build = |wording: &str| from_texts(Path::new("w"), &world(wording), &rows(row), |_| Ok(png()));
        let pack =
            build("question = 'Which of them lives in {value}?'\nclause = 'that lives in {value}'").map_err(|all| all[0].to_string());
        assert_eq!(pack.expect("sound").relations[1].question.as_deref(), Some("Which of them lives in {value}?"));
        for wording in ["question = 'Which lives there?'", "clause = 'in {value} or {value}'", "clause = 'in {value} of {name}'"] {
            let problems = build(wording).map(|_| ()).expect_err(wording);
            assert!(problems[0].to_string().contains("give it {value} once"), "{problems:?}");
        }
    }

    #[test]
    fn a_missing_world_says_what_to_do() {
        let text = from_dir(Path::new("/nowhere/moon")).map(|_| ()).expect_err("not there")[0].to_string();
        assert!(text.contains("/nowhere/moon") && text.contains("world.toml") && text.contains("embedded"), "{text}");
    }
}
