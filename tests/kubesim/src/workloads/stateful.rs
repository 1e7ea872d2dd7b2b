//! StatefulSets: pods with numbers, made in order, ended in reverse, each with claims of its own.

use serde_json::{Value, json};

use crate::amount::count;
use crate::manifest::{Key, list};
use crate::plan::{Blueprint, revision};
use crate::status::{PodInfo, replicas};
use crate::workloads::Action;

/// What to do next; `pods` are the set's own.
pub fn reconcile(key: &Key, body: &Value, pods: &[PodInfo]) -> Vec<Action> {
    let (spec, wanted) = (&body["spec"], replicas(body));
    let (current, parallel) = (revision(&spec["template"]), spec["podManagementPolicy"] == "Parallel");
    let at = |ordinal: u32| pods.iter().find(|pod| pod.index == Some(ordinal));
    let delete = |pod: &PodInfo, why| vec![Action::Delete(pod.uid.clone(), why)];

    let mut actions = vec![];
    for ordinal in 0..wanted {
        match at(ordinal) {
            None => actions.push(Action::Create(blueprint(key, body, ordinal, &current))),
            Some(pod) if pod.phase.ended() && !pod.terminating => actions.extend(delete(pod, "ended")),
            Some(pod) if pod.serving() => continue,
            Some(_) => {}
        }
        if !parallel {
            return actions;
        }
    }
    let surplus = pods.iter().filter(|pod| pod.index >= Some(wanted)).max_by_key(|pod| pod.index);
    if let Some(pod) = surplus {
        return if pod.active() { delete(pod, "scaled down") } else { actions };
    }
    if !actions.is_empty() || spec["updateStrategy"]["type"] == "OnDelete" {
        return actions;
    }
    let kept = count(&spec["updateStrategy"]["rollingUpdate"]["partition"], 0);
    for pod in (kept..wanted).rev().filter_map(at) {
        if pod.revision != current && pod.active() {
            return delete(pod, "replaced");
        }
        if !pod.serving() {
            break;
        }
    }
    vec![]
}

/// Claims that the set's pods need and nobody wrote down: name and body.
pub fn claims(key: &Key, body: &Value) -> Vec<(Key, Value)> {
    let templates: Vec<_> = list(&body["spec"]["volumeClaimTemplates"]).collect();
    let one = |ordinal: u32, template: &Value| {
        let name = format!("{}-{}-{ordinal}", template["metadata"]["name"].as_str().unwrap_or_default(), key.name);
        let body = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": template["spec"]});
        (Key::new("PersistentVolumeClaim", &key.namespace, &name), body)
    };
    (0..replicas(body)).flat_map(|ordinal| templates.iter().map(move |template| one(ordinal, template))).collect()
}

fn blueprint(key: &Key, body: &Value, ordinal: u32, current: &str) -> Blueprint {
    let (mut template, name) = (body["spec"]["template"].clone(), format!("{}-{ordinal}", key.name));
    template["metadata"]["labels"]["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
    template["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] = json!(name);
    template["spec"]["hostname"] = json!(name);
    template["spec"]["subdomain"] = body["spec"]["serviceName"].clone();
    let claimed = list(&body["spec"]["volumeClaimTemplates"]).filter_map(|template| template["metadata"]["name"].as_str());
    let mut volumes: Vec<_> = list(&template["spec"]["volumes"]).cloned().collect();
    for claim in claimed {
        volumes.retain(|volume| volume["name"] != claim);
        volumes.push(json!({"name": claim, "persistentVolumeClaim": {"claimName": format!("{claim}-{name}")}}));
    }
    template["spec"]["volumes"] = json!(volumes);
    Blueprint { owner: key.clone(), name, unique: false, revision: current.to_owned(), index: Some(ordinal), template }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Phase;
    use crate::workloads::job::tests::pod;

    #[test]
    fn pods_come_in_order_and_go_in_reverse() {
        let body = json!({"spec": {"replicas": 2, "serviceName": "s", "template": {"spec": {}},
            "volumeClaimTemplates": [{"metadata": {"name": "disk"}}]}});
        let key = Key::new("StatefulSet", "default", "db");
        let current = revision(&body["spec"]["template"]);
        let make = |index, ready| PodInfo { ready, revision: current.clone(), ..pod(index, Phase::Running, &[]) };
        let created = |actions: Vec<Action>| match actions.as_slice() {
            [Action::Create(blueprint)] => blueprint.name.clone(),
            _ => format!("{actions:?}"),
        };
        assert_eq!(created(reconcile(&key, &body, &[])), "db-0");
        assert!(reconcile(&key, &body, &[make(0, false)]).is_empty());
        assert_eq!(created(reconcile(&key, &body, &[make(0, true)])), "db-1");
        let four: Vec<_> = (0..4).map(|index| make(index, true)).collect();
        assert!(matches!(&reconcile(&key, &body, &four)[..], [Action::Delete(uid, _)] if uid == "3"));
        assert_eq!(claims(&key, &body)[1].0.name, "disk-db-1");
    }
}
