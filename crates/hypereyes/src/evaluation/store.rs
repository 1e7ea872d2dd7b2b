//! The items of an evaluation on disk. In: a folder, settings, rollouts that came to an end. Out: those of earlier runs, and a folder in
//! which a rollout is there whole or not at all, whenever the process is killed.
//!
//! A rollout's own line is written before its item's, and what counts is the item: a rollout without one is asked again, and its first line
//! is dropped at the end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use hypereyes_chassis::BadInput;
use hypereyes_domain::{Accuracy, TaskId};
use hypereyes_eval::{Cost, Item, Items, Kept, Key};
use hypereyes_run::{EvaluationFolder, HeldEvaluation, Journal, Played, journal, read_json, settle_played, write_json};
use serde_json::{Map, Value};

use super::settings::{NOTED, differences, short};
use crate::output;

/// Longest line of an item.
pub const MAX_ITEM: usize = 4 << 20;

/// Items on disk.
pub struct Store {
    folder: EvaluationFolder,
    /// As the evaluation began.
    settings: Map<String, Value>,
    known: HashMap<Key, Item>,
    cost: Mutex<Cost>,
    files: Arc<Mutex<Files>>,
    _held: HeldEvaluation,
}

struct Files {
    rollouts: Journal,
    items: Journal,
}

impl Store {
    /// Begins an evaluation with these settings in a folder that is held, or goes on with the one that is there. `noted` is kept for
    /// people, as it was at the beginning.
    ///
    /// # Errors
    /// [`BadInput`] when what is there was made with other settings: the first key that differs is named; when a line is damaged.
    pub fn open(folder: EvaluationFolder, held: HeldEvaluation, settings: &Map<String, Value>, noted: Value) -> Result<Self> {
        let path = folder.settings();
        let settings = if path.exists() {
            let there: Map<String, Value> = read_json(&path)?;
            if let Some(first) = differences(&there, settings).first() {
                return Err(BadInput::new(format!(
                    "{} holds an evaluation with {} = {}, and this one has {}: give it the same, or choose another --out",
                    folder.root().display(),
                    first.key,
                    short(&first.first),
                    short(&first.second)
                ))
                .into());
            }
            there
        } else {
            let mut settings = settings.clone();
            settings.insert(NOTED.to_owned(), noted);
            write_json(&path, &settings)?;
            settings
        };
        let opened = |path: std::path::PathBuf| -> Result<Journal> {
            let (journal, cut) = Journal::open(&path)?;
            if cut > 0 {
                output::note(&format!("{}: the last line was cut short and is dropped ({cut} bytes)", path.display()));
            }
            Ok(journal)
        };
        let files = Files { rollouts: opened(folder.rollouts())?, items: opened(folder.items())? };
        let (mut known, mut cost) = (HashMap::new(), Cost::default());
        journal::read(&folder.items(), MAX_ITEM, |item: Item| {
            let key = item.key();
            cost = with(cost, known.get(&key), &item);
            known.insert(key, item);
        })?;
        Ok(Self { folder, settings, known, cost: Mutex::new(cost), files: Arc::new(Mutex::new(files)), _held: held })
    }

    /// The settings, with what is noted for people.
    pub fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }

    /// What everything cost so far, in all runs.
    pub fn cost(&self) -> Cost {
        *self.cost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the rollouts of `items` in their order, each with its verdict, and lets go of the folder's lines.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn settle(self, items: &[Item]) -> Result<()> {
        // What never was has no rollout, even where one of an earlier attempt is there.
        let rolled = items.iter().filter(|item| item.failure.is_none());
        let wanted: Vec<(TaskId, u32, Accuracy)> = rolled.map(|item| (item.task.clone(), item.sample, item.verdict)).collect();
        settle_played(&self.folder.rollouts(), &wanted)
    }
}

/// A cost with one line more, where `before` is what was known of its rollout.
pub fn with(cost: Cost, before: Option<&Item>, item: &Item) -> Cost {
    match before {
        // The same rollout, judged again.
        Some(before) if before.waits_for_verdict() => cost,
        Some(_) => Cost { asked_again: cost.asked_again + 1, ..cost }.and(item),
        None => cost.and(item),
    }
}

impl Items for Store {
    fn known(&self, key: &Key) -> Option<Item> {
        self.known.get(key).cloned()
    }

