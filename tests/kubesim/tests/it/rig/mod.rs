//! What the tests share: a cluster with this crate's own binary as the image, and a Deployment of it.
#![allow(dead_code, reason = "every test file uses some of it")]

use std::time::Duration;

use hypereyes_kubesim::{Cluster, Options, Permit};

/// Long enough for anything here; a wait that needs it has failed.
pub const SOON: Duration = Duration::from_secs(20);

/// Starts a cluster, or says why there can be none.
pub async fn cluster(manifests: &str) -> Option<Cluster> {
    if let Err(reason) = Permit::check() {
        hypereyes_tests::skip(&reason);
        return None;
    }
    let options = Options {
        binaries: [("kubesim".to_owned(), env!("CARGO_BIN_EXE_kubesim").into())].into(),
        hpa_period: Duration::from_millis(300),
        ..Options::default()
    };
    Some(Cluster::start(manifests, options).await.unwrap())
}

/// A Deployment of the stand-in with quick probes; `args` are appended to its own, `spec` to the Deployment's.
pub fn deployment(name: &str, replicas: u32, args: &str, spec: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  {spec}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: example.org/kubesim:dev
        args: [stand-in{args}]
        ports: [{{name: metrics, containerPort: 9090}}]
        startupProbe: {{grpc: {{port: 8086, service: startup}}, periodSeconds: 0.05, timeoutSeconds: 10, failureThreshold: 200}}
        readinessProbe: {{grpc: {{port: 8086, service: ready}}, periodSeconds: 0.05, timeoutSeconds: 10, failureThreshold: 1}}
        livenessProbe: {{grpc: {{port: 8086, service: live}}, periodSeconds: 0.05, failureThreshold: 3}}
---
"
    )
}

/// A Service in front of it.
pub fn service(name: &str, more: &str) -> String {
    format!("kind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {name}}}, ports: [{{port: 8086}}]{more}}}\n---\n")
}

/// Runs a line of shell in a pod; gives its output, or panics with what it said.
pub async fn sh(cluster: &Cluster, pod: &str, line: &str) -> String {
    let output = cluster.exec(pod, &["sh", "-c", line]).await.unwrap();
    assert!(output.status.success(), "{pod}: {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The addresses that a pod finds for a name, sorted.
pub async fn lookup(cluster: &Cluster, pod: &str, name: &str) -> Vec<String> {
    let output = cluster.exec(pod, &["getent", "ahostsv4", name]).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// Whether a pod can open a connection to a port.
pub async fn reaches(cluster: &Cluster, pod: &str, name: &str, port: u16) -> bool {
    connects(cluster, pod, name, port, "10").await
}

/// Whether it cannot, within a second.
pub async fn misses(cluster: &Cluster, pod: &str, name: &str, port: u16) -> bool {
    !connects(cluster, pod, name, port, "1").await
}

async fn connects(cluster: &Cluster, pod: &str, name: &str, port: u16, seconds: &str) -> bool {
    let line = format!("exec 3<>/dev/tcp/{name}/{port}");
    cluster.exec(pod, &["timeout", seconds, "bash", "-c", &line]).await.unwrap().status.success()
}

/// Names of the pods with a label `app`.
pub async fn names(cluster: &Cluster, app: &str) -> Vec<String> {
    cluster.names(&format!("app={app}")).await.unwrap()
}
