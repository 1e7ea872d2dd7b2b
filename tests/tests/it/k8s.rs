//! The manifests keep the project's rules: what every pod has, who may call whom, and that names lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use hypereyes_tests::k8s::{Labels, Render, Workload, at, folder, labels, list, overlays, parse, picks, read, text};
use hypereyes_tests::root;
use serde_json::{Value, json};

/// Who calls whom, and where. A rank speaks to ranks on every port.
const CALLS: &[(&str, &str, u64)] = &[
    ("actor", "learner", 7000),
    ("actor", "reward", 7001),
    ("actor", "teacher", 7002),
    ("learner", "reward", 7001),
    ("teacher", "teacher-model", 7002),
];

/// The same where one search server is there.
const SEARCHES: (&str, &str, u64) = ("actor", "search", 8090);

/// The same where somebody measures what is trained.
const FOLLOWS: (&str, &str, u64) = ("evaluator", "learner", 7000);

/// Seconds that an actor takes to give leases back once its grace is over, and every service to end.
const LAST: u64 = 5;

fn each(mut check: impl FnMut(&Render, &Workload)) {
    let mut seen = 0;
    for render in read(&folder().join("rendered")) {
        for workload in render.workloads() {
            check(&render, &workload);
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen} workloads");
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "initContainers").chain(list(pod, "containers"))
}

#[test]
fn every_container_is_restricted_bounded_and_pinned() {
    each(|render, workload| {
        let whose = format!("{}: {}", render.name, workload.name);
        assert_restricted(&whose, workload.pod());
        for container in containers(workload.pod()) {
            let image = text(container, "image");
            let (name, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{whose}: an image without a tag"));
            let version = if name.ends_with("hypereyes") { env!("CARGO_PKG_VERSION") } else { "v" };
            let number = tag.trim_start_matches('v').split('.').take_while(|part| part.parse::<u32>().is_ok()).count();
            assert!(tag.starts_with(version) && number >= 2, "{whose}: image {image}");
        }
    });
    let shuttle = parse(&std::fs::read_to_string(folder().join("shuttle.yaml")).expect("it is there"));
    assert_restricted("shuttle", &shuttle[0]["spec"]);
    for render in overlays() {
        let namespace = render.of("Namespace").next().expect("one");
        assert_eq!(at(namespace, "metadata.labels")["pod-security.kubernetes.io/enforce"], "restricted", "{}", render.name);
        for account in render.of("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{}: {}", render.name, text(account, "metadata.name"));
        }
    }
}

/// What the Pod Security Standard `restricted` demands and what this project demands beyond it.
fn assert_restricted(whose: &str, pod: &Value) {
    let wanted = json!({
        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}
    });
    assert_eq!(pod["securityContext"], wanted, "{whose}");
    assert_eq!(pod["automountServiceAccountToken"], false, "{whose}");
    for forbidden in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
        assert!(pod[forbidden].is_null(), "{whose}: {forbidden}");
    }
    for volume in list(pod, "volumes") {
        let kinds = ["configMap", "secret", "emptyDir", "persistentVolumeClaim"];
        assert!(kinds.iter().any(|kind| !volume[kind].is_null()), "{whose}: a volume that `restricted` refuses: {volume}");
        assert!(volume["emptyDir"].is_null() || volume["emptyDir"]["sizeLimit"].is_string(), "{whose}: no bound: {volume}");
    }
    for container in containers(pod) {
        let wanted = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
        assert_eq!(container["securityContext"], wanted, "{whose}");
        let resources = &container["resources"];
        for bound in ["requests", "limits"] {
            for resource in ["cpu", "memory"] {
                assert!(resources[bound][resource].is_string(), "{whose}: no {bound} of {resource}");
            }
        }
        assert_eq!(resources["requests"]["memory"], resources["limits"]["memory"], "{whose}: memory that may be taken away");
        assert!(list(container, "volumeMounts").any(|at| at["mountPath"] == "/tmp"), "{whose}: nowhere to write");
    }
}

