//! Files of pyarrow, pandas and datasets in every layout (`tests/data/import/make.py`).

use hypereyes_domain::{Reference, Task};
use serde_json::{Value, json};

use crate::{data, imported, inspected, request, tasks};

fn set(name: &str) -> (hypereyes_dataset::import::Summary, crate::Shown) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("set");
    let summary = imported(&[&data(name)], &out).expect(name);
    let all = tasks(&out);
    let counted = inspected(&data(name)).expect(name);
    assert_eq!(counted, summary, "{name}: what is said beforehand is what comes");
    assert_eq!(all.len() as u64, summary.tasks, "{name}");
    assert_eq!(summary.rows, summary.tasks + summary.refused_total, "{name}");
    (summary, all)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(data(name)).expect(name)
}

fn said(task: &Task) -> (&str, &str, &str, &[String]) {
    (task.id.as_str(), task.kind.as_str(), &task.question, &task.answers)
}

#[test]
fn verl() {
    let (summary, tasks) = set("verl.parquet");
    assert_eq!((summary.format.as_str(), summary.rows, summary.tasks, summary.pictures), ("verl", 4, 3, 3));
    assert_eq!(said(&tasks[0].0), ("verl/0", "geo", "Which is red?", &["the first".to_owned()][..]));
    assert_eq!(tasks[0].1, [bytes("red.png"), bytes("blue.jpg")]);
    let kept = json!({
        "data_source": "geo", "ability": "vqa", "agent_name": "tool_agent", "reward_model": {"style": "rule"},
        "extra_info": {
            "split": "train", "index": 0, "answer": "Because it is. #### the first", "need_tools_kwargs": true,
            "tools_kwargs": {"search": {"create_kwargs": {"ground_truth": "the first"}}},
        },
        "prompt": [{"role": "system", "content": "Use tools."}, {"role": "user", "content": "<image>\n<image>Which is red?"}],
    });
    assert_eq!(Value::Object(tasks[0].0.metadata.clone()), kept);
    assert_eq!((said(&tasks[1].0).0, said(&tasks[1].0).2, tasks[1].1.len()), ("verl/1", "What is 2 + 2?", 0));
    assert!(!tasks[1].0.metadata.contains_key("prompt"));
    let refused = &summary.refused[0];
    assert_eq!((refused.row, refused.reason.as_str()), (2, "it has 2 pictures, and <image> 1 times in what is asked"));
    let warned = &summary.warnings[0];
    assert_eq!((warned.row, warned.reason.as_str()), (3, "it has 1 pictures, and <image> 2 times in what is asked"));
    assert_eq!(tasks[2].0.metadata["prompt"][0]["content"], "<image>Is <image> green?");
    let (summary, tasks) = set("verl-pandas.parquet");
    assert_eq!((summary.format.as_str(), summary.tasks, summary.pictures), ("verl", 2, 2));
    assert_eq!(Value::Object(tasks[0].0.metadata.clone()), kept);
}

#[test]
fn hypereyes() {
    let (summary, tasks) = set("hypereyes.parquet");
    assert_eq!((summary.format.as_str(), summary.rows, summary.tasks, summary.pictures), ("hypereyes", 5, 4, 2));
    let references: Vec<_> =
        tasks.iter().map(|(task, _)| task.reference.map(|Reference { rounds, searches }| (rounds, searches))).collect();
    assert_eq!(references, [Some((1, 2)), Some((2, 3)), Some((3, 2)), None]);
    assert_eq!((summary.references, summary.warnings_total, summary.warnings[0].row), (3, 1, 3));
    assert_eq!(tasks[1].0.id.as_str(), "v-1");
    assert_eq!(tasks[1].0.metadata["extra_info"]["parallel"], "[2, 1]");
    assert_eq!((summary.duplicates, summary.refused.len(), summary.refused[0].row), (1, 1, 4));
    assert!(summary.refused[0].reason.starts_with("the same question and pictures are in row 0 of "), "{:?}", summary.refused);
}

#[test]
fn mmsearch_r1() {
    let (summary, tasks) = set("mmsearch-r1.parquet");
    assert_eq!((summary.format.as_str(), summary.tasks, summary.pictures), ("mmsearch-r1", 2, 2));
    assert_eq!(
        said(&tasks[0].0),
        ("fvqa_1", "mmsearch_r1/fvqa_auto", "Whose flag?", &["Peru".to_owned(), "Republic of Peru".to_owned()][..])
    );
    let kept = json!({"data_source": "mmsearch_r1/fvqa_manual", "image_urls": "https://example.org/ship.jpg", "data_id": "fvqa_2", "reward_model": {"style": "rule"}});
    assert_eq!(Value::Object(tasks[1].0.metadata.clone()), kept);
}

