//! What runs in a pod, in its order: init containers, sidecars among them, containers, with their probes, restarts and end.
//!
//! In: a pod whose sandbox and volumes are there. Out: the phase in which it ended. It knows nothing of other pods.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::amount::seconds;
use crate::container::{Process, signal};
use crate::manifest::list;
use crate::pod::{Pod, waits};
use crate::probe;
use crate::sandbox::Sandbox;
use crate::status::Phase;
use crate::world::World;

/// What every container of a pod is given.
#[derive(Clone, Copy)]
pub struct Inside<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The cluster.
    pub world: &'a World,
    /// The pod's namespaces.
    pub sandbox: &'a Sandbox,
    /// Where its volumes are on this machine.
    pub volumes: &'a BTreeMap<String, PathBuf>,
}

/// What a container is to its pod.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that is always restarted: others start once it has, and it ends after them.
    Sidecar(&'a watch::Sender<Stage>),
    /// One of `containers`.
    Main,
}

/// How far a sidecar is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Waits,
    Begun,
    Started,
    Told,
    Over,
}

/// A sidecar is at least so far now.
fn raise(stage: &watch::Sender<Stage>, to: Stage) {
    stage.send_if_modified(|now| {
        let further = *now < to;
        *now = to.max(*now);
        further
    });
}

/// Returns once a sidecar is so far.
async fn reach(stage: &watch::Sender<Stage>, to: Stage) {
    let _ = stage.subscribe().wait_for(|now| *now >= to).await;
}

/// Runs everything that the pod consists of; sidecars end last, in reverse order, and their exit codes count nothing.
pub async fn run(inside: Inside<'_>) -> Phase {
    let sidecars: Vec<_> = list(&inside.pod.plan.spec()["initContainers"])
        .filter(|one| is_sidecar(one))
        .map(|one| (one, watch::Sender::new(Stage::Waits)))
        .collect();
    let beside = join_all(sidecars.iter().map(|(container, stage)| async move {
        reach(stage, Stage::Begun).await;
        if *stage.borrow() < Stage::Told {
            supervise(inside, container, Part::Sidecar(stage)).await;
        }
        raise(stage, Stage::Over);
    }));
    let others = async {
        let phase = in_turn(inside, &sidecars).await;
        for (_, stage) in sidecars.iter().rev() {
            raise(stage, Stage::Told);
            reach(stage, Stage::Over).await;
        }
        phase
    };
    tokio::join!(beside, others).1
}

/// Whether an init container stays.
pub fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// Init containers one after the other, then all containers.
async fn in_turn(inside: Inside<'_>, sidecars: &[(&Value, watch::Sender<Stage>)]) -> Phase {
    let Inside { pod, world, .. } = inside;
    let spec = pod.plan.spec();
    let mut sidecars = sidecars.iter();
    for container in list(&spec["initContainers"]) {
        if is_sidecar(container) {
            let (_, stage) = sidecars.next().expect("one for each");
            raise(stage, Stage::Begun);
            tokio::select! { () = reach(stage, Stage::Started) => {} () = pod.told() => {} }
        } else if supervise(inside, container, Part::Init).await != 0 {
            return Phase::Failed;
        }
        if pod.stopping() {
            return Phase::Failed;
        }
    }
    {
        let mut info = pod.info.borrow_mut();
        (info.phase, info.reason) = (Phase::Running, String::new());
    }
    world.changed.notify_one();
    let containers = list(&spec["containers"]).map(|container| supervise(inside, container, Part::Main));
    if join_all(containers).await.iter().all(|code| *code == 0) { Phase::Succeeded } else { Phase::Failed }
}

impl Part<'_> {
    /// Probes and hooks are for containers that stay.
    fn stays(self) -> bool {
        !matches!(self, Part::Init)
    }

    /// When the container is started again.
    fn policy(self, pod: &Pod) -> &str {
        let policy = pod.plan.spec()["restartPolicy"].as_str().unwrap_or("Always");
        match self {
            Part::Sidecar(_) => "Always",
            Part::Init if policy == "Always" => "OnFailure",
            _ => policy,
        }
    }

    /// Returns once the container has to end: with its pod, or, a sidecar, after the others.
    async fn told(self, pod: &Pod) {
        match self {
            Part::Sidecar(stage) => reach(stage, Stage::Told).await,
            _ => pod.told().await,
        }
    }

    fn is_told(self) -> bool {
        matches!(self, Part::Sidecar(stage) if *stage.borrow() >= Stage::Told)
    }
}

