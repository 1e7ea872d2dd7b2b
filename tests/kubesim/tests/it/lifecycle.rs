//! From init containers to SIGKILL, and what is left afterwards: nothing.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use crate::rig::{SOON, cluster, deployment, names, sh};
use hypereyes_kubesim::{Permit, Phase, Snapshot};

#[tokio::test]
async fn a_pod_has_its_files_environment_user_and_init_containers() {
    let manifests = r#"
kind: ConfigMap
metadata: {name: run}
data: {run.toml: "x = 1", LEVEL: info}
---
kind: Secret
metadata: {name: key}
data: {key.pem: aGVsbG8=}
---
kind: PersistentVolumeClaim
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce]}
---
kind: NetworkPolicy
metadata: {name: deny}
---
kind: Pod
metadata: {name: p, labels: {app: p}, annotations: {note: hi}}
spec:
  securityContext: {runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532}
  initContainers:
  - {name: one, image: x, command: [sh, -c, "echo one >> /data/order"], volumeMounts: [{name: disk, mountPath: /data}]}
  - {name: two, image: x, command: [sh, -c, "echo two >> /data/order"], volumeMounts: [{name: disk, mountPath: /data}]}
  containers:
  - name: main
    image: x
    command: [sh, -c]
    args: ["trap 'exit 0' TERM; echo $(NAME) $(LEVEL) at $(IP) says $(NOTE); while true; do sleep 0.05; done"]
    envFrom: [{configMapRef: {name: run}}]
    env:
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts:
    - {name: cfg, mountPath: /etc/run, readOnly: true}
    - {name: key, mountPath: /etc/key, readOnly: true}
    - {name: shm, mountPath: /dev/shm}
    - {name: disk, mountPath: /data}
  volumes:
  - {name: cfg, configMap: {name: run}}
  - {name: key, secret: {secretName: key, defaultMode: 288}}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  - {name: disk, persistentVolumeClaim: {claimName: disk}}
"#;
    let Some(cluster) = cluster(manifests).await else { return };
    assert_eq!(cluster.ignored.len(), 1, "{:?}", cluster.ignored);
    cluster.wait_ready("app=p", SOON).await.unwrap();
    let ip = cluster.pods().await.unwrap()[0].ip.unwrap();
    assert_eq!(
        sh(&cluster, "p", "cat /data/order; id -u; id -G; hostname; cat /etc/key/key.pem").await,
        "one\ntwo\n65532\n65532\np\nhello"
    );
    let said = |_: &Snapshot| cluster.logs("p").unwrap().contains(&format!("p info at {ip} says hi")).then_some(());
    cluster.wait("first words of p", SOON, said).await.unwrap();
    assert_eq!(sh(&cluster, "p", "touch /x 2>/dev/null || touch /etc/run/x 2>/dev/null || echo read-only").await, "read-only");
    assert_eq!(sh(&cluster, "p", "head -c 2000000 /dev/zero > /dev/shm/x 2>/dev/null || echo full").await, "full");
    assert_eq!(sh(&cluster, "p", "grep CapEff /proc/self/status").await.split('\t').next_back(), Some("0000000000000000"));

    // An update reaches the running pod's files, by one link; its environment stays.
    cluster.apply(&manifests.replace("x = 1", "x = 2")).await.unwrap();
    assert_eq!(sh(&cluster, "p", "cat /etc/run/run.toml; readlink /etc/run/run.toml").await, "x = 2..data/run.toml");

    // The claim outlives the pod, which nobody but its manifest brings back.
    let first = cluster.pods().await.unwrap()[0].uid.clone();
    cluster.delete_pod("p").await.unwrap();
    let again = |snapshot: &Snapshot| snapshot.pod("p").filter(|pod| pod.uid != first && pod.ready).map(|_| ());
    cluster.wait("another p", SOON, again).await.unwrap();
    assert_eq!(sh(&cluster, "p", "cat /data/order | wc -l").await, "4");
}

