//! Progress on stderr: a bar on a terminal, a plain line now and then otherwise.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line appears.
const EVERY: Duration = Duration::from_secs(10);

/// One bar.
pub struct Bar {
    bar: ProgressBar,
    name: &'static str,
    plain: bool,
    // Locked for the length of a comparison; contention is one caller.
    last: Mutex<Option<Instant>>,
}

impl Bar {
    /// A bar of `unit`s.
    pub fn new(name: &'static str, unit: &str) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let template = format!("{name} {{bar:30}} {{pos}}/{{len}} {unit} {{elapsed}} eta {{eta}} {{wide_msg}}");
        bar.set_style(ProgressStyle::with_template(&template).expect("a fixed template"));
        Self { bar, name, plain, last: Mutex::new(None) }
    }

    /// One of which nobody knows how much there is: [`Bar::doing`] says what is being done.
    pub fn open(name: &'static str) -> Self {
        let bar = Self::new(name, "");
        bar.bar.set_style(ProgressStyle::with_template(&format!("{name} {{elapsed}} {{wide_msg}}")).expect("a fixed template"));
        bar
    }

    /// Shows where it stands.
    pub fn at(&self, done: usize, of: usize, text: &str) {
        self.bar.set_length(of as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(text.to_owned());
        if self.plain {
            self.now_and_then(done == of, &format!("{done}/{of} {text}"));
        }
    }

    /// Shows what is being done, where nobody knows how much of it there is.
    pub fn doing(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        if self.plain {
            self.now_and_then(false, text);
        }
    }

    /// A plain line, unless there was one a moment ago.
    fn now_and_then(&self, is_last: bool, text: &str) {
        let mut last = self.last.lock().expect("never poisoned: nothing inside panics");
        if is_last || last.is_none_or(|last| last.elapsed() >= EVERY) {
            *last = Some(Instant::now());
            crate::output::note(&format!("{} {text}", self.name));
        }
    }

    /// Says a line above the bar.
    pub fn note(&self, text: &str) {
        if self.plain {
            crate::output::note(text);
        } else {
            self.bar.println(text);
        }
    }

    /// Takes it away.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
