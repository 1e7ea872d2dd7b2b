//! Whether this machine lets us make namespaces at all.

use std::process::Command;

/// The right to run a cluster here.
pub struct Permit;

impl Permit {
    /// Tries everything that a pod needs, once, in namespaces that end with the trial; says what is missing.
    pub fn check() -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("pods need root for their namespaces and mounts".to_owned());
        }
        let trial = "set -e; mount -t tmpfs none /mnt; ip link add br0 type bridge; ip link set br0 up; \
                     ip link add v0 type veth peer name v1; hostname trial; nsenter --version; \
                     setpriv --pdeathsig KILL chroot / env -i true";
        let output = Command::new("unshare").args(["--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "sh", "-c", trial]).output();
        match output {
            Err(error) => Err(format!("`unshare` does not run: {error}")),
            Ok(output) if !output.status.success() => {
                Err(format!("namespaces are not permitted: {}", String::from_utf8_lossy(&output.stderr).trim()))
            }
            Ok(_) => Ok(()),
        }
    }
}