#[test]
fn slime_and_relax() {
    let (summary, tasks) = set("slime.jsonl");
    assert_eq!((summary.format.as_str(), summary.tasks, summary.pictures), ("slime", 2, 1));
    assert_eq!(said(&tasks[0].0), ("slime/0", "colour", "Which colour?", &["red".to_owned()][..]));
    assert_eq!(tasks[0].1, [bytes("red.png")]);
    assert_eq!(Value::Object(tasks[0].0.metadata.clone()), json!({"rm_type": "f1", "category": "colour"}));
    assert!(summary.refused[0].row == 2 && summary.refused[0].reason.contains("not below the folder"), "{:?}", summary.refused);
    let (summary, tasks) = set("relax.parquet");
    assert_eq!((summary.format.as_str(), summary.tasks), ("slime", 1));
    assert_eq!(tasks[0].0.question, "Which colour is it?");
    assert_eq!((tasks[0].0.reference, &tasks[0].1), (Some(Reference { rounds: 2, searches: 3 }), &vec![bytes("blue.jpg")]));
}

#[test]
fn our_own_columns() {
    let (summary, tasks) = set("tasks.parquet");
    assert_eq!((summary.format.as_str(), summary.tasks, summary.pictures), ("tasks", 2, 1));
    let want = json!({
        "id": "own-1", "kind": "visual_select", "question": "Which one?", "answers": ["Peru", "Perú"], "pictures": [tasks[0].0.pictures[0]],
        "layer": 7, "shown": [{"entity": "pe", "area": tasks[0].0.shown[0].area}], "reference": {"rounds": 1, "searches": 2},
        "metadata": {"source": "own"},
    });
    assert_eq!(tasks[0].0, serde_json::from_value(want).expect("a task"));
    assert_eq!((tasks[1].0.layer, &tasks[1].0.metadata["page"]), (None, &12.into()));
}

#[test]
fn plain_columns_as_datasets_writes_them() {
    for name in ["plain.parquet", "plain.arrow"] {
        let (summary, tasks) = set(name);
        assert_eq!((summary.format.as_str(), summary.tasks, summary.pictures), ("plain", 2, 2), "{name}");
        assert_eq!(said(&tasks[1].0), ("plain/1", "plain", "Which one?", &["blue".to_owned()][..]));
        assert_eq!((&tasks[1].1, &tasks[1].0.metadata["category"]), (&vec![bytes("blue.jpg")], &1.into()));
    }
}

#[test]
fn several_files_are_one_set_and_what_is_in_two_is_taken_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("set");
    let files = ["plain.parquet", "plain.arrow", "hypereyes.parquet"].map(data);
    let summary = imported(&[&files[0], &files[1], &files[2]], &out).expect("reads");
    assert_eq!((summary.rows, summary.tasks, summary.duplicates, summary.format.as_str()), (9, 6, 3, "plain+hypereyes"));
    assert_eq!(summary.files.iter().map(|file| (file.rows, file.tasks)).collect::<Vec<_>>(), [(2, 2), (2, 0), (5, 4)]);
    let listed = std::fs::read_to_string(out.join("refused.jsonl")).expect("listed");
    assert_eq!(listed.lines().count(), 3);
    // Held out as well: all that are in both.
    let held = request(&[&files[0]]);
    let held = hypereyes_dataset::import::Request { held_out: Some(out.clone()), ..held };
    let summary = hypereyes_dataset::import::inspect(&held, &mut crate::quiet).expect("reads");
    assert_eq!(
        (summary.overlaps, summary.overlap[1].row, summary.overlap[1].held_out.as_str()),
        (Some(2), 1, &*tasks(&out)[1].0.id.to_string())
    );
    // A set is a source as well, and the same again.
    let again = folder.path().join("again");
    let summary = imported(&[&out], &again).expect("reads");
    assert_eq!((summary.format.as_str(), summary.tasks, summary.refused_total), ("tasks", 6, 0));
    assert_eq!(tasks(&again), tasks(&out));
}
