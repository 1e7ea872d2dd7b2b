//! A row of a layout as a task. In: a row, and which layout it is. Out: what a task needs, its pictures not looked at yet; or why there is
//! no task in it, by the name of its column. Whatever a row says beside becomes the task's metadata (`metadata.rs`). It knows no file and no
//! folder, and not what single columns mean (`values.rs`).

use hypereyes_domain::{Metadata, Reference, Shown, Task};
use hypereyes_tables::Cell;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::format::{ANSWERS, Format, INPUTS, Keys, QUESTIONS};
use super::metadata::{Beside, is_nothing};
use super::prompt::{Prompt, without_marks};
use super::values::{Name, answers_of, candidates, kind, name, reference};
use crate::encoded::PictureCell;
use crate::tasks::FREE_KEYS;

/// Where an exported row has what verl's columns have no place for (`export.rs`), as JSON text.
pub(crate) const KEPT: &str = "hypereyes";

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
        let mut reward = beside.object(&mut row, "reward_model")?;
        let mut extra = beside.object(&mut row, "extra_info")?;
        let mut kept = kept(&mut extra)?;
        let truth = reward.shift_remove("ground_truth").ok_or("reward_model has no ground_truth")?;
        let mut answers = answers_of("reward_model.ground_truth", truth)?;
        answers.extend(candidates(reward.shift_remove("candidate_answers"))?);
        let question = match kept.as_mut().and_then(|kept| kept.question.take()) {
            Some(question) => question,
            None => question(&prompt, &mut extra)?,
        };
        let reference = reference(&extra, &mut beside.warnings);
        let name = name(&row, &extra);
        let kind = kind(&row, &extra);
        let mut metadata = beside.rest(row);
        for (column, map) in [("reward_model", reward), ("extra_info", extra)] {
            if !map.is_empty() {
                beside.add(&mut metadata, column, map.into());
            }
        }
        let marks = Some(prompt.marks);
        let pictures = if images.is_empty() { prompt.pictures.clone() } else { images };
        if let Some(whole) = prompt.beyond(&question) {
            beside.add(&mut metadata, "prompt", whole);
        }
        let warnings = beside.warnings;
        let made = Made { name, kind, question, answers, pictures, marks, reference, layer: None, shown: vec![], metadata, warnings };
        Ok(match kept {
            None => made,
            Some(Kept { id, kind, layer, shown, metadata, question: _ }) => {
                Made { name: Name::Said(id), kind, layer, shown, metadata, ..made }
            }
        })
    }

    fn slime(&self, mut row: Cell) -> Result<Made, String> {
        let mut beside = Beside::new(self.sparse);
        let input = self.keys.input.clone().or_else(|| INPUTS.iter().find(|name| row.get(name).is_some()).map(|name| (*name).to_owned()));
        let input =
            input.ok_or_else(|| format!("it has none of the columns {}: name the one that asks with --input-key", INPUTS.join(", ")))?;
        let prompt = row.take(&input).ok_or_else(|| format!("it has no {input}"))?;
        let prompt = Prompt::of(prompt).map_err(|why| format!("{input} {why}"))?;
        no_videos(&mut row)?;
        let images = self.images(&mut row);
        let label = self.keys.label.as_deref().unwrap_or("label");
        let truth = row.take(label).and_then(|cell| beside.json(label, cell)).unwrap_or_default();
        let answers = answers_of(label, truth)?;
        let column = self.keys.metadata.as_deref().unwrap_or("metadata");
        let mut extra = beside.object(&mut row, column)?;
        let question = question(&prompt, &mut extra)?;
        let reference = reference(&extra, &mut beside.warnings);
        let name = name(&row, &extra);
        let kind = kind(&row, &extra);
        let mut metadata = extra;
        for (column, value) in beside.rest(row) {
            beside.add(&mut metadata, &column, value);
        }
        let marks = Some(prompt.marks);
        let pictures = if images.is_empty() { prompt.pictures.clone() } else { images };
        if let Some(whole) = prompt.beyond(&question) {
            beside.add(&mut metadata, "prompt", whole);
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
                answers.extend(answers_of(name, beside.json(name, cell).unwrap_or_default())?);
            }
        }
        let none = Metadata::new();
        let name = name(&row, &none);
        let kind = kind(&row, &none);
        let mut metadata = beside.rest(row);
        let question = without_marks(&text);
        let prompt = Prompt::of(Cell::Text(text))?;
        let marks = Some(prompt.marks).filter(|marks| *marks > 0);
        if let Some(whole) = prompt.beyond(&question) {
            beside.add(&mut metadata, "prompt", whole);
        }
        let warnings = beside.warnings;
        Ok(Made { name, kind, question, answers, pictures, marks, reference: None, layer: None, shown: vec![], metadata, warnings })
    }

    fn own(&self, mut row: Cell) -> Result<Made, String> {
        let mut beside = Beside::new(self.sparse);
        let column = self.keys.images.as_deref().unwrap_or("pictures");
        let pictures = row.take(column).map_or_else(Vec::new, PictureCell::several);
        let free: Vec<_> = FREE_KEYS.iter().filter_map(|name| row.take(name).map(|cell| (*name, cell))).collect();
        let mut metadata = beside.object(&mut row, "metadata")?;
        let Cell::Struct(fields) = row else { return Err("it is no object".into()) };
        let says = |cell: &Cell| !(cell.is_null() || self.sparse && is_nothing(cell));
        let said = Cell::Struct(fields.into_iter().filter(|(_, cell)| says(cell)).collect());
        let task = Task::deserialize(said).map_err(|error| error.to_string())?;
        for (name, cell) in free {
            if let Some(value) = beside.json(name, cell) {
                beside.add(&mut metadata, name, value);
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
fn question(prompt: &Prompt, extra: &mut Metadata) -> Result<String, String> {
    let beside = extra.get("question").and_then(Value::as_str).map(without_marks).filter(|text| !text.is_empty());
    if let Some(question) = beside {
        extra.shift_remove("question");
        return Ok(question);
    }
    if prompt.has_answers {
        return Err("its prompt is a dialogue with answers, not a question".into());
    }
    let text = prompt.user.as_deref().ok_or("its prompt has not one message of the user, and there is no extra_info.question")?;
    let question = without_marks(text);
    if question.is_empty() {
        return Err("its prompt asks nothing".into());
    }
    Ok(question)
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
        let twice =
            read(Format::Slime, false, &text.replace("\"more\": [1]", "\"rm_type\": \"em\", \"category\": \"people\"")).expect("a task");
        assert_eq!(
            (&twice.metadata["rm_type"], &twice.warnings[..]),
            (&"f1".into(), &["rm_type is said twice, and differs: one is left out".to_owned()][..])
        );
        let messages = r#"{"messages": [{"role": "user", "content": "Who?"}], "label": ["a", "b"], "metadata": "{\"index\": 3}"}"#;
        let made = read(Format::Slime, false, messages).expect("a task");
        assert_eq!((made.answers, made.name), (vec!["a".to_owned(), "b".to_owned()], Name::Numbered("3".into())));
        assert!(
            read(Format::Slime, false, r#"{"label": "a"}"#).is_err_and(|why| why.contains("none of the columns prompt, input, messages"))
        );
    }

    #[test]
    fn columns_that_are_named_are_read_instead_of_the_usual_ones() {
        let key = |name: &str| Some(name.to_owned());
        let keys = Keys { input: key("ask"), label: key("gold"), metadata: key("about"), images: key("shots") };
        let row = r#"{"ask": "Who?", "gold": "Ada", "about": {"index": "a-1"}, "shots": ["a.png"],
            "prompt": "another", "label": "Eve", "metadata": {"index": "b-1"}, "images": ["b.png"]}"#;
        let read = |format: Format, row: &str| Reader { format, keys: &keys, sparse: false }.read(serde_json::from_str(row).expect("JSON"));
        let made = read(Format::Slime, row).expect("a task");
        assert_eq!((made.question.as_str(), &made.answers[..], made.name), ("Who?", &["Ada".to_owned()][..], Name::Said("a-1".into())));
        assert_eq!(made.pictures, [PictureCell(Cell::Text("a.png".into()))]);
        assert_eq!((&made.metadata["prompt"], &made.metadata["label"]), (&"another".into(), &"Eve".into()));
        let own =
            read(Format::Tasks, r#"{"id": "a", "kind": "k", "question": "q", "answers": ["1"], "shots": ["a.png"]}"#).expect("a task");
        assert_eq!(own.pictures, made.pictures);
    }

    #[test]
    fn questions_that_were_kept_are_asked_whatever_the_prompt_has_of_them() {
        let row = r#"{"prompt": [{"role": "user", "content": ""}], "reward_model": {"ground_truth": "a"},
            "extra_info": {"question": "<image>", "hypereyes": "{\"id\": \"a\", \"kind\": \"k\", \"question\": \"<image>\"}"}}"#;
        let made = read(Format::Hypereyes, true, row).expect("a task");
        assert_eq!((made.question.as_str(), made.name, made.metadata.len()), ("<image>", Name::Said("a".into()), 0));
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
