//! What the cluster's one thread knows: objects, pods, and how it was asked to run.
//!
//! Everything lives on that thread, so cells take the place of locks; no borrow is held across an `await`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::sync::Notify;

use crate::events::Events;
use crate::hosts;
use crate::manifest::Objects;
use crate::node::Node;
use crate::plan::{Blueprint, Plan};
use crate::pod::{self, Pod};
use crate::status::{Phase, PodInfo};
use crate::volumes;

/// How a cluster is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Binaries that stand for images, by the last word of the image's name. A single one stands for every image.
    pub binaries: BTreeMap<String, PathBuf>,
    /// Where logs, volumes and claims go; a temporary folder that ends with the cluster where there is none.
    pub scratch: Option<PathBuf>,
    /// How often an autoscaler looks; 15 s in Kubernetes. Its windows and periods shrink by the same factor.
    pub hpa_period: Duration,
    /// No probe waits longer than this between two tries. Startup and liveness forgive more failures by the same factor, so
    /// that their patience stays what the manifests say; readiness follows sooner.
    pub probe_period: Option<Duration>,
    /// Pause before a container or a Job's pod is started again, doubled each time, up to 16 times this. 10 s in Kubernetes.
    pub backoff: Duration,
    /// Whether the event log goes to standard error too.
    pub echo: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            binaries: BTreeMap::new(),
            scratch: None,
            hpa_period: Duration::from_secs(15),
            probe_period: None,
            backoff: Duration::from_millis(250),
            echo: false,
        }
    }
}

/// Everything there is.
pub struct World {
    /// The machine.
    pub node: Node,
    /// What was applied.
    pub objects: RefCell<Objects>,
    /// Pods in order of birth, each with its own task.
    pub pods: RefCell<Vec<Rc<Pod>>>,
    /// The log.
    pub events: Events,
    /// Settings.
    pub options: Options,
    /// Something has happened that controllers may care about.
    pub changed: Notify,
    /// Pods made so far.
    pub born: Cell<u32>,
    /// What makes this cluster's names differ from another's.
    pub seed: u64,
}

impl World {
    /// Every pod, as it is now.
    pub fn infos(&self) -> Vec<PodInfo> {
        self.pods.borrow().iter().map(|pod| pod.info.borrow().clone()).collect()
    }

    /// The newest pod of that name.
    pub fn pod(&self, name: &str) -> Result<Rc<Pod>> {
        let pods = self.pods.borrow();
        pods.iter().rev().find(|pod| pod.plan.name() == name).cloned().with_context(|| format!("there is no pod `{name}`"))
    }

    /// Makes a pod and starts its task.
    pub fn create(self: &Rc<Self>, blueprint: Blueprint) {
        self.born.set(self.born.get() + 1);
        let pod = Rc::new(Pod::new(Plan::new(blueprint, self.born.get(), self.seed), &self.node.scratch));
        let owner = pod.plan.blueprint.owner.to_string();
        self.events.note("created", pod.plan.name(), json!({"by": owner, "revision": pod.plan.blueprint.revision}));
        self.pods.borrow_mut().push(pod.clone());
        let (task, world) = (tokio::task::spawn_local(pod::run(pod.clone(), self.clone())), self.clone());
        tokio::task::spawn_local(async move {
            if task.await.is_err() {
                // A mistake of ours; the pod must not look alive for ever.
                pod.info.borrow_mut().phase = Phase::Failed;
                world.events.note("trouble", pod.plan.name(), json!({"task": "panicked"}));
            }
        });
    }

    /// Writes every pod's hosts file that has to change.
    pub fn publish_names(&self) {
        let infos = self.infos();
        let ended = |pod: &Rc<Pod>| pod.info.borrow().phase.ended();
        for pod in self.pods.borrow().iter().filter(|pod| !ended(pod) && pod.info.borrow().ip.is_some()) {
            let text = hosts::render(&pod.info.borrow(), &infos, &self.objects.borrow());
            if let Err(error) = pod.names(&text) {
                self.events.note("trouble", pod.plan.name(), json!({"hosts": error.to_string()}));
            }
        }
    }

    /// Folders of a pod's volumes with what they have to hold now, or what is missing for that.
    pub fn volumes(&self, pod: &Pod) -> Result<BTreeMap<String, PathBuf>> {
        let objects = self.objects.borrow();
        let account = pod.plan.spec()["serviceAccountName"].as_str().filter(|account| *account != "default");
        if let Some(account) = account {
            pod.plan.object(&objects, "ServiceAccount", account).with_context(|| format!("ServiceAccount `{account}` not found"))?;
        }
        volumes::prepare(&pod.plan, &pod.folder, &self.node.scratch.join("claims"), &objects)
    }

    /// Name of the binary that stands for an image.
    pub fn binary(&self, image: &str) -> Option<String> {
        let word = image.rsplit('/').next().unwrap_or_default();
        let word = word.split(['@', ':']).next().unwrap_or_default();
        let names = &self.options.binaries;
        let only = names.keys().next().filter(|_| names.len() == 1);
        names.get_key_value(word).map(|(name, _)| name).or(only).cloned()
    }

    /// The log file of a pod's container.
    pub fn log(&self, pod: &str, container: &str) -> PathBuf {
        self.node.scratch.join("logs").join(format!("{pod}.{container}.log"))
    }
}
