//! A program of somebody else's that must not outlive us: an inference server, with all that it starts.
//!
//! In: a command line. Out: the same as a child of this very program, started as `leash GRACE_MS PROGRAM ARGUMENTS..`, which runs the
//! program in a process group of its own, ends the group when its own stdin is closed (politely first, by force after the grace), and
//! exits as the program did. Such a child does what a [`Supervisor`](crate::supervise::Supervisor) asks of its children, and closing
//! its stdin happens by itself when we die, however that is. It knows no server.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::exit;

/// The first argument of a process that is a leash.
const WORD: &str = "leash";
/// Added to a signal's number where a process that it ended has an exit code, as shells do.
const BY_SIGNAL: i32 = 128;

/// The command that runs `program` on a leash. `holder` is what holds it: the program of this process, or any other whose `main` calls
/// [`of_process`] first of all.
pub fn command(holder: &Path, grace: Duration, program: &[String]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(holder);
    command.arg(WORD).arg(grace.as_millis().to_string()).args(program);
    command
}

/// Runs the leash that this process was started as, and says how to end; `None` when it was started as something else.
pub fn of_process() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    (arguments.next()? == WORD).then(|| match run(arguments) {
        Ok(status) => ExitCode::from(code_of(status)),
        // A program that is not there will not be there the next time.
        Err(error) => exit::report_service(&exit::BadInput::new(error.to_string())),
    })
}

fn run(mut arguments: impl Iterator<Item = OsString>) -> io::Result<ExitStatus> {
    let grace = arguments.next().and_then(|text| text.to_str()?.parse().ok()).map(Duration::from_millis);
    let (Some(grace), Some(program)) = (grace, arguments.next()) else {
        return Err(io::Error::other("a leash takes GRACE_MS PROGRAM ARGUMENTS.."));
    };
    let started = Command::new(&program).args(arguments).stdin(Stdio::null()).process_group(0).spawn();
    let mut child = started.map_err(|error| io::Error::other(format!("cannot start {}: {error}", program.display())))?;
    let group = Pid::from_child(&child);
    // It ends with this process.
    std::thread::spawn(move || {
        wait_for_the_end_of_stdin();
        end(group, Signal::TERM);
        std::thread::sleep(grace);
        end(group, Signal::KILL);
    });
    // Seen but not taken: until it is, its number is nobody else's, and neither is the group's.
    let seen = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
    // What a server has started is of no use without it, and holds memory that its heir needs.
    end(group, Signal::KILL);
    seen?;
    child.wait()
}

fn wait_for_the_end_of_stdin() {
    let mut stdin = io::stdin().lock();
    let mut ignored = [0; 64];
    loop {
        match stdin.read(&mut ignored) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}

/// A group that is gone is as good as ended.
fn end(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(BY_SIGNAL + status.signal()?)).unwrap_or(i32::from(exit::FAILURE));
    u8::try_from(code).unwrap_or(exit::FAILURE)
}

#[cfg(test)]
mod tests {
    use std::process::Child;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A leash of this test program: it holds `script`, which has `folder` to write into.
    fn leashed(folder: &Path, grace_ms: u64, script: &str) -> Child {
        let this = std::env::current_exe().unwrap();
        let args = ["--exact", "leash::tests::child_that_is_a_leash", "--ignored", "--nocapture", "--test-threads=1"];
        let mut command = Command::new(this);
        command.args(args).env("SCRIPT", script).env("GRACE_MS", grace_ms.to_string()).current_dir(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    #[ignore = "runs in a process of its own, which it ends"]
    fn child_that_is_a_leash() {
        let arguments = [std::env::var_os("GRACE_MS").unwrap(), "sh".into(), "-c".into(), std::env::var_os("SCRIPT").unwrap()];
        let code = code_of(run(arguments.into_iter()).unwrap());
        std::process::exit(code.into());
    }

    /// Waits for a number in a file.
    fn number(path: &Path) -> u32 {
        let began = Instant::now();
        loop {
            if let Some(number) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()) {
                return number;
            }
            assert!(began.elapsed() < PATIENCE, "{} was never written", path.display());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_gone(process: u32) -> bool {
        let began = Instant::now();
        // One that nobody has waited for is a zombie: dead as well.
        let dead = || match std::fs::read_to_string(format!("/proc/{process}/stat")) {
            Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
            Err(_) => true,
        };
        while !dead() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        dead()
    }

    #[test]
    fn it_exits_as_the_program_did() {
        let folder = tempfile::tempdir().unwrap();
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
            let mut child = leashed(folder.path(), 1000, script);
            // Waiting would close it, and so ask for the end.
            let _held = child.stdin.take();
            assert_eq!(child.wait().unwrap().code(), Some(code), "{script}");
        }
    }

    #[test]
    fn a_closed_stdin_ends_the_program_and_what_it_has_started() {
        for (script, grace_ms, code) in [
            ("sleep 1000 & echo $! > helper; trap 'exit 3' TERM; wait", 20_000, 3),
            // One that does not listen is ended by force.
            ("trap '' TERM; sleep 1000 & echo $! > helper; while true; do wait; done", 200, 137),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut child = leashed(folder.path(), grace_ms, script);
            let helper = number(&folder.path().join("helper"));
            assert!(child.try_wait().unwrap().is_none(), "nobody has asked it to stop");
            drop(child.stdin.take());
            assert_eq!(child.wait().unwrap().code(), Some(code), "{script}");
            assert!(is_gone(helper), "{script}");
        }
    }

    #[test]
    #[ignore = "runs in a process of its own, which is killed"]
    fn child_that_holds_a_leash() {
        let mut child = leashed(Path::new("."), 1000, &std::env::var("HELD").unwrap());
        // Waiting would close it, and so ask for the end.
        let _held = child.stdin.take();
        child.wait().unwrap();
    }

    #[test]
    fn what_is_held_ends_when_its_holder_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let args = ["--exact", "leash::tests::child_that_holds_a_leash", "--ignored", "--nocapture", "--test-threads=1"];
        let mut holder = Command::new(std::env::current_exe().unwrap());
        holder.args(args).env("HELD", "sleep 1000 & echo $! > helper; wait").current_dir(folder.path()).stdout(Stdio::null());
        let mut holder = holder.spawn().unwrap();
        let helper = number(&folder.path().join("helper"));
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(is_gone(helper));
    }

    #[test]
    fn what_a_killed_program_leaves_behind_is_ended_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = leashed(folder.path(), 1000, "sleep 1000 & echo $! > helper; kill -9 $$");
        let helper = number(&folder.path().join("helper"));
        assert_eq!(child.wait().unwrap().code(), Some(137));
        assert!(is_gone(helper));
    }
}