#[test]
fn every_service_is_probed_where_it_answers() {
    each(|render, workload| {
        let (container, whose) = (workload.container(), format!("{}: {}", render.name, workload.name));
        let ports: BTreeMap<&str, u64> =
            list(container, "ports").map(|port| (text(port, "name"), port["containerPort"].as_u64().expect("a number"))).collect();
        let mut wanted = BTreeMap::from([("metrics", "process.metrics_listen"), ("health", "process.health_listen")]);
        match workload.role().as_str() {
            "actor" | "evaluator" => {}
            "search" => drop(wanted.insert("http", "listen")),
            _ => drop(wanted.insert("grpc", "listen")),
        }
        assert_eq!(ports.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{whose}");
        for (name, key) in wanted {
            assert_eq!(Some(ports[name]), workload.port(render, key), "{whose}: {key}");
            let address = workload.setting(render, key).expect("just read");
            assert!(address.as_str().is_some_and(|address| address.starts_with("0.0.0.0:")), "{whose}: {key} is for this pod alone");
        }
        for (probe, service) in [("startupProbe", "startup"), ("readinessProbe", "ready"), ("livenessProbe", "live")] {
            assert_eq!(container[probe]["grpc"], json!({"port": ports["health"], "service": service}), "{whose}");
        }
    });
}

#[test]
fn pods_get_longer_than_they_need_to_end() {
    each(|render, workload| {
        let seconds = |key: &str| workload.setting(render, key).and_then(|value| value.as_integer()).map(|value| value as u64);
        let drain = match workload.role().as_str() {
            "actor" => seconds("grace_ms").map(|grace| grace.div_ceil(1000)),
            "search" => Some(hypereyes_search::serve::GRACE.as_secs()),
            // What it measures is cut off.
            "evaluator" => Some(0),
            _ => seconds("server.grace_secs"),
        };
        let drain = drain.unwrap_or_else(|| panic!("{}: {} does not say how long it drains", render.name, workload.name));
        let grace = workload.pod()["terminationGracePeriodSeconds"].as_u64().expect("every pod says its grace");
        assert!(grace > drain + LAST, "{}: {}: a grace of {grace} s, and {drain} s to drain", render.name, workload.name);
    });
}

#[test]
fn selectors_pick_what_they_are_meant_for() {
    each(|render, workload| {
        if workload.kind != "Job" {
            let selector = labels(&workload.spec, "selector.matchLabels");
            assert!(!selector.is_empty() && picks(&selector, &workload.labels()), "{}: {}", render.name, workload.name);
            let picked = render.workloads().iter().filter(|other| picks(&selector, &other.labels())).count();
            assert_eq!(picked, 1, "{}: {} takes pods of others", render.name, workload.name);
        }
        for spread in list(workload.pod(), "topologySpreadConstraints") {
            assert!(picks(&labels(spread, "labelSelector.matchLabels"), &workload.labels()), "{}: {}", render.name, workload.name);
        }
    });
    for render in overlays() {
        let workloads = render.workloads();
        let picked = |selector: &Labels| workloads.iter().filter(|workload| picks(selector, &workload.labels())).count();
        for service in render.of("Service") {
            let (name, selector) = (text(service, "metadata.name"), labels(service, "spec.selector"));
            assert_eq!(picked(&selector), 1, "{}: service {name}", render.name);
            let behind = workloads.iter().find(|workload| picks(&selector, &workload.labels())).expect("counted");
            for port in list(service, "spec.ports") {
                let target = list(behind.container(), "ports").find(|one| one["name"] == port["targetPort"]);
                assert_eq!(target.map(|one| &one["containerPort"]), Some(&port["port"]), "{}: service {name}", render.name);
            }
        }
        let budgets: Vec<Labels> = render.of("PodDisruptionBudget").map(|one| labels(one, "spec.selector.matchLabels")).collect();
        for workload in &workloads {
            let budgets = budgets.iter().filter(|selector| picks(selector, &workload.labels())).count();
            assert_eq!(budgets, 1, "{}: {} has {budgets} budgets", render.name, workload.name);
        }
        for policy in render.of("NetworkPolicy") {
            assert!(picked(&labels(policy, "spec.podSelector.matchLabels")) > 0, "{}: {}", render.name, text(policy, "metadata.name"));
        }
        for scaler in render.of("HorizontalPodAutoscaler").chain(render.of("ScaledObject")) {
            let target = &scaler["spec"]["scaleTargetRef"];
            let target = render.get(text(target, "kind"), text(target, "name")).expect("what is scaled is there");
            assert!(target["spec"]["replicas"].is_null(), "{}: the scaler owns the number of replicas", render.name);
        }
        let scalers = render.of("HorizontalPodAutoscaler").chain(render.of("ScaledObject")).count();
        assert!(scalers == 1 || render.get("Deployment", "actor").expect("actors")["spec"]["replicas"].is_u64(), "{}", render.name);
        for monitor in render.of("PodMonitor") {
            assert_eq!(picked(&labels(monitor, "spec.selector.matchLabels")), workloads.len(), "{}", render.name);
        }
    }
}

#[test]
fn names_lead_to_what_is_there() {
    for render in overlays() {
        let secrets: BTreeSet<&str> = render.of("Certificate").map(|one| text(one, "spec.secretName")).collect();
        for workload in render.workloads() {
            let whose = format!("{}: {}", render.name, workload.name);
            assert!(render.get("ServiceAccount", text(workload.pod(), "serviceAccountName")).is_some(), "{whose}");
            let templates = list(&workload.spec, "volumeClaimTemplates").map(|claim| text(claim, "metadata.name"));
            let volumes = list(workload.pod(), "volumes").map(|volume| text(volume, "name"));
            let volumes: BTreeSet<&str> = templates.chain(volumes).collect();
            for container in containers(workload.pod()) {
                let mounts: Vec<&Value> = list(container, "volumeMounts").collect();
                assert!(mounts.iter().all(|mount| volumes.contains(text(mount, "name"))), "{whose}: {volumes:?}");
                let points: BTreeSet<&str> = mounts.iter().map(|mount| text(mount, "mountPath")).collect();
                assert_eq!(points.len(), mounts.len(), "{whose}: two mounts in one place");
            }
            for volume in list(workload.pod(), "volumes") {
                let (map, claim) = (text(volume, "configMap.name"), text(volume, "persistentVolumeClaim.claimName"));
                assert!(map.is_empty() || render.get("ConfigMap", map).is_some(), "{whose}: {map}");
                assert!(claim.is_empty() || render.get("PersistentVolumeClaim", claim).is_some(), "{whose}: {claim}");
                let secret = text(volume, "secret.secretName");
                assert!(secret.is_empty() || secrets.contains(secret), "{whose}: nobody makes {secret}");
            }
            certificate(&render, &workload);
            let searched = workload.setting(&render, "search.text.url").map(|_| ("search.text.url", "search"));
            for (key, role) in addresses(&workload.role()).iter().copied().chain(searched) {
                let address = workload.setting(&render, key).unwrap_or_else(|| panic!("{whose}: no {key}"));
                let address =
                    address.as_str().expect("an address is text").trim_start_matches("grpc://").trim_start_matches("http://").to_owned();
                let behind = behind(&render, &address).unwrap_or_else(|| panic!("{whose}: nothing is at {key} = {address}"));
                assert_eq!(behind.role(), role, "{whose}: {key} = {address}");
                let host = address.split(':').next().expect("split gives at least one");
                let certificate = certificate(&render, &behind);
                let known = certificate.is_none_or(|one| list(one, "spec.dnsNames").any(|name| name == host));
                assert!(known, "{whose}: the certificate that is shown is not for {host}");
            }
        }
        for object in &render.objects {
            let kind = text(object, "kind");
            if !["Namespace", "ClusterQueue", "ResourceFlavor"].contains(&kind) {
                assert_eq!(text(object, "metadata.namespace"), "hypereyes", "{}: {kind} {}", render.name, text(object, "metadata.name"));
            }
        }
    }
}

#[test]
fn a_pod_makes_what_its_service_reads_and_no_more() {
    let mut seen = 0;
    each(|render, workload| {
        let whose = format!("{}: {}", render.name, workload.name);
        let Some(prepare) = list(workload.pod(), "initContainers").find(|one| one["name"] == "prepare") else { return };
        let args: Vec<&str> = list(prepare, "args").filter_map(Value::as_str).collect();
        let ["prepare", "--out", out, "--only", only] = args[..] else { panic!("{whose}: {args:?}") };
        let made: BTreeSet<String> = only.split(',').map(|part| format!("{out}/{}", part.replace('-', "_"))).collect();
        let read = ["policy", "model", "tasks"].iter().filter_map(|key| workload.setting(render, key));
        let read: BTreeSet<String> = read.filter_map(|value| value.as_str().map(str::to_owned)).collect();
        assert_eq!(made, read, "{whose}");
        seen += 1;
    });
    assert!(seen > 5, "{seen} pods");
}

/// Settings of a service that are addresses, and whose they are.
fn addresses(role: &str) -> &'static [(&'static str, &'static str)] {
    match role {
        "actor" => &[("learner", "learner"), ("reward", "reward"), ("teacher", "teacher")],
        "learner" => &[("reward", "reward"), ("ranks.leader", "learner")],
        "evaluator" => &[("learner", "learner")],
        "teacher" => &[("model", "teacher-model")],
        _ => &[],
    }
}

