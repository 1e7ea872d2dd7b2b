//! Names of Services and pods, as one hosts file per pod.
//!
//! glibc reads the file at every lookup, so a running process sees the next version of it. A headless name has the addresses
//! of all its pods. A ClusterIP has no address of its own here: its name is the address of *one* ready pod, chosen by the pod
//! that asks and kept while it is ready. Connections of one client are therefore not spread, and a port is not translated.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::manifest::{Objects, selects, strings};
use crate::plan::hash;
use crate::scrape::named;
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

/// Ports that a Service translates, which hosts files cannot: a line for each Service.
pub fn untranslated(objects: &Objects) -> Vec<String> {
    let services = objects.iter().filter(|(key, body)| key.kind == "Service" && body["spec"]["clusterIP"] != "None");
    let mut found = BTreeMap::new();
    for (key, body) in services {
        for port in crate::manifest::list(&body["spec"]["ports"]) {
            let from = port["port"].as_u64();
            let to = port["targetPort"].as_u64().or_else(|| target(objects, &body["spec"]["selector"], port["targetPort"].as_str()?));
            if to.is_some() && from != to {
                found.insert(key, format!("{key}: port {} is not translated to {}", from.unwrap_or(0), to.unwrap_or(0)));
            }
        }
    }
    found.into_values().collect()
}

/// The number that pods behind a Service give to a named port.
fn target(objects: &Objects, selector: &Value, name: &str) -> Option<u64> {
    let templates = objects.values().map(|body| &body["spec"]["template"]);
    let mut fitting = templates.filter(|template| selects(selector, &strings(&template["metadata"]["labels"])));
    fitting.find_map(|template| named(&template["spec"], name)).map(u64::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::Key;

    #[test]
    fn a_port_that_is_translated_is_said() {
        let template =
            json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"ports": [{"name": "grpc", "containerPort": 7001}]}]}});
        let check = |port: u32, target: Value| {
            let service = json!({"spec": {"selector": {"app": "a"}, "ports": [{"port": port, "targetPort": target}]}});
            let job = json!({"spec": {"template": template}});
            untranslated(&Objects::from([(Key::new("Service", "d", "a"), service), (Key::new("Job", "d", "a"), job)])).len()
        };
        assert_eq!((check(7001, json!("grpc")), check(7001, json!(7001)), check(7001, Value::Null)), (0, 0, 0));
        assert_eq!((check(80, json!("grpc")), check(80, json!(8080))), (1, 1));
    }
}
