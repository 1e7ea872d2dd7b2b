//! Engines outside, as the manifests have them: a server beside its actor that nobody else reaches, as large as the actor
//! believes. In: rendered overlays. It knows the arguments of vLLM and SGLang that say where they listen and how much they hold.

use std::collections::BTreeSet;

use hypereyes_policy::models;
use hypereyes_tests::k8s::{Render, Workload, at, folder, labels, list, overlays, picks, text};
use serde_json::{Value, json};

use crate::k8s_settings::published;

/// What overlays are sized for (k8s/README.md): bytes of a card, and of what a server takes on each beside weights and cache.
const CARD: f64 = 80e9;
const BESIDE: f64 = 5e9;

/// Seconds that a server gets to end once its actor has.
const SERVER: u64 = 15;

/// Actors with an engine outside, and who runs them.
fn each(mut check: impl FnMut(&Render, &Workload, &Value)) {
    let mut kinds = BTreeSet::new();
    for render in overlays() {
        for workload in render.workloads() {
            if let Some(engine) = workload.engine() {
                check(&render, &workload, engine);
                kinds.insert(setting(&render, &workload, "engine.kind"));
            }
        }
    }
    assert_eq!(kinds, ["sglang", "vllm"].map(str::to_owned).into(), "every kind is in an overlay");
}

fn setting(render: &Render, workload: &Workload, key: &str) -> String {
    let value = workload.setting(render, key).unwrap_or_else(|| panic!("{}: {}: no {key}", render.name, workload.name));
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Words of a container's command line.
fn words(container: &Value) -> impl Iterator<Item = &str> {
    list(container, "command").chain(list(container, "args")).filter_map(Value::as_str)
}

/// All values of an option, as `--option=value` or as two words.
fn values<'a>(container: &'a Value, option: &str) -> Vec<&'a str> {
    let words: Vec<&str> = words(container).collect();
    let joined = words.iter().filter_map(|word| word.strip_prefix(option)?.strip_prefix('='));
    let apart = words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1]);
    joined.chain(apart).collect()
}

/// The number that an option gives; it is there once.
fn number(container: &Value, options: &[&str]) -> f64 {
    let found: Vec<&str> = options.iter().flat_map(|option| values(container, option)).collect();
    let [one] = found[..] else { panic!("{options:?}: {found:?}") };
    one.parse().expect("a number")
}

/// How somebody but its actor could reach an engine of a render, a line for each way.
fn ways_in(render: &Render) -> Vec<String> {
    let mut found = vec![];
    for workload in render.workloads() {
        let containers = list(workload.pod(), "initContainers").chain(list(workload.pod(), "containers"));
        let foreign = containers.filter(|one| !text(one, "image").contains("hypereyes") && one["name"] != "engine");
        found.extend(foreign.map(|one| format!("an image of others that is not looked at: {}", text(one, "image"))));
        if let Some(engine) = workload.engine() {
            found.extend(to_engine(render, &workload, engine));
        }
    }
    found
}

