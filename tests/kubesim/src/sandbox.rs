//! A pod's sandbox: network, host name, IPC and shared memory volumes, held by a process that sleeps.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Child;

use crate::amount::quantity;
use crate::manifest::list;
use crate::node::{Node, appears, shell, spawn};
use crate::plan::Plan;

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

/// Where a pod's files are mounted, most general first.
#[derive(Clone, Debug)]
pub struct Mount {
    /// On this machine.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
    /// Whether the container may only read.
    pub read_only: bool,
}

/// Shell that builds a container's root from this machine's programs, the pod's volumes and the binaries of its image, and
/// then becomes the program of its arguments. It runs as process 1 of a new PID namespace, in a private mount namespace.
pub fn root(folder: &Path, mark: &Path, mounts: &[Mount], binaries: &BTreeMap<String, PathBuf>, container: &Value) -> String {
    let mut script = format!(
        "cd {root}\nmount -t tmpfs -o mode=755 root .\ncd {root}\n\
         for d in usr bin sbin lib lib32 lib64 libx32; do\n\
         if [ -L /$d ]; then cp -P /$d $d; elif [ -d /$d ]; then mkdir $d; mount --rbind -o ro /$d $d; fi\ndone\n\
         mkdir dev proc sys tmp etc run var image run/pod\nchmod 1777 tmp\n\
         mount --rbind /dev dev\nmount -t tmpfs -o mode=1777,size=64m shm dev/shm\nmount -t proc proc proc\nmount --rbind -o ro /sys sys\n\
         for f in ld.so.cache passwd group localtime ssl alternatives; do if [ -e /etc/$f ]; then cp -a /etc/$f etc/; fi; done\n\
         echo 'hosts: files' > etc/nsswitch.conf\necho 'multi on' > etc/host.conf\n: > etc/resolv.conf\nhostname > etc/hostname\n\
         mount --bind -o ro {names} run/pod\nln -s /run/pod/hosts etc/hosts\n",
        root = quote(&folder.join("root")),
        names = quote(&folder.join("etc")),
    );
    for (name, path) in binaries {
        script += &format!(": > image/{name}\nmount --bind -o ro {} image/{name}\n", quote(path));
    }
    let mut mounts: Vec<_> = mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.matches('/').count());
    for mount in mounts {
        let target = quote(Path::new(mount.target.trim_start_matches('/')));
        let make =
            if mount.source.is_dir() { format!("mkdir -p {target}") } else { format!("mkdir -p \"$(dirname {target})\"; : > {target}") };
        let only = if mount.read_only { " -o ro" } else { "" };
        script += &format!("{make}\nmount --rbind{only} {} {target}\n", quote(&mount.source));
    }
    if container["securityContext"]["readOnlyRootFilesystem"] == true {
        script += "mount -o remount,ro .\n";
    }
    script + &format!(": > {}\nexec chroot . \"$@\"\n", quote(mark))
}

/// A path as one word of shell.
pub fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}