/// Keeps one container going as its policy wants, and gives its last exit code.
async fn supervise(inside: Inside<'_>, container: &Value, part: Part<'_>) -> i32 {
    let Inside { pod, world, sandbox, volumes } = inside;
    let (name, policy) = (container["name"].as_str().unwrap_or_default(), part.policy(pod));
    let (first, mut pause) = (world.options.backoff, world.options.backoff);
    loop {
        let since = Instant::now();
        let code = match Process::start(world, pod, sandbox, volumes, container).await {
            Ok(process) => attend(inside, container, process, part).await,
            Err(error) => {
                waits(pod, world, &format!("{error:#}"));
                128
            }
        };
        pod.running.borrow_mut().remove(name);
        {
            let mut info = pod.info.borrow_mut();
            info.exits.insert(name.to_owned(), code);
            if code != 0 && code != 128 {
                info.reason = format!("`{name}` exited with {code}");
            }
        }
        if part.stays() {
            pod.mark(world, name, false);
        }
        world.events.note("exited", pod.plan.name(), json!({"container": name, "code": code}));
        if pod.stopping() || part.is_told() || policy == "Never" || policy == "OnFailure" && code == 0 {
            return code;
        }
        if since.elapsed() > first * 64 {
            pause = first;
        }
        tokio::select! { () = pod.told() => return code, () = part.told(pod) => return code, () = sleep(pause) => {} }
        pause = (pause * 2).min(first * 16);
        pod.info.borrow_mut().restarts += 1;
    }
}

/// Returns when a container's probes want it started again, and why; never once its pod has to end.
async fn unhealthy(inside: Inside<'_>, container: &Value, part: Part<'_>) -> String {
    let Inside { pod, world, sandbox, .. } = inside;
    let name = container["name"].as_str().unwrap_or_default();
    let probes = async {
        let period = world.options.probe_period;
        if let Err(why) = probe::startup(pod, container, sandbox.ip, period).await {
            return why;
        }
        if let Part::Sidecar(stage) = part {
            raise(stage, Stage::Started);
        }
        probe::watch(pod, container, sandbox.ip, period, |ready| pod.mark(world, name, ready)).await
    };
    if part.stays() {
        tokio::select! { why = probes => return why, () = pod.told() => {} }
    }
    std::future::pending().await
}

/// From a container's start to its end: its own, its probes', or its pod's.
async fn attend(inside: Inside<'_>, container: &Value, mut process: Process, part: Part<'_>) -> i32 {
    let Inside { pod, world, .. } = inside;
    let name = container["name"].as_str().unwrap_or_default();
    pod.running.borrow_mut().insert(name.to_owned(), (process.pid, process.launch.clone()));
    world.events.note("started", pod.plan.name(), json!({"container": name, "pid": process.pid}));
    let until;
    tokio::select! {
        code = process.wait() => return code,
        why = unhealthy(inside, container, part) => {
            world.events.note("unhealthy", pod.plan.name(), json!({"container": name, "why": why}));
            until = Some(Instant::now() + pod.grace());
        }
        // A sidecar's pod may have run to its end without being told to.
        () = part.told(pod) => until = part.is_told().then(|| Instant::now() + pod.grace()),
    }
    let overdue = async {
        tokio::select! {
            () = async { match until { Some(until) => sleep_until(until).await, None => std::future::pending().await } } => {}
            () = pod.overdue() => {}
        }
    };
    // A hook that takes the whole grace leaves none for SIGTERM; the kubelet would grant two more seconds.
    let pid = process.pid;
    let asked = async {
        if part.stays() {
            before_stop(pod, name, &container["lifecycle"]["preStop"]).await;
        }
        signal(pid, Signal::TERM);
        world.events.note("signalled", pod.plan.name(), json!({"container": name, "signal": "TERM"}));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        code = process.wait() => return code,
        () = asked => unreachable!("it asks and then waits for ever"),
        () = overdue => {}
    }
    signal(pid, Signal::KILL);
    world.events.note("signalled", pod.plan.name(), json!({"container": name, "signal": "KILL"}));
    process.wait().await
}

async fn before_stop(pod: &Pod, container: &str, hook: &Value) {
    if hook["sleep"].is_object() {
        sleep(seconds(&hook["sleep"]["seconds"], 0)).await;
    } else if hook["exec"].is_object() {
        let argv: Vec<_> = list(&hook["exec"]["command"]).filter_map(|word| word.as_str().map(str::to_owned)).collect();
        if let Ok(mut command) = pod.exec(Some(container), &argv) {
            // A hook that fails does not keep the container from being told to end.
            let _ = command.output().await;
        }
    }
}
