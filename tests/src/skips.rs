//! Tests that cannot run on this machine, for want of root, an interpreter, a program. In: why. Out: a line that is seen. A test that prints "skipped" and passes looks like one that ran: its output is captured.

use std::io::Write;

/// The variable that names a file to which a line is appended per skipped test; `.ci/run` makes its summary of it.
pub const FILE: &str = "HYPEREYES_SKIPPED";
/// The variable that may say `never`: a test that cannot run fails then.
pub const POLICY: &str = "HYPEREYES_SKIP";

/// Says that the test of this thread is not run here, and why: on standard error past the test harness's capture, and in the file that
/// [`FILE`] names.
///
/// # Panics
/// Where `HYPEREYES_SKIP=never`: whoever set it wants every test to run.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    // The harness names a test's thread after it.
    let test = thread.name().unwrap_or("a test");
    assert!(std::env::var_os(POLICY).is_none_or(|policy| policy != "never"), "{test} cannot run here: {reason}");
    let line = format!("skipped: {test}: {reason}\n");
    // Only the print macros are captured. One write a line, so that lines of tests that run side by side do not mix.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os(FILE) {
        let appended = std::fs::File::options().append(true).create(true).open(&file).and_then(|mut file| file.write_all(line.as_bytes()));
        appended.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}
