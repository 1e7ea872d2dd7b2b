//! Jobs: every index once, failures counted, forgiven or fatal as the pod failure policy says.
//!
//! As in Kubernetes, a pod that is evicted and then exits with 0 has succeeded, and its index with it: a program that wants
//! to be started again has to exit with something else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::amount::count;
use crate::manifest::{Key, list};
use crate::plan::{Blueprint, revision};
use crate::status::{Phase, PodInfo, Verdict};
use crate::workloads::Action;

/// What a Job's pods have come to so far.
#[derive(Debug)]
pub struct Progress {
    succeeded: BTreeSet<u32>,
    done: u32,
    failures: u32,
    by_index: BTreeMap<u32, u32>,
    counted: BTreeSet<String>,
    started: Instant,
    wait: Option<Instant>,
    /// How it ended.
    pub verdict: Option<Verdict>,
}

impl Default for Progress {
    fn default() -> Self {
        let started = Instant::now();
        let (succeeded, by_index, counted) = Default::default();
        Self { succeeded, done: 0, failures: 0, by_index, counted, started, wait: None, verdict: None }
    }
}

impl Progress {
    /// How many pods should run now.
    pub fn left(&self, body: &Value) -> u32 {
        let (_, parallelism, completions) = shape(&body["spec"]);
        if self.verdict.is_some() { 0 } else { parallelism.min(completions.saturating_sub(self.done)) }
    }
}

/// What to do next; `pods` are the Job's own. `pause` is the first wait before a failed pod is replaced.
pub fn reconcile(key: &Key, body: &Value, pods: &[PodInfo], progress: &mut Progress, pause: Duration) -> Vec<Action> {
    let spec = &body["spec"];
    let (indexed, parallelism, completions) = shape(spec);
    if progress.verdict.is_none() {
        for pod in pods.iter().filter(|pod| pod.phase.ended()) {
            if progress.counted.insert(pod.uid.clone()) {
                account(spec, pod, progress, pause);
            }
        }
        judge(spec, completions, indexed, progress);
    }
    if progress.verdict.is_some() {
        return pods.iter().filter(|pod| pod.active()).map(|pod| Action::Delete(pod.uid.clone(), "the job is over")).collect();
    }
    if progress.wait.is_some_and(|until| Instant::now() < until) {
        return vec![];
    }
    // A pod that is ending keeps its index where the policy asks for it; it must be gone before another takes its place.
    let lenient = spec["podReplacementPolicy"] != "Failed" && spec["podFailurePolicy"].is_null();
    let busy: Vec<_> = pods.iter().filter(|pod| if lenient { pod.active() } else { !pod.phase.ended() }).collect();
    let room = parallelism.saturating_sub(busy.len() as u32);
    if !indexed {
        let left = completions.saturating_sub(progress.done + busy.len() as u32).min(room);
        return (0..left).map(|_| Action::Create(blueprint(key, body, None))).collect();
    }
    let taken: BTreeSet<_> = busy.iter().filter_map(|pod| pod.index).collect();
    let free = (0..completions).filter(|index| !taken.contains(index) && !progress.succeeded.contains(index));
    free.take(room as usize).map(|index| Action::Create(blueprint(key, body, Some(index)))).collect()
}

/// Whether it is indexed, how many pods run at once, and how many have to succeed.
fn shape(spec: &Value) -> (bool, u32, u32) {
    let indexed = spec["completionMode"] == "Indexed";
    let parallelism = if spec["suspend"] == true { 0 } else { count(&spec["parallelism"], 1) };
    (indexed, parallelism, count(&spec["completions"], 1))
}

fn account(spec: &Value, pod: &PodInfo, progress: &mut Progress, pause: Duration) {
    if pod.phase == Phase::Succeeded {
        progress.done += 1;
        progress.succeeded.extend(pod.index);
        return;
    }
    match rule(spec, pod) {
        Some("Ignore") => {}
        Some("FailJob") => {
            let message = format!("pod {} ended with {:?}", pod.name, pod.exits);
            progress.verdict = Some(Verdict::Failed { reason: "PodFailurePolicy".to_owned(), message });
        }
        _ => {
            progress.failures += 1;
            if let Some(index) = pod.index {
                *progress.by_index.entry(index).or_default() += 1;
            }
            let doubled = pause * 2u32.pow((progress.failures - 1).min(4));
            progress.wait = Some(Instant::now() + doubled);
        }
    }
}

/// The first rule of the pod failure policy that fits.
fn rule<'a>(spec: &'a Value, pod: &PodInfo) -> Option<&'a str> {
    let fits = |rule: &&Value| {
        let codes = &rule["onExitCodes"];
        if codes.is_object() {
            let listed = |code: &i32| list(&codes["values"]).any(|value| value.as_i64() == Some(i64::from(*code)));
            let named = codes["containerName"].as_str();
            let mut exits = pod.exits.iter().filter(|(name, code)| **code != 0 && named.is_none_or(|named| named == name.as_str()));
            return exits.any(|(_, code)| listed(code) == (codes["operator"] == "In"));
        }
        let fits = |condition: &Value| condition["type"] == "DisruptionTarget" && pod.disrupted && condition["status"] != "False";
        list(&rule["onPodConditions"]).any(fits)
    };
    list(&spec["podFailurePolicy"]["rules"]).find(fits).and_then(|rule| rule["action"].as_str())
}

