//! Pictures as rows of tables have them, of any form that is in use. In: a cell. Out: what [`Encoded`] has: bytes, or a file that is
//! there. Nothing is decoded, and nothing is fetched here.

use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hypereyes_tables::Cell;
use serde::{Deserialize, Deserializer};

use crate::loaders::gather::Encoded;

/// A picture in a row, not looked at yet: `{bytes, path}` with either null, `{image: ..}`, `{url: ..}`, bytes, a list of whole numbers, an
/// object of digits (`{"0": 137, ..}`), a data URI, base64 that begins as a PNG or a JPEG does, a path, or an address. Where a struct has an
/// `Option<PictureCell>`, null is none.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureCell(pub Cell);

impl<'de> Deserialize<'de> for PictureCell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cell::deserialize(deserializer).map(Self)
    }
}

/// Where pictures may lie that a row only names.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The folder that relative paths begin in. No path leads out of it, unless `anywhere`.
    pub folder: &'a Path,
    /// Whether absolute paths, and those that lead out of the folder, are followed.
    pub anywhere: bool,
}

/// How base64 of a JPEG and of a PNG begins: no path does.
const BASE64_BEGINS: [&str; 2] = ["/9j/", "iVBORw0KGgo"];
/// Where structs have a picture, in the order in which they are asked.
const WITHIN: [&str; 5] = ["bytes", "image", "image_url", "url", "path"];

impl PictureCell {
    /// The pictures of a column: several in a list, or one.
    pub fn several(cell: Cell) -> Vec<Self> {
        match cell {
            Cell::Null => vec![],
            Cell::List(cells) if cells.is_empty() || !cells.iter().all(is_number) => cells.into_iter().map(Self).collect(),
            one => vec![Self(one)],
        }
    }

    /// Whether it says nothing: null, or a struct of nulls.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Cell::Null => true,
            Cell::Struct(fields) => fields.iter().all(|(_, cell)| cell.is_null()),
            _ => false,
        }
    }

    /// What a struct has of a picture: the first of its fields that may be one and is not null; none of anything else.
    pub fn within(&self) -> Option<&Cell> {
        within(&self.0)
    }

    /// The address (`http://`, `https://`) at which it is, where the row has no more of it.
    pub fn address(&self) -> Option<&str> {
        fn of(cell: &Cell) -> Option<&str> {
            match cell {
                Cell::Text(text) => is_address(text).then_some(text),
                cell => within(cell).and_then(of),
            }
        }
        of(&self.0)
    }

    /// The path that a row names, whether or not it has bytes as well: what its maker called it.
    pub fn path(&self) -> Option<&str> {
        let text = match &self.0 {
            Cell::Struct(_) => self.0.get("path")?.as_text()?,
            cell => cell.as_text()?,
        };
        (!text.is_empty() && !text.starts_with("data:") && !is_base64(text)).then_some(text)
    }

    /// The picture. An address is refused: whoever fetches does it before.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the column's name.
    pub fn resolve(self, places: Places<'_>) -> Result<Encoded, String> {
        match self.0 {
            Cell::Null => Err("is null".into()),
            Cell::Bytes(bytes) => of_bytes(bytes),
            Cell::List(cells) => of_bytes(numbers(cells.into_iter())?),
            Cell::Struct(fields) if is_digits(&fields) => of_bytes(digits(fields)?),
            Cell::Struct(fields) => of_fields(Cell::Struct(fields), places),
            Cell::Text(text) => of_text(&text, places),
            other => Err(format!("is {}, which is no picture", other.kind())),
        }
    }
}

fn within(cell: &Cell) -> Option<&Cell> {
    WITHIN.iter().find_map(|name| cell.get(name).filter(|inner| !inner.is_null()))
}

fn is_number(cell: &Cell) -> bool {
    matches!(cell, Cell::Int(_) | Cell::UInt(_))
}

fn is_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn is_base64(text: &str) -> bool {
    BASE64_BEGINS.iter().any(|begins| text.starts_with(begins))
}

fn is_digits(fields: &[(String, Cell)]) -> bool {
    !fields.is_empty() && fields.iter().all(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()))
}

fn of_bytes(bytes: Vec<u8>) -> Result<Encoded, String> {
    if bytes.is_empty() { Err("has no bytes".into()) } else { Ok(Encoded::Bytes(bytes)) }
}

