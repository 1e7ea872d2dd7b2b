//! A container's root: this machine's programs, the pod's volumes, the binaries of its image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A volume, or a part of one, in a container.
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
