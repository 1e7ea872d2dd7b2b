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
