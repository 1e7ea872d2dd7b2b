//! Folders that the release before there was a format number has written are read as they were meant.

use std::borrow::Cow;
use std::path::Path;

use hypereyes_outside::jsonl::Lines;
use hypereyes_run::{Progress, Recorded, RunFolder, SavedPolicy, State, attempts, audit, follow, format, read_json, read_played, stalled};

fn folder() -> RunFolder {
    RunFolder::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1"))
}

#[test]
fn it_is_a_finished_run_of_format_1() {
    let folder = folder();
    assert_eq!(format::admit(folder.root()).expect("it has no number"), 1);
    folder.readable().expect("it is read");
    assert_eq!(folder.state(), State::Finished);
    let progress: Progress = read_json(&folder.progress()).expect("ours");
    assert_eq!((progress.attempts, progress.restarts.len()), (1, 0));
    let starts = attempts::read(&folder);
    assert_eq!((starts.len(), starts[0].attempt, starts[0].step, attempts::told(&starts).len()), (1, 1, 0, 0));
    let saved = SavedPolicy::read(&folder.learner()).expect("the learner said so");
    assert_eq!((saved.step, saved.digest.len()), (3, 64));
}

#[test]
fn its_steps_are_read_and_would_be_written_under_the_same_keys() {
    let path = folder().metrics();
    let steps = follow::read_all(&path).expect("read");
    assert_eq!(steps.iter().map(|step| step.step).collect::<Vec<_>>(), [1, 2, 3]);
    let first = &steps[0];
    assert_eq!((first.accuracy, first.rounds, first.version, first.tokens), (Some(0.875), Some(3.75), Some(1), Some(2008)));
    assert_eq!((steps[2].groups_trained, steps[2].staleness_max), (Some(6), Some(2)));
    assert_eq!(steps[1].teachers.keys().collect::<Vec<_>>(), ["teacher#1"]);
    let text = std::fs::read_to_string(&path).expect("there");
    for (line, step) in text.lines().zip(&steps) {
        let (old, mut new) = (keys(line), keys(&serde_json::to_string(step).expect("plain")));
        new.retain(|key| !SINCE.contains(&key.as_str()));
        assert_eq!(old, new);
    }
}

/// What steps say since then.
const SINCE: [&str; 4] = ["updates", "dual_clip_fraction", "ppo_kl", "skipped_groups"];

/// The keys of a line, in order.
fn keys(line: &str) -> Vec<String> {
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect("an object");
    value.keys().cloned().collect()
}

#[test]
fn its_ledger_is_sound_and_its_rollouts_come_back() {
    let folder = folder();
    let audit = audit::audit(&folder.ledger()).expect("read");
    assert_eq!((audit.summary.trained, audit.summary.trained_twice, audit.contradictions, audit.torn), (6, 0, 0, 0));
    assert_eq!(stalled::why(&folder.ledger()), "");
    for path in [folder.held_out_before(), folder.held_out_after()] {
        let played = read_played(&path).expect("read");
        assert_eq!(played.len(), 2);
        assert!(played.values().all(|one| one.trajectory.check().is_ok() && !one.task.question.is_empty()));
    }
    let lines = Lines::open(&folder.of_learner().trajectories(), 1 << 20).expect("there");
    let recorded: Vec<Recorded<'_>> = lines.values().map(|row| row.expect("read").value.expect("a group")).collect();
    assert_eq!((recorded.len(), recorded[0].step), (1, 1));
    let Cow::Owned(group) = &recorded[0].group else { panic!("it was read") };
    assert_eq!(group.scored.group.rollouts.len(), 4);
}
