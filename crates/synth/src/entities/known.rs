//! A folder of named pictures and what is known of each. In: `NAME.jpg` or `NAME.png`, and `NAME.txt` or rows of `facts.jsonl`. Out:
//! entities with a picture and a text; and every file and row that makes none, with the reason. It decodes nothing.
//!
//! Underscores in file names are blanks. What is known of an entity is its facts, a line each, then its documents.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hypereyes_outside::files;
use hypereyes_outside::jsonl::Lines;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::SynthError;

/// Rows of what is known.
const FACTS: &str = "facts.jsonl";
/// Endings of pictures.
const PICTURES: [&str; 3] = ["jpg", "jpeg", "png"];
/// Endings of documents.
const DOCUMENTS: [&str; 2] = ["txt", "md"];
/// Longest document or row, in bytes.
const MAX_DOCUMENT: usize = 4 << 20;
/// A larger file is none of rows of facts.
const MAX_FACTS: u64 = 4 << 30;
/// Files of a folder beyond which it is not one of entities.
const MAX_FILES: usize = 1_000_000;
/// Rows that make no entity beyond which the file is none of rows of facts.
const MAX_REFUSED: usize = 1_000_000;
/// Longest name, in letters: it is to be an answer.
const MAX_NAME: usize = 200;

/// An entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is called.
    pub name: String,
    /// Other names of it.
    pub aliases: Vec<String>,
    /// Of which class it is; pictures of one mosaic are of one class.
    pub class: String,
    /// Its picture's file.
    pub picture: PathBuf,
    /// What is known of it.
    pub text: String,
}

/// A file or row that makes no entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Name of the file within the folder.
    pub file: String,
    /// Its line, from 1; nothing where the file as a whole is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Why.
    pub reason: String,
}

/// A row of `facts.jsonl`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    #[serde(default)]
    class: String,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    facts: Map<String, Value>,
    #[serde(default)]
    document: String,
    #[serde(default)]
    documents: Vec<String>,
}

/// What is found of one name.
#[derive(Default)]
struct Found {
    picture: Option<PathBuf>,
    class: String,
    aliases: Vec<String>,
    facts: Vec<String>,
    documents: Vec<String>,
    /// Where it was found first.
    file: String,
    line: Option<u64>,
}

/// The entities of a folder, by name. Each is shown to a model with at most `most` letters of what is known of it.
///
/// # Errors
/// [`SynthError::File`] for a folder that cannot be read, or in which there are not two entities.
pub fn read(folder: &Path, most: usize) -> Result<(Vec<Known>, Vec<Refused>), SynthError> {
    let fault = |path: &Path, reason: String| SynthError::File { path: path.to_owned(), reason };
    let (mut found, mut refused) = (BTreeMap::<String, Found>::new(), vec![]);
    let mut names = vec![];
    for entry in fs::read_dir(folder).map_err(|error| fault(folder, error.to_string()))? {
        names.push(entry.map_err(|error| fault(folder, error.to_string()))?.path());
        if names.len() > MAX_FILES {
            return Err(fault(folder, format!("it has more than {MAX_FILES} files")));
        }
    }
    names.sort_unstable();
    for path in names {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if file == FACTS || file.starts_with('.') {
            continue;
        }
        let refuse = |reason: &str| Refused { file: file.clone(), line: None, reason: reason.to_owned() };
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        let name = path.file_stem().and_then(|stem| stem.to_str()).map(|stem| stem.replace('_', " ").trim().to_owned());
        let Some(name) = name.filter(|name| is_name(name)) else {
            refused.push(refuse("its name is none of an entity"));
            continue;
        };
        let own = || Found { file: file.clone(), ..Found::default() };
        if PICTURES.contains(&ending.as_str()) {
            let entity = found.entry(name).or_insert_with(own);
            if entity.picture.is_some() {
                refused.push(refuse("there is another picture of this name"));
            } else {
                entity.picture = Some(path);
            }
        } else if DOCUMENTS.contains(&ending.as_str()) {
            match files::read_to_string(&path, MAX_DOCUMENT as u64) {
                Ok(text) => found.entry(name).or_insert_with(own).documents.push(shown(&text, most)),
                Err(error) => refused.push(refuse(&error.to_string())),
            }
        } else {
            refused.push(refuse("it is neither a picture (jpg, png) nor a document (txt, md)"));
        }
    }
    rows(folder, most, &mut found, &mut refused)?;
    let mut entities = vec![];
    for (name, one) in found {
        let refuse = |reason: &str| Refused { file: one.file.clone(), line: one.line, reason: reason.to_owned() };
        let text = [one.facts, one.documents].concat().join("\n");
        match one.picture {
            None => refused.push(refuse("there is no picture of this name")),
            Some(_) if text.trim().is_empty() => refused.push(refuse("nothing is known of it: there is no document and no row of facts")),
            Some(picture) => {
                entities.push(Known { name, aliases: one.aliases, class: one.class, picture, text: cut(text.trim(), most) });
            }
        }
    }
    if entities.len() < 2 {
        let first = refused.first().map_or_else(String::new, |one| format!(" ({}: {})", one.file, one.reason));
        return Err(fault(
            folder,
            format!("{} entities have a picture and something that is known; questions need two{first}", entities.len()),
        ));
    }
    Ok((entities, refused))
}

