//! What is wrong with settings, all of it at once.
//!
//! In: the word of whoever looks at some keys. Out: one line that names every key that cannot be used, and what is to be
//! warned of. A service looks at its settings before it makes anything; who starts services looks at all of them beforehand, with
//! the same functions. It opens nothing.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use serde::Serialize;

use crate::BadInput;

/// The longest time that a setting may ask for: ten years. Clocks cannot add much more.
pub const LONGEST_S: u64 = 10 * 365 * 24 * 3600;
/// No machine has more cores than this for one process.
pub const MOST_THREADS: usize = 1024;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The key, with dots.
    pub key: String,
    /// What is wrong with it and what would do; it follows the key in a sentence (`is 0: give at least 1`).
    pub message: String,
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.message)
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    refused: Vec<Finding>,
    warned: Vec<Finding>,
}

impl Findings {
    /// A key that cannot be used.
    pub fn refuse(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.refused.push(Finding { key: key.into(), message: message.into() });
    }

    /// A key that can be used, and probably should not.
    pub fn warn(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.warned.push(Finding { key: key.into(), message: message.into() });
    }

    /// The word of a check that knows its keys without the table that they are in: its error begins with a key
    /// (`max_rows is 0: ..`).
    pub fn told<E: Display>(&mut self, table: &str, checked: Result<(), E>) {
        if let Err(error) = checked {
            let text = error.to_string();
            let (key, message) = text.split_once(' ').unwrap_or((&text, "cannot be used"));
            self.refuse(join(table, key.trim_end_matches(':')), message);
        }
    }

    /// Findings about the keys of a table.
    pub fn under(&mut self, table: &str, inner: Self) {
        let named = |finding: Finding| Finding { key: join(table, &finding.key), ..finding };
        self.refused.extend(inner.refused.into_iter().map(named));
        self.warned.extend(inner.warned.into_iter().map(named));
    }

    /// Refuses a value outside `range`; NaN is in none.
    pub fn within<T: PartialOrd + Display>(&mut self, key: &str, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            self.refuse(key, format!("is {value}: give {} to {}", range.start(), range.end()));
        }
    }

    /// Refuses a count of 0.
    pub fn at_least_one(&mut self, key: &str, value: impl TryInto<u64>) {
        if value.try_into().is_ok_and(|value| value == 0) {
            self.refuse(key, "is 0: give at least 1");
        }
    }

    /// Refuses a time, in parts of `per_second`, that is shorter than `least` of them or longer than clocks can count.
    pub fn span(&mut self, key: &str, value: u64, least: u64, per_second: u64) {
        self.within(key, value, least..=LONGEST_S.saturating_mul(per_second));
    }

    /// Refuses more threads than any machine has.
    pub fn threads(&mut self, key: &str, threads: usize) {
        if threads > MOST_THREADS {
            self.refuse(key, format!("is {threads}: give at most {MOST_THREADS}, or 0 for one per core"));
        }
    }

    /// Refuses addresses of one process of which the second could not be had: the same port on the same or on every address.
    pub fn ports(&mut self, addresses: &[(&str, Option<SocketAddr>)]) {
        let taken = |one: SocketAddr, other: SocketAddr| {
            let meet = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
            one.port() != 0 && one.port() == other.port() && meet
        };
        let known: Vec<(&str, SocketAddr)> = addresses.iter().filter_map(|(key, address)| Some((*key, (*address)?))).collect();
        for (at, (key, address)) in known.iter().enumerate() {
            if let Some((first, other)) = known[..at].iter().find(|(_, other)| taken(*address, *other)) {
                self.refuse(*key, format!("is {address}, and {first} is {other}: give each a port of its own, or 0 for a free one"));
            }
        }
    }

    /// Whether anything cannot be used.
    pub fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// What cannot be used.
    pub fn refused(&self) -> &[Finding] {
        &self.refused
    }

    /// What is to be warned of.
    pub fn warned(&self) -> &[Finding] {
        &self.warned
    }

    /// Adds what somebody else found.
    pub fn extend(&mut self, other: Self) {
        self.refused.extend(other.refused);
        self.warned.extend(other.warned);
    }

    /// Nothing, or one line with everything that cannot be used.
    ///
    /// # Errors
    /// [`BadInput`] that names every key.
    pub fn result(&self) -> Result<(), BadInput> {
        if self.refused.is_empty() {
            return Ok(());
        }
        Err(BadInput::new(self.refused.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")))
    }

    /// [`result`](Self::result), with the warnings in the log: how a service takes its settings.
    ///
    /// # Errors
    /// As [`result`](Self::result).
    pub fn admit(&self) -> Result<(), BadInput> {
        self.warned.iter().for_each(|warning| tracing::warn!("{warning}"));
        self.result()
    }
}

fn join(table: &str, key: &str) -> String {
    match (table, key) {
        ("", key) => key.to_owned(),
        (table, "") => table.to_owned(),
        (table, key) => format!("{table}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_said_on_one_line_with_its_whole_key() {
        let mut engine = Findings::default();
        engine.told("", Err("max_rows is 0: no token could be fed"));
        engine.within("share", f64::NAN, 0.0..=1.0);
        engine.warn("cache_bytes", "is small");
        let mut all = Findings::default();
        all.under("actor.engine", engine);
        all.span("lease_s", u64::MAX, 1, 1);
        all.at_least_one("steps", 0u64);
        all.threads("threads", 5000);
        let line = all.result().expect_err("five things").to_string();
        for part in [
            "actor.engine.max_rows is 0: no token",
            "actor.engine.share is NaN: give 0 to 1",
            " | lease_s is 1844",
            "steps is 0",
            "threads is 5000",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert_eq!((line.lines().count(), all.refused().len()), (1, 5));
        assert_eq!(all.warned()[0].key, "actor.engine.cache_bytes");
        Findings::default().result().expect("nothing was found");
    }

    #[test]
    fn ports_of_one_process_differ() {
        let at = |text: &str| Some(text.parse().expect("an address"));
        let found = |addresses: &[(&str, Option<SocketAddr>)]| {
            let mut found = Findings::default();
            found.ports(addresses);
            found.refused().len()
        };
        assert_eq!(found(&[("listen", at("127.0.0.1:7000")), ("metrics_listen", at("0.0.0.0:7000")), ("health_listen", None)]), 1);
        assert_eq!(found(&[("listen", at("127.0.0.1:7000")), ("metrics_listen", at("127.0.0.2:7000"))]), 0);
        assert_eq!(found(&[("listen", at("127.0.0.1:0")), ("metrics_listen", at("127.0.0.1:0"))]), 0);
    }
}
