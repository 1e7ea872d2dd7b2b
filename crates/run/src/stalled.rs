//! Why a run stands still. In: the learner's ledger. Out: what became of the leases since the last step, in words.
//!
//! Lines that say less, as those of other releases may, are read as far as they go.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::ledger::Line;

/// End of the ledger that is looked at.
const TAIL: u64 = 256 << 10;
/// Longest text of one reason.
const MOST_CHARS: usize = 300;

/// What happened since the last step; empty when the ledger says nothing.
pub fn why(ledger: &Path) -> String {
    let end = tail(ledger).unwrap_or_default();
    let lines: Vec<Line> = end.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let since = lines.iter().rposition(|line| line.event == "trained").map_or(0, |at| at + 1);
    let lines = &lines[since..];
    let leased = lines.iter().filter(|line| line.event == "leased").count();
    let lost: Vec<&Line> = lines.iter().filter(|line| ["released", "dropped"].contains(&line.event.as_str())).collect();
    // A task that is set aside says why it failed the last time.
    let aside = lines.iter().rev().find(|line| line.event == "set_aside");
    let text = |said: Option<&str>| said.unwrap_or_default().to_owned();
    let Some(last) = lost.last() else {
        return if leased > 0 { format!("{leased} tasks were leased since then and none came back") } else { String::new() };
    };
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    lost.iter().for_each(|line| *reasons.entry(text(line.reason.as_deref())).or_default() += 1);
    let reasons: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let last = match aside {
        Some(aside) => text(aside.reason.as_deref()),
        None if text(last.detail.as_deref()).is_empty() => text(last.reason.as_deref()),
        None => format!("{}: {}", text(last.reason.as_deref()), text(last.detail.as_deref())),
    };
    let last: String = last.chars().filter(|letter| !letter.is_control()).take(MOST_CHARS).collect();
    format!("of {leased} leases since then {} came to nothing ({}); the last one: {last}", lost.len(), reasons.join(", "))
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_and_the_counts_since_the_last_step_are_said() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("groups.jsonl");
        assert_eq!(why(&path), "");
        let before = r#"{"event":"released","group":"a","reason":"expired"}
{"event":"trained","group":"b","step":1}
"#;
        std::fs::write(&path, before).expect("written");
        assert_eq!(why(&path), "");
        let lines = r#"{"event":"leased","group":"c"}
{"event":"released","group":"c","reason":"policy","detail":"40 sequences asked for"}
{"event":"leased","group":"d"}
{"event":"released","group":"d","reason":"policy","detail":"40 sequences asked for; this engine holds 1 to 32"}
{"event":"leas"#;
        std::fs::write(&path, format!("{before}{lines}")).expect("written");
        let says = why(&path);
        assert_eq!(
            says,
            "of 2 leases since then 2 came to nothing (2 policy); the last one: policy: 40 sequences asked for; this engine holds 1 to 32"
        );
        let aside = r#"{"event":"set_aside","task":"t","reason":"policy: the prompt has 900 tokens"}"#;
        std::fs::write(&path, format!("{before}{lines}\n{aside}\n")).expect("written");
        assert!(why(&path).ends_with("the last one: policy: the prompt has 900 tokens"), "{}", why(&path));
    }
}
