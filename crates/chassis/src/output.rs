//! What goes to stdout, and nothing else does: results for people, or one JSON value for programs.

use std::io::{ErrorKind, Write};

use serde::Serialize;

/// Prints a JSON value on a line of its own.
pub fn json<T: Serialize>(value: &T) {
    say(&serde_json::to_string(value).expect("results are plain values"));
}

/// Prints a line. A closed pipe is nobody listening, which is not a failure; a full disk is one, and nothing that comes after would
/// mend it.
pub fn say(text: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        note(&format!("error: cannot write the results: {error}"));
        std::process::exit(1);
    }
}

/// Prints a line on stderr: what is not the result. A closed pipe is nobody listening.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Where the words of a command go whose result may be JSON: then stdout belongs to the JSON.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// True when the result is JSON.
    pub json: bool,
}

impl Console {
    /// Says a line.
    pub fn say(self, text: &str) {
        if self.json { note(text) } else { say(text) }
    }
}
