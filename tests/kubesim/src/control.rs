//! The loop that owns the world: applies manifests, asks the controllers, does what they say.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::LocalBoxFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::amount::share;
use crate::hosts;
use crate::manifest::{self, Key, selects};
use crate::plan::{Blueprint, revision};
use crate::sandbox::{cut, mend};
use crate::status::{PodInfo, Snapshot, replicas};
use crate::workloads::{Action, deployment, job, stateful};
use crate::world::World;

/// Work for the cluster's thread.
pub type Order = Box<dyn FnOnce(Rc<Control>) -> LocalBoxFuture<'static, ()> + Send>;

/// The world, and what the controllers remember.
pub struct Control {
    /// Objects and pods.
    pub world: Rc<World>,
    progress: RefCell<BTreeMap<Key, job::Progress>>,
    /// Claims that StatefulSets made: no manifest names them, and they stay.
    claims: RefCell<BTreeSet<Key>>,
    /// Cuts to be mended: whose network, to which address.
    cuts: RefCell<Vec<(u32, std::net::Ipv4Addr)>>,
}

impl Control {
    /// Nothing applied yet.
    pub fn new(world: Rc<World>) -> Self {
        Self { world, progress: RefCell::default(), claims: RefCell::default(), cuts: RefCell::default() }
    }