/// What answers at `service:port`, or at `pod.service:port`.
fn behind(render: &Render, address: &str) -> Option<Workload> {
    let (host, port) = address.split_once(':')?;
    let (pod, service) = host.split_once('.').map_or((None, host), |(pod, service)| (Some(pod), service));
    let object = render.get("Service", service)?;
    list(object, "spec.ports").find(|one| one["port"].as_u64() == port.parse().ok())?;
    let workload = render.workloads().into_iter().find(|one| picks(&labels(object, "spec.selector"), &one.labels()))?;
    let Some(pod) = pod else { return Some(workload) };
    // A pod has a name of its own where its subdomain is a headless service; ranks are looked for before they are ready.
    let spec = &object["spec"];
    let subdomain = match render.of("JobSet").next() {
        Some(set) => text(set, "spec.network.subdomain").to_owned(),
        None => text(workload.pod(), "subdomain").to_owned(),
    };
    let named = subdomain == service && spec["clusterIP"] == "None" && spec["publishNotReadyAddresses"] == true;
    (named && pod == format!("{}-0", workload.name)).then_some(workload)
}

/// With mutual TLS: the certificate that a service shows. It says what the service is, and lies where its settings look.
fn certificate<'a>(render: &'a Render, workload: &Workload) -> Option<&'a Value> {
    render.of("Certificate").next()?;
    let whose = format!("{}: {}", render.name, workload.name);
    for (key, file) in [("certificate", "tls.crt"), ("key", "tls.key"), ("authority", "ca.crt")] {
        let path = workload.setting(render, &format!("process.tls.{key}")).unwrap_or_else(|| panic!("{whose}: no process.tls.{key}"));
        assert_eq!(path.as_str(), Some(format!("/etc/tls/{file}").as_str()), "{whose}");
    }
    let mount = list(workload.container(), "volumeMounts").find(|mount| mount["mountPath"] == "/etc/tls").expect("it is mounted");
    let volume = list(workload.pod(), "volumes").find(|volume| volume["name"] == mount["name"]).expect("the volume is there");
    let secret = text(volume, "secret.secretName");
    let certificate = render.of("Certificate").find(|one| text(one, "spec.secretName") == secret).expect("somebody makes it");
    let role = format!("spiffe://hypereyes/hypereyes/sa/{}", workload.kind_of_service());
    assert_eq!(certificate["spec"]["uris"], json!([role]), "{whose}");
    Some(certificate)
}