    fn keep(&self, kept: Kept) -> BoxFuture<'_, Result<(), String>> {
        let files = self.files.clone();
        Box::pin(async move {
            let Kept { item, rollout } = kept;
            let line = item.clone();
            // It waits for the disk: not on the runtime's threads.
            let written = tokio::task::spawn_blocking(move || -> Result<()> {
                let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((task, trajectory)) = rollout {
                    files.rollouts.append(&Played { task, sample: line.sample, trajectory, accuracy: line.verdict })?;
                }
                files.items.append(&line)
            });
            let written = written.await.context("a rollout could not be kept");
            written.and_then(|written| written).map_err(|error| format!("{error:#}"))?;
            let mut cost = self.cost.lock().unwrap_or_else(PoisonError::into_inner);
            *cost = with(*cost, self.known.get(&item.key()), &item);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use hypereyes_domain::{Ending, Failure, RolloutSummary, Task, TaskKind, Trajectory};
    use serde_json::json;

    use super::*;

    fn kept(id: &str, verdict: Accuracy) -> Kept {
        let task = Task {
            id: id.into(),
            kind: TaskKind::new("x"),
            question: "q".into(),
            answers: vec!["a".into()],
            pictures: vec![],
            layer: None,
            metadata: Default::default(),
            shown: vec![],
            reference: None,
        };
        let trajectory = Trajectory::from(RolloutSummary { rounds: vec![], ending: Ending::Answered, answer: Some("a".into()) });
        let item: Item = serde_json::from_value(json!({
            "task": id, "sample": 0, "kind": "x", "question": "q", "answers": ["a"], "answer": "a", "verdict": serde_json::to_value(verdict).expect("plain"),
            "rounds": 1, "searches": 2, "tokens": 100, "seconds": 1.0, "requests": 3
        }))
        .expect("an item");
        Kept { item, rollout: Some((task, trajectory)) }
    }

    fn open(folder: &EvaluationFolder, seed: u64) -> Result<Store> {
        let settings = json!({"format": 1, "seed": seed, "sampling": {"top_p": 0.7}}).as_object().cloned().expect("an object");
        Store::open(folder.clone(), folder.hold()?, &settings, json!({"model": "m"}))
    }

    fn key(id: &str) -> Key {
        Key { task: id.into(), sample: 0, closed_book: false }
    }

    #[tokio::test]
    async fn what_was_kept_is_known_again_whatever_was_cut_short() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = EvaluationFolder::new(scratch.path().join("e"));
        let store = open(&folder, 1).expect("fresh");
        store.keep(kept("a", Accuracy::Correct)).await.expect("written");
        store.keep(kept("b", Accuracy::Invalid(Failure::Tool))).await.expect("written");
        assert!(open(&folder, 1).err().expect("held").to_string().contains("another `hypereyes eval`"));
        drop(store);
        for path in [folder.items(), folder.rollouts()] {
            std::fs::OpenOptions::new().append(true).open(&path).expect("opens").write_all(b"{\"task\":").expect("written");
        }
        let store = open(&folder, 1).expect("goes on");
        assert!(store.known(&key("a")).is_some_and(|item| item.is_finished()));
        assert!(store.known(&key("b")).is_some_and(|item| !item.is_finished()) && store.known(&key("c")).is_none());
        assert_eq!(store.settings()[NOTED]["model"], "m");
        store.keep(kept("b", Accuracy::Invalid(Failure::Judge))).await.expect("written");
        let cost = store.cost();
        assert_eq!((cost.tokens, cost.requests, cost.asked_again), (300, Some(9), 1));
        drop(store);
        // Judged again: the same rollout costs nothing more.
        let store = open(&folder, 1).expect("goes on");
        store.keep(Kept { rollout: None, ..kept("b", Accuracy::Wrong) }).await.expect("written");
        assert_eq!(store.cost(), cost);
        // The third was asked again and could not even begin.
        store.keep(kept("c", Accuracy::Invalid(Failure::Tool))).await.expect("written");
        let failed = Item { failure: Some("no engine".into()), ..kept("c", Accuracy::Invalid(Failure::Infrastructure)).item };
        let items = [kept("b", Accuracy::Wrong).item, failed, kept("a", Accuracy::Correct).item];
        let cost = store.cost();
        store.settle(&items).expect("settled");
        let text = std::fs::read_to_string(folder.rollouts()).expect("there");
        let verdicts: Vec<Value> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line")["accuracy"].clone()).collect();
        assert_eq!(verdicts, ["wrong", "correct"]);
        assert_eq!(open(&folder, 1).expect("goes on").cost(), cost);
    }

    #[tokio::test]
    async fn other_settings_are_refused_by_the_first_key() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = EvaluationFolder::new(scratch.path());
        drop(open(&folder, 1).expect("fresh"));
        let error = open(&folder, 2).err().expect("another seed");
        assert!(error.is::<BadInput>() && error.to_string().contains("with seed = 1, and this one has 2"), "{error}");
        drop(open(&folder, 1).expect("the same"));
    }
}
