//! Pods as a small table, as `kubectl get pods -o wide` prints them.

use crate::status::{Snapshot, Verdict};

/// The table, and a line for each Job that has ended.
pub fn render(snapshot: &Snapshot) -> String {
    let width = snapshot.pods.iter().map(|pod| pod.name.len()).max().unwrap_or(0).max(4);
    let mut out = format!("{:width$}  READY  {:<17} RESTARTS  {:<15}\n", "NAME", "STATUS", "IP");
    for pod in &snapshot.pods {
        let status = if pod.terminating { "Terminating".to_owned() } else { format!("{:?}", pod.phase) };
        let ready = if pod.ready { "yes" } else { "no" };
        let ip = pod.ip.map_or("-".to_owned(), |ip| ip.to_string());
        out += &format!("{:width$}  {ready:<5}  {status:<17} {:<8}  {ip:<15} {}\n", pod.name, pod.restarts, pod.reason);
    }
    for (key, verdict) in &snapshot.jobs {
        match verdict {
            Some(Verdict::Complete) => out += &format!("{key} complete\n"),
            Some(Verdict::Failed { reason, message }) => out += &format!("{key} failed: {reason}: {message}\n"),
            None => {}
        }
    }
    out
}