#[test]
fn network_policies_are_the_call_graph() {
    for render in overlays() {
        let workloads = render.workloads();
        let mut allowed = BTreeSet::new();
        for from in &workloads {
            for to in &workloads {
                // One port that nobody names stands for all others.
                for port in [7000, 7001, 7002, 8086, 8090, 9090, 20_000] {
                    if passes(&render, from, to, port, "Egress") && passes(&render, to, from, port, "Ingress") {
                        allowed.insert((from.role(), to.role(), port));
                    }
                }
            }
        }
        let searches = render.get("StatefulSet", "search").map(|_| &SEARCHES);
        let follows = render.get("StatefulSet", "evaluator").map(|_| &FOLLOWS);
        let calls = CALLS.iter().chain(searches).chain(follows).map(|(from, to, port)| ((*from).to_owned(), (*to).to_owned(), *port));
        let ranks = [7000, 7001, 7002, 8086, 8090, 9090, 20_000].map(|port| ("learner".to_owned(), "learner".to_owned(), port));
        assert_eq!(allowed, calls.chain(ranks).collect(), "{}", render.name);

        let mut outside = BTreeSet::new();
        for policy in render.of("NetworkPolicy") {
            for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
                for rule in list(policy, &format!("spec.{direction}")) {
                    assert!(list(rule, peers).next().is_some(), "{}: a rule for everybody", render.name);
                    for peer in list(rule, peers).filter(|peer| peer["podSelector"].is_null()) {
                        let namespace = at(peer, "namespaceSelector.matchLabels")["kubernetes.io/metadata.name"].as_str();
                        let ports: Vec<_> =
                            list(rule, "ports").map(|port| format!("{}/{}", port["port"], text(port, "protocol"))).collect();
                        outside.insert((direction, namespace.unwrap_or(text(peer, "ipBlock.cidr")).to_owned(), ports.join(" ")));
                    }
                }
            }
        }
        let mut wanted = vec![("ingress", "monitoring", "9090/TCP"), ("egress", "kube-system", "53/UDP 53/TCP")];
        if ["judge", "search"].contains(&render.name.as_str()) {
            wanted.push(("egress", "0.0.0.0/0", "443/TCP"));
        }
        let wanted = wanted.into_iter().map(|(direction, who, ports)| (direction, who.to_owned(), ports.to_owned())).collect();
        assert_eq!(outside, wanted, "{}", render.name);
    }
}

