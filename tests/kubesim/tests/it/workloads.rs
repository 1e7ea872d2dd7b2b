//! Deployments, StatefulSets, Jobs, budgets and autoscalers do what their manifests say.

use std::time::Duration;

use crate::rig::{SOON, cluster, deployment, lookup, names, sh};
use hypereyes_kubesim::{Snapshot, Verdict};

#[tokio::test]
async fn a_rolling_update_keeps_enough_pods_ready() {
    let strategy = "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}";
    let before = deployment("a", 3, "", strategy);
    let budget = "kind: PodDisruptionBudget\nmetadata: {name: a}\nspec: {maxUnavailable: 0, selector: {matchLabels: {app: a}}}\n";
    let Some(cluster) = cluster(&(before.clone() + budget)).await else { return };
    cluster.wait_ready("app=a", SOON).await.unwrap();
    let old = names(&cluster, "a").await;
    assert!(cluster.evict(&old[0]).await.unwrap_err().to_string().contains("PodDisruptionBudget/a"));

    cluster.apply(&before.replace("stand-in", "stand-in, --drain, '50'")).await.unwrap();
    let (least, most) = (std::cell::Cell::new(3), std::cell::Cell::new(0));
    let done = |snapshot: &Snapshot| {
        let pods = snapshot.select("app=a");
        least.set(least.get().min(pods.iter().filter(|pod| pod.serving()).count()));
        most.set(most.get().max(pods.iter().filter(|pod| pod.active()).count()));
        snapshot.settled("app=a").then_some(())
    };
    cluster.wait("the rollout", SOON, done).await.unwrap();
    assert_eq!((least.get(), most.get()), (2, 3));
    assert!(names(&cluster, "a").await.iter().all(|name| !old.contains(name)));

    cluster.scale("a", 1).await.unwrap();
    cluster.wait_ready("app=a", SOON).await.unwrap();
    assert_eq!(names(&cluster, "a").await.len(), 1);
    cluster.apply("").await.unwrap();
    cluster.wait("an empty cluster", SOON, |snapshot: &Snapshot| snapshot.pods.is_empty().then_some(())).await.unwrap();
}

#[tokio::test]
async fn a_stateful_set_has_numbers_names_and_claims() {
    let manifests = r#"
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}}
---
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
      - name: main
        image: x
        command: [sh, -c, "trap 'exit 0' TERM; echo $HOSTNAME >> /disk/starts; while true; do sleep 0.05; done"]
        volumeMounts: [{name: disk, mountPath: /disk}]
  volumeClaimTemplates: [{metadata: {name: disk}, spec: {}}]
"#;
    let Some(cluster) = cluster(manifests).await else { return };
    cluster.wait_ready("app=db", SOON).await.unwrap();
    assert_eq!(names(&cluster, "db").await, ["db-0", "db-1"]);
    let ip = cluster.snapshot().await.unwrap().pod("db-1").and_then(|pod| pod.ip).unwrap();
    assert_eq!(lookup(&cluster, "db-0", "db-1.db").await, [ip.to_string()]);
    assert_eq!(lookup(&cluster, "db-0", "db-1.db.default.svc").await, [ip.to_string()]);
    cluster.delete_pod("db-1").await.unwrap();
    let back = |snapshot: &Snapshot| snapshot.pod("db-1").filter(|pod| pod.ready && pod.ip != Some(ip)).map(|_| ());
    cluster.wait("another db-1", SOON, back).await.unwrap();
    assert_eq!(sh(&cluster, "db-1", "until [ $(wc -l < /disk/starts) -ge 2 ]; do sleep 0.05; done; cat /disk/starts").await, "db-1\ndb-1");
}

