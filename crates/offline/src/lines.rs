//! JSON values in, JSON lines out: the shape of `score`, `loss`, `logprobs` and `generate`.
//!
//! In: a file or stdin with one JSON value after the other, on lines of their own or not. Out: one line on stdout per value.
//! A value that cannot be used ends the command as bad input and says which one it was, and on which line it ends.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use serde_json::Value;

/// Most bytes of input.
const MAX_BYTES: u64 = 4 << 30;

/// Calls `work` for each value of `input` (stdin without a path, or with `-`) and prints what it gives.
///
/// # Errors
/// [`BadInput`] for an input that cannot be read or used.
pub fn each(input: Option<&Path>, work: impl FnMut(&Value) -> Result<Value>) -> Result<()> {
    let (reader, name) = open(input)?;
    between(reader, io::stdout().lock(), &name, work)
}

/// All values of `input` (stdin without a path, or with `-`), each made by `read`, before any is worked on.
///
/// # Errors
/// [`BadInput`] for an input that cannot be read or used.
pub fn all<T>(input: Option<&Path>, mut read: impl FnMut(Value) -> Result<T>) -> Result<Vec<T>, BadInput> {
    let (reader, name) = open(input)?;
    let (values, place) = values(reader, name);
    values.enumerate().map(|(at, value)| read(place.value(at, value)?).map_err(|error| place.bad(at, &error))).collect()
}

/// A reader of the input and what errors call it.
fn open(input: Option<&Path>) -> Result<(Box<dyn Read>, String), BadInput> {
    match input.filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            let file = File::open(path).map_err(|error| BadInput::new(format!("cannot read {}: {error}", path.display())))?;
            Ok((Box::new(file), path.display().to_string()))
        }
        None => Ok((Box::new(io::stdin().lock()), "stdin".into())),
    }
}

/// Where the reader is: what the input is called, and how many lines of it have ended.
struct Place {
    name: String,
    ended: Rc<Cell<usize>>,
}

impl Place {
    /// A value that was read, or that it is none.
    fn value(&self, at: usize, value: serde_json::Result<Value>) -> Result<Value, BadInput> {
        // The reader's error has the line.
        value.map_err(|error| BadInput::new(format!("value {} of {} is not JSON: {error}", at + 1, self.name)))
    }

    /// What is wrong with a value that was read.
    fn bad(&self, at: usize, error: &anyhow::Error) -> BadInput {
        BadInput::new(format!("value {} of {}, line {}: {error:#}", at + 1, self.name, self.ended.get() + 1))
    }
}

/// Counts the lines that have been read to their end.
struct Counted<R> {
    input: R,
    ended: Rc<Cell<usize>>,
    /// The last byte that was read ends a line, which counts from the next one on: a value's end may be seen behind it only.
    at_end: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let one = buffer.len().min(1);
        let read = self.input.read(&mut buffer[..one])?;
        if read == 1 {
            self.ended.set(self.ended.get() + usize::from(self.at_end));
            self.at_end = buffer[0] == b'\n';
        }
        Ok(read)
    }
}

fn values(input: impl Read, name: String) -> (impl Iterator<Item = serde_json::Result<Value>>, Place) {
    let ended = Rc::new(Cell::new(0));
    let counted = Counted { input: BufReader::new(input), ended: ended.clone(), at_end: false };
    (serde_json::Deserializer::from_reader(counted.take(MAX_BYTES)).into_iter(), Place { name, ended })
}

/// [`each`] between any two ends.
///
/// # Errors
/// As [`each`].
pub fn between(input: impl Read, output: impl Write, name: &str, mut work: impl FnMut(&Value) -> Result<Value>) -> Result<()> {
    let mut output = BufWriter::new(output);
    let (values, place) = values(input, name.to_owned());
    for (at, value) in values.enumerate() {
        let value = place.value(at, value).map_err(anyhow::Error::from);
        let answer = value.and_then(|value| work(&value).map_err(|error| place.bad(at, &error).into()));
        match answer {
            Ok(answer) => {
                let written = serde_json::to_writer(&mut output, &answer).map_err(io::Error::from).and_then(|()| output.write_all(b"\n"));
                match written {
                    // Whoever reads has read enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    written => written.context("cannot write the results")?,
                }
            }
            Err(error) => {
                // The results before the bad value stand.
                output.flush().context("cannot write the results")?;
                return Err(error);
            }
        }
    }
    match output.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write the results"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(input: &str) -> (Result<()>, String) {
        let mut output = Vec::new();
        let result = between(input.as_bytes(), &mut output, "test", |value| {
            let number = value.as_i64().context("not a number")?;
            Ok((number * 2).into())
        });
        (result, String::from_utf8(output).expect("JSON is UTF-8"))
    }

    #[test]
    fn each_value_gives_a_line_however_it_is_laid_out() {
        let (result, output) = double("1\n\n 2 3\n");
        result.expect("numbers");
        assert_eq!(output, "2\n4\n6\n");
        assert_eq!(double("").1, "");
    }

    #[test]
    fn a_bad_value_is_named_and_results_before_it_stand() {
        for bad in ["1 2 \"x\" 4", "1 2 {"] {
            let (result, output) = double(bad);
            let error = result.expect_err("the third value is bad");
            assert!(error.is::<BadInput>() && error.to_string().contains("value 3 of test"), "{error}");
            assert_eq!(output, "2\n4\n");
        }
    }

    #[test]
    fn the_line_of_a_bad_value_is_named() {
        for (input, line) in
            [("1\n2\n\n\"x\"\n4", 4), ("1 2 \"x\" 4", 1), ("1\n2\n\"x\"", 3), ("1\r\n2\r\n[\n1\n]\r\n4\r\n", 5), ("1\n2\nnull\n", 3)]
        {
            let error = double(input).0.expect_err("the third value is bad").to_string();
            assert!(error.contains(&format!("value 3 of test, line {line}: ")), "{input:?}: {error}");
        }
        let error = double("1\n2\n\n{\"a\": nope}").0.expect_err("no JSON").to_string();
        assert!(error.contains("line 4"), "{error}");
    }

    #[test]
    fn all_values_are_read_before_any_is_used_or_the_bad_one_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("numbers.jsonl");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            all(Some(&path), |value| value.as_i64().context("not a number"))
        };
        assert_eq!(read("1\n2\n").expect("numbers"), [1, 2]);
        let error = read("1 \"x\" 3").expect_err("the second is bad").to_string();
        assert!(error.contains("value 2 of") && error.contains("numbers.jsonl, line 1: not a number"), "{error}");
        let error = all(Some(&folder.path().join("none")), Ok).expect_err("no such file").to_string();
        assert!(error.contains("cannot read"), "{error}");
    }
}