/// Where one process searches for all, it alone has the key, from a Secret, and it alone leaves the cluster; what it paid for is on a
/// volume.
#[test]
fn the_search_server_alone_has_the_key_and_leaves_the_cluster() {
    let renders = overlays();
    let render = renders.iter().find(|render| render.name == "search").expect("an overlay");
    let workloads = render.workloads();
    let server = workloads.iter().find(|one| one.role() == "search").expect("a server");
    assert_eq!((server.kind.as_str(), server.spec["replicas"].as_u64()), ("StatefulSet", Some(1)));
    let variable = server.setting(render, "search.text.api_key_env").expect("a key is named");
    let of_secret = |one: &&Value| text(one, "valueFrom.secretKeyRef.name") == "search";
    for workload in &workloads {
        let keys: Vec<&str> = list(workload.container(), "env").filter(of_secret).map(|one| text(one, "name")).collect();
        let wanted: Vec<&str> = if workload.role() == "search" { variable.as_str().into_iter().collect() } else { vec![] };
        assert_eq!(keys, wanted, "{}", workload.name);
    }
    for policy in render.of("NetworkPolicy") {
        let leaves = list(policy, "spec.egress").flat_map(|rule| list(rule, "to")).any(|peer| !peer["ipBlock"].is_null());
        let picked = labels(policy, "spec.podSelector.matchLabels");
        assert_eq!(leaves, picked == labels(&json!({"a": {"app.kubernetes.io/name": "search"}}), "a"), "{}", text(policy, "metadata.name"));
    }
    let cache = server.setting(render, "search.cache.path").expect("a cache");
    let kept =
        list(server.container(), "volumeMounts").find(|at| cache.as_str().is_some_and(|path| path.starts_with(text(at, "mountPath"))));
    let kept = text(kept.expect("a mount"), "name");
    assert!(list(&server.spec, "volumeClaimTemplates").any(|claim| text(claim, "metadata.name") == kept), "{kept} is no claim");
}

/// Whether the policies of `own` let it speak with `other` in one direction; without a policy anything passes.
fn passes(render: &Render, own: &Workload, other: &Workload, port: u64, direction: &str) -> bool {
    let (rules, peers) = if direction == "Egress" { ("spec.egress", "to") } else { ("spec.ingress", "from") };
    let mine = |policy: &&Value| {
        picks(&labels(policy, "spec.podSelector.matchLabels"), &own.labels())
            && list(policy, "spec.policyTypes").any(|one| one == direction)
    };
    let policies: Vec<&Value> = render.of("NetworkPolicy").filter(mine).collect();
    let lets = |rule: &Value| {
        let known = |peer: &Value| !peer["podSelector"].is_null() && picks(&labels(peer, "podSelector.matchLabels"), &other.labels());
        let open = rule["ports"].is_null() || list(rule, "ports").any(|one| one["port"].as_u64() == Some(port));
        open && list(rule, peers).any(known)
    };
    policies.is_empty() || policies.iter().any(|policy| list(policy, rules).any(lets))
}

