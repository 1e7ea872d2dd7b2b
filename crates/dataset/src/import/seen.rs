//! What was there before: tasks by their names and by what they ask, pictures by their content. In: a task. Out: where the same one stood.
//! It keeps a few bytes for each, not the task.

use std::collections::{HashMap, HashSet};

use hypereyes_domain::{PictureId, Task};

/// What a task asks, in 16 bytes: equal where the question, blanks aside, and all pictures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asked([u8; 16]);

impl Asked {
    pub fn of(question: &str, pictures: &[PictureId]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for word in question.split_whitespace() {
            hasher.update(word.as_bytes()).update(b" ");
        }
        for id in pictures {
            hasher.update(b"\0").update(id.as_str().as_bytes());
        }
        Self(cut(hasher.finalize()))
    }
}

fn cut(hash: blake3::Hash) -> [u8; 16] {
    let mut cut = [0; 16];
    cut.copy_from_slice(&hash.as_bytes()[..16]);
    cut
}

fn digest(text: &[u8]) -> [u8; 16] {
    cut(blake3::hash(text))
}

/// Where a task stood: the number of its file, its row, and its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub file: usize,
    pub row: u64,
    answers: [u8; 16],
}

/// What was there before.
#[derive(Debug, Default)]
pub(super) struct Seen {
    names: HashSet<[u8; 16]>,
    asked: HashMap<Asked, Place>,
    pictures: HashSet<[u8; 16]>,
}

impl Seen {
    /// Whether a task of that name was there.
    pub fn has_name(&self, id: &str) -> bool {
        self.names.contains(&digest(id.as_bytes()))
    }

    /// Where the same was asked before, and whether other answers were right there.
    pub fn before(&self, asked: Asked, answers: &[String]) -> Option<(Place, bool)> {
        self.asked.get(&asked).map(|place| (*place, place.answers != of_answers(answers)))
    }

    /// Whether that picture was there.
    pub fn has_picture(&self, id: &PictureId) -> bool {
        self.pictures.contains(&digest(id.as_str().as_bytes()))
    }

    /// Takes a task in.
    pub fn add(&mut self, task: &Task, asked: Asked, file: usize, row: u64) {
        self.names.insert(digest(task.id.as_str().as_bytes()));
        self.asked.insert(asked, Place { file, row, answers: of_answers(&task.answers) });
        self.pictures.extend(task.pictures.iter().map(|id| digest(id.as_str().as_bytes())));
    }

    /// Pictures that differ.
    pub fn pictures(&self) -> u64 {
        self.pictures.len() as u64
    }
}

fn of_answers(answers: &[String]) -> [u8; 16] {
    digest(answers.join("\0").as_bytes())
}