    /// Serves orders until it is stopped, then kills every pod.
    ///
    /// Consumes orders and changes of pods; produces pods; waits for either, or 100 ms.
    pub async fn run(self: Rc<Self>, mut orders: mpsc::Receiver<Order>, mut stopped: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                Some(work) = orders.recv() => drop(tokio::task::spawn_local(work(self.clone()))),
                _ = &mut stopped => break,
                () = self.world.changed.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            self.reconcile();
        }
        let pods = self.world.pods.borrow().clone();
        for pod in &pods {
            pod.stop(Some(Duration::ZERO));
        }
        // Whatever does not end now ends with this thread.
        let patience = Instant::now() + Duration::from_secs(10);
        while pods.iter().any(|pod| !pod.info.borrow().phase.ended()) && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.world.events.note("down", "cluster", json!({}));
    }

    /// Makes the objects those of the manifests: what is new, what differs, what is no longer there. All or nothing.
    pub fn apply(&self, text: &str) -> Result<Vec<String>> {
        let (mut fresh, mut ignored) = manifest::parse(text)?;
        let mut objects = self.world.objects.borrow_mut();
        for (key, body) in &mut fresh {
            let Some(old) = objects.get(key) else { continue };
            if body["spec"]["replicas"].is_null() && body["spec"]["template"].is_object() && key.kind != "Job" {
                body["spec"]["replicas"] = old["spec"]["replicas"].clone();
            }
            for field in ["template", "completions", "completionMode"] {
                let same = body["spec"][field] == old["spec"][field];
                ensure!(same || key.kind != "Job", "{key}: spec.{field} is immutable; delete the Job first, or give it another name");
            }
        }
        ignored.extend(hosts::untranslated(&fresh));
        let note = |event: &str, key: &Key| self.world.events.note(event, &key.to_string(), json!({}));
        for (key, _) in objects.extract_if(.., |key, _| !fresh.contains_key(key) && !self.claims.borrow().contains(key)) {
            note("deleted", &key);
            self.progress.borrow_mut().remove(&key);
            for pod in self.world.pods.borrow().iter().filter(|pod| pod.info.borrow().owner == key) {
                // Nobody's now, so that they do not count for an object of the same name.
                pod.info.borrow_mut().owner.kind = "Orphan".to_owned();
            }
        }
        for (key, body) in fresh {
            match objects.get(&key) {
                Some(old) if *old == body => continue,
                Some(_) => note("configured", &key),
                None => note("applied", &key),
            }
            objects.insert(key, body);
        }
        drop(objects);
        for line in &ignored {
            self.world.events.note("ignored", line, json!({}));
        }
        for pod in self.world.pods.borrow().iter().filter(|pod| pod.info.borrow().ip.is_some()) {
            // A volume whose object has gone keeps what it had, as the kubelet leaves it.
            let _ = self.world.volumes(pod);
        }
        self.world.changed.notify_one();
        Ok(ignored)
    }

    /// Sets a workload's replicas, as `kubectl scale` does.
    pub fn scale(&self, kind: &str, name: &str, count: u32) -> Result<()> {
        let mut objects = self.world.objects.borrow_mut();
        let found = objects.iter_mut().find(|(key, _)| key.kind == kind && key.name == name);
        let (_, body) = found.with_context(|| format!("there is no {kind} `{name}`"))?;
        body["spec"]["replicas"] = json!(count);
        self.world.events.note("scaled", &format!("{kind}/{name}"), json!({"replicas": count}));
        self.world.changed.notify_one();
        Ok(())
    }

    /// Evicts a pod; with `budget` it is refused where a PodDisruptionBudget has nothing left.
    pub fn evict(&self, name: &str, budget: bool) -> Result<()> {
        let (pod, infos) = (self.world.pod(name)?, self.world.infos());
        if budget {
            self.afford(&pod.info.borrow(), &infos)?;
        }
        pod.info.borrow_mut().disrupted = true;
        self.world.events.note("evicted", name, json!({}));
        pod.stop(None);
        self.world.changed.notify_one();
        Ok(())
    }

    fn afford(&self, pod: &PodInfo, pods: &[PodInfo]) -> Result<()> {
        for (key, body) in self.world.objects.borrow().iter().filter(|(key, _)| key.kind == "PodDisruptionBudget") {
            let covered = |pod: &&PodInfo| pod.namespace == key.namespace && selects(&body["spec"]["selector"], &pod.labels);
            if !covered(&pod) || !pod.ready && body["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
                continue;
            }
            let owners: BTreeSet<_> = pods.iter().filter(covered).map(|pod| &pod.owner).collect();
            let objects = self.world.objects.borrow();
            let expected: u32 = owners.iter().filter_map(|owner| objects.get(owner)).map(size).sum();
            let healthy = pods.iter().filter(covered).filter(|pod| pod.serving()).count() as u32;
            let least = match &body["spec"]["maxUnavailable"] {
                Value::Null => share(&body["spec"]["minAvailable"], expected, true, "0"),
                most => expected.saturating_sub(share(most, expected, true, "0")),
            };
            if healthy <= least {
                bail!("{key} needs {least} of {expected} and has {healthy}: cannot evict `{}`", pod.name);
            }
        }
        Ok(())
    }

    /// Cuts every pod of one side from every pod of the other, in both directions or only from the first to the second.
    pub async fn partition(&self, one: &[String], other: &[String], both: bool) -> Result<()> {
        let find = |names: &[String]| names.iter().map(|name| self.world.pod(name)).collect::<Result<Vec<_>>>();
        let (one, other) = (find(one)?, find(other)?);
        for (from, to) in one.iter().flat_map(|from| other.iter().map(move |to| (from, to))) {
            for (from, to) in [(from, to), (to, from)].into_iter().take(if both { 2 } else { 1 }) {
                let (pid, ip) = (*from.sandbox.borrow(), to.info.borrow().ip.context("a pod has no address yet")?);
                self.world.events.note("cut", from.plan.name(), json!({"to": to.plan.name()}));
                cut(pid, ip).await?;
                self.cuts.borrow_mut().push((pid, ip));
            }
        }
        Ok(())
    }

    /// Mends every cut.
    pub async fn heal(&self) {
        let cuts = std::mem::take(&mut *self.cuts.borrow_mut());
        self.world.events.note("healed", "cluster", json!({"cuts": cuts.len()}));
        for (pid, ip) in cuts {
            // A pod that has ended took its cuts with it.
            let _ = mend(pid, ip).await;
        }
    }

    /// Everything that can be waited for.
    pub fn snapshot(&self) -> Snapshot {
        let objects = self.world.objects.borrow();
        let mut snapshot = Snapshot { pods: self.world.infos(), ..Snapshot::default() };
        for (key, body) in objects.iter() {
            match key.kind.as_str() {
                "Deployment" | "StatefulSet" => {
                    snapshot.wanted.insert(key.clone(), (replicas(body), revision(&body["spec"]["template"])));
                }
                "Job" => {
                    let progress = self.progress.borrow();
                    let left = progress.get(key).map_or(u32::MAX, |progress| progress.left(body));
                    snapshot.wanted.insert(key.clone(), (left, revision(&body["spec"]["template"])));
                    snapshot.jobs.insert(key.clone(), progress.get(key).and_then(|progress| progress.verdict.clone()));
                }
                _ => {}
            }
        }
        snapshot
    }

    /// One round of every controller.
    fn reconcile(&self) {
        let (objects, infos) = (self.world.objects.borrow().clone(), self.world.infos());
        let mut actions = vec![];
        for (key, body) in &objects {
            let own: Vec<_> = infos.iter().filter(|pod| &pod.owner == key).cloned().collect();
            match key.kind.as_str() {
                "Deployment" => actions.extend(deployment::reconcile(key, body, &own)),
                "StatefulSet" => {
                    for (claim, body) in stateful::claims(key, body) {
                        self.world.objects.borrow_mut().entry(claim.clone()).or_insert(body);
                        self.claims.borrow_mut().insert(claim);
                    }
                    actions.extend(stateful::reconcile(key, body, &own));
                }
                "Job" => {
                    let mut all = self.progress.borrow_mut();
                    let progress = all.entry(key.clone()).or_default();
                    let before = progress.verdict.is_some();
                    actions.extend(job::reconcile(key, body, &own, progress, self.world.options.backoff));
                    if let Some(verdict) = progress.verdict.as_ref().filter(|_| !before) {
                        self.world.events.note("job", &key.to_string(), json!({"verdict": format!("{verdict:?}")}));
                    }
                }
                "Pod" if own.is_empty() => actions.push(Action::Create(bare(key, body))),
                _ => {}
            }
        }
        let orphans = infos.iter().filter(|pod| !objects.contains_key(&pod.owner) && !pod.terminating);
        actions.extend(orphans.map(|pod| Action::Delete(pod.uid.clone(), "its owner was deleted")));
        for action in actions {
            match action {
                Action::Create(blueprint) => self.world.create(blueprint),
                Action::Delete(uid, why) => {
                    let pod = self.world.pods.borrow().iter().find(|pod| pod.plan.uid == uid).cloned();
                    if let Some(pod) = pod {
                        self.world.events.note("deleting", pod.plan.name(), json!({"why": why}));
                        pod.stop(None);
                    }
                }
            }
        }
        // A pod that has only now ended has not been counted by its Job yet; it goes in the next round.
        let seen: BTreeSet<_> = infos.iter().filter(|pod| pod.gone() || pod.phase.ended()).map(|pod| pod.uid.as_str()).collect();
        self.world.pods.borrow_mut().retain(|pod| !(pod.info.borrow().gone() && seen.contains(pod.plan.uid.as_str())));
        self.world.publish_names();
    }
}

fn bare(key: &Key, body: &Value) -> Blueprint {
    Blueprint { owner: key.clone(), name: key.name.clone(), unique: false, revision: revision(body), index: None, template: body.clone() }
}

/// How many pods an owner is meant to have.
fn size(body: &Value) -> u32 {
    crate::amount::count(&body["spec"]["parallelism"], replicas(body))
}
