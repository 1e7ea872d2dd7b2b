//! On what terms a folder was begun. In: those of now. Out: whether what is there can be gone on with. It does not know what terms are.

use std::fs;
use std::path::Path;

use anyhow::Result;
use hypereyes_chassis::BadInput;
use hypereyes_run::read_json;
use hypereyes_trainer::sft::checkpoint::Terms;

/// The terms of a folder.
pub(super) const SETTINGS: &str = "settings.json";

/// Refuses to go on with what was made on other terms; `lines` is the file that holds it.
///
/// # Errors
/// [`BadInput`] that names the first term that differs.
pub(super) fn agree(out: &Path, lines: &str, now: &Terms) -> Result<()> {
    let path = out.join(SETTINGS);
    if !path.exists() {
        // Lines without a word on their terms are nobody's that can be gone on with. An empty file is what a kill leaves at the start.
        let lines = out.join(lines);
        if fs::metadata(&lines).is_ok_and(|file| file.len() > 0) {
            let name = lines.display();
            return Err(BadInput::new(format!("{name} is there, but not {SETTINGS} beside it: move it away, or give another --out")).into());
        }
        return Ok(());
    }
    let was: Terms = read_json(&path).map_err(|error| BadInput::new(format!("{error:#}")))?;
    let changes = was.changes(now);
    let Some(first) = changes.first() else { return Ok(()) };
    let more = if changes.len() > 1 { format!(", and {} more", changes.len() - 1) } else { String::new() };
    let out = out.display();
    Err(BadInput::new(format!("--out {out} was begun on other terms: {first}{more}; go on with those, or give another --out")).into())
}

#[cfg(test)]
mod tests {
    use hypereyes_run::write_json;

    use super::*;

    #[test]
    fn what_was_begun_on_other_terms_or_on_none_is_refused_and_an_empty_start_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let terms = |seed: u64| Terms::default().with("seed", &seed);
        let agrees = |seed: u64| agree(folder.path(), "lines.jsonl", &terms(seed)).map_err(|error| error.to_string());
        let path = folder.path().join("lines.jsonl");
        assert_eq!(agrees(1), Ok(()));
        fs::write(&path, "").expect("written");
        assert_eq!(agrees(1), Ok(()), "a kill before the first word");
        fs::write(&path, "{}\n").expect("written");
        assert!(agrees(1).is_err_and(|error| error.contains("lines.jsonl is there")));
        write_json(&folder.path().join(SETTINGS), &terms(1)).expect("written");
        assert_eq!(agrees(1), Ok(()));
        assert!(agrees(2).is_err_and(|error| error.contains("seed is 2 and was 1")));
    }
}
