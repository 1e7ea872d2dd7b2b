//! A row of a layout as a task. In: a row, and which layout it is. Out: what a task needs, its pictures not looked at yet; or why there is
//! no task in it, by the name of its column. Whatever a row says beside becomes the task's metadata. It knows no file and no folder.

use hypereyes_domain::{Metadata, Reference, Shown, Task, TaskKind};
use hypereyes_tables::Cell;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::format::{ANSWERS, Format, INPUTS, Keys, QUESTIONS};
use super::prompt::{MARK, Prompt, without_marks};
use crate::encoded::PictureCell;
use crate::tasks::FREE_KEYS;

/// Where an exported row has what verl's columns have no place for (`export.rs`), as JSON text.
pub(crate) const KEPT: &str = "hypereyes";
/// Columns with which others number or name rows.
const IDS: [&str; 6] = ["id", "data_id", "question_id", "sample_id", "uid", "index"];
/// Columns after which others split their tables.
const KINDS: [&str; 3] = ["kind", "category", "data_source"];

/// What of a task verl's columns have no place for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub id: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown: Vec<Shown>,
    /// The question, where a prompt cannot have it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
}

/// What a row calls its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A name of its own.
    Said(String),
    /// A number, which other files may have as well.
    Numbered(String),
    /// Nothing.
    None,
}

/// What a row says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Made {
    pub name: Name,
    pub kind: String,
    pub question: String,
    pub answers: Vec<String>,
    pub pictures: Vec<PictureCell>,
    /// Marks of pictures in what is asked; none where the layout has none, and every picture is meant.
    pub marks: Option<usize>,
    pub reference: Option<Reference>,
    pub layer: Option<u64>,
    pub shown: Vec<Shown>,
    pub metadata: Metadata,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// How rows are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub format: Format,
    pub keys: &'a Keys,
    /// Whether rows have nulls for whatever other rows of the file say, as parquet has.
    pub sparse: bool,
}

