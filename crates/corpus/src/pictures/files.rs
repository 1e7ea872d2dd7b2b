//! Files of pictures below a folder, in an order that is the same on every machine. In: a folder. Out: their names, and what a list there
//! says of them. A list is `pictures.jsonl` in the folder: `{"file", "title", "text", "url"}` on each line, all but the first optional.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hypereyes_outside::jsonl::Lines;

use super::{ABOUT, About, MOST_LINE};
use crate::Error;
use crate::document::MOST_SHORT;
use crate::refused::{List, Refusal};

/// Folders within folders, at most.
const MOST_DEPTH: usize = 16;
/// Pictures of an index, at most: their vectors are kept in memory.
const MOST_PICTURES: usize = 1 << 26;

/// What lies in a folder.
pub(crate) struct Files {
    root: PathBuf,
    /// Below the root, with `/`, in the order of their bytes.
    names: Vec<String>,
    listed: BTreeMap<String, About>,
}

impl Files {
    /// Looks through a folder; what ends in `.png`, `.jpg` or `.jpeg` is a picture. A line of the list that is none is refused by itself,
    /// and so is what cannot be taken by its name or its place.
    pub fn find(root: &Path, refused: &mut List) -> Result<Self, Error> {
        let mut walk = Walk { root, names: vec![], odd: vec![], above: vec![] };
        walk.look("")?;
        let Walk { mut names, mut odd, .. } = walk;
        names.sort_unstable();
        odd.sort_unstable();
        for (path, why) in odd {
            refused.add(&path, None, Refusal::new("unreadable", why))?;
        }
        let mut listed = BTreeMap::new();
        let list = root.join(ABOUT);
        if list.exists() {
            let lines = Lines::open(&list, MOST_LINE).map_err(|error| Error::io(&list, error))?;
            for row in lines.values::<About>() {
                let row = row.map_err(|error| Error::io(&list, error))?;
                let refusal = match row.value {
                    Ok(about) if about.title.len().max(about.url.len()) > MOST_SHORT => {
                        Refusal::new("too_long", format!("title and url have {MOST_SHORT} bytes at most"))
                    }
                    Ok(about) if names.binary_search(&about.file).is_ok() => {
                        listed.insert(about.file.clone(), about);
                        continue;
                    }
                    Ok(about) => Refusal::new("unknown_file", format!("there is no picture {:?} in the folder", about.file)),
                    Err(why) => Refusal::new("no_row", why),
                };
                refused.add(&list, Some(row.number), refusal)?;
            }
        }
        Ok(Self { root: root.to_owned(), names, listed })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Where the one of a number is.
    pub fn path(&self, at: usize) -> PathBuf {
        self.root.join(&self.names[at])
    }

    /// What is said of the one of a number.
    pub fn about(&self, at: usize) -> About {
        let name = &self.names[at];
        let mut about = self.listed.get(name).cloned().unwrap_or_default();
        if about.title.trim().is_empty() {
            let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
            about.title = stem.replace('_', " ");
        }
        About { file: name.clone(), ..about }
    }
}

/// Whether a file is taken for a picture.
fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| ["png", "jpg", "jpeg"].iter().any(|known| ending == *known))
}

/// A way through folders.
struct Walk<'a> {
    root: &'a Path,
    names: Vec<String>,
    /// What is refused, and why.
    odd: Vec<(PathBuf, String)>,
    /// The folders that one is in, by disk and number.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    /// Looks through a folder below the root.
    fn look(&mut self, below: &str) -> Result<(), Error> {
        let folder = self.root.join(below);
        let in_folder = |error| Error::io(&folder, error);
        let about = std::fs::metadata(&folder).map_err(in_folder)?;
        let identity = (about.dev(), about.ino());
        if self.above.contains(&identity) {
            self.odd.push((folder, "leads to a folder that it is in".into()));
            return Ok(());
        }
        if self.above.len() > MOST_DEPTH {
            self.odd.push((folder, format!("more than {MOST_DEPTH} folders within each other")));
            return Ok(());
        }
        self.above.push(identity);
        for entry in std::fs::read_dir(&folder).map_err(in_folder)? {
            let entry = entry.map_err(in_folder)?;
            // What a link leads to counts; one that leads nowhere is found out when it is read.
            let is_folder = std::fs::metadata(entry.path()).is_ok_and(|there| there.is_dir());
            if !is_folder && !is_picture(&entry.path()) {
                continue;
            }
            let Ok(name) = entry.file_name().into_string() else {
                self.odd.push((entry.path(), "its name is not UTF-8".into()));
                continue;
            };
            let name = if below.is_empty() { name } else { format!("{below}/{name}") };
            if is_folder {
                self.look(&name)?;
            } else {
                self.names.push(name);
            }
            if self.names.len() + self.odd.len() > MOST_PICTURES {
                return Err(Error::Input(format!("{}: more than {MOST_PICTURES} pictures", self.root.display())));
            }
        }
        self.above.pop();
        Ok(())
    }
}
