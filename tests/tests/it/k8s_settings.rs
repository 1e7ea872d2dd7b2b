//! What the manifests tell each room is what the room can read: every settings file of every overlay goes through the loader
//! that the room itself uses, with the environment that its container gets.

use hypereyes::check::pairs::{Loop, of_loop};
use hypereyes::config::{Config, ENV_PREFIX};
use hypereyes_actor::Actor;
use hypereyes_chassis::{Findings, ServiceProcess, config};
use hypereyes_learner::Learner;
use hypereyes_miniature::TinyConfig;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_reward_service::RewardService;
use hypereyes_teacher_service::TeacherService;
use hypereyes_tests::k8s::{Render, Workload, folder, overlays, read};
use serde_json::json;

#[test]
fn every_room_reads_its_settings() {
    let mut seen = 0;
    for render in read(&folder().join("rendered")) {
        for workload in render.workloads() {
            match workload.kind_of_room() {
                "actor" => actor(&render, &workload).check().expect("settings that can be meant"),
                "learner" => learner(&render, &workload).check().expect("settings that can be meant"),
                "reward" => {
                    let mut config = load::<RewardService>(&render, &workload);
                    config.process.tls = None;
                    // The address of the judge is filled in by whoever has one.
                    let found = config.findings();
                    let own = found.refused().iter().find(|finding| !finding.key.starts_with("judge_model"));
                    assert!(own.is_none(), "{}: {own:?}", render.name);
                }
                "teacher" => {
                    let mut config = load::<TeacherService>(&render, &workload);
                    (config.process.tls, config.device) = (None, Device::Cpu);
                    config.check().expect("settings that can be meant");
                }
                kind => panic!("{}: {}: there is no room {kind}", render.name, workload.name),
            }
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen} rooms");
}

/// Services and callers that are started by hand meet, and a cluster's do at the same ports.
#[test]
fn every_default_address_leads_to_a_default_port_and_the_cluster_has_the_same() {
    let (learner, actor) = (hypereyes_learner::Config::default(), hypereyes_actor::Config::default());
    let (reward, teacher) = (hypereyes_reward_service::Config::default(), hypereyes_teacher_service::Config::default());
    let served = [("learner", learner.listen), ("reward", reward.listen), ("teacher", teacher.listen)];
    assert!(served.iter().all(|(_, listen)| listen.port() != 0 && listen.ip().is_loopback()), "{served:?}");
    let at = |service: &str| served.iter().find(|(name, _)| *name == service).expect("it serves").1;
    for (caller, address, service) in [
        ("actor.learner", &actor.learner, "learner"),
        ("actor.reward", &actor.reward, "reward"),
        ("learner.reward", &learner.reward, "reward"),
        ("learner.ranks.leader", &learner.ranks.leader, "learner"),
    ] {
        assert_eq!(*address, at(service).to_string(), "{caller} finds nobody");
    }
    let port = |address: &str| address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let mut seen = 0;
    for (render, workload) in
        read(&folder().join("rendered")).iter().flat_map(|render| render.workloads().into_iter().map(move |it| (render, it)))
    {
        let (kind, whose) = (workload.kind_of_room(), format!("{}: {}", render.name, workload.name));
        match kind {
            "actor" => {
                let actor = load::<Actor>(render, &workload);
                let teacher = actor.teacher.as_deref().map(|address| ("teacher", address));
                for (service, address) in
                    [("learner", actor.learner.as_str()), ("reward", actor.reward.as_str())].into_iter().chain(teacher)
                {
                    assert_eq!(port(address), Some(at(service).port()), "{whose} dials {address}");
                }
            }
            "learner" => assert_eq!(load::<Learner>(render, &workload).listen.port(), at(kind).port(), "{whose}"),
            "reward" => assert_eq!(load::<RewardService>(render, &workload).listen.port(), at(kind).port(), "{whose}"),
            _ => assert_eq!(load::<TeacherService>(render, &workload).listen.port(), at(kind).port(), "{whose}"),
        }
        seen += 1;
    }
    assert!(seen > 25, "{seen} services");
}

/// What the rooms of one overlay know of each other: among others, that a group and its prompt fit the actors' cache.
#[test]
fn the_rooms_of_an_overlay_fit_together() {
    let mut pairs = 0;
    for render in overlays() {
        let of = |kind: &str| render.workloads().into_iter().filter(move |workload| workload.kind_of_room() == kind).collect::<Vec<_>>();
        for (learner_of, actor_of) in of("learner").iter().flat_map(|learner| of("actor").into_iter().map(move |actor| (learner, actor))) {
            let (learner, actor) = (learner(&render, learner_of), load::<Actor>(&render, &actor_of));
            let large = actor.engine.device != Device::Cpu;
            for (name, model) in if large { published() } else { vec![("the shipped policy", TinyConfig::default().model(1500, 1, 2, 3))] }
            {
                let rooms = Loop { learner: &learner, actor: &actor, teacher: None, rollout: "actor.rollout", model: Some(&model) };
                assert_eq!(of_loop(&rooms), Findings::default(), "{} with {name}", render.name);
                pairs += 1;
            }
        }
    }
    assert!(pairs >= 10, "{pairs} pairs of a learner and its actors");
}

/// The decoders of the published models that one GPU trains, as their `config.json` has them.
fn published() -> Vec<(&'static str, ModelConfig)> {
    let shape = |layers: usize, width: usize, inner: usize, heads: usize| {
        let config = json!({
            "model_type": "qwen3_vl",
            "text_config": {
                "vocab_size": 151_936, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
                "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": 128,
            },
            "vision_config": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": width},
        });
        ModelConfig::from_json(&config).expect("a published shape")
    };
    vec![
        ("Qwen3-VL-2B", shape(28, 2048, 6144, 16)),
        ("Qwen3-VL-4B", shape(36, 2560, 9728, 32)),
        ("Qwen3-VL-8B", shape(36, 4096, 12288, 32)),
    ]
}

/// An actor's settings on this machine: without the GPU and the certificates of its pod.
fn actor(render: &Render, workload: &Workload) -> hypereyes_actor::Config {
    let mut config = load::<Actor>(render, workload);
    (config.engine.device, config.process.tls) = (Device::Cpu, None);
    config
}

/// A learner's, likewise.
fn learner(render: &Render, workload: &Workload) -> hypereyes_learner::Config {
    let mut config = load::<Learner>(render, workload);
    (config.device, config.process.tls) = (Device::Cpu, None);
    config
}

fn load<R: ServiceProcess>(render: &Render, workload: &Workload) -> R::Config {
    let whose = format!("{}: {}", render.name, workload.name);
    // A variable that nobody hears is a slip that nobody else would notice. Some are for commands that are run in the pod.
    let prefixes = [format!("{}__", R::ENV), format!("{ENV_PREFIX}__")];
    let heard = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
    let strange = workload.env().into_iter().find(|(name, _)| name.starts_with("HYPEREYES") && !heard(name));
    config::load_from(Config::default(), None, ENV_PREFIX, workload.env(), &[]).unwrap_or_else(|error| panic!("{whose}: {error}"));
    assert!(strange.is_none(), "{whose}: {strange:?} is not for this room");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), workload.file(render)).expect("it can be written");
    config::load_from(R::Config::default(), Some(file.path()), R::ENV, workload.env(), &[])
        .unwrap_or_else(|error| panic!("{whose}: {error}"))
}
