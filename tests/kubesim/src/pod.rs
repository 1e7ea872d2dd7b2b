//! The life of one pod: sandbox, volumes, what runs in it (`containers.rs`), and what others may ask of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::amount::seconds;
use crate::container::{enter, signal};
use crate::containers::{self, Inside};
use crate::manifest::list;
use crate::plan::Plan;
use crate::sandbox::Sandbox;
use crate::status::{Phase, PodInfo};
use crate::world::World;

/// A pod, its task's state for everybody else on the thread to see.
pub struct Pod {
    /// What it was made from.
    pub plan: Plan,
    /// Its folder: sandbox, scripts, volumes, names.
    pub folder: PathBuf,
    /// What is known of it.
    pub info: RefCell<PodInfo>,
    /// Process of the sandbox, whose network it is; 0 where there is none.
    pub sandbox: RefCell<u32>,
    /// Containers that run: process on the node, and how it was launched.
    pub running: RefCell<BTreeMap<String, (u32, Vec<String>)>>,
    ready: RefCell<BTreeMap<String, bool>>,
    /// When it has to be over, once it was told to end.
    end: watch::Sender<Option<Instant>>,
}

impl Pod {
    /// A pod whose task is not running yet.
    pub fn new(plan: Plan, scratch: &Path) -> Self {
        let info = PodInfo {
            name: plan.name().to_owned(),
            namespace: plan.namespace().to_owned(),
            uid: plan.uid.clone(),
            serial: plan.serial,
            owner: plan.blueprint.owner.clone(),
            revision: plan.blueprint.revision.clone(),
            index: plan.blueprint.index,
            labels: plan.labels.clone(),
            hostname: plan.hostname.clone(),
            subdomain: plan.spec()["subdomain"].as_str().map(str::to_owned),
            ip: None,
            phase: Phase::Pending,
            ready: false,
            terminating: false,
            disrupted: false,
            restarts: 0,
            exits: BTreeMap::new(),
            reason: "ContainerCreating".to_owned(),
        };
        let folder = scratch.join("pods").join(format!("{}-{}", plan.serial, plan.name()));
        let (sandbox, running, ready) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { folder, info: RefCell::new(info), sandbox, running, ready, end: watch::Sender::new(None), plan }
    }

    /// Asks the pod to end within its own grace period, or within another.
    pub fn stop(&self, grace: Option<Duration>) {
        let until = Instant::now() + grace.unwrap_or_else(|| self.grace());
        self.info.borrow_mut().terminating = true;
        self.end.send_modify(|end| *end = Some(end.map_or(until, |end| end.min(until))));
    }

    /// Sends a signal to process 1 of a container, or of every container that runs.
    pub fn signal(&self, container: Option<&str>, which: Signal) {
        for (_, (pid, _)) in self.running.borrow().iter().filter(|(name, _)| container.is_none_or(|one| one == *name)) {
            signal(*pid, which);
        }
    }

    /// A command to be run in a container, the first where none is named.
    pub fn exec(&self, container: Option<&str>, argv: &[String]) -> Result<Command> {
        let running = self.running.borrow();
        let first = || list(&self.plan.spec()["containers"]).next().and_then(|one| one["name"].as_str());
        let found = container.or_else(first).and_then(|name| running.get(name));
        let (pid, launch) = found.with_context(|| format!("no such container runs in `{}`", self.plan.name()))?;
        Ok(enter(*pid, launch, argv))
    }

    /// Makes the pod's hosts file say this; a process sees the old or the new one, never half of it.
    pub fn names(&self, text: &str) -> Result<()> {
        let (file, fresh) = (self.folder.join("etc/hosts"), self.folder.join("etc/hosts.new"));
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            return Ok(());
        }
        fs::write(&fresh, text)?;
        Ok(fs::rename(fresh, file)?)
    }

    /// How long it gets to end.
    pub fn grace(&self) -> Duration {
        seconds(&self.plan.spec()["terminationGracePeriodSeconds"], 30)
    }

    /// Returns once it was told to end.
    pub async fn told(&self) {
        let _ = self.end.subscribe().wait_for(Option::is_some).await;
    }

    /// Returns once its time is up; the time may be shortened on the way.
    pub async fn overdue(&self) {
        let mut end = self.end.subscribe();
        loop {
            let until = *end.borrow_and_update();
            tokio::select! {
                () = async { match until { Some(until) => sleep_until(until).await, None => std::future::pending().await } } => return,
                _ = end.changed() => {}
            }
        }
    }

    /// Whether it was told to end.
    pub fn stopping(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// A container of it is ready, or no longer.
    pub fn mark(&self, world: &World, container: &str, ready: bool) {
        let before = self.info.borrow().ready;
        self.ready.borrow_mut().insert(container.to_owned(), ready);
        let spec = self.plan.spec();
        let count = list(&spec["containers"]).chain(list(&spec["initContainers"]).filter(|one| containers::is_sidecar(one))).count();
        let all = self.ready.borrow().values().filter(|ready| **ready).count() == count;
        if before != all {
            self.info.borrow_mut().ready = all;
            world.events.note(if all { "ready" } else { "unready" }, self.plan.name(), json!({}));
            world.changed.notify_one();
        }
    }
}

/// The pod's task.
pub async fn run(pod: Rc<Pod>, world: Rc<World>) {
    let phase = match live(&pod, &world).await {
        Ok(phase) => phase,
        Err(error) => {
            pod.info.borrow_mut().reason = format!("{error:#}");
            Phase::Failed
        }
    };
    {
        let mut info = pod.info.borrow_mut();
        (info.phase, info.ready) = (phase, false);
        world.events.note("ended", &info.name, json!({"phase": format!("{phase:?}"), "exits": info.exits, "reason": info.reason}));
    }
    world.changed.notify_one();
}

async fn live(pod: &Pod, world: &World) -> Result<Phase> {
    for part in ["root", "etc", "volumes"] {
        fs::create_dir_all(pod.folder.join(part))?;
    }
    pod.names("127.0.0.1 localhost\n")?;
    let Some(volumes) = provided(pod, world).await else { return Ok(Phase::Failed) };
    let sandbox = Sandbox::start(&world.node, &pod.plan, &pod.folder).await?;
    *pod.sandbox.borrow_mut() = sandbox.pid;
    pod.info.borrow_mut().ip = Some(sandbox.ip);
    world.events.note("addressed", pod.plan.name(), json!({"ip": sandbox.ip.to_string()}));
    // Names are there before the first program looks, its own among them, and everybody else's file has it.
    world.publish_names();

    let outcome = containers::run(Inside { pod, world, sandbox: &sandbox, volumes: &volumes }).await;
    *pod.sandbox.borrow_mut() = 0;
    sandbox.stop().await;
    Ok(outcome)
}

/// Waits for everything that the volumes name.
async fn provided(pod: &Pod, world: &World) -> Option<BTreeMap<String, PathBuf>> {
    loop {
        match world.volumes(pod) {
            Ok(volumes) => return Some(volumes),
            Err(error) => waits(pod, world, &format!("{error:#}")),
        }
        tokio::select! { () = pod.told() => return None, () = sleep(Duration::from_millis(200)) => {} }
    }
}

/// Says what a pod waits for, once.
pub fn waits(pod: &Pod, world: &World, reason: &str) {
    let mut info = pod.info.borrow_mut();
    if info.reason != reason {
        info.reason = reason.to_owned();
        world.events.note("waits", pod.plan.name(), json!({"for": reason}));
    }
}
