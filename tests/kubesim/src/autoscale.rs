//! The autoscalers' loop: reads metrics where they are, and scales.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::control::Control;
use crate::hosts::behind;
use crate::manifest::{Key, list};
use crate::scrape;
use crate::status::{PodInfo, replicas};
use crate::workloads::scaler::{Memory, Reading, decide, desired};

/// What Kubernetes' period is, unless its controller manager is told otherwise.
const USUAL_PERIOD: f64 = 15.0;

/// Looks at every autoscaler once a period, for ever.
pub async fn run(control: Rc<Control>) {
    let period = control.world.options.hpa_period;
    let pace = USUAL_PERIOD / period.as_secs_f64().max(0.001);
    let mut memories = BTreeMap::<Key, Memory>::new();
    loop {
        tokio::time::sleep(period).await;
        let objects = control.world.objects.borrow().clone();
        for (key, body) in objects.iter().filter(|(key, _)| key.kind == "HorizontalPodAutoscaler") {
            let spec = &body["spec"];
            let word = |field: &str| spec["scaleTargetRef"][field].as_str().unwrap_or_default();
            let target = Key::new(word("kind"), &key.namespace, word("name"));
            let Some(replicas) = objects.get(&target).map(replicas) else {
                control.world.events.note("trouble", &key.to_string(), json!({"target": format!("{target} not found")}));
                continue;
            };
            let mut desired = vec![];
            for metric in list(&spec["metrics"]) {
                desired.push(read(&control, metric, &target, replicas).await);
            }
            let memory = memories.entry(key.clone()).or_default();
            let decided = decide(spec, replicas, &desired, memory, Instant::now(), pace);
            control.world.events.note("measured", &key.to_string(), json!({"replicas": replicas, "desired": desired, "decided": decided}));
            if decided != replicas && control.scale(&target.kind, &target.name, decided).is_err() {
                memories.remove(key);
            }
        }
    }
}

/// What a metric asks for; `None` where it cannot be read.
async fn read(control: &Control, metric: &Value, target: &Key, replicas: u32) -> Option<u32> {
    let infos = control.world.infos();
    let own: Vec<_> = infos.iter().filter(|pod| &pod.owner == target).collect();
    let ready = own.iter().filter(|pod| pod.serving()).count() as u32;
    let (source, pods): (&Value, Vec<&PodInfo>) = match metric["type"].as_str()? {
        "Pods" => (&metric["pods"], own.iter().copied().filter(|pod| pod.serving()).collect()),
        "Object" => {
            let described = &metric["object"]["describedObject"];
            let object = Key::new(described["kind"].as_str()?, &target.namespace, described["name"].as_str()?);
            let pods = match object.kind.as_str() {
                "Service" => behind(&object, &control.world.objects.borrow(), &infos),
                "Pod" => infos.iter().filter(|pod| pod.name == object.name).collect(),
                _ => infos.iter().filter(|pod| pod.owner == object).collect(),
            };
            (&metric["object"], pods)
        }
        "External" => (&metric["external"], infos.iter().filter(|pod| pod.namespace == target.namespace).collect()),
        kind => {
            control.world.events.note("trouble", &target.to_string(), json!({"metric": format!("{kind} metrics are not simulated")}));
            return None;
        }
    };
    let (name, selector) = (source["metric"]["name"].as_str()?, &source["metric"]["selector"]);
    let mut total = None;
    for pod in pods.iter().filter(|pod| pod.active()) {
        if let Some(sum) = page(control, &pod.name).await.ok().and_then(|page| scrape::sum(&page, name, selector)) {
            *total.get_or_insert(0.0) += sum;
        }
    }
    desired(&source["target"], Reading { total: total?, pods: ready }, replicas)
}

/// A pod's page of metrics.
pub async fn page(control: &Control, name: &str) -> anyhow::Result<String> {
    let pod = control.world.pod(name)?;
    let ip = pod.info.borrow().ip.ok_or_else(|| anyhow::anyhow!("`{name}` has no address yet"))?;
    scrape::metrics(pod.plan.spec(), &pod.plan.blueprint.template["metadata"]["annotations"], ip).await
}
