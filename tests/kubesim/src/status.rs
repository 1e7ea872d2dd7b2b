//! What is known of a pod, and of the whole cluster, at one moment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::manifest::Key;

/// A pod's stage, in Kubernetes' words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It waits for volumes, environment or its init containers.
    #[default]
    Pending,
    /// Its containers have been started.
    Running,
    /// Every container ended with 0, and none is started again.
    Succeeded,
    /// Every container ended, one of them badly.
    Failed,
}

impl Phase {
    /// Whether nothing of it runs any more.
    pub fn ended(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// One pod. A container that is restarted keeps its pod; a pod that is replaced gets another name, uid and address.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Name, as `kubectl get pods` prints it.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Unique over time.
    pub uid: String,
    /// Order of birth in this cluster.
    pub serial: u32,
    /// The object that made it.
    pub owner: Key,
    /// Hash of the template that it was made from.
    pub revision: String,
    /// Ordinal of a StatefulSet, completion index of a Job.
    pub index: Option<u32>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Host name.
    pub hostname: String,
    /// The headless Service under which its host name is found.
    pub subdomain: Option<String>,
    /// Address on the bridge, once there is a network namespace.
    pub ip: Option<Ipv4Addr>,
    /// Stage.
    pub phase: Phase,
    /// Whether every container's readiness probe last succeeded.
    pub ready: bool,
    /// It has been told to end.
    pub terminating: bool,
    /// It ended because somebody evicted it: the condition `DisruptionTarget`.
    pub disrupted: bool,
    /// Restarts of its containers, added up.
    pub restarts: u32,
    /// Last exit code of each container, 128 + signal where one ended it.
    pub exits: BTreeMap<String, i32>,
    /// Why it is not further.
    pub reason: String,
}

impl PodInfo {
    /// Whether it counts as one of its owner's pods.
    pub fn active(&self) -> bool {
        !self.terminating && !self.phase.ended()
    }

    /// Whether nothing of it is left but this record.
    pub fn gone(&self) -> bool {
        self.terminating && self.phase.ended()
    }

    /// Whether a Service sends to it.
    pub fn serving(&self) -> bool {
        self.ready && self.active()
    }
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every index succeeded.
    Complete,
    /// Why it was given up, in the words of the condition's reason and message.
    Failed {
        /// `BackoffLimitExceeded`, `PodFailurePolicy`, `DeadlineExceeded`.
        reason: String,
        /// Which pod, which rule.
        message: String,
    },
}

/// Everything that can be waited for, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Pods that exist, and finished ones of Jobs that exist.
    pub pods: Vec<PodInfo>,
    /// What each Deployment, StatefulSet and Job wants to have running: how many pods, of which revision.
    pub wanted: BTreeMap<Key, (u32, String)>,
    /// How each Job ended; `None` while it runs.
    pub jobs: BTreeMap<Key, Option<Verdict>>,
}

impl Snapshot {
    /// The newest pod of that name.
    pub fn pod(&self, name: &str) -> Option<&PodInfo> {
        self.pods.iter().rev().find(|pod| pod.name == name)
    }

    /// Pods whose labels fit `key=value,key=value`.
    pub fn select(&self, selector: &str) -> Vec<&PodInfo> {
        let wanted: Vec<_> = selector.split(',').filter_map(|pair| pair.split_once('=')).collect();
        self.pods.iter().filter(|pod| wanted.iter().all(|(key, value)| pod.labels.get(*key).is_some_and(|label| label == value))).collect()
    }

    /// Whether the selected pods are there and ready, and no rollout of theirs is under way.
    pub fn settled(&self, selector: &str) -> bool {
        let pods = self.select(selector);
        let owners = pods.iter().map(|pod| &pod.owner);
        let complete = owners.filter_map(|owner| self.wanted.get_key_value(owner)).all(|(owner, (replicas, revision))| {
            let of_it: Vec<_> = self.pods.iter().filter(|pod| &pod.owner == owner && !pod.phase.ended()).collect();
            of_it.len() == *replicas as usize && of_it.iter().all(|pod| pod.serving() && &pod.revision == revision)
        });
        complete && !pods.is_empty() && pods.iter().filter(|pod| !pod.phase.ended()).all(|pod| pod.serving())
    }
}

/// Replicas that an object asks for.
pub fn replicas(body: &Value) -> u32 {
    crate::amount::count(&body["spec"]["replicas"], 1)
}
