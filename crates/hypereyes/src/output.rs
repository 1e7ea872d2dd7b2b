//! What goes to stdout, and nothing else does: results for people, or one JSON value for programs.

use std::io::Write;

use serde::Serialize;

/// Prints a JSON value on a line of its own.
pub fn json<T: Serialize>(value: &T) {
    say(&serde_json::to_string(value).expect("results are plain values"));
}

/// Prints a line. A closed pipe is nobody listening, which is not a failure.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a line on stderr: what is not the result. A closed pipe is nobody listening.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Where the words of a command go whose result may be JSON: then stdout belongs to the JSON.
#[derive(Clone, Copy, Debug)]
pub struct Voice {
    /// True when the result is JSON.
    pub json: bool,
}

impl Voice {
    /// Says a line.
    pub fn say(self, text: &str) {
        if self.json { note(text) } else { say(text) }
    }
}
