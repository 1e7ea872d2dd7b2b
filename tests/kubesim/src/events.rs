//! Everything that the cluster does, as JSON lines in the order in which it was done.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The log; one thread writes it.
pub struct Events {
    file: RefCell<File>,
    start: Instant,
    echo: bool,
}

impl Events {
    /// Starts a log; with `echo` every line goes to standard error as well.
    pub fn create(path: &Path, echo: bool) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file: RefCell::new(file), start: Instant::now(), echo })
    }

    /// Writes `{"at": seconds, "event": …, "object": …, …more}`.
    pub fn note(&self, event: &str, object: &str, more: Value) {
        let mut line = json!({"at": (self.start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0, "event": event, "object": object});
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        if self.echo {
            eprintln!("{line}");
        }
        // A log that cannot be written must not take the cluster down with it.
        let _ = writeln!(self.file.borrow_mut(), "{line}");
    }
}

/// Reads a log back.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).context("a line of the event log is not JSON")).collect()
}
