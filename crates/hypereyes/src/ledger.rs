//! Reads the learner's ledger of groups (`groups.jsonl`). In: one line per event of a group. Out: what became of them all:
//! whether one was trained twice, whether one was lost.
//!
//! A learner that goes back to a checkpoint says `started` with the step it goes back to. What it trained after that step
//! is undone, and what was in flight is void: their tasks are leased again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Longest line that is read.
const MAX_LINE: u64 = 64 << 10;

/// One event. Keys that are not needed here are ignored.
#[derive(Debug, Deserialize)]
struct Event {
    event: String,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    step: u64,
    #[serde(default)]
    reason: Option<String>,
}

/// What became of the groups of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerSummary {
    /// Leases given out.
    pub leased: u64,
    /// Groups trained on and not undone.
    pub trained: u64,
    /// Groups that ended otherwise, by what and why (`released: expired`, `dropped: stale`).
    pub others: BTreeMap<String, u64>,
    /// Groups that were trained more than once. Must be 0.
    pub trained_twice: u64,
    /// Groups undone or void because a learner went back to a checkpoint.
    pub void: u64,
    /// Groups leased or waiting when the run ended.
    pub open: u64,
}

/// One group's fate so far.
#[derive(Debug, Default)]
struct Fate {
    trained_at: Vec<u64>,
    ended: bool,
}

/// Sums a ledger up. A file that is not there has no events.
///
/// # Errors
/// When the file cannot be read.
pub fn summarise(path: &Path) -> Result<LedgerSummary> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(LedgerSummary::default()),
        opened => opened.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut input = BufReader::new(file);
    let (mut summary, mut fates, mut line) = (LedgerSummary::default(), BTreeMap::<String, Fate>::new(), Vec::new());
    loop {
        line.clear();
        let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        // A last line that a kill cut short is no event.
        if let Ok(event) = serde_json::from_slice::<Event>(&line) {
            take(event, &mut summary, &mut fates);
        }
    }
    summary.trained = fates.values().map(|fate| fate.trained_at.len() as u64).sum();
    summary.trained_twice = fates.values().filter(|fate| fate.trained_at.len() > 1).count() as u64;
    summary.open = fates.values().filter(|fate| !fate.ended).count() as u64;
    Ok(summary)
}

fn take(event: Event, summary: &mut LedgerSummary, fates: &mut BTreeMap<String, Fate>) {
    if event.event == "started" {
        for fate in fates.values_mut() {
            let before = fate.trained_at.len();
            fate.trained_at.retain(|step| *step <= event.step);
            summary.void += u64::from(fate.trained_at.len() < before || !fate.ended);
            fate.ended = true;
        }
        return;
    }
    let Some(group) = event.group else { return };
    let fate = fates.entry(group).or_default();
    match event.event.as_str() {
        "leased" => {
            summary.leased += 1;
            fate.ended = false;
        }
        "submitted" => {}
        "trained" => {
            fate.trained_at.push(event.step);
            fate.ended = true;
        }
        other => {
            let what = event.reason.map_or_else(|| other.to_owned(), |reason| format!("{other}: {reason}"));
            *summary.others.entry(what).or_default() += 1;
            fate.ended = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(lines: &[&str]) -> LedgerSummary {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("groups.jsonl");
        std::fs::write(&path, lines.join("\n") + "\n{\"event\":\"tra").expect("written");
        summarise(&path).expect("read")
    }

    #[test]
    fn groups_that_were_trained_twice_or_never_ended_are_found() {
        assert_eq!(summarise(Path::new("/no/such/file")).expect("not there"), LedgerSummary::default());
        let found = summary(&[
            r#"{"time":1.0,"event":"started","step":0}"#,
            r#"{"time":1.0,"event":"leased","group":"a","actor":"x","epoch":0}"#,
            r#"{"time":1.0,"event":"leased","group":"b","actor":"x","epoch":0}"#,
            r#"{"time":1.0,"event":"leased","group":"c","actor":"x","epoch":0}"#,
            r#"{"time":1.0,"event":"leased","group":"d","actor":"x","epoch":0}"#,
            r#"{"time":1.0,"event":"submitted","group":"a"}"#,
            r#"{"time":1.0,"event":"submitted","group":"d"}"#,
            r#"{"time":1.0,"event":"trained","group":"a","step":1}"#,
            r#"{"time":1.0,"event":"released","group":"b","reason":"expired"}"#,
            r#"{"time":1.0,"event":"trained","group":"a","step":2}"#,
            r#"{"time":1.0,"event":"committed","epoch":0,"tightened":3}"#,
        ]);
        assert_eq!((found.leased, found.trained, found.trained_twice, found.open, found.void), (4, 2, 1, 2, 0));
        assert_eq!(found.others, BTreeMap::from([("released: expired".into(), 1)]));
    }

    #[test]
    fn what_a_learner_undoes_by_going_back_does_not_count() {
        let found = summary(&[
            r#"{"event":"leased","group":"a"}"#,
            r#"{"event":"trained","group":"a","step":20}"#,
            r#"{"event":"leased","group":"b"}"#,
            r#"{"event":"trained","group":"b","step":21}"#,
            r#"{"event":"leased","group":"c"}"#,
            r#"{"event":"started","step":20}"#,
            r#"{"event":"leased","group":"b"}"#,
            r#"{"event":"trained","group":"b","step":21}"#,
        ]);
        assert_eq!((found.trained, found.trained_twice, found.open, found.void), (2, 0, 0, 2));
    }
}