impl Reader<'_> {
    /// Reads a row.
    ///
    /// # Errors
    /// Why there is no task in it.
    pub fn read(&self, row: Cell) -> Result<Made, String> {
        match self.format {
            Format::Verl | Format::Hypereyes | Format::MmsearchR1 => self.verl(row),
            Format::Slime => self.slime(row),
            Format::Tasks => self.own(row),
            Format::Plain => self.plain(row),
        }
    }

    fn verl(&self, mut row: Cell) -> Result<Made, String> {
        let mut beside = Beside::new(self.sparse);
        let prompt = row.take("prompt").ok_or("it has no prompt")?;
        let prompt = Prompt::of(prompt).map_err(|why| format!("prompt {why}"))?;
        no_videos(&mut row)?;
        let images = self.images(&mut row);
        let mut reward = object(&mut row, "reward_model", &mut beside)?;
        let mut extra = object(&mut row, "extra_info", &mut beside)?;
        let kept = kept(&mut extra)?;
        let truth = reward.shift_remove("ground_truth").ok_or("reward_model has no ground_truth")?;
        let mut answers = answers_of("reward_model.ground_truth", truth)?;
        answers.extend(candidates(reward.shift_remove("candidate_answers"))?);
        let (question, prompt) = question(prompt, &mut extra)?;
        let reference = reference(&extra, &mut beside.warnings);
        let name = name(&mut row, &extra);
        let kind = kind(&row, &extra);
        let mut metadata = beside.rest(row);
        for (column, map) in [("reward_model", reward), ("extra_info", extra)] {
            if !map.is_empty() {
                metadata.insert(column.to_owned(), map.into());
            }
        }
        let marks = Some(prompt.marks);
        let pictures = if images.is_empty() { prompt.pictures.clone() } else { images };
        if let Some(whole) = prompt.beyond(&question) {
            metadata.insert("prompt".to_owned(), whole);
        }
        let warnings = beside.warnings;
        let made = Made { name, kind, question, answers, pictures, marks, reference, layer: None, shown: vec![], metadata, warnings };
        Ok(match kept {
            None => made,
            Some(Kept { id, kind, layer, shown, question, metadata }) => {
                let question = question.unwrap_or(made.question);
                Made { name: Name::Said(id), kind, layer, shown, question, metadata, ..made }
            }
        })
    }

    fn slime(&self, mut row: Cell) -> Result<Made, String> {
        let mut beside = Beside::new(self.sparse);
        let input = self.keys.input.clone().or_else(|| INPUTS.iter().find(|name| row.get(name).is_some()).map(|name| (*name).to_owned()));
        let input = input.ok_or_else(|| format!("it has none of the columns {}", INPUTS.join(", ")))?;
        let prompt = row.take(&input).ok_or_else(|| format!("it has no {input}"))?;
        let prompt = Prompt::of(prompt).map_err(|why| format!("{input} {why}"))?;
        no_videos(&mut row)?;
        let images = self.images(&mut row);
        let label = self.keys.label.as_deref().unwrap_or("label");
        let truth = row.take(label).map_or(Ok(Value::Null), |cell| beside.json(label, cell).map(Option::unwrap_or_default))?;
        let answers = answers_of(label, truth)?;
        let column = self.keys.metadata.as_deref().unwrap_or("metadata");
        let mut extra = object(&mut row, column, &mut beside)?;
        let (question, prompt) = question(prompt, &mut extra)?;
        let reference = reference(&extra, &mut beside.warnings);
        let name = name(&mut row, &extra);
        let kind = kind(&row, &extra);
        let mut metadata = extra;
        for (column, value) in beside.rest(row) {
            metadata.entry(column).or_insert(value);
        }
        let marks = Some(prompt.marks);
        let pictures = if images.is_empty() { prompt.pictures.clone() } else { images };
        if let Some(whole) = prompt.beyond(&question) {
            metadata.entry("prompt").or_insert(whole);
        }
        let warnings = beside.warnings;
        Ok(Made { name, kind, question, answers, pictures, marks, reference, layer: None, shown: vec![], metadata, warnings })
    }

    fn plain(&self, mut row: Cell) -> Result<Made, String> {
        let mut beside = Beside::new(self.sparse);
        let asked = QUESTIONS.iter().find_map(|name| row.take(name));
        let Some(Cell::Text(text)) = asked else { return Err(format!("it has no text as {}", QUESTIONS.join(", "))) };
        no_videos(&mut row)?;
        let pictures = self.images(&mut row);
        let mut answers = vec![];
        for name in ANSWERS {
            if let Some(cell) = row.take(name) {
                answers.extend(answers_of(name, beside.json(name, cell)?.unwrap_or_default())?);
            }
        }
        let none = Metadata::new();
        let name = name(&mut row, &none);
        let kind = kind(&row, &none);
        let mut metadata = beside.rest(row);
        let (question, marks) = (without_marks(&text), text.matches(MARK).count());
        let prompt = Prompt::of(Cell::Text(text))?;
        if let Some(whole) = prompt.beyond(&question) {
            metadata.insert("prompt".to_owned(), whole);
        }
        let marks = (marks > 0).then_some(marks);
        let warnings = beside.warnings;
        Ok(Made { name, kind, question, answers, pictures, marks, reference: None, layer: None, shown: vec![], metadata, warnings })
    }

    fn own(&self, mut row: Cell) -> Result<Made, String> {
        let mut beside = Beside::new(self.sparse);
        let pictures = row.take("pictures").map_or_else(Vec::new, PictureCell::several);
        let free: Vec<_> = FREE_KEYS.iter().filter_map(|name| row.take(name).map(|cell| (*name, cell))).collect();
        let metadata = object(&mut row, "metadata", &mut beside)?;
        let Cell::Struct(fields) = row else { return Err("it is no object".into()) };
        let says = |cell: &Cell| !(cell.is_null() || self.sparse && is_nothing(cell));
        let said = Cell::Struct(fields.into_iter().filter(|(_, cell)| says(cell)).collect());
        let task = Task::deserialize(said).map_err(|error| error.to_string())?;
        let mut metadata = metadata;
        for (name, cell) in free {
            if let Some(value) = beside.json(name, cell)? {
                metadata.entry(name).or_insert(value);
            }
        }
        let Task { id, kind, question, answers, layer, shown, reference, .. } = task;
        let name = Name::Said(id.as_str().to_owned());
        let kind = kind.as_str().to_owned();
        let warnings = beside.warnings;
        Ok(Made { name, kind, question, answers, pictures, marks: None, reference, layer, shown, metadata, warnings })
    }

    /// Takes the column of pictures.
    fn images(&self, row: &mut Cell) -> Vec<PictureCell> {
        let named = self.keys.images.as_deref();
        let names = named.map_or_else(|| vec!["images", "image"], |name| vec![name]);
        let column = names.iter().find_map(|name| row.take(name));
        column.map_or_else(Vec::new, PictureCell::several)
    }
}