#[test]
fn there_are_as_many_ranks_as_the_settings_say() {
    for render in overlays() {
        let jobs: Vec<Workload> = render.workloads().into_iter().filter(|workload| workload.kind == "Job").collect();
        let [learner] = &jobs[..] else { panic!("{}: one job, the learner's", render.name) };
        let world = learner.setting(&render, "ranks.world").and_then(|world| world.as_integer()).expect("the settings say so");
        for key in ["completions", "parallelism"] {
            assert_eq!(learner.spec[key].as_i64(), Some(world), "{}: {key}", render.name);
        }
        // A budget over the pods of a job knows no other way.
        let budget = render.get("PodDisruptionBudget", "learner").expect("a budget");
        assert_eq!(budget["spec"]["minAvailable"].as_i64(), Some(world), "{}", render.name);
        assert_eq!(learner.spec["completionMode"], "Indexed", "{}", render.name);
        let rank = list(learner.container(), "env").find(|one| one["name"] == "HYPEREYES_LEARNER__RANKS__RANK").expect("a rank");
        assert!(text(rank, "valueFrom.fieldRef.fieldPath").contains("job-completion-index"), "{}", render.name);
        // The volume of a job is every rank's.
        let claim = render.get("PersistentVolumeClaim", "learner").expect("a claim");
        let mode = if world > 1 { "ReadWriteMany" } else { "ReadWriteOnce" };
        assert_eq!(claim["spec"]["accessModes"], json!([mode]), "{}", render.name);
        let rules = &learner.spec["podFailurePolicy"]["rules"];
        assert_eq!(rules[0]["onPodConditions"][0]["type"], "DisruptionTarget", "{}: an eviction is nobody's failure", render.name);
        assert_eq!(rules[1]["onExitCodes"]["values"], json!([42]), "{}: wrong settings are not tried again", render.name);
        assert_eq!(rules[1]["onExitCodes"]["containerName"], learner.container()["name"], "{}", render.name);
    }
}

#[test]
fn what_is_watched_is_counted() {
    let code = metric_names();
    assert!(code.len() > 50);
    let mut watched = BTreeSet::new();
    for render in overlays() {
        for object in &render.objects {
            let kind = text(object, "kind");
            let dashboard = kind == "ConfigMap" && text(object, "metadata.name") == "dashboard";
            if dashboard {
                let page = object["data"]["hypereyes.json"].as_str().expect("a dashboard");
                let page: Value = serde_json::from_str(page).expect("a dashboard is JSON");
                assert!(list(&page, "panels").count() > 5, "{}", render.name);
            }
            if dashboard || ["PrometheusRule", "ScaledObject", "HorizontalPodAutoscaler"].contains(&kind) {
                watched.extend(names_in(&object.to_string()));
            }
        }
    }
    assert!(watched.len() > 15, "{watched:?}");
    let unknown: Vec<_> = watched.iter().filter(|name| !code.contains(name.as_str()) && !code.contains(base(name))).collect();
    assert!(unknown.is_empty(), "nothing counts {unknown:?}");
}

/// A histogram's name without what the exporter appends.
fn base(name: &str) -> &str {
    ["_sum", "_count", "_bucket"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// Names that look like metrics in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("hypereyes_")).map(str::to_owned).collect()
}

/// The constants of all files called `metrics.rs`.
fn metric_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut todo = vec![root()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if !["target", ".git", "runs"].iter().any(|skip| name == *skip) {
                    todo.push(path);
                }
            } else if name == "metrics.rs" {
                let text = std::fs::read_to_string(path).expect("a text file");
                let constants = text.lines().filter(|line| line.contains("const ") && line.contains(": &str"));
                names.extend(constants.flat_map(names_in));
            }
        }
    }
    names
}

