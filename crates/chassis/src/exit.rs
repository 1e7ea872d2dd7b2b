//! How processes end: 0 done, 1 failed, 2 the user's input was wrong; 42 instead of 2 for services.
//!
//! In: the error that ended a program. Out: one line on stderr and the exit code. Orchestrators must not restart on 42: the
//! same input will be wrong again. It is a number of its own because 2 is also what shells and runtimes end with for reasons
//! of theirs, and rules of orchestrators see nothing but the number.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use hypereyes_outside::text::escaped;

use crate::ConfigError;

/// All went well.
pub const OK: u8 = 0;
/// Something failed that may work another time.
pub const FAILURE: u8 = 1;
/// What the user gave is wrong; trying again is useless.
pub const BAD_INPUT: u8 = 2;
/// The same of a service, whose exit code is read by orchestrators.
pub const SERVICE_BAD_INPUT: u8 = 42;

/// The user gave something that cannot be used: a setting, a path, a file's content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(String);

impl BadInput {
    /// `message` says what is wrong, where, and what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// The exit code of a command for an error: [`BAD_INPUT`] when the error or one of its causes is a [`BadInput`] or a [`ConfigError`].
pub fn code_of(error: &(dyn Error + 'static)) -> u8 {
    let bad_input = chain(error).any(|cause| cause.is::<BadInput>() || cause.is::<ConfigError>());
    if bad_input { BAD_INPUT } else { FAILURE }
}

/// The exit code of a service for an error.
pub fn service_code_of(error: &(dyn Error + 'static)) -> u8 {
    match code_of(error) {
        BAD_INPUT => SERVICE_BAD_INPUT,
        code => code,
    }
}

/// Whether a process that ended with `code` was given something that will be as wrong the next time.
pub fn is_bad_input(code: i32) -> bool {
    [BAD_INPUT, SERVICE_BAD_INPUT].map(i32::from).contains(&code)
}

/// The error and its causes on one line, each said once.
pub fn line_of(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in chain(error) {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        // Many errors already say their cause.
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line
}

/// Writes `error: ...` to stderr as one line and gives the exit code. The last statement of every command's `main`.
pub fn report(error: &(dyn Error + 'static)) -> ExitCode {
    say(error);
    ExitCode::from(code_of(error))
}

/// The same for a service.
pub fn report_service(error: &(dyn Error + 'static)) -> ExitCode {
    say(error);
    ExitCode::from(service_code_of(error))
}

fn say(error: &(dyn Error + 'static)) {
    // Nobody is left to be told if stderr is gone.
    let _ = writeln!(std::io::stderr(), "error: {}", escaped(&line_of(error), &[]));
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot start the learner")]
    struct Outer(#[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn bad_input_is_2_however_deep_it_lies_and_42_of_a_service() {
        let deep = Outer(Box::new(Outer(Box::new(BadInput::new("--tasks /x: there is no such file")))));
        assert_eq!(code_of(&deep), BAD_INPUT);
        assert_eq!(code_of(&Outer(Box::new(std::io::Error::other("disk")))), FAILURE);
        assert_eq!(code_of(&ConfigError::Defaults("x".into())), BAD_INPUT);
        assert_eq!(report(&BadInput::new("x")), ExitCode::from(2));
        assert_eq!(report_service(&deep), ExitCode::from(42));
        assert_eq!(service_code_of(&std::io::Error::other("disk")), FAILURE);
        assert!([2, 42].into_iter().all(is_bad_input) && ![0, 1, 130].into_iter().any(is_bad_input));
    }

    #[test]
    fn an_error_is_one_line_that_says_nothing_twice() {
        let inner = std::io::Error::other("two\nlines");
        let repeating = BadInput::new("outer: two lines");
        assert_eq!(line_of(&Outer(Box::new(inner))), "cannot start the learner: two lines");
        assert_eq!(line_of(&Outer(Box::new(repeating))), "cannot start the learner: outer: two lines");
    }
}