fn to_engine(render: &Render, workload: &Workload, engine: &Value) -> Vec<String> {
    let mut found = vec![];
    let port = values(engine, "--port").last().and_then(|port| port.parse::<u64>().ok());
    let Some(port) = port else { return vec!["no --port".to_owned()] };

    // Where it listens.
    let hosts = values(engine, "--host");
    if hosts != ["127.0.0.1"] {
        found.push(format!("--host {hosts:?}"));
    }
    let env = list(engine, "env").filter_map(|one| one["value"].as_str());
    let wide = words(engine).chain(env).find(|word| ["0.0.0.0", "::"].iter().any(|any| word.contains(any)));
    found.extend(wide.map(|word| format!("an address of everybody: {word}")));

    // What the pod opens.
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        if workload.pod()[key] == true {
            found.push(key.to_owned());
        }
    }
    for container in list(workload.pod(), "initContainers").chain(list(workload.pod(), "containers")) {
        for one in list(container, "ports") {
            if container["name"] == "engine" || one["containerPort"] == port || !one["hostPort"].is_null() {
                found.push(format!("a port: {one}"));
            }
        }
    }
    for hook in ["startupProbe", "readinessProbe", "livenessProbe", "lifecycle.postStart", "lifecycle.preStop"] {
        let from_outside = ["httpGet", "tcpSocket", "grpc"].iter().find(|kind| !at(engine, hook)[**kind].is_null());
        found.extend(from_outside.map(|kind| format!("{hook} by {kind} asks the pod's address, where nobody may listen")));
    }

    // Who is let in.
    for service in render.of("Service").filter(|one| picks(&labels(one, "spec.selector"), &workload.labels())) {
        found.push(format!("Service {}", text(service, "metadata.name")));
    }
    for kind in ["Ingress", "Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"] {
        found.extend(render.of(kind).map(|one| format!("{kind} {}", text(one, "metadata.name"))));
    }
    let closes = |policy: &&Value| {
        picks(&labels(policy, "spec.podSelector.matchLabels"), &workload.labels())
            && list(policy, "spec.policyTypes").any(|one| one == "Ingress")
    };
    let policies: Vec<&Value> = render.of("NetworkPolicy").filter(closes).collect();
    if policies.is_empty() {
        found.push("no NetworkPolicy keeps anybody out".to_owned());
    }
    for policy in policies {
        for rule in list(policy, "spec.ingress") {
            let lets = |one: &Value| {
                let from = one["port"].as_u64().unwrap_or(0);
                (from..=one["endPort"].as_u64().unwrap_or(from)).contains(&port) || one["port"].is_null()
            };
            if list(rule, "ports").next().is_none() || list(rule, "ports").any(lets) {
                found.push(format!("NetworkPolicy {} lets in {rule}", text(policy, "metadata.name")));
            }
        }
    }
    found
}

#[test]
fn nobody_but_its_actor_reaches_an_engine() {
    for render in overlays() {
        assert_eq!(ways_in(&render), Vec::<String>::new(), "{}", render.name);
    }
}