fn judge(spec: &Value, completions: u32, indexed: bool, progress: &mut Progress) {
    if progress.verdict.is_some() {
        return;
    }
    let limit = count(&spec["backoffLimit"], 6);
    let tired = spec["backoffLimitPerIndex"].as_u64();
    let tired = tired.and_then(|limit| progress.by_index.iter().find(|(_, failures)| u64::from(**failures) > limit));
    let deadline = spec["activeDeadlineSeconds"].as_u64().map(Duration::from_secs);
    let failed = |reason: &str, message: String| Some(Verdict::Failed { reason: reason.to_owned(), message });
    progress.verdict = if indexed && progress.succeeded.len() as u32 >= completions || !indexed && progress.done >= completions {
        Some(Verdict::Complete)
    } else if let Some((index, failures)) = tired {
        failed("FailedIndexes", format!("index {index} failed {failures} times"))
    } else if spec["backoffLimitPerIndex"].is_null() && progress.failures > limit {
        failed("BackoffLimitExceeded", format!("{} pods failed, {limit} were forgiven", progress.failures))
    } else if deadline.is_some_and(|deadline| progress.started.elapsed() > deadline) {
        failed("DeadlineExceeded", "activeDeadlineSeconds have passed".to_owned())
    } else {
        None
    };
}

fn blueprint(key: &Key, body: &Value, index: Option<u32>) -> Blueprint {
    let mut template = body["spec"]["template"].clone();
    let current = revision(&template);
    template["metadata"]["labels"]["batch.kubernetes.io/job-name"] = json!(key.name);
    template["metadata"]["labels"]["job-name"] = json!(key.name);
    let mut name = key.name.clone();
    if let Some(index) = index {
        name = format!("{name}-{index}");
        let label = "batch.kubernetes.io/job-completion-index";
        template["metadata"]["annotations"][label] = json!(index.to_string());
        template["metadata"]["labels"][label] = json!(index.to_string());
        template["spec"]["hostname"] = json!(name);
        for kind in ["initContainers", "containers"] {
            for container in template["spec"][kind].as_array_mut().into_iter().flatten() {
                let mut env = vec![json!({"name": "JOB_COMPLETION_INDEX", "value": index.to_string()})];
                env.extend(list(&container["env"]).cloned());
                container["env"] = json!(env);
            }
        }
    }
    Blueprint { owner: key.clone(), name, unique: true, revision: current, index, template }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A pod for tests of controllers.
    pub(crate) fn pod(index: u32, phase: Phase, exits: &[(&str, i32)]) -> PodInfo {
        PodInfo {
            name: format!("p-{index}"),
            namespace: "default".to_owned(),
            uid: index.to_string(),
            serial: index,
            owner: Key::new("Job", "default", "j"),
            revision: String::new(),
            index: Some(index),
            labels: BTreeMap::new(),
            hostname: format!("p-{index}"),
            subdomain: None,
            ip: None,
            phase,
            ready: false,
            terminating: false,
            disrupted: false,
            restarts: 0,
            exits: exits.iter().map(|(name, code)| ((*name).to_owned(), *code)).collect(),
            reason: String::new(),
        }
    }

    fn check(pods: &[PodInfo]) -> (Vec<Action>, Option<Verdict>) {
        let body = json!({"spec": {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 1,
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
                {"action": "FailJob", "onExitCodes": {"containerName": "a", "operator": "In", "values": [42]}}]},
            "template": {"spec": {"containers": [{"name": "a"}]}}}});
        let mut progress = Progress::default();
        let actions = reconcile(&Key::new("Job", "default", "j"), &body, pods, &mut progress, Duration::ZERO);
        (actions, progress.verdict)
    }

    #[test]
    fn failures_count_unless_a_rule_says_otherwise() {
        assert_eq!(check(&[]).0.len(), 2);
        let (actions, verdict) = check(&[pod(0, Phase::Succeeded, &[]), pod(1, Phase::Failed, &[("a", 1)])]);
        assert!(matches!(&actions[..], [Action::Create(blueprint)] if blueprint.index == Some(1)) && verdict.is_none());
        let fatal = check(&[pod(0, Phase::Running, &[]), pod(1, Phase::Failed, &[("a", 42)])]);
        assert!(matches!(fatal.1, Some(Verdict::Failed { reason, .. }) if reason == "PodFailurePolicy"));
        assert!(matches!(&fatal.0[..], [Action::Delete(uid, _)] if uid == "0"));
        let evicted = PodInfo { disrupted: true, terminating: true, ..pod(0, Phase::Failed, &[("a", 42)]) };
        assert_eq!(check(&[evicted]).1, None);
        let twice = check(&[pod(0, Phase::Failed, &[("a", 1)]), pod(1, Phase::Failed, &[("a", 137)])]);
        assert!(matches!(twice.1, Some(Verdict::Failed { reason, .. }) if reason == "BackoffLimitExceeded"));
        assert_eq!(check(&[pod(0, Phase::Succeeded, &[]), pod(1, Phase::Succeeded, &[])]).1, Some(Verdict::Complete));
    }
}
