//! Who computes where while a cluster runs on one machine: shares of the cores, a core for the learner alone, and somebody who
//! takes a core without belonging to the run.

use std::time::Duration;

/// Gives every thread of the processes that a pattern finds another share of the cores.
pub fn renice(pattern: &str, value: &str) {
    for process in found(&format!("hypereyes {pattern}")) {
        for thread in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let thread = thread.file_name().to_string_lossy().into_owned();
            // Threads come and go.
            let _ = std::process::Command::new("renice").args(["-n", value, "-p", &thread]).output();
        }
    }
}

/// The learner alone on the last core, everything else on the others, new processes too, for as long as this lives.
pub struct Apart(tokio::task::JoinHandle<()>);

impl Apart {
    pub fn start() -> Self {
        Self(tokio::spawn(async {
            loop {
                tokio::task::spawn_blocking(|| {
                    pin("hypereyes service learner", Self::learners());
                    pin("hypereyes (service (actor|reward|teacher)|prepare|probe|bench)", 0);
                })
                .await
                .expect("it does not panic");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }))
    }

    fn learners() -> usize {
        std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A process of ours that decodes on one core and speaks to nobody.
pub struct Stranger(std::process::Child);

impl Stranger {
    pub fn start() -> Self {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hypereyes"));
        command
            .args(["bench", "engine", "--threads", "1", "--batch", "8", "--new", "400", "--repeats", "255"])
            .stdout(std::process::Stdio::null());
        Self(command.spawn().expect("it starts"))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Binds every thread of the processes that a pattern finds to one core.
fn pin(pattern: &str, core: usize) {
    for process in found(pattern) {
        // Processes come and go.
        let _ = std::process::Command::new("taskset").args(["-acp", &core.to_string(), &process]).output();
    }
}

/// Processes whose command line a pattern finds.
fn found(pattern: &str) -> Vec<String> {
    let found = std::process::Command::new("pgrep").args(["-f", pattern]).output().expect("pgrep");
    String::from_utf8_lossy(&found.stdout).split_whitespace().map(str::to_owned).collect()
}
