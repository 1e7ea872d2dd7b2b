//! Names of Services and pods, as one hosts file per pod.
//!
//! glibc reads the file at every lookup, so a running process sees the next version of it. A headless name has the addresses
//! of all its pods. A ClusterIP has no address of its own here: its name is the address of *one* ready pod, chosen by the pod
//! that asks and kept while it is ready. Connections of one client are therefore not spread, and a port is not translated.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::manifest::{Objects, selects};
use crate::plan::hash;
use crate::status::PodInfo;

/// The file of one pod.
pub fn render(viewer: &PodInfo, pods: &[PodInfo], objects: &Objects) -> String {
    let mut lines = format!("127.0.0.1 localhost\n{} {}\n", viewer.ip.unwrap_or(Ipv4Addr::LOCALHOST), viewer.hostname);
    for (key, body) in objects.iter().filter(|(key, _)| key.kind == "Service") {
        let spec = &body["spec"];
        let headless = spec["clusterIP"] == "None";
        let early = spec["publishNotReadyAddresses"] == true;
        let behind = pods.iter().filter(|pod| pod.namespace == key.namespace && selects(&spec["selector"], &pod.labels));
        let behind: Vec<_> = behind.filter(|pod| pod.serving() || early && pod.ip.is_some() && !pod.phase.ended()).collect();
        let names = |name: &str| {
            let mut names = vec![format!("{name}.{}", key.namespace), format!("{name}.{}.svc", key.namespace)];
            names.push(format!("{name}.{}.svc.cluster.local", key.namespace));
            if key.namespace == viewer.namespace {
                names.insert(0, name.to_owned());
            }
            names.join(" ")
        };
        let mut add = |pod: &PodInfo, name: &str| {
            if let Some(ip) = pod.ip {
                lines += &format!("{ip} {}\n", names(name));
            }
        };
        if headless {
            for pod in &behind {
                add(pod, &key.name);
                if pod.subdomain.as_ref() == Some(&key.name) {
                    add(pod, &format!("{}.{}", pod.hostname, key.name));
                }
            }
        } else if let Some(pod) = behind.iter().max_by_key(|pod| hash(&(&viewer.uid, &key.name, &pod.uid))) {
            add(pod, &key.name);
        }
    }
    lines
}

/// Pods behind a Service, ready or not.
pub fn behind<'a>(service: &crate::manifest::Key, objects: &Objects, pods: &'a [PodInfo]) -> Vec<&'a PodInfo> {
    let Some(body) = objects.get(service) else { return vec![] };
    pods.iter().filter(|pod| pod.namespace == service.namespace && selects(&body["spec"]["selector"], &pod.labels)).collect()
}

/// Ports that a Service translates, which hosts files cannot: a line each.
pub fn untranslated(objects: &Objects) -> Vec<String> {
    let services = objects.iter().filter(|(key, body)| key.kind == "Service" && body["spec"]["clusterIP"] != "None");
    let mut found = BTreeMap::new();
    for (key, body) in services {
        for port in crate::manifest::list(&body["spec"]["ports"]) {
            let (from, to) = (port["port"].as_u64(), port["targetPort"].as_u64());
            if to.is_some() && from != to {
                found.insert(key, format!("{key}: port {} is not translated to {}", from.unwrap_or(0), to.unwrap_or(0)));
            }
        }
    }
    found.into_values().collect()
}