fn numbers(cells: impl Iterator<Item = Cell>) -> Result<Vec<u8>, String> {
    let byte = |(at, cell)| match cell {
        Cell::Int(value) => u8::try_from(value).map_err(|_| format!("has the number {value} at {at}, which is no byte")),
        other => Err(format!("has {} at {at}, where a byte should be", other.kind())),
    };
    cells.enumerate().map(byte).collect()
}

/// Bytes by their places, in any order.
fn digits(mut fields: Vec<(String, Cell)>) -> Result<Vec<u8>, String> {
    let place = |name: &str| name.parse::<usize>().unwrap_or(usize::MAX);
    fields.sort_by_key(|(name, _)| place(name));
    if let Some((at, (name, _))) = fields.iter().enumerate().find(|(at, (name, _))| place(name) != *at) {
        return Err(format!("has {} bytes by their places, but the {at}th is called {name:?}", fields.len()));
    }
    numbers(fields.into_iter().map(|(_, cell)| cell))
}

fn of_fields(mut cell: Cell, places: Places<'_>) -> Result<Encoded, String> {
    for name in WITHIN {
        let Some(inner) = cell.take(name) else { continue };
        let resolved = match inner {
            // Of bytes no text is but one.
            Cell::Text(text) if name == "bytes" && !text.starts_with("data:") => base64_of(&text).and_then(of_bytes),
            inner => PictureCell(inner).resolve(places),
        };
        return resolved.map_err(|why| format!("{name} {why}"));
    }
    Err("has neither bytes nor a path".into())
}

fn of_text(text: &str, places: Places<'_>) -> Result<Encoded, String> {
    if let Some(rest) = text.strip_prefix("data:") {
        let Some((head, content)) = rest.split_once(',') else { return Err("is a data URI without a comma".into()) };
        if !head.ends_with(";base64") {
            return Err(format!("is a data URI of {head:?}, not of base64"));
        }
        return base64_of(content).and_then(of_bytes);
    }
    if is_address(text) {
        return Err(format!("is an address ({}), and nothing is fetched unless it is asked for", shortened(text)));
    }
    if is_base64(text) {
        return base64_of(text).and_then(of_bytes);
    }
    file(text.strip_prefix("file://").unwrap_or(text), places).map(Encoded::File)
}

fn base64_of(text: &str) -> Result<Vec<u8>, String> {
    let decoded = match text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        true => STANDARD.decode(text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect::<Vec<u8>>()),
        false => STANDARD.decode(text),
    };
    decoded.map_err(|error| format!("is no base64: {error}"))
}

/// The file that a row names.
fn file(text: &str, places: Places<'_>) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("names no file".into());
    }
    let path = Path::new(text);
    let file = places.folder.join(path);
    if places.anywhere {
        return Ok(file);
    }
    let out = || {
        format!("names {:?}, which is not below the folder of its file, and nothing else is read unless it is asked for", shortened(text))
    };
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(out());
    }
    // A link may lead anywhere. What is not there is said by whoever reads it.
    match (std::fs::canonicalize(&file), std::fs::canonicalize(places.folder)) {
        (Ok(leads), Ok(folder)) if !leads.starts_with(&folder) => Err(out()),
        _ => Ok(file),
    }
}

