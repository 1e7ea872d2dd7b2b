//! One process of a pod: started in the pod's namespaces, signalled, waited for.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::manifest::list;
use crate::node::appears;
use crate::plan::{argv, expand};
use crate::pod::Pod;
use crate::root::{Mount, root};
use crate::sandbox::Sandbox;
use crate::world::World;

/// A container that has been started.
pub struct Process {
    child: Child,
    /// On the node; inside it is process 1, with what that means for signals that it does not handle.
    pub pid: u32,
    /// Who it runs as, where and with which environment: what comes before the program's own words.
    pub launch: Vec<String>,
}

impl Process {
    /// Builds the container's root and starts its program there.
    pub async fn start(
        world: &World,
        pod: &Pod,
        sandbox: &Sandbox,
        volumes: &BTreeMap<String, PathBuf>,
        container: &Value,
    ) -> Result<Self> {
        let name = container["name"].as_str().context("a container has no name")?;
        let objects = world.objects.borrow().clone();
        let environment = pod.plan.environment(container, &objects, sandbox.ip, crate::node::ADDRESS)?;
        let entry = world.binary(container["image"].as_str().unwrap_or_default());
        let entry = entry.map_or_else(|| "no-binary-for-this-image".to_owned(), |name| format!("/image/{name}"));
        let names: Vec<_> = world.options.binaries.keys().cloned().collect();
        let program = argv(container, &entry, &names, &environment);
        let launch = launch(pod.plan.spec(), container, &environment);

        let (script, mark) = (pod.folder.join(format!("{name}.sh")), pod.folder.join(format!("{name}.started")));
        let _ = fs::remove_file(&mark);
        fs::write(&script, root(&pod.folder, &mark, &mounts(container, volumes, &environment)?, &world.options.binaries, container))?;
        let log = OpenOptions::new().create(true).append(true).open(world.log(pod.plan.name(), name))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter", "--target", &sandbox.pid.to_string(), "--mount", "--net", "--uts", "--ipc"]);
        command.args(["unshare", "--mount", "--pid"]);
        // This shell stays outside; what it starts is process 1, and its status becomes ours (`unshare --fork` loses signals).
        command.args(["sh", "-c", "setpriv --pdeathsig KILL sh -e \"$@\"; exit $?", "sh"]);
        command.arg(&script).args(&launch).args(&program);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let mut child = command.spawn()?;
        appears(&mark, &mut child).await.with_context(|| format!("container `{name}`"))?;
        let outer = child.id().context("it has ended")?;
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        let pid = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        // A program can be over before it is looked up; its status is still to be had.
        Ok(Self { child, pid: pid.unwrap_or(0), launch })
    }

    /// Waits for the end; 128 + signal where one ended it.
    pub async fn wait(&mut self) -> i32 {
        self.child.wait().await.ok().and_then(|status| status.code()).unwrap_or(137)
    }
}

/// Sends a signal to a process of the node, if it is still there.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        // The process may have ended by itself in the meantime.
        let _ = kill_process(pid, signal);
    }
}

/// Runs a program beside a running one: same namespaces, root, user and environment.
pub fn enter(pid: u32, launch: &[String], argv: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "nsenter", "--target", &pid.to_string()]);
    command.args(["--mount", "--net", "--uts", "--ipc", "--pid", "--root", "--wd"]);
    command.args(launch).args(argv).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// `securityContext`, working folder and environment, as words before a program's own.
fn launch(spec: &Value, container: &Value, environment: &[(String, String)]) -> Vec<String> {
    let (pod, own) = (&spec["securityContext"], &container["securityContext"]);
    let id = |field: &str| own[field].as_u64().or(pod[field].as_u64());
    let mut words: Vec<String> = ["/usr/bin/setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
    if let Some(user) = id("runAsUser") {
        words.extend([format!("--reuid={user}"), format!("--regid={}", id("runAsGroup").unwrap_or(0))]);
        let groups = list(&pod["supplementalGroups"]).filter_map(Value::as_u64).chain(pod["fsGroup"].as_u64());
        let groups: Vec<_> = groups.map(|group| group.to_string()).collect();
        words.push(if groups.is_empty() { "--clear-groups".to_owned() } else { format!("--groups={}", groups.join(",")) });
    }
    if own["allowPrivilegeEscalation"] == false {
        words.push("--no-new-privs".to_owned());
    }
    if list(&own["capabilities"]["drop"]).any(|name| name == "ALL") {
        words.extend(["--bounding-set=-all".to_owned(), "--inh-caps=-all".to_owned()]);
    }
    words.extend(["/usr/bin/env".to_owned(), "-i".to_owned()]);
    if let Some(folder) = container["workingDir"].as_str() {
        words.push(format!("--chdir={folder}"));
    }
    words.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
    words
}

fn mounts(container: &Value, volumes: &BTreeMap<String, PathBuf>, environment: &[(String, String)]) -> Result<Vec<Mount>> {
    let mut found = vec![];
    for mount in list(&container["volumeMounts"]) {
        let name = mount["name"].as_str().unwrap_or_default();
        let mut source = volumes.get(name).with_context(|| format!("no volume is called `{name}`"))?.clone();
        let part = mount["subPath"].as_str().map(str::to_owned);
        if let Some(part) = part.or_else(|| Some(expand(mount["subPathExpr"].as_str()?, environment))) {
            source = source.join(part);
            if !source.exists() {
                fs::create_dir_all(&source)?;
            }
        }
        let target = mount["mountPath"].as_str().context("a volumeMount has no mountPath")?.to_owned();
        found.push(Mount { source, target, read_only: mount["readOnly"] == true });
    }
    Ok(found)
}