/// Whether it is null, or a struct of nulls, as parquet has for a struct that other rows have.
fn is_nothing(cell: &Cell) -> bool {
    match cell {
        Cell::Null => true,
        Cell::Struct(fields) => fields.iter().all(|(_, cell)| is_nothing(cell)),
        _ => false,
    }
}

/// What a row says beside what a task is made of, on its way to the metadata.
struct Beside {
    sparse: bool,
    warnings: Vec<String>,
}

impl Beside {
    fn new(sparse: bool) -> Self {
        Self { sparse, warnings: vec![] }
    }

    /// The columns that are left.
    fn rest(&mut self, row: Cell) -> Metadata {
        let Cell::Struct(fields) = row else { return Metadata::new() };
        let mut rest = Metadata::new();
        for (name, cell) in fields {
            if let Ok(Some(value)) = self.json(&name, cell) {
                rest.insert(name, value);
            }
        }
        rest
    }

    /// A value of the metadata; none where nothing is said. What JSON has not is left out, and that is said.
    fn json(&mut self, name: &str, cell: Cell) -> Result<Option<Value>, String> {
        Ok(match cell {
            Cell::Null => (!self.sparse).then_some(Value::Null),
            // What tables without nulls have for nothing.
            Cell::Float(value) if value.is_nan() => (!self.sparse).then_some(Value::Null),
            Cell::Float(value) if value.is_infinite() => Some(value.to_string().into()),
            Cell::Bytes(bytes) => {
                let what = if bytes.is_empty() { "no bytes" } else { "bytes" };
                self.warnings.push(format!("{name} holds {what}, which metadata cannot: left out"));
                None
            }
            Cell::List(cells) => {
                let mut values = Vec::with_capacity(cells.len());
                for cell in cells {
                    values.push(self.json(name, cell)?.unwrap_or_default());
                }
                Some(values.into())
            }
            Cell::Struct(fields) => {
                let mut map = Metadata::new();
                for (field, cell) in fields {
                    if let Some(value) = self.json(&format!("{name}.{field}"), cell)? {
                        map.insert(field, value);
                    }
                }
                (!(self.sparse && map.is_empty())).then(|| map.into())
            }
            other => Some(other.into_json()?),
        })
    }
}

/// Takes a column that holds an object, or its JSON text; empty where there is none.
fn object(row: &mut Cell, name: &str, beside: &mut Beside) -> Result<Metadata, String> {
    let Some(cell) = row.take(name) else { return Ok(Metadata::new()) };
    let value = match cell {
        Cell::Text(text) if text.trim().is_empty() => return Ok(Metadata::new()),
        Cell::Text(text) => serde_json::from_str(&text).map_err(|error| format!("{name} is a text, and no JSON: {error}"))?,
        cell => beside.json(name, cell)?.unwrap_or_default(),
    };
    match value {
        Value::Null => Ok(Metadata::new()),
        Value::Object(map) => Ok(map),
        other => Ok(Metadata::from_iter([("value".to_owned(), other)])),
    }
}

/// What an export kept.
fn kept(extra: &mut Metadata) -> Result<Option<Kept>, String> {
    match extra.shift_remove(KEPT) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            serde_json::from_str(&text).map(Some).map_err(|error| format!("extra_info.{KEPT} is none of ours: {error}"))
        }
        Some(value) => serde_json::from_value(value).map(Some).map_err(|error| format!("extra_info.{KEPT} is none of ours: {error}")),
    }
}