/// A change that opens an engine to others, and what is said of it.
type Slip = (&'static str, fn(&mut Render));

fn pod(render: &mut Render) -> &mut Value {
    let is_actor = |object: &&mut Value| object["kind"] == "Deployment" && object["metadata"]["name"] == "actor";
    &mut render.objects.iter_mut().find(is_actor).expect("actors")["spec"]["template"]["spec"]
}

fn engine_of(render: &mut Render) -> &mut Value {
    let containers = pod(render)["initContainers"].as_array_mut().expect("a list");
    containers.iter_mut().find(|one| one["name"] == "engine").expect("an engine")
}

fn with(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().expect("a list").push(item);
}

fn rule(render: &mut Render, ports: Value) {
    let actors = json!({"matchLabels": {"app.kubernetes.io/name": "actor"}});
    let ingress = json!([{"from": [{"podSelector": {}}], "ports": ports}]);
    let spec = json!({"podSelector": actors, "policyTypes": ["Ingress"], "ingress": ingress});
    render.objects.push(json!({"kind": "NetworkPolicy", "metadata": {"name": "slip"}, "spec": spec}));
}

#[test]
fn every_way_to_an_engine_is_found() {
    let slips: &[Slip] = &[
        ("--host", |render| {
            let words = engine_of(render)["args"].as_array_mut().expect("words");
            let host = words.iter_mut().find(|word| *word == "--host=127.0.0.1").expect("it is there");
            *host = json!("--host=0.0.0.0");
        }),
        ("--host", |render| engine_of(render)["args"].as_array_mut().expect("words").extend([json!("--host"), json!("0.0.0.0")])),
        ("--host", |render| engine_of(render)["args"].as_array_mut().expect("words").retain(|word| word != "--host=127.0.0.1")),
        ("an address of everybody", |render| with(&mut engine_of(render)["env"], json!({"name": "LISTEN", "value": "[::]:8000"}))),
        ("a port", |render| with(&mut engine_of(render)["ports"], json!({"containerPort": 8000}))),
        ("a port", |render| with(&mut pod(render)["containers"][0]["ports"], json!({"containerPort": 8000}))),
        ("a port", |render| pod(render)["containers"][0]["ports"][0]["hostPort"] = json!(9090)),
        ("hostNetwork", |render| pod(render)["hostNetwork"] = json!(true)),
        ("readinessProbe", |render| engine_of(render)["readinessProbe"] = json!({"httpGet": {"path": "/health", "port": 8000}})),
        ("Service", |render| {
            let spec = json!({"selector": {"app.kubernetes.io/name": "actor"}, "ports": [{"port": 80, "targetPort": 8000}]});
            render.objects.push(json!({"kind": "Service", "metadata": {"name": "slip"}, "spec": spec}));
        }),
        ("Ingress", |render| render.objects.push(json!({"kind": "Ingress", "metadata": {"name": "slip"}, "spec": {}}))),
        ("NetworkPolicy", |render| rule(render, json!([{"port": 8000, "protocol": "TCP"}]))),
        ("NetworkPolicy", |render| rule(render, json!([{"port": 7000, "endPort": 9000, "protocol": "TCP"}]))),
        ("NetworkPolicy", |render| rule(render, json!([{"protocol": "TCP"}]))),
        ("NetworkPolicy", |render| rule(render, json!([]))),
        ("no NetworkPolicy", |render| render.objects.retain(|one| one["kind"] != "NetworkPolicy")),
        ("an image of others", |render| engine_of(render)["name"] = json!("server")),
    ];
    each(|render, _, _| {
        for (number, (said, slip)) in slips.iter().enumerate() {
            let mut open = render.clone();
            slip(&mut open);
            let found = ways_in(&open);
            assert!(found.iter().any(|line| line.contains(said)), "{}: slip {number}, {said}: {found:?}", render.name);
        }
    });
}

#[test]
fn an_engine_is_a_sidecar_with_the_gpu_and_its_actor_has_none() {
    each(|render, workload, engine| {
        let whose = format!("{}: {}", render.name, workload.name);
        let last = list(workload.pod(), "initContainers").last();
        assert_eq!(last, Some(engine), "{whose}: it reads what others make");
        assert_eq!(engine["restartPolicy"], "Always", "{whose}");
        assert_eq!(engine["resources"]["requests"], {
            let mut wanted = engine["resources"]["limits"].clone();
            wanted["cpu"] = engine["resources"]["requests"]["cpu"].clone();
            wanted
        });
        assert!(number_of(&engine["resources"]["limits"]["nvidia.com/gpu"]) >= 1.0, "{whose}");
        let actor = workload.container();
        for bound in ["requests", "limits"] {
            assert!(actor["resources"][bound]["nvidia.com/gpu"].is_null(), "{whose}: the GPU is the engine's");
        }
        assert!(list(actor, "env").any(|one| one["name"] == "NVIDIA_VISIBLE_DEVICES" && one["value"] == "void"), "{whose}");
        assert!(workload.setting(render, "engine.device").is_none(), "{whose}: an actor without a GPU");

        let offline = json!({"name": "HF_HUB_OFFLINE", "value": "1"});
        assert!(list(engine, "env").any(|one| *one == offline), "{whose}: a server that looks for models elsewhere");
        let port = number(engine, &["--port"]);
        assert_eq!(setting(render, workload, "engine.url"), format!("http://127.0.0.1:{port}"), "{whose}");
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let command = list(engine, &format!("{probe}.exec.command")).filter_map(Value::as_str).last().unwrap_or_default();
            assert!(command.contains(&format!("http://127.0.0.1:{port}/health")), "{whose}: {probe}: {command}");
            assert!(engine[probe]["timeoutSeconds"].as_u64() >= Some(5), "{whose}: {probe}: a program takes its time to start");
        }
        let patience =
            |probe: &str| engine[probe]["periodSeconds"].as_u64().unwrap_or(10) * engine[probe]["failureThreshold"].as_u64().unwrap_or(3);
        assert!(patience("startupProbe") >= 1800 && patience("livenessProbe") >= 60, "{whose}: a large model loads for long");

        let drain = setting(render, workload, "grace_ms").parse::<u64>().expect("a number").div_ceil(1000);
        let grace = workload.pod()["terminationGracePeriodSeconds"].as_u64().expect("every pod says its grace");
        assert!(grace >= drain + SERVER, "{whose}: a grace of {grace} s, {drain} s for the actor, the engine after it");
    });
}