#[tokio::test]
async fn an_indexed_job_counts_failures_forgives_evictions_and_stops_at_42() {
    let job = |name: &str, line: &str| {
        format!(
            r#"
kind: Job
metadata: {{name: {name}}}
spec:
  completionMode: Indexed
  completions: 2
  parallelism: 2
  backoffLimit: 1
  podFailurePolicy:
    rules:
    - {{action: Ignore, onPodConditions: [{{type: DisruptionTarget, status: "True"}}]}}
    - {{action: FailJob, onExitCodes: {{containerName: main, operator: In, values: [42]}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      subdomain: {name}
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers: [{{name: main, image: x, command: [sh, -c, "{line}"], volumeMounts: [{{name: disk, mountPath: /disk}}]}}]
      volumes: [{{name: disk, persistentVolumeClaim: {{claimName: disk}}}}]
---
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: None, publishNotReadyAddresses: true, selector: {{app: {name}}}}}
---
"#
        )
    };
    let claim = "kind: PersistentVolumeClaim\nmetadata: {name: disk}\n";
    // Index 1 fails once; then both look for index 1's name until there is a file.
    let good = "if [ $JOB_COMPLETION_INDEX = 1 ]; then if mkdir /disk/once; then exit 7; fi; fi; \
                until [ -e /disk/go ]; do getent hosts good-1.good && touch /disk/found-$JOB_COMPLETION_INDEX; sleep 0.05; done; \
                echo $HOSTNAME";
    let fatal = "if [ $JOB_COMPLETION_INDEX = 1 ]; then exit 42; fi; sleep 60";
    let Some(cluster) = cluster(&(job("good", good) + &job("fatal", fatal) + claim)).await else { return };
    let verdict = cluster.wait_job("fatal", SOON).await.unwrap();
    assert!(matches!(verdict, Verdict::Failed { ref reason, .. } if reason == "PodFailurePolicy"), "{verdict:?}");

    let running = |index: u32| {
        move |snapshot: &Snapshot| {
            let pods = snapshot.select("app=good");
            pods.iter().find(|pod| pod.index == Some(index) && pod.serving()).map(|pod| pod.name.clone())
        }
    };
    let failed = |snapshot: &Snapshot| snapshot.select("app=good").iter().any(|pod| pod.exits.get("main") == Some(&7)).then_some(());
    cluster.wait("a failure of index 1", SOON, failed).await.unwrap();
    let first = cluster.wait("index 0", SOON, running(0)).await.unwrap();
    cluster.delete_pod(&first).await.unwrap();
    cluster.wait("another index 0", SOON, |snapshot| running(0)(snapshot).filter(|name| name != &first)).await.unwrap();
    let last = cluster.wait("another index 1", SOON, running(1)).await.unwrap();
    sh(&cluster, &last, "rm -f /disk/found-0; until [ -e /disk/found-0 ]; do sleep 0.05; done").await;
    std::fs::write(cluster.claim("default", "disk").join("go"), "").unwrap();
    assert_eq!(cluster.wait_job("good", SOON).await.unwrap(), Verdict::Complete);
    assert!(cluster.logs(&last).unwrap().ends_with("good-1\n"));

    let again = job("good", "true") + claim;
    assert!(cluster.apply(&again).await.unwrap_err().to_string().contains("immutable"));
    cluster.apply(claim).await.unwrap();
    cluster.apply(&again).await.unwrap();
    assert_eq!(cluster.snapshot().await.unwrap().jobs.len(), 1);
    assert_eq!(cluster.wait_job("good", SOON).await.unwrap(), Verdict::Complete, "a new Job of an old name starts afresh");
}

#[tokio::test]
async fn an_autoscaler_follows_the_metric_of_another_object() {
    let scaler = r#"
kind: HorizontalPodAutoscaler
metadata: {name: worker}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - type: Object
    object: {describedObject: {kind: Deployment, name: queue}, metric: {name: load}, target: {type: AverageValue, averageValue: "10"}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 30}}
"#;
    let worker = deployment("worker", 1, "", "").replace("replicas: 1", "");
    let Some(cluster) = cluster(&(deployment("queue", 1, "", "") + &worker + scaler)).await else { return };
    cluster.wait_ready("app=queue", SOON).await.unwrap();
    cluster.wait_ready("app=worker", SOON).await.unwrap();
    let queue = names(&cluster, "queue").await[0].clone();
    let workers =
        |count| move |snapshot: &Snapshot| (snapshot.settled("app=worker") && snapshot.select("app=worker").len() == count).then_some(());
    sh(&cluster, &queue, "echo 90 > /tmp/load").await;
    cluster.wait("three workers", SOON, workers(3)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(names(&cluster, "worker").await.len(), 3, "not beyond maxReplicas");
    // Applying the same manifests does not undo the autoscaler's work.
    cluster.apply(&(deployment("queue", 1, "", "") + &worker + scaler)).await.unwrap();
    sh(&cluster, &queue, "echo 15 > /tmp/load").await;
    cluster.wait("two workers", SOON, workers(2)).await.unwrap();
}