#[test]
fn the_image_is_small_and_runs_as_the_pods_do() {
    let file = std::fs::read_to_string(root().join("Dockerfile")).expect("there is a Dockerfile");
    let last: Vec<&str> = file.lines().rev().take_while(|line| !line.starts_with("FROM ")).collect();
    assert!(last.contains(&"USER 65532:65532") && last.contains(&r#"ENTRYPOINT ["hypereyes"]"#), "{last:?}");
    for line in file.lines().filter(|line| line.starts_with("FROM ")) {
        let image = line.split_whitespace().nth(1).expect("FROM has an image");
        let stage = file.lines().any(|other| other.ends_with(&format!(" AS {image}")));
        assert!(stage || image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest"), "{line}");
    }
}

#[test]
fn the_readme_names_every_overlay_and_component() {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("there is a README");
    for part in ["overlays", "components"] {
        for entry in std::fs::read_dir(folder().join(part)).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(readme.contains(&format!("`{name}`")), "k8s/README.md does not say what {part}/{name} is for");
        }
    }
}

#[test]
fn the_readme_says_what_each_overlay_asks_for() {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("there is a README");
    let (sizes, _) = readme.split_once("## Sizes").expect("a section").1.split_once("\n## ").expect("another one");
    for render in overlays() {
        let (mut millis, mut mebi, mut gpus) = (0, 0, 0);
        for workload in render.workloads() {
            let own = workload.spec["replicas"].as_u64().or(workload.spec["parallelism"].as_u64());
            let pods = own.unwrap_or(2); // the scalers' minimum
            for container in list(workload.pod(), "containers").chain(workload.sidecars()) {
                let requests = &container["resources"]["requests"];
                gpus += pods * requests["nvidia.com/gpu"].as_str().map_or(0, |gpus| gpus.parse::<u64>().expect("a number"));
                millis += pods * quantity(text(requests, "cpu"), &[("m", 1), ("", 1000)]);
                mebi += pods * quantity(text(requests, "memory"), &[("Mi", 1), ("Gi", 1024)]);
            }
        }
        let (cpu, memory) = (millis as f64 / 1000.0, mebi as f64 / 1024.0);
        let row = sizes.lines().find(|line| line.contains(&format!("`{}`", render.name))).expect("every overlay has a row");
        let gpus = if gpus == 0 { String::new() } else { format!("{gpus} ") };
        let cells = [format!("| {cpu} "), format!("| {memory} "), format!("| {gpus}")];
        assert!(cells.iter().all(|cell| row.contains(cell)), "{cpu} CPU, {memory} GiB, {gpus}GPUs: {row}");
    }
}

/// A quantity in the smallest of the units given.
fn quantity(text: &str, units: &[(&str, u64)]) -> u64 {
    let found = units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<u64>().ok()? * factor));
    found.unwrap_or_else(|| panic!("{text} is in another unit than {units:?}"))
}

#[test]
fn what_is_rendered_is_what_the_sources_say() {
    let there = |program: &str, argument: &str| Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success());
    if !there("kustomize", "version") && !there("kubectl", "help") {
        return hypereyes_tests::skip("neither kustomize nor kubectl is here, so k8s/rendered is taken at its word");
    }
    let fresh = std::env::temp_dir().join(format!("hypereyes-rendered-{}", std::process::id()));
    let output = Command::new("bash").arg(folder().join("render")).arg(&fresh).output().expect("bash is here");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (fresh_renders, kept) = (read(&fresh), read(&folder().join("rendered")));
    std::fs::remove_dir_all(&fresh).expect("just made");
    let name = |renders: &[Render]| renders.iter().map(|render| render.name.clone()).collect::<Vec<_>>();
    assert_eq!(name(&fresh_renders), name(&kept), "run k8s/render");
    for (fresh, kept) in fresh_renders.iter().zip(&kept) {
        assert_eq!(fresh.objects, kept.objects, "{} has changed: run k8s/render", kept.name);
    }
}

#[test]
fn the_reader_finds_what_is_wrong() {
    let policies = "kind: NetworkPolicy\nmetadata: {name: all}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n";
    let pod = |name: &str| {
        let labels = format!("{{app.kubernetes.io/name: {name}}}");
        format!("kind: Deployment\nmetadata: {{name: {name}}}\nspec: {{template: {{metadata: {{labels: {labels}}}}}}}\n")
    };
    let render = Render { name: "x".into(), objects: parse(&[policies.to_owned(), pod("a"), pod("b")].join("---\n")) };
    let [a, b] = &render.workloads()[..] else { panic!("two") };
    assert!(!passes(&render, a, b, 1, "Ingress"), "a policy without rules lets nobody in");
    assert!(passes(&render, a, b, 1, "Egress"), "and says nothing of the other way");
    assert_eq!((a.role().as_str(), behind(&render, "a:1").is_none()), ("a", true));
    assert_eq!(names_in("rate(hypereyes_a_sum[5m])").into_iter().next().as_deref().map(base), Some("hypereyes_a"));
}