#[test]
fn versions_of_the_policy_pass_through_memory_that_is_there() {
    let (_, model) = published().into_iter().next().expect("the one that the overlays are sized for");
    each(|render, workload, engine| {
        let whose = format!("{}: {}", render.name, workload.name);
        let path = setting(render, workload, "engine.policy_folder");
        let mounted = |container: &Value, path: &str| list(container, "volumeMounts").find(|one| one["mountPath"] == path).cloned();
        let (written, seen) = (mounted(workload.container(), &path).expect("the actor's"), mounted(engine, &path).expect("the engine's"));
        assert_eq!((&written["name"], &written["readOnly"]), (&seen["name"], &Value::Null), "{whose}");
        assert_eq!(seen["readOnly"], true, "{whose}: the engine writes no policy");
        let volume = |name: &Value| list(workload.pod(), "volumes").find(|one| one["name"] == *name).expect("it is there");
        let folder = &volume(&written["name"])["emptyDir"];
        assert_eq!(folder["medium"], "Memory", "{whose}");

        // Three versions in bf16 (the server's, the one before, the next), and the two that the actor holds besides: the newest, and
        // the one that differences apply to. While it starts, those two are the policy in f32.
        let learner = render.workloads().into_iter().find(|one| one.role() == "learner").expect("a learner");
        assert_eq!(setting(render, &learner, "publish"), "bf16", "{whose}: a version is 2 bytes a parameter");
        let version = 2.0 * model.parameters() as f64;
        // Files of a tied model have its table under both names.
        let again = if model.tie_word_embeddings { model.text.vocab_size * model.text.hidden_size } else { 0 };
        let on_disk = version + 2.0 * again as f64;
        let (size, memory) = (bytes(&folder["sizeLimit"]), bytes(&workload.container()["resources"]["limits"]["memory"]));
        assert!(size >= 3.1 * on_disk, "{whose}: {path} holds {size} bytes, a version is {on_disk}");
        let wanted = size + 2.2 * version + 2.0 * f64::from(1 << 30);
        assert!(memory >= wanted, "{whose}: {memory} bytes for the folder of {size} and two versions, {wanted}");
        let shared = mounted(engine, "/dev/shm").expect("processes of a server share memory");
        let shared = bytes(&volume(&shared["name"])["emptyDir"]["sizeLimit"]);
        assert!(2.0 * shared <= bytes(&engine["resources"]["limits"]["memory"]), "{whose}: shared memory is the container's");

        for mount in list(engine, "volumeMounts").filter(|one| one["readOnly"] != true) {
            assert!(volume(&mount["name"])["emptyDir"].is_object(), "{whose}: {mount} outlives the pod");
        }
        let model =
            words(engine).map(|word| word.trim_start_matches("--model-path=")).find(|word| *word == setting(render, workload, "policy"));
        assert!(model.is_some(), "{whose}: the engine starts from another policy than its actor");
    });
}