fn no_videos(row: &mut Cell) -> Result<(), String> {
    match row.take("videos") {
        Some(Cell::List(videos)) if videos.is_empty() => Ok(()),
        None => Ok(()),
        Some(_) => Err("videos: no task has any".into()),
    }
}

/// The question alone: as the row has it beside its prompt, else what the user says there.
fn question(prompt: Prompt, extra: &mut Metadata) -> Result<(String, Prompt), String> {
    let beside = extra.get("question").and_then(Value::as_str).map(without_marks).filter(|text| !text.is_empty());
    if let Some(question) = beside {
        extra.shift_remove("question");
        return Ok((question, prompt));
    }
    if prompt.has_answers {
        return Err("its prompt is a dialogue with answers, not a question".into());
    }
    let text = prompt.user.as_deref().ok_or("its prompt has not one message of the user, and there is no extra_info.question")?;
    let question = without_marks(text);
    if question.is_empty() {
        return Err("its prompt asks nothing".into());
    }
    Ok((question, prompt))
}

/// Right answers: a text, a number, several of them, or `{target: ..}` as Search-R1 has it.
fn answers_of(name: &str, value: Value) -> Result<Vec<String>, String> {
    Ok(match value {
        Value::Null => vec![],
        Value::String(text) => vec![text],
        Value::Number(number) => vec![number.to_string()],
        Value::Bool(value) => vec![value.to_string()],
        Value::Array(values) => {
            let mut answers = vec![];
            for value in values {
                answers.extend(answers_of(name, value)?);
            }
            answers
        }
        Value::Object(mut map) => match map.shift_remove("target") {
            Some(target) => answers_of(name, target)?,
            None => return Err(format!("{name} is an object without target, which is no answer")),
        },
    })
}

/// Further accepted answers: a list, or one as JSON text.
fn candidates(value: Option<Value>) -> Result<Vec<String>, String> {
    const NAME: &str = "reward_model.candidate_answers";
    match value {
        Some(Value::String(text)) if text.trim().is_empty() => Ok(vec![]),
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(list @ Value::Array(_)) => answers_of(NAME, list),
            _ => Err(format!("{NAME} is a text, and no JSON list")),
        },
        value => answers_of(NAME, value.unwrap_or_default()),
    }
}

/// What a row calls itself.
fn name(row: &mut Cell, extra: &Metadata) -> Name {
    let columns = IDS.iter().find_map(|name| row.get(name).filter(|cell| !cell.is_null()).cloned());
    let value = columns.and_then(|cell| cell.into_json().ok()).or_else(|| IDS.iter().find_map(|name| extra.get(*name).cloned()));
    match value {
        Some(Value::String(text)) if !text.trim().is_empty() => Name::Said(text),
        Some(Value::Number(number)) => Name::Numbered(number.to_string()),
        _ => Name::None,
    }
}

/// After what reports are split; empty where the row does not say.
fn kind(row: &Cell, extra: &Metadata) -> String {
    let fits = |text: &str| !text.is_empty() && text.len() <= TaskKind::MAX_BYTES;
    let columns = KINDS.iter().find_map(|name| row.get(name).and_then(Cell::as_text).filter(|text| fits(text)));
    let kind = columns.or_else(|| KINDS.iter().find_map(|name| extra.get(*name).and_then(Value::as_str).filter(|text| fits(text))));
    kind.unwrap_or_default().to_owned()
}

