//! Reads the ledger (`groups.jsonl`) and checks it: whether every group has one fate, and why.
//!
//! In: one line per event of a group. Out: what became of them all, and every line that contradicts the ones before it. A
//! learner that goes back to a checkpoint says `started` with the step it goes back to: what it trained after that step is
//! undone, and what was in flight is void; their tasks are leased again under other names.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use hypereyes_outside::jsonl::Lines;
use serde::{Deserialize, Serialize};

use crate::ledger::Line;

/// Longest line that is read.
const MAX_LINE: usize = 64 << 10;
/// Contradictions that are listed; more are only counted.
const MAX_LISTED: usize = 100;

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
    /// Tasks that were set aside, each as often as an incarnation of the learner did so.
    pub set_aside: u64,
}

/// A line that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contradiction {
    /// Line of the file, from 1.
    pub line: u64,
    /// The group.
    pub group: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: group {}: {}", self.line, self.group, self.what)
    }
}

/// A ledger that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// What became of the groups.
    pub summary: LedgerSummary,
    /// Lines read.
    pub lines: u64,
    /// Lines that are no event: what a kill cut short.
    pub torn: u64,
    /// Contradictions.
    pub contradictions: u64,
    /// The first of them.
    pub listed: Vec<Contradiction>,
}

/// One group's fate so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Leased,
    Submitted,
    Trained {
        step: u64,
        times: u64,
    },
    /// Released, dropped or void.
    Ended,
}

/// Reads a ledger. A file that is not there has no events.
///
/// # Errors
/// When the file cannot be read.
pub fn audit(path: &Path) -> io::Result<Audit> {
    let mut input = match Lines::open(path, MAX_LINE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Audit::default()),
        opened => opened?,
    };
    let (mut audit, mut fates) = (Audit::default(), BTreeMap::<String, Fate>::new());
    while let Some(line) = input.next_line()? {
        audit.lines += 1;
        match line.bytes.and_then(|bytes| serde_json::from_slice::<Line>(bytes).ok()) {
            Some(event) => take(event, &mut audit, &mut fates),
            None => audit.torn += 1,
        }
    }
    for fate in fates.values() {
        match fate {
            Fate::Trained { times, .. } => {
                audit.summary.trained += times;
                audit.summary.trained_twice += u64::from(*times > 1);
            }
            Fate::Leased | Fate::Submitted => audit.summary.open += 1,
            Fate::Ended => {}
        }
    }
    Ok(audit)
}

fn take(event: Line, audit: &mut Audit, fates: &mut BTreeMap<String, Fate>) {
    if event.event == "started" {
        for fate in fates.values_mut() {
            let stands = matches!(fate, Fate::Ended) || matches!(fate, Fate::Trained { step, .. } if *step <= event.step);
            if !stands {
                audit.summary.void += 1;
                *fate = Fate::Ended;
            }
        }
        return;
    }
    audit.summary.set_aside += u64::from(event.event == "set_aside");
    let Some(group) = event.group else { return };
    let before = fates.get(&group).copied();
    let (after, wrong) = match (event.event.as_str(), before) {
        ("leased", None) => {
            audit.summary.leased += 1;
            (Fate::Leased, None)
        }
        ("leased", Some(_)) => {
            audit.summary.leased += 1;
            (Fate::Leased, Some("it is leased under a name that was used before".to_owned()))
        }
        ("submitted", Some(Fate::Leased)) => (Fate::Submitted, None),
        ("trained", Some(Fate::Submitted)) => (Fate::Trained { step: event.step, times: 1 }, None),
        ("trained", Some(Fate::Trained { times, .. })) => {
            (Fate::Trained { step: event.step, times: times + 1 }, Some("it is trained again".to_owned()))
        }
        ("released", Some(Fate::Leased)) | ("dropped", Some(Fate::Leased | Fate::Submitted)) => {
            let silent = event.reason.is_none().then(|| format!("it is {} without a reason", event.event));
            (Fate::Ended, silent)
        }
        (what, before) => {
            let before = before.map_or_else(|| "was never leased".to_owned(), |before| format!("was {before:?}"));
            (led_to(what, event.step), Some(format!("it is {what} but {before}")))
        }
    };
    if matches!(event.event.as_str(), "released" | "dropped") {
        let what = event.reason.map_or_else(|| event.event.clone(), |reason| format!("{}: {reason}", event.event));
        *audit.summary.others.entry(what).or_default() += 1;
    }
    if let Some(what) = wrong {
        audit.contradictions += 1;
        if audit.listed.len() < MAX_LISTED {
            audit.listed.push(Contradiction { line: audit.lines, group: group.clone(), what });
        }
    }
    fates.insert(group, after);
}

/// Where an event leads that should not have been.
fn led_to(what: &str, step: u64) -> Fate {
    match what {
        "submitted" => Fate::Submitted,
        "trained" => Fate::Trained { step, times: 1 },
        _ => Fate::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Audit {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("groups.jsonl");
        std::fs::write(&path, lines.join("\n") + "\n{\"event\":\"tra").expect("written");
        audit(&path).expect("read")
    }

    #[test]
    fn groups_that_were_trained_twice_or_never_ended_are_found() {
        assert_eq!(audit(Path::new("/no/such/file")).expect("not there"), Audit::default());
        let found = read(&[
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
        let summary = &found.summary;
        assert_eq!((summary.leased, summary.trained, summary.trained_twice, summary.open, summary.void), (4, 2, 1, 2, 0));
        assert_eq!(summary.others, BTreeMap::from([("released: expired".into(), 1)]));
        assert_eq!((found.torn, found.contradictions, found.listed[0].line), (1, 1, 10));
    }

    #[test]
    fn what_a_learner_undoes_by_going_back_does_not_count() {
        let found = read(&[
            r#"{"event":"leased","group":"a"}"#,
            r#"{"event":"submitted","group":"a"}"#,
            r#"{"event":"trained","group":"a","step":20}"#,
            r#"{"event":"leased","group":"b"}"#,
            r#"{"event":"submitted","group":"b"}"#,
            r#"{"event":"trained","group":"b","step":21}"#,
            r#"{"event":"leased","group":"c"}"#,
            r#"{"event":"started","step":20}"#,
            r#"{"event":"leased","group":"b2"}"#,
            r#"{"event":"submitted","group":"b2"}"#,
            r#"{"event":"trained","group":"b2","step":21}"#,
        ]);
        let summary = &found.summary;
        assert_eq!((summary.trained, summary.trained_twice, summary.open, summary.void, found.contradictions), (2, 0, 0, 2, 0));
    }

    #[test]
    fn every_kind_of_contradiction_is_found() {
        let leased = r#"{"event":"leased","group":"a"}"#;
        let submitted = r#"{"event":"submitted","group":"a"}"#;
        let cases: [(&[&str], &str); 6] = [
            (&[submitted], "never leased"),
            (&[leased, leased], "used before"),
            (&[leased, r#"{"event":"trained","group":"a","step":1}"#], "it is trained but was Leased"),
            (&[leased, r#"{"event":"dropped","group":"a"}"#], "without a reason"),
            (&[leased, r#"{"event":"released","group":"a","reason":"expired"}"#, submitted], "it is submitted but was Ended"),
            (&[leased, submitted, r#"{"event":"released","group":"a","reason":"expired"}"#], "it is released but was Submitted"),
        ];
        for (lines, what) in cases {
            let found = read(lines);
            assert_eq!(found.contradictions, 1, "{what}: {:?}", found.listed);
            assert!(found.listed[0].what.contains(what), "{what}: {}", found.listed[0]);
        }
    }
}
