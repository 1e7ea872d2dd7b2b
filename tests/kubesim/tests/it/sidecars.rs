//! Init containers that stay: before the others, restarted by themselves, after the others.

use std::time::Duration;

use crate::rig::{SOON, cluster, names, sh};
use hypereyes_kubesim::{Cluster, Snapshot, Verdict};

/// Seconds at which something happened to a container, each time.
fn times(cluster: &Cluster, event: &str, container: &str) -> Vec<f64> {
    let events = cluster.events().unwrap();
    let of = events.iter().filter(|line| line["event"] == event && line["container"] == container);
    of.map(|line| line["at"].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn a_sidecar_starts_before_the_others_is_restarted_alone_and_ends_after_them() {
    let manifests = r#"
kind: Deployment
metadata: {name: a}
spec:
  replicas: 1
  selector: {matchLabels: {app: a}}
  template:
    metadata: {labels: {app: a}}
    spec:
      terminationGracePeriodSeconds: 5
      initContainers:
      - name: engine
        restartPolicy: Always
        image: example.org/kubesim:dev
        args: [stand-in, --health, "8087", --warm-up, "300"]
        startupProbe: {grpc: {port: 8087, service: startup}, periodSeconds: 0.05, timeoutSeconds: 10, failureThreshold: 200}
        readinessProbe: {grpc: {port: 8087, service: ready}, periodSeconds: 0.05, timeoutSeconds: 10, failureThreshold: 1}
        livenessProbe: {grpc: {port: 8087, service: live}, periodSeconds: 0.05, failureThreshold: 3}
        volumeMounts: [{name: shared, mountPath: /tmp}]
      - {name: after, image: x, command: [bash, -c, "exec 3<>/dev/tcp/127.0.0.1/8087"]}
      containers:
      - name: main
        image: x
        command: [sh, -c, "trap 'sleep 0.3; exit 0' TERM; while true; do sleep 0.05; done"]
        volumeMounts: [{name: shared, mountPath: /shared}]
      volumes: [{name: shared, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]
"#;
    let Some(cluster) = cluster(manifests).await else { return };
    cluster.wait_ready("app=a", SOON).await.unwrap();
    let pod = names(&cluster, "a").await[0].clone();
    let [engine] = times(&cluster, "started", "engine")[..] else { panic!("once") };
    let [main] = times(&cluster, "started", "main")[..] else { panic!("once") };
    assert!(main - engine >= 0.29, "nobody starts before its startup probe succeeds");

    // Its readiness is the pod's; a restart of it is nobody else's.
    sh(&cluster, &pod, "touch /shared/unready").await;
    cluster.wait("an unready pod", SOON, |snapshot| snapshot.pod(&pod).filter(|pod| !pod.ready).map(|_| ())).await.unwrap();
    sh(&cluster, &pod, "rm /shared/unready; touch /shared/dead").await;
    cluster.wait("a restart", SOON, |snapshot| snapshot.pod(&pod).filter(|pod| pod.restarts > 0).map(|_| ())).await.unwrap();
    sh(&cluster, &pod, "rm /shared/dead").await;
    cluster.wait_ready("app=a", SOON).await.unwrap();
    let starts = times(&cluster, "started", "engine").len();
    cluster.kill_container(&pod, "engine").await.unwrap();
    cluster.wait("another start", SOON, |_| (times(&cluster, "started", "engine").len() > starts).then_some(())).await.unwrap();
    cluster.wait_ready("app=a", SOON).await.unwrap();
    assert_eq!((times(&cluster, "started", "main").len(), times(&cluster, "exited", "after").len()), (1, 1));

    let before = times(&cluster, "signalled", "engine").len();
    cluster.delete_pod(&pod).await.unwrap();
    cluster.wait("its end", SOON, |snapshot: &Snapshot| snapshot.pod(&pod).is_none().then_some(())).await.unwrap();
    let (told, ended) = (times(&cluster, "signalled", "engine")[before], times(&cluster, "exited", "main")[0]);
    assert!(told >= ended && ended - times(&cluster, "signalled", "main")[0] >= 0.29, "the engine is there until the main container ends");
}

#[tokio::test]
async fn a_job_is_complete_though_its_sidecar_would_go_on_for_ever() {
    let manifests = r#"
kind: Job
metadata: {name: j}
spec:
  template:
    metadata: {labels: {app: j}}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      initContainers: [{name: deaf, restartPolicy: Always, image: x, command: [sleep, "60"]}]
      containers: [{name: main, image: x, command: [sh, -c, "sleep 0.2"]}]
"#;
    let Some(cluster) = cluster(manifests).await else { return };
    assert_eq!(cluster.wait_job("j", SOON).await.unwrap(), Verdict::Complete);
    let (told, ended) = (times(&cluster, "signalled", "deaf")[0], times(&cluster, "exited", "deaf")[0]);
    assert!(told >= times(&cluster, "exited", "main")[0]);
    assert!(Duration::from_secs_f64(ended - told) >= Duration::from_millis(950), "it gets the pod's grace, then SIGKILL");
}
