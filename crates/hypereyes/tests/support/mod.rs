//! The real binary, its runs and what they leave.
#![allow(dead_code)]

pub mod service;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A run of this size takes a minute on two busy cores; ten times as long is broken.
pub const DEADLINE: Duration = Duration::from_secs(600);

/// The binary, silent.
pub fn hypereyes(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypereyes"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub fn run(arguments: &[&str]) -> Output {
    hypereyes(arguments).output().unwrap()
}

/// Waits for something that a run does; it must not end before.
pub fn wait_for<T>(what: &str, child: &mut Child, mut find: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended before {what}");
        assert!(began.elapsed() < DEADLINE, "no {what} in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The lines of a JSON-lines file, as far as they are whole.
pub fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap_or_default().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The process that a service announced.
pub fn pid(service: &str, folder: &Path) -> Option<u64> {
    let announced = folder.join("services").join(format!("{service}.json"));
    serde_json::from_slice::<Value>(&std::fs::read(announced).ok()?).ok()?["pid"].as_u64()
}

/// Sends a signal to a process.
pub fn signal(name: &str, process: u64) {
    assert!(Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status().unwrap().success());
}

/// Kills a service with SIGKILL and returns once another process has announced itself in its place.
pub fn kill_9(service: &str, folder: &Path, up: &mut Child) {
    let old = wait_for(service, up, || pid(service, folder));
    signal("KILL", old);
    wait_for(&format!("restart of {service}"), up, || pid(service, folder).filter(|new| *new != old));
}
