//! A pod's sandbox: network, host name, IPC and shared memory volumes, held by a process that sleeps.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use tokio::process::Child;

use crate::amount::quantity;
use crate::manifest::list;
use crate::node::{Node, appears, shell, spawn};
use crate::plan::Plan;
use crate::root::quote;

/// Namespaces of one pod; they end when this is dropped and the pod's containers have ended.
pub struct Sandbox {
    holder: Child,
    /// Whose namespaces containers join.
    pub pid: u32,
    /// Address on the node's bridge.
    pub ip: Ipv4Addr,
}

impl Sandbox {
    /// Makes the namespaces and plugs them into the bridge.
    pub async fn start(node: &Node, plan: &Plan, folder: &Path) -> Result<Self> {
        let mark = folder.join("sandbox");
        let script = format!("hostname {}\n{}: > {}\nexec sleep infinity", plan.hostname, memory(plan, folder), quote(&mark));
        let mut holder = spawn(&["unshare", "--net", "--uts", "--ipc", "--mount", "sh", "-e", "-c", &script])?;
        appears(&mark, &mut holder).await.context("the sandbox")?;
        let pid = holder.id().context("the sandbox has ended")?;
        let (ip, port) = (node.address(), format!("v{}", plan.serial));
        shell(&format!(
            "ip link add {port} type veth peer name eth0 netns {pid}\nip link set {port} master br0 up\n\
             nsenter -t {pid} --net sh -e -c 'ip addr add {ip}/16 dev eth0; ip link set eth0 up; ip link set lo up'"
        ))
        .await?;
        Ok(Self { holder, pid, ip })
    }

    /// Ends the sandbox; its containers have ended before.
    pub async fn stop(mut self) {
        let _ = self.holder.kill().await;
    }
}

/// `emptyDir` in memory: one tmpfs that all containers of the pod share.
fn memory(plan: &Plan, folder: &Path) -> String {
    let volumes = list(&plan.spec()["volumes"]).filter(|volume| volume["emptyDir"]["medium"] == "Memory");
    volumes
        .map(|volume| {
            let size = quantity(&volume["emptyDir"]["sizeLimit"]).map_or(String::new(), |size| format!(",size={size:.0}"));
            let place = quote(&folder.join("volumes").join(volume["name"].as_str().unwrap_or_default()));
            format!("mkdir -p {place}\nmount -t tmpfs -o mode=1777{size} memory {place}\n")
        })
        .collect()
}

/// Stops frames from one pod to another, silently, as a broken switch would: the sender gives them an address nobody has.
pub async fn cut(from: u32, to: Ipv4Addr) -> Result<()> {
    shell(&format!("nsenter -t {from} --net ip neigh replace {to} lladdr 02:00:00:00:00:00 dev eth0 nud permanent")).await
}

/// Lets them through again.
pub async fn mend(from: u32, to: Ipv4Addr) -> Result<()> {
    shell(&format!("nsenter -t {from} --net ip neigh del {to} dev eth0 || true")).await
}