fn rows(folder: &Path, most: usize, found: &mut BTreeMap<String, Found>, refused: &mut Vec<Refused>) -> Result<(), SynthError> {
    let path = folder.join(FACTS);
    let fault = |error: std::io::Error| SynthError::File { path: path.clone(), reason: error.to_string() };
    let file = match files::open(&path, MAX_FACTS) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(fault)?,
    };
    for row in Lines::new(file, MAX_DOCUMENT).values::<Row>() {
        let row = row.map_err(fault)?;
        let line = Some(row.number);
        if refused.len() > MAX_REFUSED {
            let reason = format!("more than {MAX_REFUSED} files and rows make no entity");
            return Err(SynthError::File { path: path.clone(), reason });
        }
        let mut refuse = |reason: String| refused.push(Refused { file: FACTS.to_owned(), line, reason });
        let Row { name, class, aliases, facts, document, documents } = match row.value {
            Ok(row) => row,
            Err(reason) => {
                refuse(reason);
                continue;
            }
        };
        let name = name.trim().to_owned();
        if !is_name(&name) {
            refuse("name is none of an entity".into());
            continue;
        }
        let one = found.entry(name).or_insert_with(|| Found { file: FACTS.to_owned(), line, ..Found::default() });
        if !class.trim().is_empty() {
            one.class = class.trim().to_owned();
        }
        one.aliases.extend(aliases.into_iter().filter(|alias| !alias.trim().is_empty()));
        let said = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(parts) => {
                parts.iter().map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        one.facts.extend(facts.iter().map(|(key, value)| shown(&format!("{key}: {}", said(value)), most)));
        let documents = [document].into_iter().chain(documents).filter(|text| !text.trim().is_empty());
        one.documents.extend(documents.map(|text| shown(&text, most)));
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().count() <= MAX_NAME && name.chars().any(char::is_alphanumeric) && !name.chars().any(char::is_control)
}

/// As much of a part as can be shown of the whole, and a letter more where there is one: it is not held, only to be cut.
fn shown(part: &str, most: usize) -> String {
    part.trim_start().chars().take(most.saturating_add(1)).collect()
}

/// The first letters of a text, up to the end of a line where there is one in the second half.
fn cut(text: &str, most: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(most) else { return text.to_owned() };
    let head = &text[..end];
    head.rfind('\n').filter(|line| *line >= end / 2).map_or(head, |line| &head[..line]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        fs::write(folder.join(name), text).expect("written");
    }

    #[test]
    fn pictures_are_joined_with_what_is_known_and_the_rest_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        for name in ["Leonberger.jpg", "St._Bernard.PNG", "Otter.jpg", "Otter.png", "Unknown.jpg"] {
            write(folder, name, "not decoded here");
        }
        write(folder, "Leonberger.txt", "It has webbed paws.");
        write(folder, "Otter.md", "It swims.");
        write(folder, "Ghost.txt", "Nobody saw it.");
        write(folder, "page.html", "<p>");
        write(
            folder,
            FACTS,
            "{\"name\": \"St. Bernard\", \"class\": \"dog\", \"aliases\": [\"Saint Bernard\"], \"facts\": {\"weight\": 80, \"from\": [\"Italy\", \"Switzerland\"]}}\n\
             {\"name\": \"Leonberger\", \"class\": \"dog\", \"document\": \"Bred to look like a lion.\"}\n{\"name\": \"x\", \"colour\": 1}\n",
        );
        let (known, refused) = read(folder, 1000).expect("a folder");
        let names: Vec<&str> = known.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["Leonberger", "Otter", "St. Bernard"]);
        assert_eq!((known[0].class.as_str(), known[0].text.as_str()), ("dog", "It has webbed paws.\nBred to look like a lion."));
        assert_eq!(
            (known[2].text.as_str(), &known[2].aliases[..]),
            ("weight: 80\nfrom: Italy, Switzerland", &["Saint Bernard".to_owned()][..])
        );
        assert!(known[1].picture.ends_with("Otter.jpg"));
        let said: Vec<(&str, Option<u64>, &str)> = refused.iter().map(|one| (one.file.as_str(), one.line, one.reason.as_str())).collect();
        assert!(said.contains(&("Otter.png", None, "there is another picture of this name")), "{said:?}");
        assert!(said.contains(&("Ghost.txt", None, "there is no picture of this name")), "{said:?}");
        assert!(said.iter().any(|(file, _, why)| *file == "Unknown.jpg" && why.contains("nothing is known")), "{said:?}");
        assert!(said.iter().any(|(file, _, why)| *file == "page.html" && why.contains("neither")), "{said:?}");
        assert!(said.iter().any(|(file, line, why)| *file == FACTS && *line == Some(3) && why.contains("colour")), "{said:?}");
        assert_eq!(said.len(), 5);
    }

    #[test]
    fn long_texts_are_cut_at_a_line() {
        assert_eq!(cut("ab\ncd\nef", 100), "ab\ncd\nef");
        assert_eq!(cut("ab\ncd\nef", 7), "ab\ncd");
        assert_eq!(cut("abcdefgh\nx", 5), "abcde");
        assert_eq!(cut("éééé", 2), "éé");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = read(folder.path(), 10).expect_err("nothing is there").to_string();
        assert!(error.contains("0 entities"), "{error}");
    }
}
