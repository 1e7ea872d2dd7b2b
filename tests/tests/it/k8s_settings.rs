//! What the manifests tell each service is what the service can read: every settings file of every overlay goes through the loader
//! that the service itself uses, with the environment that its container gets.

use hypereyes::check::pairs::{Loop, of_loop};
use hypereyes::config::{Config, ENV_PREFIX};
use hypereyes_actor::Actor;
use hypereyes_chassis::{Findings, ServiceProcess, config};
use hypereyes_evaluator::Evaluator;
use hypereyes_learner::Learner;
use hypereyes_miniature::TinyConfig;
use hypereyes_policy::config::ModelConfig;
use hypereyes_policy::device::Device;
use hypereyes_reward_service::RewardService;
use hypereyes_search::service::SearchService;
use hypereyes_teacher_service::TeacherService;
use hypereyes_tests::k8s::{Render, Workload, folder, overlays, read};
use serde_json::json;

#[test]
fn every_service_reads_its_settings() {
    let mut seen = 0;
    for render in read(&folder().join("rendered")) {
        for workload in render.workloads() {
            match workload.kind_of_service() {
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
                "evaluator" => {
                    let mut config = load::<Evaluator>(&render, &workload);
                    config.process.tls = None;
                    config.check().expect("settings that can be meant");
                    // Numbers of other episodes than the actors' would be numbers of something else.
                    let actors = render.workloads().into_iter().find(|one| one.kind_of_service() == "actor").expect("one at least");
                    assert_eq!(config.rollout, actor(&render, &actors).rollout, "{}", render.name);
                }
                "search" => {
                    let found = load::<SearchService>(&render, &workload).findings();
                    assert!(!found.is_refused(), "{}: {found:?}", render.name);
                }
                kind => panic!("{}: {}: there is no service {kind}", render.name, workload.name),
            }
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen} services");
}

/// Services and callers that are started by hand meet, and a cluster's do at the same ports.
#[test]
fn every_default_address_leads_to_a_default_port_and_the_cluster_has_the_same() {
    let (learner, actor) = (hypereyes_learner::Config::default(), hypereyes_actor::Config::default());
    let evaluator = hypereyes_evaluator::Config::default();
    let (reward, teacher) = (hypereyes_reward_service::Config::default(), hypereyes_teacher_service::Config::default());
    let served = [("learner", learner.listen), ("reward", reward.listen), ("teacher", teacher.listen)];
    assert!(served.iter().all(|(_, listen)| listen.port() != 0 && listen.ip().is_loopback()), "{served:?}");
    let at = |service: &str| served.iter().find(|(name, _)| *name == service).expect("it serves").1;
    for (caller, address, service) in [
        ("actor.learner", &actor.learner, "learner"),
        ("actor.reward", &actor.reward, "reward"),
        ("evaluator.learner", &evaluator.learner, "learner"),
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
        let (kind, whose) = (workload.kind_of_service(), format!("{}: {}", render.name, workload.name));
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
            "evaluator" => assert_eq!(port(&load::<Evaluator>(render, &workload).learner), Some(at("learner").port()), "{whose}"),
            "learner" => assert_eq!(load::<Learner>(render, &workload).listen.port(), at(kind).port(), "{whose}"),
            "search" => assert_eq!(load::<SearchService>(render, &workload).listen.port(), hypereyes_search::service::PORT, "{whose}"),
            "reward" => assert_eq!(load::<RewardService>(render, &workload).listen.port(), at(kind).port(), "{whose}"),
            _ => assert_eq!(load::<TeacherService>(render, &workload).listen.port(), at(kind).port(), "{whose}"),
        }
        seen += 1;
    }
    assert!(seen > 25, "{seen} services");
}

/// What the services of one overlay know of each other: among others, that a group and its prompt fit the actors' cache.
#[test]
fn the_services_of_an_overlay_fit_together() {
    let mut pairs = 0;
    for render in overlays() {
        let of = |kind: &str| render.workloads().into_iter().filter(move |workload| workload.kind_of_service() == kind).collect::<Vec<_>>();
        for (learner_of, actor_of) in of("learner").iter().flat_map(|learner| of("actor").into_iter().map(move |actor| (learner, actor))) {
            let (learner, actor) = (learner(&render, learner_of), load::<Actor>(&render, &actor_of));
            for (name, model) in models(&actor) {
                let services = Loop { learner: &learner, actor: &actor, teacher: None, rollout: "actor.rollout", model: Some(&model) };
                assert_eq!(of_loop(&services), Findings::default(), "{} with {name}", render.name);
                pairs += 1;
            }
        }
    }
    assert!(pairs >= 16, "{pairs} pairs of a learner and its actors");
}

/// What a pass of the test above means: an actor whose own engine could never hold a group of its learner is found. Engines outside
/// are in `k8s_engine.rs`.
#[test]
fn an_engine_that_cannot_hold_a_group_is_found_in_every_overlay() {
    for render in overlays() {
        let of = |kind: &str| render.workloads().into_iter().find(|workload| workload.kind_of_service() == kind).expect("one at least");
        let (learner, mut actor) = (learner(&render, &of("learner")), load::<Actor>(&render, &of("actor")));
        if actor.engine.kind != "local" {
            continue;
        }
        let (_, model) = models(&actor).into_iter().next().expect("one at least");
        // One sequence too few: as many as the group has, and none for its prompt.
        actor.engine.cache_bytes = slot(&actor, &model) * u64::from(learner.group_size);
        let services = Loop { learner: &learner, actor: &actor, teacher: None, rollout: "actor.rollout", model: Some(&model) };
        let line = of_loop(&services).result().expect_err("no group fits").to_string();
        assert!(line.starts_with("learner.group_size") && line.contains("actor.engine.cache_bytes"), "{}: {line}", render.name);
    }
}

/// Bytes of one sequence in an actor's own engine.
fn slot(actor: &hypereyes_actor::Config, model: &ModelConfig) -> u64 {
    let value_bytes = if actor.engine.device == Device::Cpu { 4 } else { 2 };
    hypereyes_policy::models::state(model).bytes(actor.engine.max_context, value_bytes)
}

/// What an overlay is for: the published models where there are GPUs, whoever samples there, else the shipped policy.
fn models(actor: &hypereyes_actor::Config) -> Vec<(&'static str, ModelConfig)> {
    if actor.engine.device != Device::Cpu || actor.engine.kind != "local" {
        return published();
    }
    vec![("the shipped policy", TinyConfig::default().model(1500, 1, 2, 3))]
}

/// The published models that one GPU trains, as their `config.json` has them.
pub fn published() -> Vec<(&'static str, ModelConfig)> {
    let shape = |layers: usize, width: usize, inner: usize, heads: usize, tied: bool| {
        let config = json!({
            "model_type": "qwen3_vl", "tie_word_embeddings": tied,
            "text_config": {
                "vocab_size": 151_936, "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
                "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": 128,
            },
            "vision_config": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": width},
        });
        ModelConfig::from_json(&config).expect("a published shape")
    };
    vec![
        ("Qwen3-VL-2B", shape(28, 2048, 6144, 16, true)),
        ("Qwen3-VL-4B", shape(36, 2560, 9728, 32, true)),
        ("Qwen3-VL-8B", shape(36, 4096, 12288, 32, false)),
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
    assert!(strange.is_none(), "{whose}: {strange:?} is not for this service");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), workload.file(render)).expect("it can be written");
    config::load_from(R::Config::default(), Some(file.path()), R::ENV, workload.env(), &[])
        .unwrap_or_else(|error| panic!("{whose}: {error}"))
}