#[tokio::test]
async fn a_pod_is_asked_to_end_then_made_to() {
    let hook = deployment("hook", 1, ", --drain, '100'", "")
        .replace("        ports:", "        lifecycle: {preStop: {sleep: {seconds: 0.3}}}\n        ports:");
    let deaf = "kind: Pod\nmetadata: {name: deaf, labels: {app: deaf}}\nspec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  \
                containers: [{name: main, image: x, command: [sleep, '60']}]\n---\n";
    let Some(cluster) = cluster(&(hook + deaf)).await else { return };
    cluster.wait_ready("app=hook", SOON).await.unwrap();
    cluster.wait_ready("app=deaf", SOON).await.unwrap();
    let pod = names(&cluster, "hook").await[0].clone();
    for name in [&pod, "deaf"] {
        cluster.delete_pod(name).await.unwrap();
    }
    let replaced = |snapshot: &Snapshot| (snapshot.pod(&pod).is_none() && snapshot.select("app=hook").len() == 1).then_some(());
    cluster.wait("hook's end", SOON, replaced).await.unwrap();
    let killed =
        |_: &Snapshot| cluster.events().unwrap().iter().any(|event| event["object"] == "deaf" && event["code"] == 137).then_some(());
    cluster.wait("deaf's end", SOON, killed).await.unwrap();
    assert!(cluster.logs(&pod).unwrap().ends_with("SIGTERM\ndrained\n"));
    let events = cluster.events().unwrap();
    let at = |object: &str, event: &str, value: &str| {
        let found = events.iter().find(|line| line["object"] == object && line["event"] == event && line.to_string().contains(value));
        found.unwrap_or_else(|| panic!("{object} {event} {value}"))["at"].as_f64().unwrap()
    };
    assert!(at(&pod, "signalled", "TERM") - at(&pod, "evicted", "") >= 0.29, "preStop comes first");
    assert!(at(&pod, "exited", "\"code\":0") - at(&pod, "signalled", "TERM") >= 0.09, "the program drained");
    // Process 1 does not handle SIGTERM, and so does not hear it.
    assert!(at("deaf", "signalled", "KILL") - at("deaf", "evicted", "") >= 0.95, "SIGKILL comes after the grace");
}

#[tokio::test]
async fn containers_are_started_again_when_they_crash_or_stop_being_alive() {
    let Some(cluster) = cluster(&deployment("a", 1, "", "")).await else { return };
    cluster.wait_ready("app=a", SOON).await.unwrap();
    let pod = names(&cluster, "a").await[0].clone();
    let restarted = |times| {
        let pod = pod.clone();
        move |snapshot: &Snapshot| snapshot.pod(&pod).filter(|pod| pod.restarts == times && pod.ready).map(|pod| pod.exits["main"])
    };
    cluster.kill_pod(&pod).await.unwrap();
    assert_eq!(cluster.wait("a restart", SOON, restarted(1)).await.unwrap(), 137);
    sh(&cluster, &pod, "touch /tmp/dead").await;
    assert_eq!(cluster.wait("a second restart", SOON, restarted(2)).await.unwrap(), 0, "it was asked to end");
    cluster.pause_pod(&pod).await.unwrap();
    assert_eq!(cluster.wait("a third restart", SOON, restarted(3)).await.unwrap(), 137, "a stopped program hears nothing");
}

#[tokio::test]
async fn nothing_is_left_behind_however_it_ends() {
    if let Err(reason) = Permit::check() {
        return hypereyes_tests::skip(&reason);
    }
    let mark = format!("left-{}", std::process::id());
    let pod = format!(
        "kind: Pod\nmetadata: {{name: p}}\nspec: {{containers: [{{name: main, image: x, command: [sh, -c, 'sleep 61; : {mark}']}}]}}\n"
    );
    let links = || String::from_utf8(Command::new("ip").args(["-o", "link"]).output().unwrap().stdout).unwrap();
    let before = links();

    let cluster = cluster(&pod).await.unwrap();
    let running = |snapshot: &Snapshot| snapshot.pod("p").filter(|pod| pod.phase == Phase::Running).map(|_| ());
    cluster.wait("a pod", SOON, running).await.unwrap();
    let folder = cluster.folder().to_owned();
    // It runs before what it runs has its name.
    let named = async {
        while namespaces(&mark).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, named).await.expect("the pod has a network of its own");
    // A test that fails drops its cluster on the way.
    let failed = tokio::spawn(async move {
        let _cluster = cluster;
        panic!("on purpose");
    });
    assert!(failed.await.is_err());
    assert!(namespaces(&mark).is_empty() && !folder.exists());

    // The command line, killed without a word: its pods go with it.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pod).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let mut kubesim = Command::new(env!("CARGO_BIN_EXE_kubesim"));
    kubesim
        .arg("up")
        .arg(file.path())
        .arg("--binary")
        .arg(format!("x={}", env!("CARGO_BIN_EXE_kubesim")))
        .arg("--scratch")
        .arg(scratch.path());
    let mut kubesim = kubesim.stdout(std::process::Stdio::null()).spawn().unwrap();
    // Not before: what starts it has yet to ask to die with its parent.
    wait(|| commands().any(|line| line.starts_with(&format!("sh\0-c\0sleep 61; : {mark}"))));
    kubesim.kill().unwrap();
    kubesim.wait().unwrap();
    wait(|| namespaces(&mark).is_empty());
    assert_eq!(links(), before, "the host's network is as it was");
    assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains("kubesim-"));
}

/// Network namespaces of processes whose command line has a mark.
fn namespaces(mark: &str) -> BTreeSet<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let marked =
        processes.filter(|path| std::fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(mark)));
    marked.filter_map(|path| std::fs::read_link(path.join("ns/net")).ok()).map(|link| link.display().to_string()).collect()
}

/// Command lines of all processes.
fn commands() -> impl Iterator<Item = String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok()).map(|line| String::from_utf8_lossy(&line).into_owned())
}

fn wait(done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited too long");
}