/// Not more of a text than a message should have.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}\u{2026}", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: [u8; 9] = [0x89, b'P', b'N', b'G', 13, 10, 26, 10, 7];

    fn cell(json: &str) -> PictureCell {
        serde_json::from_str(json).expect("JSON")
    }

    fn fields(fields: &[(&str, Cell)]) -> Cell {
        Cell::Struct(fields.iter().map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect())
    }

    #[test]
    fn every_form_in_use_is_the_same_picture() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let places = Places { folder: folder.path(), anywhere: false };
        let base64 = STANDARD.encode(PNG);
        let list: Vec<String> = PNG.iter().map(u8::to_string).collect();
        let dict: Vec<String> = PNG.iter().enumerate().rev().map(|(at, byte)| format!("\"{at}\": {byte}")).collect();
        let forms = [
            PictureCell(Cell::Bytes(PNG.to_vec())),
            PictureCell(fields(&[("bytes", Cell::Bytes(PNG.to_vec())), ("path", Cell::Null)])),
            PictureCell(fields(&[("path", Cell::Text("x/y.png".into())), ("bytes", Cell::Bytes(PNG.to_vec()))])),
            PictureCell(fields(&[("image", fields(&[("bytes", Cell::Bytes(PNG.to_vec()))]))])),
            cell(&format!("[{}]", list.join(", "))),
            cell(&format!("{{{}}}", dict.join(", "))),
            cell(&format!("{{\"bytes\": [{}], \"path\": null}}", list.join(", "))),
            cell(&format!("{{\"bytes\": \"{base64}\"}}")),
            cell(&format!("\"data:image/png;base64,{base64}\"")),
            cell(&format!("{{\"type\": \"image_url\", \"image_url\": {{\"url\": \"data:image/jpeg;base64,{base64}\"}}}}")),
            cell(&format!("\"{base64}\"")),
        ];
        for form in forms {
            let said = format!("{form:?}");
            match form.resolve(places) {
                Ok(Encoded::Bytes(bytes)) => assert_eq!(bytes, PNG, "{said}"),
                other => panic!("{said}: {other:?}"),
            }
        }
    }

    #[test]
    fn paths_lead_to_files_below_the_folder_and_nowhere_else() {
        let around = tempfile::tempdir().expect("a temporary folder");
        let folder = around.path().join("set");
        std::fs::create_dir_all(folder.join("images")).expect("made");
        std::fs::write(folder.join("images/a.png"), PNG).expect("written");
        std::fs::write(around.path().join("secret.png"), PNG).expect("written");
        std::os::unix::fs::symlink(around.path().join("secret.png"), folder.join("link.png")).expect("linked");
        let resolve = |text: &str, anywhere: bool| match PictureCell(Cell::Text(text.into())).resolve(Places { folder: &folder, anywhere })
        {
            Ok(Encoded::File(path)) => Ok(path),
            Ok(other) => panic!("{other:?}"),
            Err(why) => Err(why),
        };
        for text in ["images/a.png", "./images/a.png"] {
            assert_eq!(std::fs::read(resolve(text, false).expect(text)).expect("reads"), PNG);
        }
        let absolute = around.path().join("secret.png").display().to_string();
        for text in ["../secret.png", "images/../../secret.png", "link.png", &absolute, &format!("file://{absolute}")] {
            assert!(resolve(text, false).is_err_and(|why| why.contains("not below the folder")), "{text}");
            assert_eq!(std::fs::read(resolve(text, true).expect(text)).expect("reads"), PNG);
        }
        assert_eq!(resolve("images/none.png", false), Ok(folder.join("images/none.png")));
    }

    #[test]
    fn what_is_no_picture_says_why() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let refused = |json: &str| {
            let cell = cell(json);
            cell.resolve(Places { folder: folder.path(), anywhere: false }).map(|_| ()).expect_err(json)
        };
        for (json, says) in [
            ("null", "is null"),
            ("7", "is a whole number, which is no picture"),
            ("\"\"", "names no file"),
            ("[]", "has no bytes"),
            ("[1, 256]", "has the number 256 at 1, which is no byte"),
            ("[1, \"a\"]", "has a text at 1, where a byte should be"),
            (r#"{"0": 1, "2": 3}"#, "has 2 bytes by their places, but the 1th is called \"2\""),
            (r#"{"bytes": null, "path": null}"#, "has neither bytes nor a path"),
            (r#"{"bytes": ""}"#, "bytes has no bytes"),
            (r#"{"bytes": "%%"}"#, "bytes is no base64"),
            (r#""data:image/png,abc""#, "not of base64"),
            (r#""data:image/png""#, "without a comma"),
            (r#""https://example.org/a.png""#, "is an address (https://example.org/a.png), and nothing is fetched"),
            (r#"{"image": {"path": "/etc/passwd"}}"#, "image path names \"/etc/passwd\""),
        ] {
            assert!(refused(json).contains(says), "{json}: {}", refused(json));
        }
    }

    #[test]
    fn columns_hold_one_picture_or_several() {
        let count = |json: &str| PictureCell::several(cell(json).0).len();
        assert_eq!(
            [count("null"), count("[]"), count("[1, 2]"), count("[[1], [2]]"), count("\"a.png\""), count("[\"a\", \"b\"]")],
            [0, 0, 1, 2, 1, 2]
        );
        assert!(cell(r#"{"bytes": null, "path": null}"#).is_empty() && !cell("\"a\"").is_empty());
        assert_eq!(cell(r#"{"bytes": null, "path": "http://a/b"}"#).address(), Some("http://a/b"));
        assert_eq!(
            (cell(r#"{"bytes": [1], "path": "http://a/b"}"#).address(), cell(r#"{"bytes": [1], "path": "b.png"}"#).path()),
            (None, Some("b.png"))
        );
    }
}
