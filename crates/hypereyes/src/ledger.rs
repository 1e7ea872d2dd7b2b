//! Reads the learner's ledger of groups (`groups.jsonl`). In: one line per event of a group. Out: what became of them all:
//! whether one was trained twice, whether one was lost.

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
    #[serde(alias = "group_id", alias = "id")]
    group: String,
}

/// What became of the groups of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerSummary {
    /// Leases given out.
    pub leased: u64,
    /// Groups trained on.
    pub trained: u64,
    /// Events of any other kind, by kind (`dropped`, `expired`, `abandoned`, ...).
    pub others: BTreeMap<String, u64>,
    /// Groups of which the ledger says more than once that they were trained. Must be 0.
    pub trained_twice: u64,
    /// Leases whose end the ledger does not know: in flight when the run ended.
    pub open: u64,
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
    let mut summary = LedgerSummary::default();
    // Per group: times trained, and whether anything but a lease was said of it.
    let mut groups: BTreeMap<String, (u64, bool)> = BTreeMap::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        // A last line that a kill cut short is no event.
        let Ok(event) = serde_json::from_slice::<Event>(&line) else { continue };
        let group = groups.entry(event.group).or_default();
        match event.event.as_str() {
            "leased" => summary.leased += 1,
            "trained" => *group = (group.0 + 1, true),
            _ => {
                group.1 = true;
                *summary.others.entry(event.event).or_default() += 1;
            }
        }
    }
    summary.trained = groups.values().map(|(trained, _)| trained).sum();
    summary.trained_twice = groups.values().filter(|(trained, _)| *trained > 1).count() as u64;
    summary.open = groups.values().filter(|(_, ended)| !ended).count() as u64;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_were_trained_twice_or_never_ended_are_found() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("groups.jsonl");
        assert_eq!(summarise(&path).expect("not there"), LedgerSummary::default());
        let line = |event: &str, group: &str| format!("{{\"event\":\"{event}\",\"group\":\"{group}\",\"step\":1}}\n");
        let lines = [("leased", "a"), ("trained", "a"), ("leased", "b"), ("expired", "b"), ("leased", "c"), ("leased", "d"), ("trained", "d"), ("trained", "d")];
        let text: String = lines.iter().map(|(event, group)| line(event, group)).collect();
        std::fs::write(&path, text + "{\"event\":\"tra").expect("written");
        let summary = summarise(&path).expect("read");
        assert_eq!((summary.leased, summary.trained, summary.trained_twice, summary.open), (4, 3, 1, 1));
        assert_eq!(summary.others, BTreeMap::from([("expired".into(), 1)]));
    }
}