/// The cost of the success that a row's maker knew: `tool_call` rounds, and searches of each in `parallel`.
fn reference(extra: &Metadata, warnings: &mut Vec<String>) -> Option<Reference> {
    let mut odd = |why: &str| {
        warnings.push(format!("{why}: the task has no reference"));
        None
    };
    let rounds = match extra.get("tool_call")? {
        Value::Null => return None,
        value => value.as_i64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok())),
    };
    // What the released code has for a reference that is not known.
    if rounds == Some(-1) {
        return None;
    }
    let Some(rounds) = rounds.and_then(|rounds| u32::try_from(rounds).ok()) else { return odd("tool_call is no number of rounds") };
    let each = match extra.get("parallel") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(value) => value.clone(),
        None => Value::Null,
    };
    let Value::Array(each) = each else { return odd("parallel is no list of searches") };
    let searches = each.iter().map(|value| value.as_u64()).sum::<Option<u64>>().and_then(|sum| u32::try_from(sum).ok());
    let Some(searches) = searches else { return odd("parallel is no list of searches") };
    let reference = Reference { rounds, searches };
    if reference.is_possible() { Some(reference) } else { odd("nobody who searched has cost so little") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, sparse: bool, json: &str) -> Result<Made, String> {
        let keys = Keys::default();
        Reader { format, keys: &keys, sparse }.read(serde_json::from_str(json).expect("JSON"))
    }

    const HYPEREYES: &str = r#"{
        "data_source": "hypereyes/visual", "ability": "search",
        "prompt": [{"role": "system", "content": "Tools."}, {"role": "user", "content": "<image>\nWho of them?"}],
        "images": [{"bytes": [137, 80], "path": null}],
        "reward_model": {"ground_truth": "Ada"},
        "extra_info": {"question": "<image>Who of them?", "type": "only_acc", "tool_call": 2, "parallel": "[2, 1]", "index": "v-7"}
    }"#;

    #[test]
    fn hypereyes_rows_have_references_and_keep_their_prompt() {
        let made = read(Format::Hypereyes, true, HYPEREYES).expect("a task");
        assert_eq!((made.question.as_str(), &made.answers[..], made.marks), ("Who of them?", &["Ada".to_owned()][..], Some(1)));
        assert_eq!(made.reference, Some(Reference { rounds: 2, searches: 3 }));
        assert_eq!((made.name, made.kind.as_str()), (Name::Said("v-7".into()), "hypereyes/visual"));
        let kept = serde_json::json!({
            "data_source": "hypereyes/visual", "ability": "search",
            "extra_info": {"type": "only_acc", "tool_call": 2, "parallel": "[2, 1]", "index": "v-7"},
            "prompt": [{"role": "system", "content": "Tools."}, {"role": "user", "content": "<image>\nWho of them?"}],
        });
        assert_eq!(serde_json::Value::Object(made.metadata), kept);
        assert_eq!(made.warnings, [""; 0]);
    }

    #[test]
    fn references_that_nobody_can_have_cost_are_left_out_and_said() {
        let with = |tool_call: &str, parallel: &str| {
            let json = HYPEREYES.replace("\"tool_call\": 2", &format!("\"tool_call\": {tool_call}")).replace("\"[2, 1]\"", parallel);
            let made = read(Format::Hypereyes, true, &json).expect("a task");
            (made.reference.map(|reference| (reference.rounds, reference.searches)), made.warnings.len())
        };
        assert_eq!(with("2", "[2, 1]"), (Some((2, 3)), 0));
        assert_eq!(with("\"2\"", "\"[2]\""), (Some((2, 2)), 0));
        assert_eq!(with("-1", "\"[]\""), (None, 0), "what is not known");
        assert_eq!(with("null", "null"), (None, 0));
        assert_eq!(with("2", "\"[]\""), (None, 1));
        assert_eq!(with("2", "\"two\""), (None, 1));
        assert_eq!(with("0", "\"[0]\""), (None, 1));
        assert_eq!(with("2.5", "\"[1]\""), (None, 1));
    }

    #[test]
    fn candidate_answers_are_a_json_list_as_text() {
        let row = |candidates: &str| {
            let json = r#"{"prompt": [{"role": "user", "content": "Who?"}], "reward_model": {"ground_truth": "Ada", "style": "rule", "candidate_answers": C}}"#;
            read(Format::MmsearchR1, true, &json.replace('C', candidates))
        };
        assert_eq!(row(r#""[\"Ada\", \"A. Lovelace\", 7]""#).expect("a task").answers, ["Ada", "Ada", "A. Lovelace", "7"]);
        assert_eq!(row(r#"["Lovelace"]"#).expect("a task").answers, ["Ada", "Lovelace"]);
        assert_eq!(row("null").expect("a task").metadata["reward_model"]["style"], "rule");
        assert_eq!(row(r#""Ada, Lovelace""#), Err("reward_model.candidate_answers is a text, and no JSON list".into()));
    }

    #[test]
    fn slime_rows_have_texts_or_messages_a_label_and_metadata() {
        let text = r#"{"prompt": "<image> Who?", "label": 7, "metadata": {"rm_type": "f1", "category": "people"}, "images": ["a.png"], "more": [1]}"#;
        let made = read(Format::Slime, false, text).expect("a task");
        assert_eq!((made.question.as_str(), made.answers[0].as_str(), made.kind.as_str()), ("Who?", "7", "people"));
        assert_eq!(made.pictures, [PictureCell(Cell::Text("a.png".into()))]);
        assert_eq!((&made.metadata["rm_type"], &made.metadata["more"][0]), (&"f1".into(), &1.into()));
        assert!(!made.metadata.contains_key("prompt"));
        let messages = r#"{"messages": [{"role": "user", "content": "Who?"}], "label": ["a", "b"], "metadata": "{\"index\": 3}"}"#;
        let made = read(Format::Slime, false, messages).expect("a task");
        assert_eq!((made.answers, made.name), (vec!["a".to_owned(), "b".to_owned()], Name::Numbered("3".into())));
        assert!(
            read(Format::Slime, false, r#"{"label": "a"}"#).is_err_and(|why| why.contains("none of the columns prompt, input, messages"))
        );
    }

    #[test]
    fn our_own_rows_are_tasks_with_pictures_of_any_form() {
        let row = r#"{"id": 7, "kind": "k", "question": "q <image>", "answers": [1], "pictures": ["ab", {"bytes": [1]}], "layer": null,
            "reference": {"rounds": 1, "searches": 2}, "metadata": {"a": null}, "note": "n"}"#;
        let made = read(Format::Tasks, false, row).expect("a task");
        assert_eq!((made.name, made.question.as_str(), made.pictures.len()), (Name::Said("7".into()), "q <image>", 2));
        assert_eq!(Value::Object(made.metadata), serde_json::json!({"a": null, "note": "n"}));
        let error = read(Format::Tasks, false, &row.replace("\"layer\"", "\"lair\"").replace("null,", "1,")).expect_err("a misspelt key");
        assert!(error.contains("`lair`"), "{error}");
    }

    #[test]
    fn what_stands_for_nothing_in_a_table_with_nulls_is_no_metadata() {
        let row = r#"{"question": "q", "answer": "a", "source": null, "page": {"url": null}, "views": 7}"#;
        assert_eq!(Value::Object(read(Format::Plain, true, row).expect("a task").metadata), serde_json::json!({"views": 7}));
        let said = read(Format::Plain, false, row).expect("a task").metadata;
        assert_eq!(Value::Object(said), serde_json::json!({"source": null, "page": {"url": null}, "views": 7}));
    }

    #[test]
    fn rows_without_a_task_say_which_column_is_at_fault() {
        let verl = |change: (&str, &str)| read(Format::Verl, true, &HYPEREYES.replace(change.0, change.1)).expect_err(change.1);
        assert_eq!(verl(("\"prompt\"", "\"promt\"")), "it has no prompt");
        assert_eq!(verl(("\"ground_truth\"", "\"truth\"")), "reward_model has no ground_truth");
        assert!(verl(("{\"ground_truth\": \"Ada\"}", "\"Ada\"")).starts_with("reward_model is a text, and no JSON"));
        assert_eq!(verl(("\"ability\": \"search\"", "\"videos\": [\"a.mp4\"]")), "videos: no task has any");
        assert_eq!(
            verl(("\"ground_truth\": \"Ada\"", "\"ground_truth\": {\"a\": 1}")),
            "reward_model.ground_truth is an object without target, which is no answer"
        );
        assert!(read(Format::Plain, true, r#"{"answer": "a"}"#).is_err_and(|why| why.contains("question, query, problem")));
    }
}
