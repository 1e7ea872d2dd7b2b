//! The node: a network namespace of its own, with a bridge that every pod is plugged into.
//!
//! One thread moves into the namespace and stays. Whatever it starts or connects to is inside: probes and scrapes need no
//! tricks, and the host's network is not touched. Namespaces have no names and every process is told to die with the thread
//! that started it (`pdeathsig`), so that nothing is left to clean up, not even after a SIGKILL.

use std::cell::Cell;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::{Child, Command};

/// The node's own address: where probes come from.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

/// What pods are started on.
pub struct Node {
    /// Folder of everything that the cluster writes.
    pub scratch: PathBuf,
    next: Cell<u32>,
}

impl Node {
    /// Moves the calling thread into a new network namespace and makes the bridge there.
    pub async fn enter(scratch: PathBuf) -> Result<Self> {
        let mark = scratch.join("pods/node");
        let mut holder = spawn(&["unshare", "--net", "sh", "-c", ": > \"$0\"; exec sleep 60", &mark.to_string_lossy()])?;
        appears(&mark, &mut holder).await.context("the node's network namespace")?;
        let link = format!("/proc/{}/ns/net", holder.id().context("the node's namespace is gone")?);
        ensure!(fs::read_link(&link)? != fs::read_link("/proc/thread-self/ns/net")?, "the node would share the host's network");
        let namespace = File::open(link)?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        holder.kill().await?;
        shell(&format!("ip link set lo up; ip link add br0 type bridge; ip addr add {ADDRESS}/16 dev br0; ip link set br0 up")).await?;
        Ok(Self { scratch, next: Cell::new(2) })
    }

    /// An address that no pod has had before.
    pub fn address(&self) -> Ipv4Addr {
        let number = self.next.replace(self.next.get() + 1);
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 0).to_bits() + number)
    }
}

/// Starts a program that dies with this thread.
pub fn spawn(argv: &[&str]) -> Result<Child> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).args(argv).stdin(Stdio::null()).kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {argv:?}"))
}

/// Runs lines of shell; the first that fails says what it said.
pub async fn shell(script: &str) -> Result<()> {
    let output = Command::new("sh").args(["-e", "-c", script]).output().await?;
    ensure!(output.status.success(), "`{script}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Waits until a starting process has written its mark.
pub async fn appears(mark: &Path, child: &mut Child) -> Result<()> {
    for _ in 0..4000 {
        if mark.exists() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("ended while it was set up: {status}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    anyhow::bail!("is not set up after 20 s")
}
