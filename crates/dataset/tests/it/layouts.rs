//! Rows in every layout, made of tasks that chance wants.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hypereyes_domain::{Reference, Task};
use hypereyes_tables::{Cell, Shape, Writer};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

/// A layout, and what of a task it can say.
#[derive(Clone, Copy)]
pub struct Layout {
    pub name: &'static str,
    references: bool,
    several_answers: bool,
    row: fn(&Wanted, Vec<Value>) -> Value,
}

pub const ALL: [Layout; 6] = [
    Layout { name: "verl", references: false, several_answers: false, row: verl },
    Layout { name: "hypereyes", references: true, several_answers: false, row: hypereyes },
    Layout { name: "mmsearch-r1", references: false, several_answers: true, row: mmsearch_r1 },
    Layout { name: "slime", references: true, several_answers: true, row: slime },
    Layout { name: "tasks", references: true, several_answers: true, row: own },
    Layout { name: "plain", references: false, several_answers: true, row: plain },
];

/// What a row is to say.
#[derive(Clone, Debug)]
pub struct Wanted {
    at: usize,
    question: String,
    answers: Vec<String>,
    pictures: Vec<usize>,
    reference: Option<Reference>,
    note: String,
}

const WORDS: [&str; 9] = ["Which", "flag", "ü", "\"quoted\"", "a\\b", "北京", "{}", "is", "it?\n"];

fn words(random: &mut StdRng, most: usize) -> String {
    let count = random.random_range(1..=most);
    (0..count).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect::<Vec<_>>().join(" ").trim().to_owned()
}

impl Wanted {
    pub fn random(at: usize, pictures: usize, random: &mut StdRng) -> Self {
        let answers = (0..random.random_range(1..4)).map(|number| format!("{} {number}", words(random, 3))).collect();
        let shown = (0..random.random_range(0..4)).map(|_| random.random_range(0..pictures)).collect();
        let reference =
            random.random_bool(0.5).then(|| Reference { rounds: random.random_range(1..6), searches: random.random_range(1..9) });
        Self { at, question: format!("{} {at}", words(random, 12)), answers, pictures: shown, reference, note: words(random, 5) }
    }

    /// Asserts that a task is what was wanted, as far as a layout can say it.
    pub fn is_in(&self, task: &Task, shown: &[Vec<u8>], pictures: &[Vec<u8>], layout: &Layout, what: &str) {
        assert_eq!(task.question, self.question, "{what}");
        let answers = if layout.several_answers { &self.answers[..] } else { &self.answers[..1] };
        assert_eq!(task.answers, answers, "{what}");
        let wanted: Vec<&Vec<u8>> = self.pictures.iter().map(|at| &pictures[*at]).collect();
        assert_eq!(shown.iter().collect::<Vec<_>>(), wanted, "{what}");
        assert_eq!(task.reference, self.reference.filter(|_| layout.references), "{what}");
        let text = Value::Object(task.metadata.clone()).to_string();
        assert!(text.contains(&Value::from(self.note.as_str()).to_string()), "{what}: {} is lost: {text}", self.note);
    }

    fn marked(&self) -> String {
        format!("{}{}", "<image>\n".repeat(self.pictures.len()), self.question)
    }

    /// Searches of each round.
    fn parallel(&self) -> Vec<u32> {
        let Some(Reference { rounds, searches }) = self.reference else { return vec![] };
        let mut each = vec![0; rounds as usize];
        each[0] = searches;
        each
    }
}

fn verl(wanted: &Wanted, pictures: Vec<Value>) -> Value {
    json!({
        "data_source": "chance", "prompt": [{"role": "user", "content": wanted.marked()}], "images": pictures, "ability": wanted.note,
        "reward_model": {"style": "rule", "ground_truth": wanted.answers[0]}, "extra_info": {"split": "train", "index": wanted.at},
    })
}

fn hypereyes(wanted: &Wanted, pictures: Vec<Value>) -> Value {
    json!({
        "prompt": [{"role": "system", "content": wanted.note}, {"role": "user", "content": wanted.marked()}], "images": pictures,
        "reward_model": {"ground_truth": wanted.answers[0]},
        "extra_info": {
            "question": wanted.marked(), "type": "only_acc", "index": format!("h-{}", wanted.at),
            "tool_call": wanted.reference.map(|reference| reference.rounds),
            "parallel": wanted.reference.map(|_| Value::from(wanted.parallel()).to_string()),
        },
    })
}

fn mmsearch_r1(wanted: &Wanted, pictures: Vec<Value>) -> Value {
    json!({
        "data_source": "mmsearch_r1/chance", "prompt": [{"role": "user", "content": wanted.marked()}], "images": pictures,
        "reward_model": {"style": "rule", "ground_truth": wanted.answers[0], "candidate_answers": Value::from(wanted.answers.clone()).to_string()},
        "image_urls": wanted.note,
    })
}

fn slime(wanted: &Wanted, pictures: Vec<Value>) -> Value {
    json!({
        "prompt": wanted.marked(), "label": wanted.answers, "images": pictures,
        "metadata": {
            "rm_type": wanted.note, "tool_call": wanted.reference.map(|reference| reference.rounds),
            "parallel": wanted.reference.map(|_| wanted.parallel()),
        },
    })
}