/// What keeps a group of its learner out of an engine, at the longest that its episodes get: the rollouts must have places at once,
/// and their keys and values space on the card. A server pages them, so it would start and then recompute one for another.
fn too_small(render: &Render, workload: &Workload, engine: &Value) -> Vec<String> {
    let own = |key: &str| setting(render, workload, key).parse::<f64>().expect("a number");
    let (context, sequences) = (own("engine.max_context"), own("engine.max_sequences"));
    let learner = render.workloads().into_iter().find(|one| one.role() == "learner").expect("a learner");
    let siblings = setting(render, &learner, "group_size").parse::<f64>().expect("a number");

    let mut found = vec![];
    let serves = number(engine, &["--max-model-len", "--context-length"]);
    if context > serves {
        found.push(format!("engine.max_context is {context}, and the server takes {serves}"));
    }
    let serves = number(engine, &["--max-num-seqs", "--max-running-requests"]);
    if sequences > serves || sequences < siblings {
        found.push(format!("engine.max_sequences is {sequences}, the server takes {serves}, a group has {siblings}"));
    }
    let share = number(engine, &["--gpu-memory-utilization", "--mem-fraction-static"]);
    let cards = number_of(&engine["resources"]["limits"]["nvidia.com/gpu"]);
    for (name, model) in published() {
        let token = models::state(&model).bytes(1, 2) as f64;
        let left = cards * (share * CARD - BESIDE) - 2.0 * model.parameters() as f64;
        let (holds, wanted) = ((left / token).floor(), siblings * context);
        if holds < wanted {
            found.push(format!("{name}: a cache of {holds} tokens, and {siblings} rollouts of {context} want {wanted}"));
        }
    }
    found
}

#[test]
fn an_engine_holds_a_group_of_its_learner() {
    let slips: &[Slip] = &[
        ("engine.max_context", |render| said(render, "MAX_CONTEXT", "40000")),
        ("engine.max_sequences", |render| said(render, "MAX_SEQUENCES", "65")),
        ("engine.max_sequences", |render| said(render, "MAX_SEQUENCES", "7")),
        ("a cache of", |render| {
            for word in engine_of(render)["args"].as_array_mut().expect("words") {
                let share = ["--gpu-memory-utilization", "--mem-fraction-static"]
                    .into_iter()
                    .find(|name| word.as_str().unwrap_or("").starts_with(name));
                if let Some(name) = share {
                    *word = json!(format!("{name}=0.5"));
                }
            }
        }),
    ];
    each(|render, workload, engine| {
        assert_eq!(too_small(render, workload, engine), Vec::<String>::new(), "{}", render.name);
        for (number, (said, slip)) in slips.iter().enumerate() {
            let mut small = render.clone();
            slip(&mut small);
            let workload = small.workloads().into_iter().find(|one| one.engine().is_some()).expect("an engine");
            let found = too_small(&small, &workload, workload.engine().expect("just found"));
            assert!(found.iter().any(|line| line.contains(said)), "{}: slip {number}, {said}: {found:?}", render.name);
        }
    });
}

/// Says another value of a number of the actor's engine.
fn said(render: &mut Render, key: &str, value: &str) {
    let env = pod(render)["containers"][0]["env"].as_array_mut().expect("a list");
    let name = format!("HYPEREYES_ACTOR__ENGINE__{key}");
    env.iter_mut().find(|one| one["name"] == name.as_str()).expect("the component says it")["value"] = json!(value);
}

#[test]
fn the_runbook_names_the_servers_that_are_rendered() {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("there is a README");
    each(|render, _, engine| {
        let image = text(engine, "image");
        assert!(readme.contains(image), "{}: k8s/README.md does not say {image}", render.name);
    });
}

fn number_of(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// Bytes of a quantity in Mi or Gi.
fn bytes(quantity: &Value) -> f64 {
    let text = quantity.as_str().expect("a quantity");
    let units = [("Mi", 1u64 << 20), ("Gi", 1 << 30)];
    let found = units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<u64>().ok()? * factor));
    found.unwrap_or_else(|| panic!("{text} is in another unit")) as f64
}
