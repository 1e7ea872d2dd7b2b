//! Deployments: as many ready pods of the newest template as wanted, and a rollout that never has too few or too many.

use serde_json::Value;

use crate::amount::share;
use crate::manifest::Key;
use crate::plan::{Blueprint, revision};
use crate::status::{PodInfo, replicas};
use crate::workloads::Action;

/// What to do next; `pods` are the Deployment's own.
pub fn reconcile(key: &Key, body: &Value, pods: &[PodInfo]) -> Vec<Action> {
    let (template, wanted) = (&body["spec"]["template"], replicas(body));
    let (strategy, current) = (&body["spec"]["strategy"], revision(template));
    let active = pods.iter().filter(|pod| pod.active());
    let (mut new, mut old): (Vec<_>, Vec<_>) = active.partition(|pod| pod.revision == current);
    let create = |count: u32| {
        let name = format!("{}-{current}", key.name);
        let blueprint =
            Blueprint { owner: key.clone(), name, unique: true, revision: current.clone(), index: None, template: template.clone() };
        std::iter::repeat_n(blueprint, count as usize).map(Action::Create)
    };
    let delete = |pod: &PodInfo, why| Action::Delete(pod.uid.clone(), why);

    // Pods that are not ready go first, then the youngest.
    new.sort_by_key(|pod| (pod.ready, std::cmp::Reverse(pod.serial)));
    old.sort_by_key(|pod| (pod.ready, std::cmp::Reverse(pod.serial)));
    let (have, extra) = (new.len() as u32, (new.len() as u32).saturating_sub(wanted));
    let mut actions: Vec<_> = new.iter().take(extra as usize).map(|pod| delete(pod, "scaled down")).collect();

    if strategy["type"] == "Recreate" {
        actions.extend(old.iter().map(|pod| delete(pod, "recreated")));
        if pods.iter().all(|pod| pod.revision == current) {
            actions.extend(create(wanted.saturating_sub(have)));
        }
        return actions;
    }

    let rolling = &strategy["rollingUpdate"];
    let surge = share(&rolling["maxSurge"], wanted, true, "25%");
    let mut missing = share(&rolling["maxUnavailable"], wanted, false, "25%");
    if surge == 0 && missing == 0 {
        missing = 1;
    }
    let total = have - extra + old.len() as u32;
    actions.extend(create(wanted.saturating_sub(have).min((wanted + surge).saturating_sub(total))));

    // An old pod that is not ready costs nothing; a ready one goes only while enough others are ready.
    let mut ready = pods.iter().filter(|pod| pod.serving()).count() as u32;
    let least = wanted.saturating_sub(missing);
    // Until new pods are ready, as many pods must stay as could still be needed.
    let waiting = new.iter().skip(extra as usize).filter(|pod| !pod.ready).count() as u32;
    let mut spare = total.saturating_sub(least).saturating_sub(waiting);
    for pod in old {
        let costs = u32::from(pod.ready);
        if spare > 0 && ready >= least + costs {
            actions.push(delete(pod, "replaced"));
            (spare, ready) = (spare - 1, ready - costs);
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::status::Phase;
    use crate::workloads::job::tests::pod;

    fn check(strategy: Value, replicas: u32, old: &[bool], new: &[bool], expect: (usize, usize)) {
        let body = json!({"spec": {"replicas": replicas, "strategy": strategy, "template": {"spec": {}}}});
        let current = revision(&body["spec"]["template"]);
        let make = |ready: &bool, revision: &str| PodInfo { ready: *ready, revision: revision.to_owned(), ..pod(0, Phase::Running, &[]) };
        let pods: Vec<_> = old.iter().map(|ready| make(ready, "old")).chain(new.iter().map(|ready| make(ready, &current))).collect();
        let actions = reconcile(&Key::new("Deployment", "default", "a"), &body, &pods);
        let created = actions.iter().filter(|action| matches!(action, Action::Create(_))).count();
        assert_eq!((created, actions.len() - created), expect, "{actions:?}");
    }

    #[test]
    fn a_rollout_is_never_short_nor_crowded() {
        let surge = || json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        let scarce = || json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}});
        check(surge(), 3, &[], &[], (3, 0));
        check(surge(), 3, &[true; 3], &[], (1, 0));
        check(surge(), 3, &[true; 3], &[false], (0, 0));
        check(surge(), 3, &[true; 3], &[true], (0, 1));
        check(scarce(), 3, &[true; 3], &[], (0, 1));
        check(scarce(), 3, &[true; 2], &[false], (0, 0));
        check(scarce(), 3, &[true, false], &[], (1, 0));
        check(scarce(), 3, &[true, true, false], &[], (0, 1));
        check(json!({}), 1, &[], &[true; 3], (0, 2));
        check(json!({"type": "Recreate"}), 2, &[true; 2], &[], (0, 2));
    }
}