fn own(wanted: &Wanted, pictures: Vec<Value>) -> Value {
    json!({
        "id": format!("t-{}", wanted.at), "kind": "chance", "question": wanted.question, "answers": wanted.answers, "pictures": pictures,
        "layer": if wanted.at.is_multiple_of(3) { Value::Null } else { wanted.at.into() }, "reference": wanted.reference,
        "metadata": {"note": wanted.note},
    })
}

fn plain(wanted: &Wanted, pictures: Vec<Value>) -> Value {
    json!({"id": format!("p-{}", wanted.at), "question": wanted.question, "answers": wanted.answers, "images": pictures, "source": wanted.note})
}

/// A picture in one of the forms that JSON has, or as parquet has it.
fn form(bytes: &[u8], folder: &Path, number: usize, random: &mut StdRng) -> Value {
    let name = format!("{number}.png");
    match random.random_range(0..7) {
        0 => json!({"bytes": bytes, "path": null}),
        1 => json!({"bytes": null, "path": name}),
        2 => json!({"image": STANDARD.encode(bytes)}),
        3 => format!("data:image/png;base64,{}", STANDARD.encode(bytes)).into(),
        4 => json!(bytes),
        5 => Value::Object(bytes.iter().enumerate().map(|(at, byte)| (at.to_string(), (*byte).into())).collect()),
        _ => {
            assert!(folder.join(&name).is_file());
            name.into()
        }
    }
}

/// Writes the rows as JSON lines, as a JSON array and as parquet.
pub fn write(layout: Layout, folder: &Path, wanted: &[Wanted], pictures: &[Vec<u8>], random: &mut StdRng) -> Vec<PathBuf> {
    for (number, bytes) in pictures.iter().enumerate() {
        std::fs::write(folder.join(format!("{number}.png")), bytes).expect("written");
    }
    let mut rows = Vec::new();
    for one in wanted {
        let shown = one.pictures.iter().map(|at| form(&pictures[*at], folder, *at, random)).collect();
        rows.push((layout.row)(one, shown));
    }
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let paths = ["rows.jsonl", "rows.json", "rows.parquet"].map(|name| folder.join(name));
    std::fs::write(&paths[0], lines).expect("written");
    std::fs::write(&paths[1], Value::from(rows).to_string()).expect("written");
    // In parquet pictures are structs with bytes, as everybody writes them.
    let struct_of = |at: &usize| json!({"bytes": pictures[*at], "path": format!("{at}.png")});
    let rows: Vec<Value> = wanted.iter().map(|one| (layout.row)(one, one.pictures.iter().map(struct_of).collect())).collect();
    parquet(&paths[2], rows);
    paths.to_vec()
}

/// A parquet file of rows that have the same keys, as far as these have values.
fn parquet(path: &Path, rows: Vec<Value>) {
    let mut shape = None;
    rows.iter().for_each(|row| widen(&mut shape, row, ""));
    let Some(Shape::Struct(columns)) = shape else { panic!("rows are objects") };
    let mut writer = Writer::create(path, &columns).expect("begins");
    for row in rows {
        writer.push(cell(row, "")).expect("writes");
    }
    writer.finish().expect("ends");
}

fn widen(shape: &mut Option<Shape>, value: &Value, name: &str) {
    match value {
        Value::Null => {}
        Value::Bool(_) => *shape = Some(Shape::Bool),
        Value::Number(_) => *shape = Some(Shape::Int),
        Value::String(_) => *shape = Some(Shape::Text),
        Value::Array(_) if name == "bytes" => *shape = Some(Shape::Bytes),
        Value::Array(values) => {
            let mut item = match shape.take() {
                Some(Shape::List(item)) => Some(*item),
                _ => None,
            };
            values.iter().for_each(|value| widen(&mut item, value, ""));
            // Of lists that are all empty nobody knows.
            *shape = Some(Shape::List(Box::new(item.unwrap_or(Shape::Text))));
        }
        Value::Object(map) => {
            let mut fields = match shape.take() {
                Some(Shape::Struct(fields)) => fields,
                _ => vec![],
            };
            for (name, value) in map {
                let known = fields.iter().position(|(field, _)| field == name);
                let mut inner = known.map(|at| fields[at].1.clone());
                widen(&mut inner, value, name);
                match (known, inner) {
                    (Some(at), Some(inner)) => fields[at].1 = inner,
                    // A test leaks a few names.
                    (None, inner) => fields.push((Box::leak(name.clone().into_boxed_str()), inner.unwrap_or(Shape::Text))),
                    _ => {}
                }
            }
            *shape = Some(Shape::Struct(fields));
        }
    }
}

fn cell(value: Value, name: &str) -> Cell {
    match value {
        Value::Array(values) if name == "bytes" => Cell::Bytes(values.iter().map(|value| value.as_u64().expect("a byte") as u8).collect()),
        Value::Array(values) => Cell::List(values.into_iter().map(|value| cell(value, "")).collect()),
        Value::Object(map) => Cell::Struct(map.into_iter().map(|(name, value)| (name.clone(), cell(value, &name))).collect()),
        other => Cell::from(other),
    }
}
